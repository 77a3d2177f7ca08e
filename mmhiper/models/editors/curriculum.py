"""Training timestep by timestep, from noise to picture."""

from __future__ import annotations

import math
import warnings
from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.dist import get_world_size
from mmengine.structures import BaseDataElement
from torch import Tensor, nn
from typing_extensions import override

from mmhiper.models.attention import AttentionControl
from mmhiper.models.backbones import Backbone
from mmhiper.models.conditioning import Conditioning
from mmhiper.models.editors.inversion import InversionEditor
from mmhiper.models.embeddings import register_host_buffer
from mmhiper.models.inversion import Inversion
from mmhiper.models.sampling import guided
from mmhiper.utils.errors import UserError

# The most optimisation steps of timestep i, of n in the first.
INNER_STEPS: dict[str, Callable[[int, int], int]] = dict(
    decaying=lambda n, i: math.ceil(n * math.exp(-0.1 * i)),
    constant=lambda n, i: n,
)
# Largest difference of two inversions of one picture, on two machines.
SAME_PICTURE = 0.1


class CurriculumEditor(InversionEditor):
    """Learns, for each timestep, to lead guided sampling back to a picture.

    For step i = 0 .. T-1 what belongs to that step is optimised until the
    guided step from the latents reached so far ends at the inverted ones
    (arXiv 2211.09794, sec. 3.3, and 2303.15649, sec. 3); then the latents
    advance, and the next step starts from what this one has learned. One
    training iteration is one step of the optimizer, and :meth:`train_step`
    walks the timesteps, so any loop of MMEngine trains it. ``CurriculumLoop``
    ends when all is learned; in another loop what is left of its iterations
    does nothing.

    A subclass has an ``embedding`` with ``warm_start(step)`` and
    ``parameters_of(step)``, and conditions with it in :meth:`positive`, or in
    :meth:`negative` if ``learns_negative``.

    Args:
        sd: The frozen model or its config.
        source_text: What the picture shows.
        num_inner_steps: The most optimisation steps of the first timestep.
        inner_steps: Those of timestep i: 'decaying', which is
            ``ceil(num_inner_steps * exp(-0.1 i))``, or 'constant'.
        **options: See :class:`InversionEditor`.

    Raises:
        ValueError: If a value is out of range.

    Note:
        Of the two branches of guidance one has nothing to learn in it. Its
        prediction is computed once per timestep, not at every inner step.

    Note:
        A timestep may end after any inner step, so :meth:`train_step` reads
        its loss: the one place where the CPU waits for the device. To decide
        there would take all the steps that stopping early saves.
    """

    learns_negative = False
    embedding: Any
    reached: Tensor
    progress: Tensor

    def __init__(
        self,
        sd: dict[str, Any] | Backbone,
        source_text: str,
        num_inner_steps: int = 20,
        inner_steps: str = 'decaying',
        **options: Any,
    ) -> None:
        super().__init__(sd, source_text, **options)
        if num_inner_steps < 1:
            raise UserError(
                '`num_inner_steps` must be at least 1, but got '
                f'{num_inner_steps}.'
            )
        if inner_steps not in INNER_STEPS:
            raise UserError(
                f'`inner_steps` must be one of {list(INNER_STEPS)}, but got '
                f'{inner_steps!r}.'
            )
        if self.num_steps > 100:
            raise UserError(
                'The learning rate of timestep i is that of the config times '
                '1 - i / 100, so `num_steps` must be at most 100, but got '
                f'{self.num_steps}.'
            )
        self.num_inner_steps = num_inner_steps
        self.inner_steps = inner_steps
        # Where the training is, in checkpoints for an exact resume: the
        # latents that the finished steps lead to, and (i, inner steps done).
        self.register_buffer('reached', torch.zeros_like(self.start))
        progress = torch.zeros(2, dtype=torch.int64)
        register_host_buffer(self, 'progress', progress)
        self._fixed: Tensor | None = None

    @override
    def forget(self) -> None:
        super().forget()
        self._fixed = None

    # ----------------------------------------------------------- curriculum
    @property
    def position(self) -> int:
        """The timestep i in training; T when all are done."""
        return int(self.progress[0])

    @property
    def inner_step(self) -> int:
        """Optimisation steps done in this timestep."""
        return int(self.progress[1])

    @property
    def finished(self) -> bool:
        """Whether all timesteps are done."""
        return self.position >= self.num_steps

    @property
    def max_iters(self) -> int:
        """Iterations if no timestep stops early."""
        return sum(map(self.max_inner_steps, range(self.num_steps)))

    @property
    def rate(self) -> float:
        """Factor on the learning rate in this timestep."""
        return 1 - self.position / 100

    def max_inner_steps(self, step: int) -> int:
        """The most optimisation steps of a timestep.

        Args:
            step: i.

        Returns:
            At least 1.
        """
        return INNER_STEPS[self.inner_steps](self.num_inner_steps, step)

    def active_parameters(self) -> list[nn.Parameter]:
        """What this timestep learns.

        Returns:
            Empty when all are done.
        """
        if self.finished:
            return []
        active: list[nn.Parameter] = self.embedding.parameters_of(
            self.position
        )
        return active

    def end_inner_step(self, loss: float) -> bool:
        """Counts an optimisation step.

        Args:
            loss: The loss that it was taken on.

        Returns:
            Whether the timestep is done: the loss was below ``1e-5 + 2e-5 i``,
            or that was its last step.
        """
        self.progress[1] += 1
        if loss < 1e-5 + 2e-5 * self.position:
            return True
        return self.inner_step >= self.max_inner_steps(self.position)

    @torch.no_grad()
    def advance(self) -> None:
        """Takes the step as learned, and starts the next from it."""
        self.reached.copy_(self._step())
        self._fixed = None
        self.progress += 1
        self.progress[1] = 0
        if not self.finished:
            self.embedding.warm_start(self.position)

    @override
    def check_inverted(self) -> None:
        """Says when not all timesteps are trained.

        Raises:
            ValueError: If no picture is inverted yet.
        """
        super().check_inverted()
        if not self.finished:
            warnings.warn(
                f'{self.position} of {self.num_steps} timesteps are trained: '
                'the others do not know the picture. Resume the training '
                '(--resume), or take a later checkpoint.',
                stacklevel=2,
            )

    @override
    def describe_step(self, iteration: int, log: Mapping[str, float]) -> str:
        """See :meth:`Editor.describe_step`; timesteps from 1."""
        if 'timestep' not in log:
            return ''
        return f' (timestep {int(log["timestep"])} of {self.num_steps})'

    @override
    def losses_of_log(
        self, history: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor] | None:
        """The loss of each timestep at its first step and at its last."""
        if not {'loss', 'timestep'} <= history.keys():
            return None
        count = min(len(history['loss']), len(history['timestep']))
        ends: dict[int, list[Tensor]] = {}
        for loss, step in zip(
            history['loss'][-count:], history['timestep'][-count:], strict=True
        ):
            ends.setdefault(int(step), []).append(loss)
        first = torch.stack([losses[0] for losses in ends.values()])
        return first, torch.stack([losses[-1] for losses in ends.values()])

    # ------------------------------------------------------------- training
    @override
    def train_step(
        self, data: dict[str, Any], optim_wrapper: Any
    ) -> dict[str, Tensor]:
        """One optimisation step; advances when its timestep is done.

        What the optimizer remembers of a finished timestep is dropped, so a
        checkpoint holds what is still needed.

        Args:
            data: A batch of the dataset with one picture.
            optim_wrapper: Its rate is that of the config times :attr:`rate`.

        Returns:
            As :meth:`loss`, for the log; a loss of 0 when nothing is left to
            learn.
        """
        if self.finished:
            return dict(loss=torch.zeros(()))
        for group in optim_wrapper.param_groups:
            group.setdefault('initial_lr', group['lr'])
            group['lr'] = group['initial_lr'] * self.rate
        log: dict[str, Tensor] = super().train_step(data, optim_wrapper)
        if self.end_inner_step(log['loss'].item()):
            for parameter in self.active_parameters():
                optim_wrapper.optimizer.state.pop(parameter, None)
            self.advance()
        return log

    @abstractmethod
    def learned_condition(self) -> Conditioning:
        """The source text with what is learned for this timestep.

        Returns:
            One text; gradients reach the embedding.
        """

    def training_controls(self) -> list[AttentionControl]:
        """What sees attention while the learned branch is computed.

        Returns:
            None by default.
        """
        return []

    @override
    def loss(
        self, inputs: Tensor, data_samples: list[BaseDataElement]
    ) -> dict[str, Tensor]:
        """The loss of one optimisation step, and where the training is.

        Returns:
            'loss', of its parts 'latent' (only 'loss' is optimised), and, for
            the log, 'timestep' (i, from 1) and 'inner_step' (from 1).

        Raises:
            ValueError: If there are several processes.
        """
        if get_world_size() > 1:
            raise UserError(
                'Every timestep of one picture starts where the one before '
                'ended, so several processes cannot share it: train with '
                'one. Several pictures are spread over processes by '
                'tools/edit_cases.py.'
            )
        latent = F.mse_loss(*self.predict_training_step(inputs, data_samples))
        return dict(
            loss=latent,
            latent=latent.detach(),
            timestep=torch.tensor(self.position + 1.0),
            inner_step=torch.tensor(self.inner_step + 1.0),
        )

    @override
    def predict_training_step(
        self, inputs: Tensor, data_samples: list[BaseDataElement]
    ) -> tuple[Tensor, Tensor]:
        """Takes the guided step from the latents reached so far.

        Returns:
            Where it leads, and z*_{t-1}, where it should; both (1, 4, h, w)
            fp32.
        """
        inversion = self.invert(inputs, data_samples)
        if self.finished:
            raise UserError(
                f'All {self.num_steps} timesteps are trained: there is '
                'nothing left to learn of this picture.'
            )
        return self._step(), inversion.latents[-2 - self.position]

    @override
    @torch.no_grad()
    def invert(
        self, inputs: Tensor, data_samples: list[BaseDataElement]
    ) -> Inversion:
        """Inverts the picture; a training begins or goes on from there.

        Raises:
            ValueError: If a resumed training gets another picture.
        """
        if self._inversion is not None:
            return super().invert(inputs, data_samples)
        before = self.start.clone()
        inversion = super().invert(inputs, data_samples)
        if not self.progress.any():
            self.reached.copy_(self.start)
        elif (before - self.start).abs().max() > SAME_PICTURE:
            self.start.copy_(before)
            self.forget()
            raise UserError(
                'This training began with another picture, source text or '
                'number of steps: its inversion differs from that in the '
                'checkpoint. Resume with the same, or begin anew.'
            )
        return inversion

    def _step(self) -> Tensor:
        """One guided DDIM step from the latents reached so far."""
        # (1, 4, h, w); gradients reach the embedding
        t = self.timesteps()[self.position]
        if self._fixed is None:
            with torch.no_grad(), self.control():
                self._fixed = self.sd.predict(
                    self.reached, t, self._fixed_condition()
                )
        with self.control(*self.training_controls()):
            learned = self.sd.predict(
                self.reached, t, self.learned_condition()
            )
        branches = [self._fixed, learned]
        if self.learns_negative:
            branches.reverse()
        # none up to 1, as in sampling
        scale = max(self.guidance_scale, 1)
        output = guided(lambda z, t: torch.cat(branches), scale)(
            self.reached, t
        )
        reached: Tensor = self.sd.scheduler.step(
            output, t, self.reached, return_dict=False
        )[0]
        return reached

    def _fixed_condition(self) -> Conditioning:
        """The conditioning of the branch with nothing to learn in it."""
        if self.learns_negative:
            return Conditioning(self.source)
        return self.condition([''])
