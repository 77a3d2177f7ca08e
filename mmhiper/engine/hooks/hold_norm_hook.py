"""Learned words that stay as long as they began."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook

from mmhiper.engine.hooks.editor_of import editor_of
from mmhiper.registry import HOOKS
from mmhiper.utils.errors import UserError


@HOOKS.register_module()
class HoldNormHook(Hook):
    """Bring learned rows back to the length that they started with.

    After each iteration. The gradient of a single draw of noise is mostly
    noise, and Adam makes every step of it as large as the learning rate: so
    the rows of Textual Inversion walk away from the table's, to where the
    text encoder has seen nothing. With their length held (as the network of
    arXiv 2305.15391 holds that of its output) only their direction is
    learned. A row of two text encoders is held in each of its two parts.

    Raises:
        ValueError: If the editor of the run learns no rows.
    """

    # Before all that looks at the rows, shows or saves them.
    priority = 'VERY_HIGH'

    def before_train(self, runner: Any) -> None:
        """Refuse an editor without rows.

        Args:
            runner (Runner): The runner, just resumed or new.
        """
        editor = editor_of(runner)
        if not hasattr(editor, 'hold_norm'):
            raise UserError(
                'HoldNormHook needs an editor that learns words, such as '
                f'TextualInversion, but got {type(editor).__name__}. Leave '
                'the hook out of `custom_hooks`.'
            )

    def after_train_iter(
        self,
        runner: Any,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Any = None,
    ) -> None:
        """Hold the rows.

        Args:
            runner (Runner): The runner.
            batch_idx (int): Unused.
            data_batch (Any): Unused.
            outputs (Any): Unused.
        """
        editor_of(runner).hold_norm()
