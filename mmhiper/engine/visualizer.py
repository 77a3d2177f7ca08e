"""MMEngine's visualizer without the figure that nobody may draw on."""

from __future__ import annotations

from typing import Any

from mmengine.visualization import Visualizer
from typing_extensions import override

from mmhiper.registry import VISUALIZERS


class _NoFigure:
    """Stands for a figure that is not made yet."""

    def get_dpi(self) -> None:
        """No number."""


@VISUALIZERS.register_module()
class LazyVisualizer(Visualizer):
    """MMEngine's, which loads matplotlib when something is drawn with it.

    A training hands it scalars and finished pictures alone, and would wait for
    matplotlib before its first iteration.

    Args:
        name: See MMEngine's ``Visualizer``, as for the others.
        image: Drawn on at once.
        **options: Likewise.
    """

    _FIGURE = ('fig_save_canvas', 'fig_save', 'ax_save', 'dpi')
    _ready = False

    def __init__(
        self, name: str = 'visualizer', image: Any = None, **options: Any
    ) -> None:
        super().__init__(name, **options)
        for each in self._FIGURE:
            del self.__dict__[each]
        self._ready = True
        if image is not None:
            self.set_image(image)

    @override
    def _initialize_fig(self, fig_cfg: Any) -> tuple:
        if not self._ready:
            return None, _NoFigure(), None
        made: tuple = super()._initialize_fig(fig_cfg)
        return made

    def __getattr__(self, name: str) -> Any:
        """Makes the figure when it is first asked for."""
        if name not in self._FIGURE:
            raise AttributeError(name)
        made = self._initialize_fig(self.fig_save_cfg)
        self.fig_save_canvas, self.fig_save, self.ax_save = made
        self.dpi = self.fig_save.get_dpi()
        return self.__dict__[name]
