"""What a set of learned tensors belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from mmhiper.utils.errors import UserError


@dataclass(frozen=True)
class Identity:
    """What tells learned embeddings apart.

    Attributes:
        shapes: Shape of each tensor by name.
        editor: Type of the editor, None where not recorded.
        backbone: Name of the frozen model, likewise.
    """

    shapes: dict[str, tuple[int, ...]]
    editor: str | None
    backbone: str | None

    @classmethod
    def of(
        cls, tensors: Mapping[str, Tensor], record: Mapping[str, Any]
    ) -> Identity:
        """Describes tensors and the record that came with them.

        Args:
            tensors: By name.
            record: May hold 'editor' and 'backbone'.

        Returns:
            Of both.
        """
        shapes = {name: tuple(each.shape) for name, each in tensors.items()}
        return cls(shapes, record.get('editor'), record.get('backbone'))

    def check_loads(self, found: Identity) -> None:
        """Refuses an embedding of another shape, editor or backbone.

        Args:
            found: What came; what it does not record is not compared.

        Raises:
            ValueError: If it differs from this one; the message names both.
        """
        fits = self.shapes == found.shapes
        fits &= found.editor in (None, self.editor)
        if self.backbone and found.backbone:
            fits &= _model_name(self.backbone) == _model_name(found.backbone)
        if not fits:
            raise UserError(
                'This embedding does not belong to this editor.\n'
                f'  expected: {self}\n'
                f'  found:    {found}\n'
                'Build the editor from the config that the embedding was '
                'trained with (a copy lies in its work_dir), with the same '
                '`pretrained`.'
            )

    def __str__(self) -> str:
        shapes = [f'{name} {shape}' for name, shape in self.shapes.items()]
        return (
            f'editor {self.editor or "not recorded"}, '
            f'backbone {self.backbone or "not recorded"}, '
            f'tensors: {", ".join(shapes) or "none"}'
        )


def _model_name(backbone: str) -> str:
    """The same model may lie in another folder, or come from the hub."""
    return backbone.replace('\\', '/').rstrip('/').rsplit('/', 1)[-1]
