"""The text encoders of a frozen model, one or several, read side by side."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmhiper.models.conditioning import Conditioning


class TextEncoders(nn.Module):
    """Text models whose outputs are laid side by side.

    One (Stable Diffusion 1.x, 2.x, latent diffusion) gives its last hidden
    state, normalised. Several (Stable Diffusion XL) give the last but one, as
    it is, side by side, and the last of them its projected pooled output
    besides.

    Args:
        models (Sequence): They; the last of several is a CLIP text model with
            its projection.
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
            ids (Sequence[Tensor]): For each encoder, (B, M) integers; id
                V + r, with V known tokens, is row r of ``rows``.
            rows (Tensor, optional): New rows of all tables side by side,
                (R, D_1 + ... + D_E).

        Returns:
            Conditioning: Tokens (B, M, D) in fp32, and with several encoders
            the pooled text (B, P) in fp32.
        """
        tables = self.tables
        widths = [table.shape[1] for table in tables]
        parts: Sequence[Tensor | None] = [None] * len(tables)
        if rows is not None:
            parts = rows.split(widths, dim=1)
        outputs = [
            self._encode(model, len(table), own_ids, own_rows)
            for model, table, own_ids, own_rows in zip(
                self.models, tables, ids, parts, strict=True
            )
        ]
        if len(outputs) == 1:
            return Conditioning(outputs[0].last_hidden_state.float())
        tokens = torch.cat([each.hidden_states[-2] for each in outputs], -1)
        return Conditioning(tokens.float(), outputs[-1].text_embeds.float())

    def _encode(
        self, model: Any, size: int, ids: Tensor, rows: Tensor | None
    ) -> Any:
        """Runs one text model; see :meth:`forward`."""
        options = dict(output_hidden_states=len(self) > 1, return_dict=True)
        if rows is None:
            return model(ids, **options)
        new = ids >= size
        picked = rows[(ids - size).clamp(min=0)]
        with _replaced_rows(model, new, picked):
            return model(ids.masked_fill(new, 0), **options)


@contextlib.contextmanager
def _replaced_rows(
    text_encoder: nn.Module, new: Tensor, picked: Tensor
) -> Iterator[None]:
    """Puts learned rows in place of looked-up ones.

    A hook, because CLIP's text encoder takes ids and no embeddings.

    Args:
        text_encoder (nn.Module): With a table of token embeddings.
        new (Tensor): Where, (B, M) bool.
        picked (Tensor): What, (B, M, D).

    Yields:
        None
    """

    def replace(module: nn.Module, args: tuple, output: Tensor) -> Tensor:
        return torch.where(new[..., None], picked.to(output.dtype), output)

    table = text_encoder.get_input_embeddings()  # type: ignore[operator]
    hook = table.register_forward_hook(replace)
    try:
        yield
    finally:
        hook.remove()
