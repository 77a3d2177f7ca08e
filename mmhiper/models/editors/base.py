"""What all editors share: freezing, the loss, sampling, checkpoints."""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated, Any

import torch
from mmengine.model import BaseModel
from mmengine.structures import BaseDataElement
from PIL import Image
from torch import Tensor, nn

from mmhiper.io.identity import Identity
from mmhiper.io.record import VERSION
from mmhiper.models.conditioning import Conditioning
from mmhiper.models.data_preprocessor import ImagePreprocessor
from mmhiper.models.denoising import (
    Draw,
    LatentCache,
    denoise,
    draw_fixed,
    draw_step,
    masked_means,
)
from mmhiper.models.editors.moved import refusing_moved
from mmhiper.models.guidance import Guidance
from mmhiper.models.loss_weights import check_loss_weights, snr_weights
from mmhiper.models.pipelines import EmbedsPipeline, make_pipeline
from mmhiper.models.sampling import run_scheduler
from mmhiper.models.stable_diffusion import StableDiffusion
from mmhiper.registry import MODELS, SCOPE
from mmhiper.utils.arguments import KeepsArguments, ValuesOf
from mmhiper.utils.errors import UserError
from mmhiper.utils.names import check_unicode
from mmhiper.utils.pictures import source_panel, to_pil, to_uint8
from mmhiper.utils.progress import progress_bar
from mmhiper.utils.randomness import (
    Generators,
    draw_noise,
    run_state,
)

Preprocessing = Annotated[dict[str, Any] | None, ValuesOf(ImagePreprocessor)]
RETURN_TYPES = ('image', 'tensor', 'numpy')


