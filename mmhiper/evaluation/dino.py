"""Structure and subject by DINO, a vision transformer that learned alone."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from typing_extensions import override

from mmhiper.evaluation.edited import Edited, EditMetric, Measures, to_unit
from mmhiper.models.loading import check_weights, loading, quiet
from mmhiper.registry import METRICS
from mmhiper.utils.devices import best_device
from mmhiper.utils.errors import FileError

HUB_DINO = 'facebook/dino-vitb8'
_MEAN = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
_DEVIATION = torch.tensor([0.229, 0.224, 0.225])[:, None, None]


class DinoFeatures:
    """A DINO model (arXiv 2104.14294).

    Args:
        dino: Hub id or folder of a ViT of transformers.

    Attributes:
        name: ``dino``.

    Raises:
        ValueError: If it cannot be loaded.
    """

    def __init__(self, dino: str = HUB_DINO) -> None:
        import transformers

        self.name = dino
        check_weights(dino)
        remedy = f'Give a folder or a hub id, such as {HUB_DINO!r}.'
        with loading(dino, 'the DINO model', remedy), quiet():
            config = transformers.AutoConfig.from_pretrained(dino)
            if config.model_type != 'vit':
                raise FileError(
                    f'Wanted a ViT such as {HUB_DINO!r}, but {dino!r} is a '
                    f'{config.model_type}.'
                )
            self._model: Any = transformers.ViTModel.from_pretrained(
                dino, add_pooling_layer=False
            )
        self._model.to(best_device()).eval().requires_grad_(False)
        # (1, T, D) of all heads side by side; its name differs by version
        keys = [
            module
            for name, module in self._model.named_modules()
            if name.endswith(('.attention.key', '.attention.k_proj'))
        ]
        self._keys = keys[-1]

    @property
    def size(self) -> int:
        """The side of its pictures in pixels."""
        side: int = self._model.config.image_size
        return side

    def prepare(self, picture: Image.Image, levels: float) -> Tensor:
        """Brings a picture to the size and scale of the model.

        Args:
            picture: RGB.
            levels: The value of white.

        Returns:
            (1, 3, H, W), the shorter side as the model has it.
        """
        pixels = levels * to_unit(picture)
        factor = self.size / min(pixels.shape[-2:])
        size = [round(side * factor) for side in pixels.shape[-2:]]
        pixels = F.interpolate(pixels, size, mode='bilinear', antialias=True)
        return (pixels - _MEAN) / _DEVIATION

    @torch.no_grad()
    def images(self, images: list[Image.Image]) -> Tensor:
        """Encodes pictures.

        Args:
            images: B pictures.

        Returns:
            (B, D), the class token, of length one, on the CPU.
        """
        rows = [self._run(self.prepare(each, 1.0))[:, 0] for each in images]
        return F.normalize(torch.cat(rows), dim=-1).cpu()

    @torch.no_grad()
    def structure(self, picture: Image.Image) -> Tensor:
        """How alike the places of a picture are (arXiv 2201.00424, sec. 4.1).

        Args:
            picture: RGB.

        Returns:
            (T, T), the cosine of the keys of the last layer at each two of T
            tokens, on the CPU.

        Note:
            White is 255 here, not 1, before it is normalised: so does the
            code of PIE-Bench, whose published figures are of that.
        """
        found = []
        handle = self._keys.register_forward_hook(
            lambda module, inputs, output: found.append(output)
        )
        try:
            self._run(self.prepare(picture, 255.0))
        finally:
            handle.remove()
        keys = F.normalize(found[0][0].float(), dim=-1)  # (T, D)
        return (keys @ keys.T).cpu()

    def _run(self, pixels: Tensor) -> Tensor:
        """The tokens of a picture, (1, T, D)."""
        pixels = pixels.to(self._model.device)
        result: Tensor = self._model(
            pixel_values=pixels, interpolate_pos_encoding=True
        ).last_hidden_state
        return result


@METRICS.register_module()
class StructureDistance(EditMetric):
    """How far the layout of a picture has changed, whatever it looks like.

    The mean squared difference of :meth:`DinoFeatures.structure` before and
    after, as PIE-Bench has it (arXiv 2310.01506).

    Args:
        dino: Hub id or folder, see :class:`DinoFeatures`, or these.
        **options: Of MMEngine's metric.

    Raises:
        ValueError: If it cannot be loaded.
    """

    def __init__(
        self, dino: str | DinoFeatures = HUB_DINO, **options: Any
    ) -> None:
        super().__init__(**options)
        self.features = DinoFeatures(dino) if isinstance(dino, str) else dino
        self.encoder = self.features.name

    @override
    def measure(self, edited: Edited) -> Measures:
        of = self.features.structure
        return {
            f'{view}structure': float((of(a) - of(b)).square().mean())
            for view, a, b in edited.views()
        }
