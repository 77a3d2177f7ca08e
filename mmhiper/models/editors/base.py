"""What all editors are: a frozen model, an identity, a state."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from mmengine.model import BaseModel
from mmengine.structures import BaseDataElement
from PIL import Image
from torch import Tensor
from typing_extensions import override

from mmhiper.io.identity import Identity
from mmhiper.io.record import VERSION
from mmhiper.models.backbones import Backbone
from mmhiper.models.conditioning import Conditioning
from mmhiper.models.data_preprocessor import ImagePreprocessor
from mmhiper.models.editors.moved import refusing_moved
from mmhiper.models.editors.texts import check_texts
from mmhiper.models.guidance import Guidance
from mmhiper.models.vocabulary import Vocabulary
from mmhiper.registry import MODELS, SCOPE
from mmhiper.utils.arguments import (
    Argument,
    KeepsArguments,
    ValuesOf,
    checked,
)
from mmhiper.utils.errors import UserError

Preprocessing = Annotated[dict[str, Any] | None, ValuesOf(ImagePreprocessor)]


class Editor(KeepsArguments, BaseModel):
    """A frozen text-to-image model, and a little that is learned with it.

    A subclass learns by denoising (:class:`EmbeddingEditor`) or inverts a
    picture (:class:`InversionEditor`).

    Args:
        sd: The frozen model or its config.
        data_preprocessor: Config of the preprocessor, by default
            :class:`ImagePreprocessor` at the backbone's resolution.
        val_prompts: Prompts that previews draw too, with what was learned.

    Raises:
        ValueError: If a validation prompt is empty, or a keyword one of
            mmagic's that lives elsewhere here.

    Note:
        The frozen model is an attribute, ``self.sd``, but not a registered
        submodule. So ``parameters()`` and ``state_dict()`` are the learned
        tensors alone, by construction: the optimizer steps only them,
        distributed training synchronises only them, checkpoints hold only
        them, and the log does not list each frozen weight. It follows
        ``.to()`` and ``.cuda()`` all the same.
    """

    # Whether a prompt has one picture only, whatever the seed.
    deterministic = False
    sd: Backbone

    @override
    def __init_subclass__(cls, **options: Any) -> None:
        """Has constructor and ``infer`` check what they are given.

        Keywords of mmagic's are refused with advice, values of another type
        by the annotations.
        """
        super().__init_subclass__(**options)
        if '__init__' in vars(cls):
            cls.__init__ = refusing_moved(cls.__init__)  # type: ignore[method-assign]
        if 'infer' in vars(cls):
            # an editor from outside may take options that only it knows
            own = (
                __name__.partition('.')[0] == cls.__module__.partition('.')[0]
            )
            cls.infer = checked(  # type: ignore[method-assign]
                cls.infer,
                (lambda self: self.further_options()) if own else None,
            )

    def __init__(
        self,
        sd: dict[str, Any] | Backbone,
        data_preprocessor: Preprocessing = None,
        val_prompts: str | list[str] | None = None,
    ) -> None:
        # Inner types are ours whatever the scope of the importing project.
        if isinstance(sd, Backbone):
            frozen = sd
        else:
            frozen = MODELS.build({'_scope_': SCOPE, **sd})
        config = {
            '_scope_': SCOPE,
            'type': 'ImagePreprocessor',
            'size': frozen.image_size,
            **(data_preprocessor or {}),
        }
        super().__init__(data_preprocessor=MODELS.build(config))
        # written past nn.Module.__setattr__, which would register it
        self.__dict__['sd'] = frozen
        if isinstance(val_prompts, str):
            val_prompts = [val_prompts]
        self.val_prompts = list(val_prompts or [])
        if self.val_prompts:
            check_texts('val_prompts', self.val_prompts)

    @override
    def _apply(self, fn: Any, recurse: bool = True) -> Editor:
        """Moves the frozen model along with the embedding."""
        self.sd._apply(fn, recurse)
        moved: Editor = super()._apply(fn, recurse)
        return moved

    @property
    def may_skip_parameters(self) -> bool:
        """Whether a training step may leave parameters without gradient."""
        return False

    @override
    def init_weights(self) -> None:
        """Does nothing: all weights are set when the editor is built."""

    @property
    def vocabulary(self) -> Vocabulary:
        """The words that prompts may have."""
        return self.sd.vocabulary

    # --------------------------------------------------------------- the step
    @override
    def forward(
        self,
        inputs: Tensor,
        data_samples: list[BaseDataElement],
        mode: str = 'tensor',
    ) -> dict[str, Tensor] | list[BaseDataElement] | Tensor:
        """Runs a step, as MMEngine's loops call it.

        Args:
            inputs: Preprocessed pictures, (B, 3, S, S) in [-1, 1].
            data_samples: B elements with ``image_key`` (set by the
                preprocessor) and ``image_index``.
            mode: 'loss', 'predict' or 'tensor'.

        Returns:
            'loss': the losses. 'predict': the elements, each with ``edited``,
            the edited picture, (3, S, S) uint8. 'tensor': the output of the
            U-Net in a training step, (B, 4, h, w) fp32.

        Raises:
            ValueError: If the mode is unknown.
        """
        if mode == 'loss':
            return self.loss(inputs, data_samples)
        if mode == 'predict':
            return self.predict(data_samples)
        if mode == 'tensor':
            return self.predict_training_step(inputs, data_samples)[0]
        raise UserError(
            f"`mode` must be 'loss', 'predict' or 'tensor', but got {mode!r}."
        )

    @abstractmethod
    def loss(
        self, inputs: Tensor, data_samples: list[BaseDataElement]
    ) -> dict[str, Tensor]:
        """The loss of one step.

        Args:
            inputs: (B, 3, S, S) in [-1, 1].
            data_samples: See :meth:`forward`.

        Returns:
            'loss', a scalar; other terms, and numbers for the log.
        """

    @abstractmethod
    def predict_training_step(
        self, inputs: Tensor, data_samples: list[BaseDataElement]
    ) -> tuple[Tensor, Tensor]:
        """What the model makes of a training step, and what it should.

        Args:
            inputs: (B, 3, S, S) in [-1, 1].
            data_samples: See :meth:`forward`.

        Returns:
            Both (B, 4, h, w) fp32.
        """

    @abstractmethod
    def predict(
        self, data_samples: list[BaseDataElement]
    ) -> list[BaseDataElement]:
        """Draws the edit that the config describes.

        Args:
            data_samples: See :meth:`forward`.

        Returns:
            The same, with ``edited``, (3, S, S) uint8.
        """

    def check_learnable(self, data_samples: list[BaseDataElement]) -> None:
        """Refuses a training that can learn nothing, before it starts.

        Args:
            data_samples: Of all source pictures, not preprocessed.

        Raises:
            ValueError: With what keeps it from learning, and the cure.
        """

    def check_length(self, iterations: int) -> None:
        """Refuses a training that ends before all of it has had its turn.

        Args:
            iterations: Its length.

        Raises:
            ValueError: With what is left out, and the cure.
        """

    def subject_of(self, sample: BaseDataElement) -> str:
        """What a source picture is one of several pictures of.

        Args:
            sample: Of the picture.

        Returns:
            The same for all pictures that are to tell one subject from the
            rest of a picture.
        """
        return ''

    def fixed_losses(
        self,
        inputs: Tensor,
        data_samples: list[BaseDataElement],
        draws: int = 16,
    ) -> Tensor | None:
        """Losses that show the progress of a training without noise.

        Args:
            inputs: All source pictures, (K, 3, S, S) in [-1, 1].
            data_samples: K elements, see :meth:`forward`.
            draws: How much work to spend on it.

        Returns:
            (n,), of the same draws at each call; None for an editor that has
            no such losses.
        """
        return None

    def losses_of_log(
        self, history: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor] | None:
        """The same from what a training has logged, at its ends.

        Args:
            history: The numbers of each iteration, by the names that
                :meth:`loss` gives them.

        Returns:
            Before and after, (n,) each; None for an editor whose steps are not
            of the same things.
        """
        return None

    def describe_step(self, iteration: int, log: Mapping[str, float]) -> str:
        """Where in the noise a training step was.

        Args:
            iteration: From 0.
            log: What the step returned.

        Returns:
            Such as ' (timestep 412)'; empty where it is not known.
        """
        return ''

    # ---------------------------------------------------------------- drawing
    @abstractmethod
    def infer(self, prompt: str | list[str], **options: Any) -> dict[str, Any]:
        """Draws pictures of prompts.

        Args:
            prompt: P prompts.
            **options: What an editor of this kind knows.

        Returns:
            'samples': pictures, see there.
        """

    @classmethod
    def further_options(cls) -> dict[str, Argument] | None:
        """What :meth:`infer` takes as ``**options``.

        Returns:
            By name; None if any.
        """
        return None

    @abstractmethod
    def preview(
        self,
        num_inference_steps: int = 50,
        guidance_scale: float | None = None,
        seed: int = 1,
        source: Tensor | None = None,
        **guidance: Any,
    ) -> list[tuple[str, Image.Image]]:
        """Draws the panels that show how far the training is.

        Args:
            num_inference_steps: Steps of the scheduler.
            guidance_scale: See :meth:`infer`.
            seed: Seed of the noise.
            source: The source pictures, (B, 3, S, S) in [-1, 1], for editors
                that show more of them.
            **guidance: ``guidance_rescale`` and ``guidance_interval``, see
                :meth:`infer`.

        Returns:
            Captions and pictures.
        """

    def costs(
        self,
        batch_size: int,
        num_inference_steps: int | None = None,
        scheduler: str | dict[str, Any] | None = None,
        **guidance: Any,
    ) -> tuple[float, float] | None:
        """What a training step costs, and what a preview.

        Args:
            batch_size: Pictures of a step.
            num_inference_steps: See :meth:`preview`.
            scheduler: Likewise.
            **guidance: Likewise.

        Returns:
            Both in passes of one picture through the U-Net; None where a
            training is not of such steps.

        Raises:
            ValueError: If an option of drawing is wrong.
        """
        return None

    @property
    def default_guidance(self) -> float:
        """The guidance scale that None stands for: the backbone's own."""
        return self.sd.guidance_scale

    def guidance_of(
        self,
        guidance_scale: float | None = None,
        guidance_rescale: float = 0.0,
        guidance_interval: Sequence[float] | None = None,
    ) -> Guidance:
        """The guidance that options of :meth:`infer` mean.

        Args:
            guidance_scale: See :meth:`infer`.
            guidance_rescale: Likewise.
            guidance_interval: Likewise.

        Returns:
            With the scale that is really used.

        Raises:
            ValueError: If one is out of its range.
        """
        if guidance_scale is None:
            guidance_scale = self.default_guidance
        return Guidance(guidance_scale, guidance_rescale, guidance_interval)

    def comparisons(self) -> list[tuple[str, Conditioning, Conditioning]]:
        """What a test draws with what was learned and without.

        Returns:
            Per prompt its text in plain words, the editor's conditioning, and
            the plain text's, one text each.

        Raises:
            ValueError: If this editor cannot be tested that way.
        """
        raise UserError(f'{type(self).__name__} has no prompts to compare by.')

    def is_about(self, number: int, sample: BaseDataElement) -> bool:
        """Whether a comparison shows what a source picture shows.

        Args:
            number: Which of :meth:`comparisons`.
            sample: Of a source picture.

        Returns:
            Always, for an editor of one subject.
        """
        return True

    def example_prompt(self) -> str | None:
        """A prompt to try after training; None where the config has none."""
        return None

    @abstractmethod
    def to_diffusers(self) -> Any:
        """This editor as a plain pipeline of diffusers.

        Returns:
            See :func:`mmhiper.to_diffusers`; an editor may return a pipeline
            alone.

        Raises:
            ValueError: If it does more than to condition.
        """

    # ------------------------------------------------------------------ state
    def check_learned(self) -> None:
        """Refuses to draw with what is not finite.

        Raises:
            ValueError: If a learned number is NaN or infinite.
        """
        _check_finite(self.state_dict())

    def learned_state(self) -> dict[str, Tensor]:
        """The learned tensors, detached copies on the CPU.

        Returns:
            By their names in the state dict.
        """
        return {
            name: tensor.detach().cpu().clone()
            for name, tensor in self.state_dict().items()
        }

    def model_facts(self) -> dict[str, str]:
        """What user interfaces want to know of the frozen model.

        Returns:
            By the names of :mod:`mmhiper.io.modelspec`.
        """
        return self.sd.facts()

    def export_metadata(self) -> dict[str, Any]:
        """What a learned tensor is worth nothing without, as plain data.

        A file with it loads without a config: it has the values that this
        editor and its frozen model were constructed with.

        Returns:
            The record, see :mod:`mmhiper.io.record`.
        """
        arguments = self.given_arguments()
        arguments.pop('sd', None)
        return dict(
            version=VERSION,
            **self._record(),
            sd=self.sd.given_arguments(),
            arguments=arguments,
        )

    def _record(self) -> dict[str, str]:
        """What the embedding belongs to, by the names of `Identity`."""
        return dict(editor=type(self).__name__, backbone=self.sd.backbone)

    @override
    def _save_to_state_dict(
        self, destination: Any, prefix: str, keep_vars: bool
    ) -> None:
        """Notes editor and backbone in the metadata of the state dict."""
        # PyTorch keeps this record through saving and loading (weights-only
        # too), and a state dict stays a mapping of names to tensors.
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination._metadata[prefix[:-1]].update(self._record())

    @override
    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        *args: Any,
    ) -> None:
        """Refuses what was not learned by this editor on this backbone."""
        # Checked here because both loaders, PyTorch's and MMEngine's (which
        # only warns), come through this method.
        found = {
            name.removeprefix(prefix): tensor
            for name, tensor in state_dict.items()
            if name.startswith(prefix)
        }
        expected = Identity.of(self.state_dict(), self._record())
        expected.check_loads(Identity.of(found, local_metadata))
        _check_finite(found)
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, *args
        )


def _check_finite(state: Mapping[str, Tensor]) -> None:
    """Refuses learned tensors that no picture can come of."""
    for name, tensor in state.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise UserError(
                f'The learned tensor `{name}` holds numbers that are NaN or '
                'infinite: its training diverged. Take an earlier checkpoint, '
                'or train again with a smaller learning rate.'
            )