class EmbeddingEditor(KeepsArguments, BaseModel):
    """A frozen text-to-image model with a small learned embedding.

    A subclass sets ``self.embedding`` in its constructor and says how it
    conditions: :meth:`train_condition`, :meth:`condition`,
    :meth:`edit_condition`, :meth:`preview_conditions`.

    Args:
        sd (dict or StableDiffusion): The frozen model or its config.
        data_preprocessor (dict, optional): Config of the preprocessor, by
            default :class:`ImagePreprocessor` at the backbone's resolution.
        val_prompts (str or list[str], optional): Prompts that previews draw
            too, with what was learned.
        hold_outside (float): Weight of a second term in the loss of a picture
            with a mask: outside of it, the mean squared difference to what
            the frozen model predicts from plain words
            (:meth:`plain_condition`). It holds the surroundings, of which a
            mask leaves nothing to learn, for one more pass through the U-Net.
        noise_offset (float): Share of one more normal number for each picture
            and channel in the noise of training, constant over the picture:
            so mean brightness is learned too. 0.1 where it is used.
        min_snr_gamma (float, optional): Weighs each picture's loss by its
            timestep, as arXiv 2303.09556 does (5 there); see
            :func:`snr_weights`. None weighs all alike.
        debiased (bool): Weighs it as arXiv 2310.08442 does, instead.

    Raises:
        ValueError: If a validation prompt is empty, a number out of its
            range, or a keyword one of mmagic's that lives elsewhere here.

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
    sd: StableDiffusion
    embedding: nn.Module

    def __init_subclass__(cls, **options: Any) -> None:
        """Has each constructor refuse keywords of mmagic's with advice."""
        super().__init_subclass__(**options)
        if '__init__' in vars(cls):
            cls.__init__ = refusing_moved(cls.__init__)  # type: ignore[method-assign]

    def __init__(
        self,
        sd: dict[str, Any] | StableDiffusion,
        data_preprocessor: Preprocessing = None,
        val_prompts: str | list[str] | None = None,
        hold_outside: float = 0.0,
        noise_offset: float = 0.0,
        min_snr_gamma: float | None = None,
        debiased: bool = False,
    ) -> None:
        check_loss_weights(noise_offset, min_snr_gamma, debiased)
        if hold_outside < 0:
            raise UserError(
                f'`hold_outside` must not be negative, but got {hold_outside}.'
            )
        # Inner types are ours whatever the scope of the importing project.
        if isinstance(sd, StableDiffusion):
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
        self.hold_outside = hold_outside
        self.noise_offset = noise_offset
        self.min_snr_gamma = min_snr_gamma
        self.debiased = debiased
        self._latents = LatentCache(frozen)
        # The pictures as last seen, (3, S, S), and their masks, (S, S).
        self._sources: dict[int, tuple[Tensor, Tensor | None]] = {}
        # Of the last training steps: iteration, and (B,) on the CPU.
        self._timesteps: deque[tuple[int, Tensor]] = deque(maxlen=1000)

    def _apply(self, fn: Any, recurse: bool = True) -> EmbeddingEditor:
        """Moves the frozen model along with the embedding."""
        self.sd._apply(fn, recurse)
        self._latents.clear()  # encoded on the old device
        moved: EmbeddingEditor = super()._apply(fn, recurse)
        return moved

    @property
    def may_skip_parameters(self) -> bool:
        """Whether a training step may leave parameters without gradient."""
        return False

    def init_weights(self) -> None:
        """Does nothing: all weights are set when the editor is built."""

    # ---------------------------------------------------------------- rules
    @abstractmethod
    def train_condition(
        self, data_samples: list[BaseDataElement]
    ) -> Conditioning:
        """The conditioning of a training step; gradients reach the embedding.

        Args:
            data_samples (list[BaseDataElement]): See :meth:`forward`.

        Returns:
            Conditioning: B texts.
        """

    @abstractmethod
    def condition(self, prompts: list[str]) -> Conditioning:
        """The conditioning of prompts at inference.

        A subclass may take further keywords; they are its additions to
        :meth:`infer`.

        Args:
            prompts (list[str]): B prompts.

        Returns:
            Conditioning: B texts.
        """

    @abstractmethod
    def edit_condition(
        self, data_samples: list[BaseDataElement]
    ) -> Conditioning:
        """The conditioning of the edit that the config describes.

        Args:
            data_samples (list[BaseDataElement]): See :meth:`forward`.

        Returns:
            Conditioning: B texts.
        """

    @abstractmethod
    def preview_conditions(self) -> list[tuple[str, Conditioning]]:
        """What a preview draws beside the source and the ``val_prompts``.

        Returns:
            list[tuple[str, Conditioning]]: Captions, and one text each.
        """

    def comparisons(self) -> list[tuple[str, Conditioning, Conditioning]]:
        """What a test draws with what was learned and without.

        Returns:
            list[tuple[str, Conditioning, Conditioning]]: Per prompt its text
            in plain words, the editor's conditioning, and the plain text's,
            one text each.

        Raises:
            ValueError: If this editor cannot be tested that way.
        """
        raise UserError(f'{type(self).__name__} has no prompts to compare by.')

    def is_about(self, number: int, sample: BaseDataElement) -> bool:
        """Whether a comparison shows what a source picture shows.

        Args:
            number (int): Which of :meth:`comparisons`.
            sample (BaseDataElement): Of a source picture.

        Returns:
            bool: Always, for an editor of one subject.
        """
        return True

    def example_prompt(self) -> str | None:
        """A prompt to try after training; None where the config has none."""
        return None

    # ------------------------------------------------------------- training
    def forward(
        self,
        inputs: Tensor,
        data_samples: list[BaseDataElement],
        mode: str = 'tensor',
    ) -> dict[str, Tensor] | list[BaseDataElement] | Tensor:
        """Runs a step, as MMEngine's loops call it.

        Args:
            inputs (Tensor): Preprocessed pictures, (B, 3, S, S) in [-1, 1].
            data_samples (list[BaseDataElement]): B elements with
                ``image_key`` (set by the preprocessor) and ``image_index``.
            mode (str): 'loss', 'predict' or 'tensor'.

        Returns:
            dict, list or Tensor: 'loss': the losses. 'predict': the elements,
            each with ``edited``, the edited picture, (3, S, S) uint8.
            'tensor': the output of the U-Net in a training step,
            (B, 4, h, w) fp32.

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

    def loss(
        self, inputs: Tensor, data_samples: list[BaseDataElement]
    ) -> dict[str, Tensor]:
        """The loss of one step, the mean over its pictures.

        Args:
            inputs (Tensor): (B, 3, S, S) in [-1, 1].
            data_samples (list[BaseDataElement]): See :meth:`forward`.

        Returns:
            dict[str, Tensor]: 'loss', a scalar.
        """
        return dict(loss=self.image_losses(inputs, data_samples).mean())

    def image_losses(
        self, inputs: Tensor, data_samples: list[BaseDataElement]
    ) -> Tensor:
        """The denoising loss of each picture, in fp32.

        That of latent diffusion (arXiv 2112.10752, eq. 3), weighed.

        Args:
            inputs (Tensor): (B, 3, S, S) in [-1, 1].
            data_samples (list[BaseDataElement]): See :meth:`forward`.

        Returns:
            Tensor: (B,).
        """
        draw = self._draw_step(inputs, data_samples)
        output, target = self.predict_draw(
            draw, self.train_condition(data_samples)
        )
        masks = [sample.get('loss_mask') for sample in data_samples]
        losses = masked_means(output, target, masks)
        weights = snr_weights(
            self.sd.scheduler.alphas_cumprod,
            draw.timesteps,
            self.sd.scheduler.config.prediction_type,
            self.min_snr_gamma,
            self.debiased,
        ).to(losses.device, non_blocking=True)
        if not self.hold_outside or all(mask is None for mask in masks):
            return weights * losses
        with torch.no_grad():
            plain, _ = self.predict_draw(
                draw, self.plain_condition(data_samples)
            )
        whole = output.new_ones(inputs.shape[-2:])
        outside = [whole - (whole if m is None else m) for m in masks]
        held = masked_means(output, plain, outside)
        return weights * (losses + self.hold_outside * held)

    def plain_condition(
        self, data_samples: list[BaseDataElement]
    ) -> Conditioning:
        """The conditioning of a training step, had nothing been learned.

        Args:
            data_samples (list[BaseDataElement]): See :meth:`forward`.

        Returns:
            Conditioning: B texts.

        Raises:
            ValueError: If this editor has none.
        """
        raise UserError(
            f'{type(self).__name__} has no plain words of a training step: '
            'leave out `hold_outside`.'
        )

    def describe_step(self, iteration: int, log: Mapping[str, float]) -> str:
        """Where in the noise a training step was.

        Args:
            iteration (int): From 0.
            log (Mapping[str, float]): What the step returned.

        Returns:
            str: Such as ' (timestep 412)'; empty where it is not known.
        """
        timesteps = dict(self._timesteps).get(iteration)
        if timesteps is None:
            return ''
        return f' (timestep {", ".join(map(str, timesteps.tolist()))})'

    def predict_training_step(
        self, inputs: Tensor, data_samples: list[BaseDataElement]
    ) -> tuple[Tensor, Tensor]:
        """Draws a step's noise and has the U-Net undo it; no loss needs it.

        Args:
            inputs (Tensor): (B, 3, S, S) in [-1, 1].
            data_samples (list[BaseDataElement]): See :meth:`forward`.

        Returns:
            tuple[Tensor, Tensor]: Output and target, both (B, 4, h, w) fp32.
        """
        return self.predict_draw(
            self._draw_step(inputs, data_samples),
            self.train_condition(data_samples),
        )

    def predict_draw(
        self, draw: Draw, conditioning: Conditioning
    ) -> tuple[Tensor, Tensor]:
        """What the U-Net makes of noised latents, and what it should.

        All losses come from here, so a method with another prediction or
        another target overrides this.

        Args:
            draw (Draw): B clean latents, their noise and timesteps.
            conditioning (Conditioning): B texts; gradients reach them.

        Returns:
            tuple[Tensor, Tensor]: Output and target, both (B, 4, h, w) fp32.
        """
        return denoise(self.sd, draw, conditioning)

    def _draw_step(
        self, inputs: Tensor, data_samples: list[BaseDataElement]
    ) -> Draw:
        """Encodes the pictures and draws their noise and timesteps."""
        seed, iteration = run_state()
        images = self.image_indices(data_samples).tolist()
        latents = []
        for pixels, sample, image in zip(
            inputs, data_samples, images, strict=True
        ):
            latents.append(self._latents.encode(pixels, sample, seed))
            self._sources[image] = pixels, sample.get('loss_mask')
        draw = draw_step(
            latents,
            [sample.image_key for sample in data_samples],
            (seed, iteration),
            self.sd.scheduler.config.num_train_timesteps,
            self.noise_offset,
        )
        self._timesteps.append((iteration, draw.timesteps))
        return draw

    @torch.no_grad()
    def fixed_loss(
        self,
        inputs: Tensor,
        data_samples: list[BaseDataElement],
        draws: int = 16,
    ) -> float | None:
        """The denoising loss on noise that is the same at each call.

        The timesteps are spread evenly, so this shows the progress of a
        training, which the loss of one step hides in its random timestep.
        All timesteps count alike, and no noise has an offset.

        Args:
            inputs (Tensor): All source pictures, (K, 3, S, S) in [-1, 1].
            data_samples (list[BaseDataElement]): K elements, see
                :meth:`forward`.
            draws (int): Draws of noise, at least one per picture.

        Returns:
            float: The mean over pictures and draws; None for an editor that
            has no such loss.
        """
        seed, _ = run_state()
        count = max(1, draws // len(data_samples)) * len(data_samples)
        losses = []
        for number in range(count):
            which = number % len(data_samples)
            sample = data_samples[which]
            draw = draw_fixed(
                self._latents.encode(inputs[which], sample, seed),
                sample.image_key,
                seed,
                number,
                count,
                self.sd.scheduler.config.num_train_timesteps,
            )
            output, target = self.predict_draw(
                draw, self.fixed_condition(sample)
            )
            masks = [sample.get('loss_mask')]
            losses.append(masked_means(output, target, masks))
        return torch.cat(losses).mean().item()

    def fixed_condition(self, sample: BaseDataElement) -> Conditioning:
        """The conditioning of :meth:`fixed_loss`.

        Args:
            sample (BaseDataElement): See :meth:`forward`.

        Returns:
            Conditioning: One text; it depends on the picture and on what was
            learned alone.
        """
        return self.train_condition([sample])

    def image_indices(self, data_samples: list[BaseDataElement]) -> Tensor:
        """Which source image each data element is.

        Args:
            data_samples (list[BaseDataElement]): Elements that may carry
                ``image_index``, by default 0.

        Returns:
            Tensor: (B,) integers.
        """
        return torch.tensor(
            [sample.get('image_index', 0) for sample in data_samples]
        )

    @torch.no_grad()
    def predict(
        self, data_samples: list[BaseDataElement]
    ) -> list[BaseDataElement]:
        """Draws the edit that the config describes.

        Args:
            data_samples (list[BaseDataElement]): See :meth:`forward`.

        Returns:
            list[BaseDataElement]: The same, with ``edited``, (3, S, S) uint8.
        """
        pixels = self.sample(self.edit_condition(data_samples))
        for sample, picture in zip(data_samples, pixels, strict=True):
            sample.set_data(dict(edited=to_uint8(picture)))
        return data_samples

    # ------------------------------------------------------------ inference
    @torch.no_grad()
    def infer(
        self,
        prompt: str | list[str],
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int = 50,
        guidance_scale: float | None = None,
        negative_prompt: str | list[str] | None = None,
        num_images_per_prompt: int = 1,
        eta: float = 0.0,
        generator: Generators | None = None,
        latents: Tensor | None = None,
        show_progress: bool = True,
        seed: int = 1,
        return_type: str = 'image',
        *,
        guidance_rescale: float = 0.0,
        guidance_interval: Sequence[float] | None = None,
        scheduler: str | dict[str, Any] | None = None,
        **options: Any,
    ) -> dict[str, Any]:
        """Draws pictures of prompts.

        Args:
            prompt (str or list[str]): P prompts.
            height (int, optional): In pixels, by default the backbone's own.
            width (int, optional): Likewise.
            num_inference_steps (int): Steps of the scheduler.
            guidance_scale (float, optional): Classifier-free guidance; none
                up to 1. Defaults to :attr:`default_guidance`, the backbone's
                own.
            negative_prompt (str or list[str], optional): What to move away
                from, one for all prompts or one each. Defaults to ''; for a
                backbone whose config says so (Stable Diffusion XL), to zeros.
            num_images_per_prompt (int): Pictures per prompt.
            eta (float): 0 is deterministic DDIM, 1 as noisy as DDPM; of DDIM
                alone.
            generator (torch.Generator or list of them, optional): Source of
                randomness in place of ``seed``, one for the batch or one per
                picture.
            latents (Tensor, optional): Noise to start from, (B, 4, h, w) with
                B = P * num_images_per_prompt.
            show_progress (bool): Whether to show a progress bar.
            seed (int): Picture i of the run (prompt by prompt) draws from a
                generator of its own, seeded with ``seed + i``: so it is the
                same picture in any batch and whatever ran before. The global
                generators are neither used nor changed.
            return_type (str): 'image', 'tensor' or 'numpy'.
            guidance_rescale (float): Share, in [0, 1], by which the contrast
                that guidance adds is undone, see :class:`Guidance`.
            guidance_interval (pair, optional): Noise levels ``(low, high)``
                between which guidance acts, see :class:`Guidance`. Defaults
                to all.
            scheduler (str or dict, optional): A scheduler of diffusers, such
                as 'DPMSolverMultistepScheduler'; see
                :meth:`StableDiffusion.make_sampler`.
            **options: What this editor adds, see its :meth:`condition`.

        Returns:
            dict: 'samples': a list of B PIL pictures; or a tensor or array,
            (B, 3, H, W) RGB in [-1, 1].

        Raises:
            ValueError: If an argument is out of its range.
        """
        self.check_learned()
        if not 0 <= eta <= 1:
            raise UserError(f'`eta` must be in [0, 1], but got {eta}.')
        if return_type not in RETURN_TYPES:
            raise UserError(
                f'`return_type` must be one of {RETURN_TYPES}, but got '
                f'{return_type!r}.'
            )
        for name, number in (
            ('num_inference_steps', num_inference_steps),
            ('num_images_per_prompt', num_images_per_prompt),
        ):
            if number < 1:
                raise UserError(
                    f'`{name}` must be at least 1, but got {number}.'
                )
        conditioning, negative = self.condition_pair(
            prompt, negative_prompt, **options
        )
        with progress_bar(
            total=num_inference_steps, disable=not show_progress
        ) as progress:
            pixels = self.sample(
                conditioning.repeat_interleave(num_images_per_prompt),
                negative.repeat_interleave(num_images_per_prompt),
                height=height,
                width=width,
                num_inference_steps=num_inference_steps,
                guidance_scale=guidance_scale,
                guidance_rescale=guidance_rescale,
                guidance_interval=guidance_interval,
                eta=eta,
                generator=generator,
                latents=latents,
                seed=seed,
                scheduler=scheduler,
                callback=lambda *_: progress.update(),
            )
        if return_type == 'tensor':
            return dict(samples=pixels.cpu())
        if return_type == 'numpy':
            return dict(samples=pixels.cpu().numpy())
        return dict(samples=[to_pil(picture) for picture in pixels])

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
            guidance_scale (float, optional): See :meth:`infer`.
            guidance_rescale (float): Likewise.
            guidance_interval (pair, optional): Likewise.

        Returns:
            Guidance: With the scale that is really used.

        Raises:
            ValueError: If one is out of its range.
        """
        if guidance_scale is None:
            guidance_scale = self.default_guidance
        return Guidance(guidance_scale, guidance_rescale, guidance_interval)

    def condition_pair(
        self,
        prompt: str | list[str],
        negative_prompt: str | list[str] | None = None,
        **options: Any,
    ) -> tuple[Conditioning, Conditioning]:
        """What guidance moves towards, and what away from.

        Args:
            prompt (str or list[str]): P prompts.
            negative_prompt (str or list[str], optional): See :meth:`infer`.
            **options: Of :meth:`condition`.

        Returns:
            tuple[Conditioning, Conditioning]: P texts each.

        Raises:
            ValueError: If a prompt is empty or the numbers differ.
        """
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        check_texts('prompt', prompts)
        if negative_prompt is None:
            negative = self.sd.encode_nothing(len(prompts))
        else:
            negative = self.encode_negative(
                _expand_negative(negative_prompt, len(prompts))
            )
        return self.condition(prompts, **options), negative

    def encode_negative(self, texts: list[str]) -> Conditioning:
        """Encodes what to move away from; plain texts for most editors.

        Args:
            texts (list[str]): B texts; '' is the unconditional one.

        Returns:
            Conditioning: B texts.
        """
        return self.sd.encode_text(texts)

    @torch.no_grad()
    def sample(
        self,
        conditioning: Conditioning,
        negative: Conditioning | None = None,
        *,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int = 50,
        guidance_scale: float | None = None,
        guidance_rescale: float = 0.0,
        guidance_interval: Sequence[float] | None = None,
        eta: float = 0.0,
        generator: Generators | None = None,
        latents: Tensor | None = None,
        seed: int = 1,
        scheduler: str | dict[str, Any] | None = None,
        callback: Any = None,
    ) -> Tensor:
        """Draws pictures of a conditioning; see :meth:`infer`.

        Args:
            conditioning (Conditioning): B texts.
            negative (Conditioning, optional): B texts to move away from, by
                default the empty text.
            height (int, optional): In pixels.
            width (int, optional): In pixels.
            num_inference_steps (int): Steps of the scheduler.
            guidance_scale (float, optional): See :meth:`infer`.
            guidance_rescale (float): Likewise.
            guidance_interval (pair, optional): Likewise.
            eta (float): Noise added per step, in [0, 1].
            generator (torch.Generator or list of them, optional): Randomness.
            latents (Tensor, optional): (B, 4, h, w).
            seed (int): Where no generator is given.
            scheduler (str or dict, optional): See :meth:`infer`.
            callback (callable, optional): See :func:`run_scheduler`.

        Returns:
            Tensor: (B, 3, H, W) in [-1, 1] fp32.

        Raises:
            ValueError: If sizes or shapes do not fit.
        """
        guidance = self.guidance_of(
            guidance_scale, guidance_rescale, guidance_interval
        )
        sampler = self.sd.make_sampler(scheduler)
        count = len(conditioning)
        shape = (count, *self._latent_shape(height, width))
        if generator is None:
            generator = [
                torch.Generator().manual_seed(seed + i) for i in range(count)
            ]
        if latents is None:
            latents = draw_noise(shape, generator)
        elif latents.shape != shape:
            raise UserError(
                f'`latents` must have the shape {shape}, but got '
                f'{tuple(latents.shape)}.'
            )
        start = latents.to(self.sd.device).float()
        self.sd.lay_out(torch.contiguous_format)

        if negative is None:
            negative = self.sd.encode_nothing(count)
        both = Conditioning.cat([negative, conditioning])
        predict = self.sd.predict_noise

        final = run_scheduler(
            guidance.apply(
                partial(predict, conditioning=both),
                partial(predict, conditioning=conditioning),
                sampler,
            ),
            start,
            sampler,
            num_inference_steps,
            callback=callback,
            eta=eta,
            generator=generator,
        )
        return self.sd.decode(final).clamp(-1, 1)

    def _latent_shape(
        self, height: int | None, width: int | None
    ) -> tuple[int, int, int]:
        """The shape of one picture's latents, its size checked.

        Args:
            height (int, optional): In pixels.
            width (int, optional): In pixels.

        Returns:
            tuple[int, int, int]: (4, h, w).
        """
        size = self.sd.image_size
        height = size if height is None else height
        width = size if width is None else width
        factor = self.sd.vae_factor
        if height < 1 or width < 1 or height % factor or width % factor:
            raise UserError(
                f'`height` and `width` must be multiples of {factor}, but '
                f'got {height} and {width}.'
            )
        return self.sd.latent_shape(height, width)

    @torch.no_grad()
    def preview(
        self,
        num_inference_steps: int = 50,
        guidance_scale: float | None = None,
        seed: int = 1,
        **guidance: Any,
    ) -> list[tuple[str, Image.Image]]:
        """Draws the panels that show how far the training is.

        All panels come from one batched sampling run and start from the same
        noise, so they differ by their conditioning alone.

        Args:
            num_inference_steps (int): Steps of the scheduler.
            guidance_scale (float, optional): See :meth:`infer`.
            seed (int): Seed of the noise.
            **guidance: ``guidance_rescale`` and ``guidance_interval``, see
                :meth:`infer`.

        Returns:
            list[tuple[str, PIL.Image.Image]]: Captions and pictures. The
            first one is the source picture as the model saw it, once it has
            seen it in this process.
        """
        conditions = [
            *self.preview_conditions(),
            *((text, self.condition([text])) for text in self.val_prompts),
        ]
        captions, conditionings = zip(*conditions, strict=True)
        shape = self._latent_shape(None, None)
        noise = draw_noise((1, *shape), torch.Generator().manual_seed(seed))
        pixels = self.sample(
            Conditioning.cat(conditionings),
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            **guidance,
            latents=noise.expand(len(captions), *shape),
        )
        panels = [
            (caption, to_pil(picture))
            for caption, picture in zip(captions, pixels, strict=True)
        ]
        return [*self.source_panels(), *panels]

    def look_at(
        self, inputs: Tensor, data_samples: list[BaseDataElement]
    ) -> None:
        """Sees pictures as a training step does, for a preview without one.

        Args:
            inputs (Tensor): (B, 3, S, S) in [-1, 1].
            data_samples (list[BaseDataElement]): See :meth:`forward`.
        """
        images = self.image_indices(data_samples).tolist()
        for pixels, sample, image in zip(
            inputs, data_samples, images, strict=True
        ):
            self._sources[image] = pixels, sample.get('loss_mask')

    def source_panels(self) -> list[tuple[str, Image.Image]]:
        """The first source picture as the training saw it.

        Returns:
            list[tuple[str, PIL.Image.Image]]: Caption and picture, in which
            what the loss does not count (outside the mask, padding) is faded;
            nothing before a training step in this process.
        """
        if 0 not in self._sources:
            return []
        return [source_panel(*self._sources[0])]

    def to_diffusers(self) -> Any:
        """This editor as a plain pipeline of diffusers.

        Returns:
            EmbedsPipeline: See :func:`mmhiper.to_diffusers`; an editor may
            return a pipeline alone.
        """
        return EmbedsPipeline(make_pipeline(self.sd), self)

    # ---------------------------------------------------------- checkpoints
    def check_learned(self) -> None:
        """Refuses to draw with what is not finite.

        Raises:
            ValueError: If a learned number is NaN or infinite.
        """
        _check_finite(self.state_dict())

    def learned_state(self) -> dict[str, Tensor]:
        """The learned tensors, detached copies on the CPU.

        Returns:
            dict[str, Tensor]: By their names in the state dict.
        """
        return {
            name: tensor.detach().cpu().clone()
            for name, tensor in self.state_dict().items()
        }

    def export_metadata(self) -> dict[str, Any]:
        """What a learned tensor is worth nothing without, as plain data.

        A file with it loads without a config: it has the values that this
        editor and its frozen model were constructed with.

        Returns:
            dict[str, Any]: The record, see :mod:`mmhiper.io.record`.
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

    def _save_to_state_dict(
        self, destination: Any, prefix: str, keep_vars: bool
    ) -> None:
        """Notes editor and backbone in the metadata of the state dict.

        PyTorch keeps this record through saving and loading (weights-only
        too), and a state dict stays a mapping of names to tensors.
        """
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination._metadata[prefix[:-1]].update(self._record())

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        *args: Any,
    ) -> None:
        """Refuses what was not learned by this editor on this backbone.

        Checked here because both loaders, PyTorch's and MMEngine's (which
        only warns), come through this method.
        """
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


def check_texts(name: str, texts: Sequence[str]) -> None:
    """Refuses empty texts, and such that no tokenizer takes.

    Args:
        name (str): Of the argument, for the message.
        texts (Sequence[str]): Texts.

    Raises:
        ValueError: If there is none, or one is empty or no string.
    """
    if not texts:
        raise UserError(f'`{name}` must hold at least one text, got none.')
    for text in texts:
        if not isinstance(text, str) or not text.strip():
            raise UserError(
                f'`{name}` must be a text that says what is in the picture, '
                f'but got {text!r}.'
            )
        check_unicode(name, text)


def _expand_negative(negative: str | list[str], count: int) -> list[str]:
    """One negative prompt per prompt.

    Args:
        negative (str or list[str]): One for all, or one each.
        count (int): The number of prompts.

    Returns:
        list[str]: As many.
    """
    if isinstance(negative, str):
        return [negative] * count
    if len(negative) != count:
        raise UserError(
            f'`negative_prompt` must be one text or one for each of {count} '
            f'prompts, but got {len(negative)}.'
        )
    return list(negative)
