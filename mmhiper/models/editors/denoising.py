"""Editors that learn by denoising pictures."""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections import deque
from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any

import torch
from mmengine.structures import BaseDataElement
from PIL import Image
from torch import Tensor, nn
from typing_extensions import override

from mmhiper.models.backbones import Backbone
from mmhiper.models.conditioning import Conditioning
from mmhiper.models.denoising import (
    RANDOM,
    Draw,
    LatentCache,
    StepDraws,
    denoise,
    draw_fixed,
    draw_step,
    masked_means,
)
from mmhiper.models.drawing import (
    draw,
    draw_in_batches,
    latent_shape,
    same_noise,
)
from mmhiper.models.editors.base import Editor, Preprocessing
from mmhiper.models.editors.texts import check_texts, expand_negative
from mmhiper.models.foreign_words import warn_unknown
from mmhiper.models.loss_weights import check_loss_weights
from mmhiper.models.pipelines import EmbedsPipeline, make_pipeline
from mmhiper.models.start_pictures import Pictures, read_start
from mmhiper.models.weighted_text import join_alike
from mmhiper.utils.arguments import Argument, parameters_of
from mmhiper.utils.errors import UserError
from mmhiper.utils.pixels import (
    as_return_type,
    check_return_type,
    to_pil,
    to_uint8,
)
from mmhiper.utils.randomness import Generators, run_state

# Enough to see how far a training is, at two fifths of the work of `infer`.
PREVIEW_STEPS = 20
# Counted in floating-point operations at Stable Diffusion 1.x size, in passes
# through the U-Net: with the gradient of the text, and a picture decoded.
WITH_GRADIENT, DECODE = 2.08, 3.13


