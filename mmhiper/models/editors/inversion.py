"""Editing a real picture: invert it, then sample it again with other words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Any

import torch
from mmengine.structures import BaseDataElement
from PIL import Image
from torch import Tensor
from typing_extensions import override

from mmhiper.models.attention import (
    AttentionControl,
    MapAverage,
    attention_control,
    attention_layers,
    enlarge_maps,
    map_layers,
)
from mmhiper.models.backbones import Backbone, StableDiffusion
from mmhiper.models.conditioning import Conditioning
from mmhiper.models.edit_options import EditOptions, value_span
from mmhiper.models.editors.base import Editor, Preprocessing
from mmhiper.models.editors.texts import (
    check_differs,
    check_texts,
    expand_negative,
)
from mmhiper.models.foreign_words import warn_unknown
from mmhiper.models.guidance import Guidance
from mmhiper.models.inversion import Inversion, invert
from mmhiper.models.prompt import Prompt
from mmhiper.models.prompt_to_prompt import LocalBlend, PromptToPrompt
from mmhiper.models.sampling import run_scheduler
from mmhiper.models.schedulers import DDIM
from mmhiper.utils.arguments import Argument, ValuesOf, arguments_of
from mmhiper.utils.errors import UserError
from mmhiper.utils.pixels import (
    as_return_type,
    check_return_type,
    overlay_heat,
    to_pil,
    to_uint8,
)
from mmhiper.utils.progress import progress_bar
from mmhiper.utils.randomness import Generators
from mmhiper.utils.sheet import draw_sheet

# At a step in [0, T), guided or not: unconditional rows, where it is guided,
# then conditional ones.
StepCondition = Callable[[int, bool], Conditioning]


class InversionEditor(Editor):
    """Inverts one picture and edits it by prompt-to-prompt.

    As it is, this is plain DDIM inversion; a subclass improves on it by what
    it learns, through :meth:`positive` or :meth:`negative`, or by what it
    knows, through :meth:`mend`.

    Args:
        sd: The frozen model or its config.
        source_text: What the picture shows.
        target_text: The edit that previews show.
        num_steps: DDIM steps T, of inversion and editing.
        guidance_scale: Classifier-free guidance of training, and the default
            of editing. 7.5 is that of the papers; None takes the backbone's
            own.
        edit: Defaults of :class:`EditOptions`.
        map_side: See :func:`map_layers`.
        data_preprocessor: See :class:`Editor`.
        val_prompts: More edits that previews show, with the options of
            ``edit``.

    Raises:
        ValueError: If a text is empty, a value is out of range, or a
            validation prompt cannot be edited to with these options.
    """

    deterministic = True
    # Whether it brings the text that guidance moves away from.
    has_own_negative = False
    # Whether the maps of the inversion are needed.
    learns_maps = False
    sd: StableDiffusion  # or one that is like it, see `_check_backbone`
    source: Tensor
    start: Tensor

    def __init__(
        self,
        sd: dict[str, Any] | Backbone,
        source_text: str,
        target_text: str | None = None,
        num_steps: int = 30,
        guidance_scale: float | None = 7.5,
        edit: Annotated[dict[str, Any] | None, ValuesOf(EditOptions)] = None,
        map_side: int | None = None,
        data_preprocessor: Preprocessing = None,
        val_prompts: str | list[str] | None = None,
    ) -> None:
        super().__init__(sd, data_preprocessor, val_prompts)
        self._check_backbone()
        check_texts('source_text', [source_text])
        if target_text is not None:
            check_texts('target_text', [target_text])
        most = self.sd.scheduler.config.num_train_timesteps
        if not 1 <= num_steps <= most:
            raise UserError(
                f'`num_steps` must be in [1, {most}], but got {num_steps}.'
            )
        self.source_text = source_text
        self.target_text = target_text
        self.num_steps = num_steps
        if guidance_scale is None:
            guidance_scale = self.sd.guidance_scale
        self.guidance_scale = Guidance(guidance_scale).scale
        # what was learned belongs to it, whatever the backbone says later
        self._given['guidance_scale'] = self.guidance_scale
        options = EditOptions(**(edit or {}))
        self.edit = options.plain()
        self.parse(source_text)
        side = self.data_preprocessor.size
        shape = self.sd.latent_shape(side, side)
        self.layers = attention_layers(self.sd.attention, shape[-1])
        self.map_layers = map_layers(self.layers, map_side)
        for prompt in self.val_prompts:
            # a mistake should not cost a training
            self._edit_controls(prompt, options)
        # encoded once; not in checkpoints, the config makes it again
        source = self.condition([source_text]).tokens  # (1, M, D)
        self.register_buffer('source', source, persistent=False)
        # z*_T; zero until a picture is inverted
        self.register_buffer('start', torch.zeros(1, *shape))
        self._inversion: Inversion | None = None

    def _check_backbone(self) -> None:
        """Refuses backbones that this way of editing does not know."""
        if self.sd.attention is None:
            raise UserError(
                f'{type(self).__name__} controls attention to the text, but '
                f'{self.sd.backbone!r} is a {self.sd.title}, where it cannot '
                'be. HiPer and TextualInversion work with it.'
            )
        if self.sd.unet.is_gradient_checkpointing:
            raise UserError(
                f'{type(self).__name__} learns by what attention is made to '
                'do, which `sd.gradient_checkpointing` would not repeat. Set '
                'it to False.'
            )
        if self.sd.process.samples_with != DDIM:
            raise UserError(
                f'{type(self).__name__} goes the way of its inversion back, '
                f'which is {DDIM}, but `sd.scheduler` has the type '
                f'{self.sd.process.samples_with!r}. Take it out.'
            )

    @override
    def _apply(self, fn: Any, recurse: bool = True) -> InversionEditor:
        """Forgets what lies on the old device."""
        self.forget()
        return super()._apply(fn, recurse)

    @override
    def _load_from_state_dict(self, *args: Any) -> None:
        """Forgets what belongs to another picture."""
        self.forget()
        super()._load_from_state_dict(*args)

    def forget(self) -> None:
        """Drops what can be computed again."""
        self._inversion = None

    def parse(self, text: str) -> Prompt:
        """Cuts a prompt into words.

        Returns:
            Its words and where they stand.
        """

        def tokenize(word: str) -> list[int]:
            ids: list[int] = self.sd.tokenizer(
                word, add_special_tokens=False
            ).input_ids
            return ids

        return Prompt.parse(text, tokenize, self.sd.num_positions)

    @override
    def check_learnable(self, data_samples: list[BaseDataElement]) -> None:
        """Refuses an edit to the text that the picture has already."""
        texts = [self.source_text, *self.val_prompts]
        if self.target_text is not None:
            texts.append(self.target_text)
        warn_unknown(texts, self.vocabulary)
        if self.target_text is not None:
            check_differs(self.sd, self.source_text, self.target_text)

    # ---------------------------------------------------------------- rules
    def positive(self, text: Conditioning, step: int) -> Conditioning:
        """How a text conditions where the picture is to be kept.

        Args:
            text: B encoded texts.
            step: In [0, T), 0 is the noisiest.

        Returns:
            B texts.
        """
        return text

    def negative(self, text: Conditioning, step: int) -> Conditioning:
        """What guidance moves away from.

        Args:
            text: B encoded texts, empty by default.
            step: In [0, T).

        Returns:
            B texts.
        """
        return text

    def mend(self, done: int, latents: Tensor) -> None:
        """Changes the latents after a step, in place; here it does not.

        Args:
            done: Steps done, in [1, T].
            latents: The source, and behind it the edit if there is one: (1 or
                2, 4, h, w).
        """

    def condition(self, prompts: list[str]) -> Conditioning:
        """Plain texts; what an edit adds to them depends on the step.

        Args:
            prompts: B prompts.

        Returns:
            B texts.
        """
        return self.sd.encode_text(prompts)

    @override
    def to_diffusers(self) -> Any:
        """Impossible for an editor of this kind.

        Raises:
            ValueError: Always.
        """
        raise UserError(
            f'{type(self).__name__} cannot become a plain pipeline: besides '
            'the text it starts from an inverted picture and changes '
            'attention in every step, which no pipeline of diffusers does. '
            'Draw with `editor.infer`.'
        )

    @override
    def example_prompt(self) -> str | None:
        """The edit that the config describes.

        Returns:
            None without one.
        """
        return self.target_text

    # ------------------------------------------------------------ inversion
    @torch.no_grad()
    def invert(
        self, inputs: Tensor, data_samples: list[BaseDataElement]
    ) -> Inversion:
        """Inverts a picture with its own text; see :func:`invert`.

        Args:
            inputs: (1, 3, S, S) in [-1, 1].
            data_samples: One, with ``image_key``.

        Returns:
            Computed when the picture is first seen in this process.

        Raises:
            ValueError: If there is more than one picture, or it has a mask.
        """
        if any(sample.get('mask') is not None for sample in data_samples):
            raise UserError(
                f'{type(self).__name__} inverts a whole picture, so it can '
                'leave out neither what a mask does nor padding. Give it no '
                "`mask`, and a crop within the picture ('center' or a box)."
            )
        keys = {sample.get('image_key', '') for sample in data_samples}
        known = self._inversion
        if len(keys) != 1 or (known and known.image_key not in keys):
            raise UserError(
                f'{type(self).__name__} inverts one picture, but got several '
                '(`batch_size` or a list of `img`). Train one after another: '
                'tools/edit_cases.py does it.'
            )
        if known is None:
            known = invert(
                self.sd,
                inputs[:1],
                keys.pop(),
                Conditioning(self.source),
                self.num_steps,
                self.layers,
                self.map_layers if self.learns_maps else [],
            )
            self._inversion = known
            self.start.copy_(known.latents[-1])
        return known

    @override
    def loss(
        self, inputs: Tensor, data_samples: list[BaseDataElement]
    ) -> dict[str, Tensor]:
        """There is none where nothing is learned.

        Raises:
            ValueError: Always.
        """
        raise UserError(
            f'{type(self).__name__} has nothing to learn. Call `invert` with '
            'a picture and draw with `infer`; tools/edit_cases.py does both.'
        )

    @override
    def predict_training_step(
        self, inputs: Tensor, data_samples: list[BaseDataElement]
    ) -> tuple[Tensor, Tensor]:
        """There is none where nothing is learned.

        Raises:
            ValueError: Always.
        """
        raise UserError(f'{type(self).__name__} has no step of training.')

    def control(self, *controls: AttentionControl) -> Any:
        """Attention under control, at the size of the picture.

        Args:
            *controls: What sees or changes it.

        Returns:
            A context manager.
        """
        return attention_control(
            self.sd.attention, *controls, layers=self.layers
        )

    # -------------------------------------------------------------- editing
    @property
    @override
    def default_guidance(self) -> float:
        """The guidance scale that None stands for: that of training."""
        return self.guidance_scale

    @override
    @torch.no_grad()
    def infer(
        self,
        prompt: str | list[str],
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        negative_prompt: str | list[str] | None = None,
        num_images_per_prompt: int = 1,
        eta: float = 0.0,
        generator: Generators | None = None,
        latents: Tensor | None = None,
        show_progress: bool = True,
        seed: int = 1,
        return_type: str = 'image',
        return_reconstruction: bool = False,
        *,
        guidance_rescale: float = 0.0,
        guidance_interval: tuple[float, float] | None = None,
        scheduler: str | dict[str, Any] | None = None,
        image: Any = None,
        mask: Any = None,
        denoise: Any = None,
        **edit: Any,
    ) -> dict[str, Any]:
        """Edits the inverted picture.

        Nothing is drawn at random: there is one edit of a prompt, whatever
        ``seed`` and ``generator`` are, and it starts from the inverted
        picture, at its size, with as many steps as it was inverted in.

        Args:
            prompt: P prompts, edited one after another.
            height: That of the picture.
            width: Likewise.
            num_inference_steps: That of the inversion.
            guidance_scale: By default that of training.
            negative_prompt: What the edit moves away from, one for all prompts
                or one each.
            num_images_per_prompt: 1.
            eta: 0.
            generator: Without effect.
            latents: None.
            show_progress: Whether to show a progress bar.
            seed: Without effect.
            return_type: 'image', 'tensor' or 'numpy'.
            return_reconstruction: Whether to return, beside each edit, the
                reconstruction it was made with.
            guidance_rescale: See :class:`Guidance`.
            guidance_interval: Likewise. Where guidance does not act, the
                source goes back the way of its inversion, and what was learned
                for the unconditional branch has no effect.
            scheduler: That of the inversion, DDIM.
            image: None; the picture is that which was inverted.
            mask: Likewise.
            denoise: Likewise.
            **edit: See :class:`EditOptions`: ``edit_type``, ``align``,
                ``tau_v``, ``tau_c``, ``tau_s``, ``tau_u``, ``blend_words``,
                ``substruct_words``, ``thresholds``, ``start_blend``,
                ``reweight``, ``cross_replace``.

        Returns:
            'samples', and 'reconstructions' if wanted: lists of P PIL
            pictures; or a tensor or array, (P, 3, H, W) RGB in [-1, 1].

        Raises:
            ValueError: If an argument is out of its range, or no picture is
                inverted yet.
        """
        self.check_learned()
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        check_texts('prompt', prompts)
        factor = self.sd.vae_factor
        pixel_size = self.start.shape[-1] * factor
        _check_fixed(
            (height, pixel_size, 'height'),
            (width, pixel_size, 'width'),
            (num_inference_steps, self.num_steps, 'num_inference_steps'),
            (num_images_per_prompt, 1, 'num_images_per_prompt'),
            (eta, 0, 'eta'),
            (scheduler, DDIM, 'scheduler'),
            (latents, None, 'latents'),
        )
        for name, given in dict(
            image=image, mask=mask, denoise=denoise
        ).items():
            if given is not None:
                raise UserError(
                    f'{type(self).__name__} edits the picture that it has '
                    f'inverted, and takes no `{name}`: HiPer and '
                    'TextualInversion draw from one. What an edit may change '
                    'here is said by `blend_words`.'
                )
        check_return_type(return_type)
        options = EditOptions(**{**self.edit, **edit})
        negatives = self._negatives(negative_prompt, len(prompts))
        warn_unknown([*prompts, *negatives], self.vocabulary)
        guidance = self.guidance_of(
            guidance_scale, guidance_rescale, guidance_interval
        )
        pairs = torch.stack(
            [
                self.sd.decode(
                    self.edit_latents(
                        text, options, guidance, away, show_progress
                    )
                ).clamp(-1, 1)
                for text, away in zip(prompts, negatives, strict=True)
            ]
        )  # (P, 2, 3, H, W)
        sources, edits = pairs.unbind(1)
        result = dict(samples=as_return_type(edits, return_type))
        if return_reconstruction:
            again = as_return_type(sources, return_type)
            result['reconstructions'] = again
        return result

    @classmethod
    @override
    def further_options(cls) -> dict[str, Argument]:
        """See :class:`EditOptions`."""
        return arguments_of(EditOptions)

    @torch.no_grad()
    def edit_latents(
        self,
        prompt: str,
        options: EditOptions,
        guidance: Guidance,
        negative_prompt: str = '',
        show_progress: bool = False,
    ) -> Tensor:
        """Samples the source and its edit side by side.

        Prompt-to-prompt (arXiv 2208.01626) with ``tau_v`` and ``tau_u`` of
        StyleDiffusion (arXiv 2303.15649).

        Args:
            prompt: The prompt of the edit.
            options: How it keeps to the source.
            guidance: Of both.
            negative_prompt: What the edit moves away from.
            show_progress: Whether to show a progress bar.

        Returns:
            Latents of source and edit, (2, 4, h, w).
        """
        control, blend = self._edit_controls(prompt, options)
        controls: list[AttentionControl] = [control]
        if blend is not None:
            controls.append(blend.maps)  # after the edit: of what is drawn
        texts = self.condition([self.source_text, prompt])
        empty = self.condition(['', negative_prompt])
        mapped = value_span(options.tau_v, self.num_steps)

        def at_step(step: int, guided: bool) -> Conditioning:
            control.step, control.guided = step, guided
            old, new = texts[:1], texts[1:]
            if step in mapped:
                new = self.positive(new, step)
            rows = [self.positive(old, step), new]
            if guided:
                rows.insert(0, self.negative(empty, step))
            return Conditioning.cat(rows)

        def after_step(done: int, t: Tensor, z: Tensor) -> None:
            if blend is not None:
                blend(done, z)

        with self.control(*controls):
            return self._walk(at_step, 2, guidance, after_step, show_progress)

    def _edit_controls(
        self, prompt: str, options: EditOptions
    ) -> tuple[PromptToPrompt, LocalBlend | None]:
        """What steers the attention and the latents of an edit."""
        source, target = self.parse(self.source_text), self.parse(prompt)
        device = self.sd.device
        control = PromptToPrompt(
            source, target, options, self.num_steps, device
        )
        if options.blend_words is None:
            return control, None
        return control, LocalBlend(
            source, target, options, self.map_layers, self.num_steps, device
        )

    @torch.no_grad()
    def reconstruct(self, *controls: AttentionControl) -> Tensor:
        """Samples the source alone, at the guidance of training.

        Args:
            *controls: What sees its attention.

        Returns:
            Latents, (1, 4, h, w).
        """
        text, empty = Conditioning(self.source), self.condition([''])

        def at_step(step: int, guided: bool) -> Conditioning:
            row = self.positive(text, step)
            if not guided:
                return row
            return Conditioning.cat([self.negative(empty, step), row])

        with self.control(*controls):
            return self._walk(at_step, 1, self.guidance_of())

    def _walk(
        self,
        at_step: StepCondition,
        rows: int,
        guidance: Guidance,
        callback: Callable[[int, Tensor, Tensor], None] | None = None,
        show_progress: bool = False,
    ) -> Tensor:
        """Samples from the inverted picture."""
        # (B, 4, h, w); `callback` may change the latents in place
        self.check_inverted()
        step_of = {int(t): i for i, t in enumerate(self.timesteps())}

        with progress_bar(
            total=self.num_steps, disable=not show_progress
        ) as bar:

            def denoise(z: Tensor, t: Tensor, guided: bool) -> Tensor:
                text = at_step(step_of[int(t)], guided)
                return self.sd.predict(z, t, text)

            def after_step(done: int, t: Tensor, z: Tensor) -> None:
                bar.update()
                self.mend(done, z)
                if callback is not None:
                    callback(done, t, z)

            return run_scheduler(
                guidance.apply(
                    partial(denoise, guided=True),
                    partial(denoise, guided=False),
                    self.sd.scheduler,
                ),
                self.start.repeat(rows, 1, 1, 1),
                self.sd.scheduler,
                self.num_steps,
                after_step,
            )

    def check_inverted(self) -> None:
        """Refuses to sample before a picture is inverted.

        Raises:
            ValueError: If none is.
        """
        if self._inversion is None and not self.start.any():
            raise UserError(
                'No picture is inverted yet: train this editor, load a '
                'checkpoint, or call `invert`.'
            )

    def timesteps(self) -> Tensor:
        """The timesteps of the scheduler, which is set to them.

        Returns:
            (T,) integers, falling, on the CPU.
        """
        self.sd.scheduler.set_timesteps(self.num_steps, 'cpu')
        timesteps: Tensor = self.sd.scheduler.timesteps
        return timesteps

    def _negatives(
        self, negative: str | Sequence[str] | None, count: int
    ) -> list[str]:
        """One negative prompt per prompt."""
        if negative and self.has_own_negative:
            raise UserError(
                f'{type(self).__name__} has an unconditional text of its '
                'own, which reconstructs the picture: leave out '
                '`negative_prompt`.'
            )
        return expand_negative('' if negative is None else negative, count)

    @override
    @torch.no_grad()
    def predict(
        self, data_samples: list[BaseDataElement]
    ) -> list[BaseDataElement]:
        edited = self.infer(
            self.target_text or self.source_text,
            show_progress=False,
            return_type='tensor',
        )['samples']
        for sample in data_samples:
            sample.set_data(dict(edited=to_uint8(edited[0])))
        return data_samples

    # ---------------------------------------------------------------- views
    @torch.no_grad()
    def show_attention(self, word: str | None = None) -> Image.Image:
        """Draws where the words of the source are in the picture.

        The cross-attention maps of a reconstruction, averaged over its
        steps, the heads and the chosen layers, as heat over the picture.

        Args:
            word: One word (or several in a row) of the source text. Defaults
                to all of them, one panel each.

        Returns:
            Captioned panels side by side.

        Raises:
            ValueError: If the word is not in the source text.
        """
        prompt = self.parse(self.source_text)
        words = list(dict.fromkeys(prompt.words)) if word is None else [word]
        marks = torch.stack([prompt.indicator([each]) for each in words])
        average = MapAverage(self.map_layers, rows=slice(-1, None))
        pixels = self.sd.decode(self.reconstruct(average))[0]
        # (side, side, M) x (M, words) / tokens of each -> (words, side, side)
        marks = (marks / marks.sum(1, keepdim=True)).to(pixels.device)
        maps = (average.mean()[0] @ marks.T).permute(2, 0, 1)
        heat = enlarge_maps(maps, (pixels.shape[1], pixels.shape[2]))
        panels = [
            (caption, overlay_heat(pixels, each))
            for caption, each in zip(words, heat, strict=True)
        ]
        return draw_sheet([panels])

    @override
    @torch.no_grad()
    def preview(
        self,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        seed: int = 1,
        source: Tensor | None = None,
        **guidance: Any,
    ) -> list[tuple[str, Image.Image]]:
        """Draws the panels that show what the inversion is worth.

        Returns:
            What the autoencoder makes of the picture, if it is given; the
            reconstruction, the edit and those of ``val_prompts``.
        """
        targets = [self.target_text or self.source_text, *self.val_prompts]
        drawn = self.infer(
            targets,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            **guidance,
            show_progress=False,
            return_reconstruction=True,
        )
        panels = [
            ('reconstruction', drawn['reconstructions'][0]),
            *zip(targets, drawn['samples'], strict=True),
        ]
        if source is not None:
            best = self.sd.decode(self.sd.encode_image(source[:1]))
            panels.insert(0, ('autoencoder', to_pil(best[0].clamp(-1, 1))))
        return panels


def _check_fixed(*arguments: tuple[Any, Any, str]) -> None:
    """Refuses what an inversion has decided already."""
    # each: what is given, what it must be if it is, and its name
    for given, fixed, name in arguments:
        if given is not None and (fixed is None or given != fixed):
            raise UserError(
                f'`{name}` is fixed for an inverted picture: it must be '
                f'{fixed} or left out, but got {given}.'
            )
