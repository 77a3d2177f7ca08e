"""Direct inversion: the source branch is held to its inverted path."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.structures import BaseDataElement
from torch import Tensor
from typing_extensions import override

from mmhiper.models.backbones import Backbone
from mmhiper.models.editors.inversion import InversionEditor
from mmhiper.models.inversion import Inversion
from mmhiper.registry import MODELS


@MODELS.register_module()
class DirectInversion(InversionEditor):
    """Direct inversion (arXiv 2310.01506, alg. 1) and prompt-to-prompt.

    After each step the latents of the source are those of the inversion, so
    the attention that the edit takes over is that of the picture, while the
    edit itself is left alone. There is nothing to train: call :meth:`invert`.
    It takes the arguments of :class:`InversionEditor`, and as many steps as
    the paper does.

    Note:
        The paper adds the distance between a step and the inverted path to
        the source branch; the sum is that path.
    """

    path: Tensor

    def __init__(
        self,
        sd: dict[str, Any] | Backbone,
        source_text: str,
        target_text: str | None = None,
        num_steps: int = 50,
        **options: Any,
    ) -> None:
        super().__init__(sd, source_text, target_text, num_steps, **options)
        shape = self.start.shape[1:]
        # z*_0 .. z*_{T-1}; `start` is z*_T
        path = torch.zeros(self.num_steps, *shape)
        self.register_buffer('path', path)

    @override
    def invert(
        self, inputs: Tensor, data_samples: list[BaseDataElement]
    ) -> Inversion:
        """Keeps all of the path."""
        found = super().invert(inputs, data_samples)
        self.path.copy_(torch.cat(found.latents[:-1]))
        return found

    @override
    def mend(self, done: int, latents: Tensor) -> None:
        """Puts the source where its inversion was."""
        latents[0] = self.path[self.num_steps - done]