class EmbeddingEditor(Editor):
    """Learns an embedding, so that the frozen model denoises pictures.

    A subclass sets ``self.embedding`` in its constructor and says how it
    conditions: :meth:`train_condition`, :meth:`condition`,
    :meth:`edit_condition`, :meth:`preview_conditions`.

    Args:
        sd: See :class:`Editor`.
        data_preprocessor: Likewise.
        val_prompts: Likewise.
        hold_outside: Weight of a second term in the loss of a picture with a
            mask: outside of it, the mean squared difference to what the frozen
            model predicts from plain words (:meth:`plain_condition`). It holds
            the surroundings, of which a mask leaves nothing to learn, for one
            more pass through the U-Net.
        noise_offset: Share of one more normal number for each picture and
            channel in the noise of training, constant over the picture: so
            mean brightness is learned too. 0.1 where it is used.
        min_snr_gamma: Weighs each picture's loss by its timestep, as arXiv
            2303.09556 does (5 there); see :func:`snr_weights`. None weighs all
            alike.
        debiased: Weighs it as arXiv 2310.08442 does, instead.
        draws_per_step: How often a step noises each picture: its gradient is
            the mean over as many draws, which cost less together than in as
            many steps.
        draw_times: How their timesteps lie to each other, see
            :class:`StepDraws`.
        time_range: ``(low, high)``, the share of the timesteps that training
            draws from: (0, 0.7) leaves out the noisiest. Defaults to all.

    Raises:
        ValueError: If a number is out of its range; see :class:`Editor`.
    """

    embedding: nn.Module

    def __init__(
        self,
        sd: dict[str, Any] | Backbone,
        data_preprocessor: Preprocessing = None,
        val_prompts: str | list[str] | None = None,
        hold_outside: float = 0.0,
        noise_offset: float = 0.0,
        min_snr_gamma: float | None = None,
        debiased: bool = False,
        draws_per_step: int = 1,
        draw_times: str = RANDOM,
        time_range: list[float] | None = None,
    ) -> None:
        check_loss_weights(noise_offset, min_snr_gamma, debiased)
        if hold_outside < 0:
            raise UserError(
                f'`hold_outside` must not be negative, but got {hold_outside}.'
            )
        super().__init__(sd, data_preprocessor, val_prompts)
        self.hold_outside = hold_outside
        self.noise_offset = noise_offset
        self.min_snr_gamma = min_snr_gamma
        self.debiased = debiased
        within = (0.0, 1.0) if time_range is None else time_range
        self.draws = StepDraws(draws_per_step, draw_times, within)
        self._latents = LatentCache(self.sd)
        # Of the last training steps: iteration, and (B,) on the CPU.
        self._timesteps: deque[tuple[int, Tensor]] = deque(maxlen=1000)

    @override
    def _apply(self, fn: Any, recurse: bool = True) -> Editor:
        """Forgets latents that lie on the old device."""
        self._latents.clear()
        return super()._apply(fn, recurse)

    # ---------------------------------------------------------------- rules
    @abstractmethod
    def train_condition(
        self, data_samples: list[BaseDataElement]
    ) -> Conditioning:
        """The conditioning of a training step; gradients reach the embedding.

        Args:
            data_samples: See :meth:`forward`.

        Returns:
            B texts.
        """

    @abstractmethod
    def condition(self, prompts: list[str]) -> Conditioning:
        """The conditioning of prompts at inference.

        A subclass may take further keywords; they are its additions to
        :meth:`infer`.

        Args:
            prompts: B prompts.

        Returns:
            B texts.
        """

    @abstractmethod
    def edit_condition(
        self, data_samples: list[BaseDataElement]
    ) -> Conditioning:
        """The conditioning of the edit that the config describes.

        Args:
            data_samples: See :meth:`forward`.

        Returns:
            B texts.
        """

    @abstractmethod
    def preview_conditions(self) -> list[tuple[str, Conditioning]]:
        """What a preview draws beside the source and the ``val_prompts``.

        Returns:
            Captions, and one text each.
        """

    def plain_condition(
        self, data_samples: list[BaseDataElement]
    ) -> Conditioning:
        """The conditioning of a training step, had nothing been learned.

        Args:
            data_samples: See :meth:`forward`.

        Returns:
            B texts.

        Raises:
            ValueError: If this editor has none.
        """
        raise UserError(
            f'{type(self).__name__} has no plain words of a training step: '
            'leave out `hold_outside`.'
        )

    def fixed_condition(self, sample: BaseDataElement) -> Conditioning:
        """The conditioning of :meth:`fixed_losses`.

        Args:
            sample: See :meth:`forward`.

        Returns:
            One text; it depends on the picture and on what was learned alone.
        """
        return self.train_condition([sample])

    def image_indices(self, data_samples: list[BaseDataElement]) -> Tensor:
        """Which source image each data element is.

        Args:
            data_samples: Elements that may carry ``image_index``, by default
                0.

        Returns:
            (B,) integers.
        """
        return torch.tensor(
            [sample.get('image_index', 0) for sample in data_samples]
        )

    # ------------------------------------------------------------- training
    @override
    def loss(
        self, inputs: Tensor, data_samples: list[BaseDataElement]
    ) -> dict[str, Tensor]:
        """The loss of one step, the mean over its pictures."""
        return dict(loss=self.image_losses(inputs, data_samples).mean())

    def image_losses(
        self, inputs: Tensor, data_samples: list[BaseDataElement]
    ) -> Tensor:
        """The denoising loss of each picture, in fp32.

        That of latent diffusion (arXiv 2112.10752, eq. 3), weighed.

        Args:
            inputs: (B, 3, S, S) in [-1, 1].
            data_samples: See :meth:`forward`.

        Returns:
            (B,).
        """
        draw = self._draw_step(inputs, data_samples)
        output, target = self.predict_draw(
            draw, self._for_each_draw(self.train_condition(data_samples))
        )
        count = self.draws.per_step
        masks = [
            sample.get('loss_mask')
            for sample in data_samples
            for _ in range(count)
        ]
        losses = masked_means(output, target, masks)
        weights = self.sd.process.loss_weights(
            draw.timesteps, self.min_snr_gamma, self.debiased
        ).to(losses.device, non_blocking=True)
        if self.hold_outside and any(mask is not None for mask in masks):
            with torch.no_grad():
                plain, _ = self.predict_draw(
                    draw,
                    self._for_each_draw(self.plain_condition(data_samples)),
                )
            whole = output.new_ones(inputs.shape[-2:])
            outside = [whole - (whole if m is None else m) for m in masks]
            held = masked_means(output, plain, outside)
            losses = losses + self.hold_outside * held
        return (weights * losses).view(-1, count).mean(1)  # (B * D,) -> (B,)

    def _for_each_draw(self, conditioning: Conditioning) -> Conditioning:
        """B texts, each for the D draws of its picture in a step."""
        if self.draws.per_step == 1:
            return conditioning
        return conditioning.repeat_interleave(self.draws.per_step)

    @override
    def predict_training_step(
        self, inputs: Tensor, data_samples: list[BaseDataElement]
    ) -> tuple[Tensor, Tensor]:
        """Draws a step's noise and has the U-Net undo it; no loss needs it.

        Returns:
            Of each draw of each picture, see ``draws_per_step``.
        """
        return self.predict_draw(
            self._draw_step(inputs, data_samples),
            self._for_each_draw(self.train_condition(data_samples)),
        )

    def predict_draw(
        self, draw: Draw, conditioning: Conditioning
    ) -> tuple[Tensor, Tensor]:
        """What the U-Net makes of noised latents, and what it should.

        All losses come from here, so a method with another prediction or
        another target overrides this.

        Args:
            draw: B clean latents, their noise and timesteps.
            conditioning: B texts; gradients reach them.

        Returns:
            Output and target, both (B, 4, h, w) fp32.
        """
        return denoise(self.sd, draw, conditioning)

    def _draw_step(
        self, inputs: Tensor, data_samples: list[BaseDataElement]
    ) -> Draw:
        """Encodes the pictures and draws their noise and timesteps."""
        seed, iteration = run_state()
        draw = draw_step(
            [
                self._latents.encode(pixels, sample, seed)
                for pixels, sample in zip(inputs, data_samples, strict=True)
            ],
            [sample.image_key for sample in data_samples],
            (seed, iteration),
            self.sd.process,
            self.noise_offset,
            self.draws,
        )
        self._timesteps.append((iteration, draw.timesteps))
        return draw

    @override
    def describe_step(self, iteration: int, log: Mapping[str, float]) -> str:
        timesteps = dict(self._timesteps).get(iteration)
        if timesteps is None:
            return ''
        return f' (timestep {", ".join(f"{t:g}" for t in timesteps.tolist())})'

    @override
    @torch.no_grad()
    def fixed_losses(
        self,
        inputs: Tensor,
        data_samples: list[BaseDataElement],
        draws: int = 16,
    ) -> Tensor | None:
        """The denoising losses on noise that is the same at each call.

        The timesteps are spread evenly, so this shows the progress of a
        training, which the loss of one step hides in its random timestep.
        All timesteps count alike, and no noise has an offset.

        Returns:
            (n,), one of each draw, n a multiple of K; None for an editor that
            has no such losses.
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
                self.sd.process,
            )
            output, target = self.predict_draw(
                draw, self.fixed_condition(sample)
            )
            masks = [sample.get('loss_mask')]
            losses.append(masked_means(output, target, masks))
        return torch.cat(losses)

    @override
    @torch.no_grad()
    def predict(
        self, data_samples: list[BaseDataElement]
    ) -> list[BaseDataElement]:
        pixels = self.sample(self.edit_condition(data_samples))
        for sample, picture in zip(data_samples, pixels, strict=True):
            sample.set_data(dict(edited=to_uint8(picture)))
        return data_samples

    # -------------------------------------------------------------- drawing
    @override
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
        guidance_interval: tuple[float, float] | None = None,
        scheduler: str | dict[str, Any] | None = None,
        batch_size: int | None = None,
        image: int | Pictures | None = None,
        mask: Pictures | None = None,
        denoise: float | None = None,
        prompt_weighting: bool = False,
        **options: Any,
    ) -> dict[str, Any]:
        """Draws pictures of prompts, from noise or from other pictures.

        Args:
            prompt: P prompts.
            height: In pixels, by default the backbone's own.
            width: Likewise.
            num_inference_steps: Steps of the scheduler.
            guidance_scale: Classifier-free guidance; none up to 1. Defaults to
                :attr:`default_guidance`, the backbone's own.
            negative_prompt: What to move away from, one for all prompts or one
                each. Defaults to ''; for a backbone whose config says so
                (Stable Diffusion XL), to zeros.
            num_images_per_prompt: Pictures per prompt.
            eta: 0 is deterministic DDIM, 1 as noisy as DDPM; of DDIM alone.
            generator: Source of randomness in place of ``seed``, one for the
                batch or one per picture.
            latents: Noise to start from, (B, 4, h, w) with B = P *
                num_images_per_prompt.
            show_progress: Whether to show a progress bar.
            seed: Picture i of the run (prompt by prompt) draws from a
                generator of its own, seeded with ``seed + i``: so it is the
                same picture in any batch and whatever ran before. The global
                generators are neither used nor changed.
            return_type: 'image', 'tensor' or 'numpy'.
            guidance_rescale: Share, in [0, 1], by which the contrast that
                guidance adds is undone, see :class:`Guidance`.
            guidance_interval: Noise levels ``(low, high)`` between which
                guidance acts, see :class:`Guidance`. Defaults to all.
            scheduler: A scheduler of diffusers, such as
                'DPMSolverMultistepScheduler'; see
                :meth:`Diffusion.make_sampler`.
            batch_size: How many are drawn at the same time; it does not change
                what a picture shows. Defaults to what half of the free memory
                takes, see :func:`pictures_at_once`, and to all where one
                ``generator`` draws for all.
            image: A picture to begin with (image-to-image), in place of noise
                alone: a path, a PIL picture or a tensor in [-1, 1]; one for
                all prompts, or P. It is turned upright, and its largest
                centred part of the proportions of ``height`` and ``width`` is
                brought to their size. A whole number is, in HiPer, which of
                the source images is meant.
            mask: What of ``image`` may change (inpainting): a picture as large
                as it, white where it may. The rest is what the autoencoder
                makes of ``image``.
            denoise: How much of ``image`` is drawn anew: the share of the
                steps that is done, the last ones, in (0, 1]; 0.8 if left out.
                1 does all, from an ``image`` of which the noise of the first
                step leaves next to nothing (a fifteenth in Stable Diffusion,
                its brightness), and under a ``mask`` from noise alone.
            prompt_weighting: Whether prompts and negative prompts are read by
                compel: with weights, ``(word)1.3`` and ``word++``, and of any
                length; see :class:`WeightedText`.
            **options: What this editor adds, see its :meth:`condition`.

        Returns:
            'samples': a list of B PIL pictures; or a tensor or array, (B, 3,
            H, W) RGB in [-1, 1].

        Raises:
            ValueError: If an argument is out of its range.
        """
        self.check_learned()
        if not 0 <= eta <= 1:
            raise UserError(f'`eta` must be in [0, 1], but got {eta}.')
        check_return_type(return_type)
        for name, number in (
            ('num_inference_steps', num_inference_steps),
            ('num_images_per_prompt', num_images_per_prompt),
        ):
            if number < 1:
                raise UserError(
                    f'`{name}` must be at least 1, but got {number}.'
                )
        if isinstance(image, int | Integral):  # NumPy's too
            known = self.further_options()
            if known is not None and 'image' not in known:
                raise UserError(
                    '`image` must be a picture to begin with (a path, a PIL '
                    f'picture or a tensor), but got {image}.'
                )
            options['image'], image = int(image), None
        texts = self._texts_to_draw(
            prompt, negative_prompt, prompt_weighting, options
        )
        factor = self.sd.vae_factor
        _, h, w = latent_shape(self.sd, height, width)
        size = (h * factor, w * factor)
        count = sum(len(text) for text, _ in texts)
        start = read_start(image, mask, denoise, count, size, factor)
        pixels = draw_in_batches(
            self.sd,
            [
                (
                    text.repeat_interleave(num_images_per_prompt),
                    negative.repeat_interleave(num_images_per_prompt),
                )
                for text, negative in texts
            ],
            self.guidance_of(
                guidance_scale, guidance_rescale, guidance_interval
            ),
            batch_size,
            show_progress,
            height=height,
            width=width,
            num_inference_steps=num_inference_steps,
            eta=eta,
            generator=generator,
            latents=latents,
            seed=seed,
            scheduler=scheduler,
            start=start and start.repeat_interleave(num_images_per_prompt),
        )
        return dict(samples=as_return_type(pixels, return_type))

    @classmethod
    @override
    def further_options(cls) -> dict[str, Argument] | None:
        """The keywords of :meth:`condition`, if it names them all."""
        parameters = [*inspect.signature(cls.condition).parameters.values()]
        if any(each.kind is each.VAR_KEYWORD for each in parameters):
            return None
        options = parameters_of(cls.condition)
        options.pop(parameters[1].name, None)  # the prompts
        return options

    def _texts_to_draw(
        self,
        prompt: str | list[str],
        negative_prompt: str | list[str] | None,
        prompt_weighting: bool,
        options: dict[str, Any],
    ) -> list[tuple[Conditioning, Conditioning]]:
        """The texts of :meth:`infer`, those of one length together."""
        if not prompt_weighting:
            return [self.condition_pair(prompt, negative_prompt, **options)]
        prompts = [prompt] if isinstance(prompt, str) else prompt
        check_texts('prompt', prompts)
        negatives: Sequence[str | None] = [None] * len(prompts)
        if negative_prompt is not None:
            negatives = expand_negative(negative_prompt, len(prompts))
        # each by itself: no picture depends on how long the others' texts are
        pairs = [
            self.condition_pair(own, other, prompt_weighting=True, **options)
            for own, other in zip(prompts, negatives, strict=True)
        ]
        return join_alike(pairs)

    def condition_pair(
        self,
        prompt: str | list[str],
        negative_prompt: str | list[str] | None = None,
        prompt_weighting: bool = False,
        **options: Any,
    ) -> tuple[Conditioning, Conditioning]:
        """What guidance moves towards, and what away from.

        Args:
            prompt: P prompts.
            negative_prompt: See :meth:`infer`.
            prompt_weighting: Likewise.
            **options: Of :meth:`condition`.

        Returns:
            P texts each, all of one length.

        Raises:
            ValueError: If a prompt is empty or the numbers differ.
        """
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        check_texts('prompt', prompts)
        if prompt_weighting:
            others = None
            if negative_prompt is not None:
                others = expand_negative(negative_prompt, len(prompts))
            warn_unknown([*prompts, *(others or [])], self.vocabulary)
            return self.condition_weighted(prompts, others, **options)
        negatives = [''] * len(prompts)
        if negative_prompt is None:
            negative = self.sd.encode_nothing(len(prompts))
        else:
            negatives = expand_negative(negative_prompt, len(prompts))
            shared = len(set(negatives)) == 1
            negative = self.encode_negative(
                negatives[:1] if shared else negatives
            )
            if shared:
                negative = negative.repeat_interleave(len(prompts))
        warn_unknown([*prompts, *negatives], self.vocabulary)
        text = self.condition_beside(prompts, negatives, **options)
        return text, negative

    def condition_beside(
        self, prompts: list[str], negatives: list[str], **options: Any
    ) -> Conditioning:
        """The conditioning of prompts that negative ones stand beside.

        Args:
            prompts: B prompts.
            negatives: B texts, '' for none; for most editors they change
                nothing about the prompts.
            **options: Of :meth:`condition`.

        Returns:
            B texts, those of the prompts.
        """
        return self.condition(prompts, **options)

    def condition_weighted(
        self, prompts: list[str], negatives: list[str] | None, **options: Any
    ) -> tuple[Conditioning, Conditioning]:
        """:meth:`condition_pair` of prompts with weights, or long ones.

        Args:
            prompts: P prompts.
            negatives: P texts, or None for what the model moves away from
                where none is given.
            **options: Of :meth:`condition`.

        Returns:
            P texts each, see :meth:`WeightedText.pair`.

        Raises:
            ValueError: If this editor has no place for weights, or a prompt
                cannot be read.
        """
        raise UserError(
            f'{type(self).__name__} reads no weights in prompts: leave out '
            '`prompt_weighting`. HiPer and TextualInversion read them.'
        )

    def encode_negative(self, texts: list[str]) -> Conditioning:
        """Encodes what to move away from; plain texts for most editors.

        Args:
            texts: B texts; '' is the unconditional one.

        Returns:
            B texts.
        """
        return self.sd.encode_text(texts)

    def sample(
        self,
        conditioning: Conditioning,
        negative: Conditioning | None = None,
        *,
        guidance_scale: float | None = None,
        guidance_rescale: float = 0.0,
        guidance_interval: Sequence[float] | None = None,
        **options: Any,
    ) -> Tensor:
        """Draws pictures of a conditioning; see :meth:`infer`.

        Args:
            conditioning: B texts.
            negative: B texts to move away from, by default the empty text.
            guidance_scale: See :meth:`infer`.
            guidance_rescale: Likewise.
            guidance_interval: Likewise.
            **options: See :func:`draw_latents`.

        Returns:
            (B, 3, H, W) in [-1, 1] fp32.

        Raises:
            ValueError: If sizes or shapes do not fit.
        """
        guidance = self.guidance_of(
            guidance_scale, guidance_rescale, guidance_interval
        )
        return draw(self.sd, conditioning, guidance, negative, **options)

    @override
    @torch.no_grad()
    def preview(
        self,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        seed: int = 1,
        source: Tensor | None = None,
        **options: Any,
    ) -> list[tuple[str, Image.Image]]:
        """Draws the panels that show how far the training is.

        All panels come from one batched sampling run and start from the same
        noise, so they differ by their conditioning alone. Defaults to 20
        steps.
        """
        conditions = [
            *self.preview_conditions(),
            *((text, self.condition([text])) for text in self.val_prompts),
        ]
        captions, conditionings = zip(*conditions, strict=True)
        pixels = self.sample(
            Conditioning.cat(conditionings),
            num_inference_steps=num_inference_steps or PREVIEW_STEPS,
            guidance_scale=guidance_scale,
            **options,
            latents=same_noise(self.sd, len(captions), seed),
        )
        return [
            (caption, to_pil(picture))
            for caption, picture in zip(captions, pixels, strict=True)
        ]

    @override
    @torch.no_grad()
    def costs(
        self,
        batch_size: int,
        num_inference_steps: int | None = None,
        scheduler: str | dict[str, Any] | None = None,
        **guidance: Any,
    ) -> tuple[float, float] | None:
        sampler = self.sd.process.make_sampler(scheduler)
        passes = (num_inference_steps or PREVIEW_STEPS) * sampler.order
        if self.guidance_of(**guidance).acts:
            passes *= 2
        panels = len(self.preview_conditions()) + len(self.val_prompts)
        step = WITH_GRADIENT + (1 if self.hold_outside else 0)
        return (
            batch_size * self.draws.per_step * step,
            panels * (passes + DECODE),
        )

    @override
    def to_diffusers(self) -> Any:
        return EmbedsPipeline(make_pipeline(self.sd), self)
