"""The text encoders of a frozen model, one or several, read side by side."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from mmhiper.models.conditioning import Conditioning


class TextEncoders(nn.Module):
    """Text models whose outputs are laid side by side.

    One (Stable Diffusion 1.x, 2.x, latent diffusion) gives its last hidden
    state, normalised. Several (Stable Diffusion XL) give the last but one, as
    it is, side by side, and the last of them its projected pooled output
    besides.

    Args:
        models: They; the last of several is a CLIP text model with its
            projection.
    """

    def __init__(self, models: Sequence[Any]) -> None:
        super().__init__()
        self.models = nn.ModuleList(models)

    def __len__(self) -> int:
        """How many there are, E."""
        return len(self.models)

    @property
    def tables(self) -> list[Tensor]:
        """The embeddings of all known tokens, (V, D_e) of each encoder."""
        found = []
        for model in self.models:
            table: Any = model.get_input_embeddings()  # type: ignore[operator]
            found.append(table.weight)
        return found

    def forward(
        self, ids: Sequence[Tensor], rows: Tensor | None = None
    ) -> Conditioning:
        """Encodes token ids; gradients reach the new rows.

        Args:
            ids: For each encoder, (B, M) integers; id V + r, with V known
                tokens, is row r of ``rows``.
            rows: New rows of all tables side by side, (R, D_1 + ... + D_E).

        Returns:
            Tokens (B, M, D) in fp32, and with several encoders the pooled text
            (B, P) in fp32.
        """
        outputs = self._outputs(ids, rows)
        if len(outputs) == 1:
            return Conditioning(outputs[0].last_hidden_state.float())
        tokens = torch.cat([each.hidden_states[-2] for each in outputs], -1)
        return Conditioning(tokens.float(), outputs[-1].text_embeds.float())

    def _outputs(
        self, ids: Sequence[Tensor], rows: Tensor | None
    ) -> list[Any]:
        """What each text model puts out; the tables come first."""
        tables = self.tables
        parts: list[Tensor | None] = [None] * len(self)
        if rows is not None:
            widths = [table.shape[1] for table in tables]
            parts[: len(tables)] = rows.split(widths, dim=1)
        return [
            self._encode(model, own_ids, own_rows)
            for model, own_ids, own_rows in zip(
                self.models, ids, parts, strict=True
            )
        ]

    def run_one(
        self,
        number: int,
        ids: Tensor,
        rows: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Any:
        """Runs one of the text models.

        Args:
            number: Which.
            ids: (B, M) integers, see :meth:`forward`.
            rows: New rows of its own table, (R, D_e).
            mask: (B, M), 0 at positions that the others do not look at.

        Returns:
            What it puts out.
        """
        return self._encode(self.models[number], ids, rows, mask)

    def _encode(
        self,
        model: Any,
        ids: Tensor,
        rows: Tensor | None,
        mask: Tensor | None = None,
    ) -> Any:
        """Runs one text model; see :meth:`forward`."""
        options: dict[str, Any] = dict(
            output_hidden_states=len(self) > 1, return_dict=True
        )
        if mask is not None:
            options['attention_mask'] = mask
        if rows is None:
            return model(ids, **options)
        size = len(model.get_input_embeddings().weight)
        new = ids >= size
        picked = rows[(ids - size).clamp(min=0)]
        with _replaced_rows(model, new, picked):
            return model(ids.masked_fill(new, 0), **options)


class JointTextEncoders(TextEncoders):
    """Two CLIP text models and T5, one after the other.

    Those of Stable Diffusion 3 (arXiv 2403.03206, sec. 4): the CLIP outputs
    side by side, padded to the width of T5, and those of T5.

    Args:
        models: The CLIP models, with projections, and T5, which may be
            missing: then its part is zeros.
        shape: Positions and width of T5's part.
        order: Which position of both parts each is that comes out. The model
            does not tell positions of a text apart.
        learns_t5: Whether new rows are of T5's table too.
    """

    order: Tensor

    def __init__(
        self,
        models: Sequence[Any],
        shape: tuple[int, int],
        order: Sequence[int],
        learns_t5: bool,
    ) -> None:
        super().__init__(models)
        self._shape = shape
        # on the device: an index from elsewhere would be waited for
        where = torch.tensor(order)
        self.register_buffer('order', where, persistent=False)
        self._learns_t5 = learns_t5

    @property
    @override
    def tables(self) -> list[Tensor]:
        """Those that new rows are of, (V, D_e)."""
        return super().tables[: 3 if self._learns_t5 else 2]

    @override
    def forward(
        self, ids: Sequence[Tensor], rows: Tensor | None = None
    ) -> Conditioning:
        first, second, *t5 = self._outputs(ids, rows)
        both = [each.hidden_states[-2] for each in (first, second)]
        clip = torch.cat(both, -1)  # (B, 77, D_1 + D_2)
        positions, width = self._shape
        clip = F.pad(clip, (0, width - clip.shape[-1]))
        if t5:
            tail = t5[0].last_hidden_state
        else:
            tail = clip.new_zeros(len(clip), positions, width)
        tokens = torch.cat([clip, tail], 1)[:, self.order]
        pooled = torch.cat([first.text_embeds, second.text_embeds], -1)
        return Conditioning(tokens.float(), pooled.float())


@contextlib.contextmanager
def _replaced_rows(
    text_encoder: nn.Module, new: Tensor, picked: Tensor
) -> Iterator[None]:
    """Puts learned rows in place of looked-up ones."""
    # A hook, because CLIP's text encoder takes ids and no embeddings.

    def replace(module: nn.Module, args: tuple, output: Tensor) -> Tensor:
        return torch.where(new[..., None], picked.to(output.dtype), output)

    table = text_encoder.get_input_embeddings()  # type: ignore[operator]
    # T5 has it twice, and looks rows up in the other one
    hooks = [
        module.register_forward_hook(replace)
        for module in text_encoder.modules()
        if isinstance(module, nn.Embedding) and module.weight is table.weight
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
