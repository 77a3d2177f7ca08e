"""The frozen parts of a Stable Diffusion model, loaded from one name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from mmhiper.models.attention import has_split_attention
from mmhiper.models.autocast import no_autocast
from mmhiper.models.conditioning import Conditioning
from mmhiper.models.guidance import own_scale
from mmhiper.models.layered_text import in_a_row, read_own
from mmhiper.models.loading import (
    DTYPES,
    PartSource,
    check_vocabulary,
    choose_backbone,
    load_parts,
)
from mmhiper.models.offload import call_on
from mmhiper.models.schedulers import (
    DDIM,
    check_recorded,
    make_scheduler,
    split_type,
)
from mmhiper.models.text_encoders import TextEncoders
from mmhiper.models.vocabulary import Vocabulary
from mmhiper.registry import MODELS
from mmhiper.utils.arguments import (
    KeepsArguments,
    ValuesOf,
    arguments_of,
    check_arguments,
    only_plain,
    plain,
)
from mmhiper.utils.devices import usable_dtype
from mmhiper.utils.errors import UserError

_SOURCE = ('pretrained', 'subfolder')  # of a scheduler
Part = Annotated[dict[str, Any] | None, ValuesOf(PartSource)]


@dataclass(frozen=True)
class RecordedOptions:
    """What decides what a frozen model computes, beside its name.

    Attributes:
        dtype, unet, vae, text_encoder, vae_tiling: Of
            :class:`StableDiffusion`.
        scheduler: Likewise, without its ``type``.
        sampler: That type.
    """

    dtype: Literal['fp32', 'bf16', 'fp16'] = 'fp32'
    unet: Part = None
    vae: Part = None
    text_encoder: Part = None
    scheduler: dict[str, Any] | None = None
    sampler: str = DDIM
    vae_tiling: bool = False


@MODELS.register_module()
class StableDiffusion(KeepsArguments, nn.Module):
    """Text encoder(s), autoencoder, U-Net and scheduler, all frozen.

    Stable Diffusion 1.x, 2.x and XL; which one is read from the model's own
    index, so a config names a model and never its family.

    Args:
        pretrained: A hub id, a local folder in the diffusers layout, a
            single ``.safetensors`` or ``.ckpt`` file, or ``'mini-sd'``, the
            small model that comes with this package.
        without_cuda: What a machine loads instead that has
            no accelerator to hold ``pretrained``: neither CUDA nor another
            that PyTorch knows (Apple's mps, Intel's xpu). None keeps
            ``pretrained`` everywhere.
        dtype: Precision of the frozen weights: 'fp32', 'bf16', 'fp16'.
            Conditionings, latents and predictions are fp32 in every case. A
            device that does not compute in it takes fp32, and says so.
        unet, vae, text_encoder (dict, optional): Overrides of single parts:
            ``pretrained`` and ``subfolder`` say where that part comes from,
            other keys are passed to its ``from_pretrained``.
        scheduler: The same two keys for the scheduler, and
            ``type``, the scheduler of diffusers that pictures are sampled
            with; other keys are values of its config
            (``dict(type='DPMSolverMultistepScheduler',
            use_karras_sigmas=True)``).
        vae_tiling: Whether the autoencoder takes pictures that are
            larger than it was trained on tile by tile.
        offload: Whether text encoders and autoencoder stay on the CPU
            and are copied to the device for as long as they compute. In
            Textual Inversion that is in each step.
        gradient_checkpointing: Whether the U-Net computes most of what
            a gradient needs a second time, in place of keeping it.

    Attributes:
        backbone: What was really loaded.
        image_size: Side of the pictures it was trained on, in pixels.
        samples_with: The scheduler that pictures are sampled with.
        forces_zeros: Whether guidance moves away from zeros, and not
            from the empty text.
        guidance_scale: What pictures are drawn with where nobody says
            a scale, see :func:`own_scale`.

    Raises:
        FileNotFoundError: If a local path does not exist.
        ValueError: If an option is unknown or ``pretrained`` cannot be loaded.

    Note:
        The scheduler is a ``DDIMScheduler`` with the config of the model's
        own folder; one that is named by ``type`` takes its place in sampling,
        while the noise of training stays as it is. ``steps_offset`` in
        particular stays what the folder says: official folders say 1 and the
        diffusers pipelines run with it, where a bare ``DDIMScheduler`` would
        have 0 and visit other timesteps.
    """

    def __init__(
        self,
        pretrained: str,
        without_cuda: str | None = None,
        dtype: str = 'fp32',
        unet: Part = None,
        vae: Part = None,
        text_encoder: Part = None,
        scheduler: dict | None = None,
        vae_tiling: bool = False,
        offload: bool = False,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        if dtype not in DTYPES:
            raise UserError(
                f'`dtype` must be one of {list(DTYPES)}, but got {dtype!r}.'
            )
        self.backbone = choose_backbone(pretrained, without_cuda)
        overrides = dict(
            unet=unet, vae=vae, text_encoder=text_encoder, scheduler=scheduler
        )
        precision = usable_dtype(DTYPES[dtype])
        parts = load_parts(self.backbone, precision, overrides)
        self.tokenizers = parts['tokenizers']
        self.text_encoders = TextEncoders(parts['text_encoders'])
        self.vae = parts['vae']
        self.unet = parts['unet']
        changes = {
            key: value
            for key, value in (scheduler or {}).items()
            if key not in _SOURCE
        }
        self.samples_with, values = split_type(changes)
        self._scheduler_config = {**parts['scheduler'], **values}
        # its class is recorded by another name, see `RecordedOptions`
        values = {k: v for k, v in (scheduler or {}).items() if k != 'type'}
        self._given |= only_plain(dict(scheduler=plain(values)))
        # noises pictures in training, and inverts them; any other samples
        self.scheduler = self.make_sampler(DDIM)
        self.forces_zeros = parts['forces_zeros']
        self.guidance_scale = own_scale(
            self.backbone,
            self.unet,
            parts['scheduler'],
            self.samples_with,
            self.is_xl,
        )
        for pair in zip(
            parts['tokenizers'], parts['text_encoders'], strict=True
        ):
            check_vocabulary(self.backbone, *pair)
        self.vocabularies = [Vocabulary(each) for each in self.tokenizers]
        self._memory_format = torch.contiguous_format
        self._layers_read_own = False
        self.offload = offload
        if vae_tiling:
            self.vae.enable_tiling()
        if gradient_checkpointing:
            self.unet.enable_gradient_checkpointing()
        # Gradients pass through the frozen model to the embedding, none is
        # computed for its weights: 0.69 of the work of a step with them.
        self.requires_grad_(False)
        self.eval()

    def given_arguments(self) -> dict[str, Any]:
        """Those that decide what it computes, see `RecordedOptions`."""
        given = super().given_arguments()
        given['sampler'] = self.samples_with
        for part in ('unet', 'vae', 'text_encoder'):
            if given.get(part):
                names = [field.name for field in fields(PartSource)]
                given[part] = {
                    key: value
                    for key, value in given[part].items()
                    if key in names
                }
        names = [field.name for field in fields(RecordedOptions)]
        return {name: given[name] for name in names if given.get(name)}

    @classmethod
    def config_of_record(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        """The constructor values that a file has recorded.

        Args:
            options: See :class:`RecordedOptions`.

        Returns:
            All but ``pretrained``.

        Raises:
            ValueError: If one is unknown, of a wrong type or out of range.
        """
        check_arguments(options, arguments_of(RecordedOptions))
        given = dict(options)
        scheduler = given.pop('scheduler', None) or {}
        sampler = given.pop('sampler', DDIM)
        source = {k: scheduler[k] for k in _SOURCE if k in scheduler}
        check_arguments(source, arguments_of(PartSource))
        values = {k: v for k, v in scheduler.items() if k not in source}
        check_recorded(sampler, values)
        return dict(given, scheduler=dict(scheduler, type=sampler))

    def train(self, mode: bool = True) -> StableDiffusion:
        """Stays in evaluation mode: a frozen model has no other."""
        return super().train(False)

    def _apply(self, fn: Any, recurse: bool = True) -> StableDiffusion:
        """Leaves at home what ``offload`` keeps there."""
        if not self.offload:
            return super()._apply(fn, recurse)
        self.unet._apply(fn, recurse)
        return self

    def _run(self, module: Any, method: str, *args: Any) -> Any:
        """Calls a method of a frozen part, in its own precision.

        Args:
            module: Text encoders or autoencoder.
            method: The name of the method.
            *args: Its arguments, on the device.

        Returns:
            What it returns, on the device.
        """
        with no_autocast(self.device):
            if self.offload:
                return call_on(self.device, module, method, *args)
            return getattr(module, method)(*args)

    @property
    def device(self) -> torch.device:
        """Where it computes: the device of the U-Net."""
        return next(self.unet.parameters()).device

    @property
    def devices(self) -> dict[str, torch.device]:
        """Where the weights of each part lie while nothing is computed."""
        parts = ('text_encoders', 'vae', 'unet')
        return {
            name: next(getattr(self, name).parameters()).device
            for name in parts
        }

    @property
    def dtype(self) -> torch.dtype:
        """The precision of the weights."""
        return next(self.unet.parameters()).dtype

    @property
    def vae_factor(self) -> int:
        """Pixels per latent along each side (8 in this family)."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    @property
    def image_size(self) -> int:
        """Side of the pictures it was trained on, in pixels."""
        return self.unet.config.sample_size * self.vae_factor

    @property
    def tokenizer(self) -> Any:
        """The (first) tokenizer."""
        return self.tokenizers[0]

    @property
    def text_encoder(self) -> Any:
        """The (first) text encoder."""
        return self.text_encoders.models[0]

    @property
    def vocabulary(self) -> Vocabulary:
        """The (first) tokenizer's words."""
        return self.vocabularies[0]

    @property
    def is_xl(self) -> bool:
        """Whether this is a Stable Diffusion XL: two text encoders."""
        return len(self.text_encoders) > 1

    @property
    def num_positions(self) -> int:
        """Token positions of a text, M (77 in this family)."""
        return self.tokenizer.model_max_length

    @property
    def token_tables(self) -> list[Tensor]:
        """The embeddings of all known tokens, (V, D) per text encoder."""
        return self.text_encoders.tables

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """The shape of the latents of one picture.

        Args:
            height: In pixels, a multiple of ``vae_factor``.
            width: Likewise.

        Returns:
            (4, h, w).
        """
        channels = self.unet.config.in_channels
        return channels, height // self.vae_factor, width // self.vae_factor

    def count_tokens(self, text: str) -> int:
        """Counts the tokens of a text, without the start and end marks.

        Args:
            text: Any text.

        Returns:
            The number of tokens.
        """
        return self.vocabulary.count(text)

    @torch.no_grad()
    def encode_text(
        self, texts: list[str], max_tokens: int | None = None
    ) -> Conditioning:
        """Encodes texts, padded to all M positions.

        Args:
            texts: B texts; '' is the unconditional one.
            max_tokens: Tokens to keep of each text, without
                start and end marks. Defaults to what fits, M - 2.

        Returns:
            Conditioning: As :meth:`encode_ids`.
        """
        return self.encode_ids(
            [each.encode(texts, max_tokens) for each in self.vocabularies]
        )

    @torch.no_grad()
    def encode_nothing(self, count: int) -> Conditioning:
        """What guidance moves away from where no negative prompt is given.

        Args:
            count: Rows B.

        Returns:
            Conditioning: The empty text B times; zeros for a model whose
            config says ``force_zeros_for_empty_prompt``.
        """
        empty = self.encode_text([''])
        if self.forces_zeros:
            empty = empty.zeros()
        return empty.repeat_interleave(count)

    def encode_ids(
        self, ids: Sequence[Tensor], rows: Tensor | None = None
    ) -> Conditioning:
        """Encodes token ids; gradients reach the new rows.

        Entry A of docs/en/method.md: before the text encoder.

        Args:
            ids: For each text encoder, (B, M) integers; id
                V + r, with V known tokens, is row r of ``rows``.
            rows: New rows of the token tables, side by
                side where there are two, (R, D).

        Returns:
            Conditioning: Tokens (B, M, D) in fp32, for Stable Diffusion XL
            with the pooled text (B, P).
        """
        ids = [each.to(self.device, non_blocking=True) for each in ids]
        encoded: Conditioning = self._run(
            self.text_encoders, 'forward', ids, rows
        )
        return encoded

    @torch.no_grad()
    def encode_image(
        self, pixels: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """Encodes pictures into scaled latents.

        Args:
            pixels: (B, 3, H, W) in [-1, 1].
            generator (torch.Generator, optional): Draws a sample of the
                posterior (on the generator's device). None takes its mean.

        Returns:
            (B, 4, h, w) fp32, times the autoencoder's scaling factor.
        """
        posterior = self._run(
            self.vae, 'encode', pixels.to(self.device, self.vae.dtype)
        ).latent_dist
        if generator is None:
            latents = posterior.mean
        else:
            latents = posterior.sample(generator)
        return latents.float() * self.vae.config.scaling_factor

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Decodes scaled latents into pictures, one after another.

        Args:
            latents: (B, 4, h, w).

        Returns:
            (B, 3, H, W) fp32, about [-1, 1], not clamped.
        """
        unscaled = latents / self.vae.config.scaling_factor
        # The layers at full size need more memory than all the rest of
        # drawing, and a batch would need it for all its pictures at once.
        decoded = [
            self._run(self.vae, 'decode', each).sample.float()
            for each in unscaled.to(self.vae.dtype).split(1)
        ]
        return torch.cat(decoded)

    def lay_out(self, memory_format: torch.memory_format) -> None:
        """Lays the U-Net's weights out in memory; values stay the same.

        Channels last makes a training step faster. It also rounds differently
        from the diffusers pipelines, so pictures are drawn in their layout.

        Args:
            memory_format (torch.memory_format): ``torch.channels_last`` or
                ``torch.contiguous_format``.
        """
        if self._memory_format != memory_format:
            self.unet.to(memory_format=memory_format)
            self._memory_format = memory_format

    def make_sampler(self, scheduler: str | dict | None = None) -> Any:
        """Makes a scheduler with the noise schedule of this model.

        Args:
            scheduler: The name of a class of
                diffusers, or a dict with it as ``type`` and values of its
                config. Defaults to what the config of this model names, and
                that to DDIM.

        Returns:
            A new scheduler.

        Raises:
            ValueError: If there is no such scheduler, or it has no such
                value.
        """
        return make_scheduler(
            self._scheduler_config, scheduler or self.samples_with
        )

    def add_noise(
        self, latents: Tensor, noise: Tensor, timesteps: Tensor
    ) -> Tensor:
        """Noises clean latents (arXiv 2006.11239, eq. 4).

        Args:
            latents: (B, 4, h, w), scaled.
            noise: (B, 4, h, w), unit normal.
            timesteps: (B,) integers, on any device.

        Returns:
            (B, 4, h, w).
        """
        timesteps = timesteps.to(latents.device, non_blocking=True)
        return self.scheduler.add_noise(latents, noise, timesteps)

    def noise_target(
        self, latents: Tensor, noise: Tensor, timesteps: Tensor
    ) -> Tensor:
        """What the U-Net should put out for noised latents.

        Args:
            latents: (B, 4, h, w), scaled.
            noise: (B, 4, h, w), unit normal.
            timesteps: (B,) integers, on any device.

        Returns:
            (B, 4, h, w): the noise for models that predict epsilon,
            the velocity (arXiv 2202.00512, app. D) for v-prediction.

        Raises:
            ValueError: If the model predicts something else.
        """
        kind = self.scheduler.config.prediction_type
        if kind == 'epsilon':
            return noise
        if kind == 'v_prediction':
            timesteps = timesteps.to(latents.device, non_blocking=True)
            return self.scheduler.get_velocity(latents, noise, timesteps)
        raise UserError(
            "The scheduler's `prediction_type` must be 'epsilon' or "
            f"'v_prediction' to train with, but {self.backbone!r} has "
            f'{kind!r}.'
        )

    def epsilon_of(
        self, output: Tensor, latents: Tensor, timestep: Tensor
    ) -> Tensor:
        """The noise that an output of the U-Net stands for.

        An output means something at the timestep that the U-Net was asked
        at, whatever noise the latents really hold.

        Args:
            output: Of :meth:`predict_noise`, (B, 4, h, w).
            latents: What it was given, (B, 4, h, w).
            timestep: At which timestep, one integer.

        Returns:
            epsilon, (B, 4, h, w).
        """
        kind = self.scheduler.config.prediction_type
        if kind == 'epsilon':
            return output
        kept = self.scheduler.alphas_cumprod[timestep]  # abar_t
        if kind == 'v_prediction':
            return kept.sqrt() * output + (1 - kept).sqrt() * latents
        # the clean latents
        return (latents - kept.sqrt() * output) / (1 - kept).sqrt()

    def predict_noise(
        self, latents: Tensor, timesteps: Tensor, conditioning: Conditioning
    ) -> Tensor:
        """Runs the U-Net; gradients reach the conditioning.

        Args:
            latents: Noised latents, (B, 4, h, w).
            timesteps: One number, or (B,), on any device.
            conditioning (Conditioning): Tokens (B, M, D), or of many stages
                and layers, for Stable Diffusion XL with the pooled text, and
                values where cross-attention can take them (inside
                ``attention_control``).

        Returns:
            (B, 4, h, w) fp32, the raw output: epsilon or v.
        """
        conditioning = self._as_layers_read(conditioning, timesteps)
        options: dict[str, Any] = {}
        if conditioning.pooled is not None:
            options['added_cond_kwargs'] = dict(
                text_embeds=conditioning.pooled.to(self.dtype),
                time_ids=self._time_ids(latents),
            )
        if conditioning.values is not None:
            # the U-Net's own attention would ignore them
            assert has_split_attention(self.unet)
            values = conditioning.values.to(self.dtype)
            options['cross_attention_kwargs'] = dict(value_states=values)
        return self.unet(
            latents.to(self.dtype),
            timesteps.to(latents.device, non_blocking=True),
            encoder_hidden_states=conditioning.tokens.to(self.dtype),
            return_dict=False,
            **options,
        )[0].float()

    def _as_layers_read(
        self, conditioning: Conditioning, timesteps: Tensor
    ) -> Conditioning:
        """What holds at some timesteps, the texts of all layers in a row."""
        if not conditioning.varies:
            return conditioning
        if not self._layers_read_own:
            read_own(self.unet, self.num_positions)
            self._layers_read_own = True
        steps = self.scheduler.config.num_train_timesteps
        now = conditioning.at(timesteps, steps)
        values = None if now.values is None else in_a_row(now.values)
        return Conditioning(in_a_row(now.tokens), now.pooled, values)

    def _time_ids(self, latents: Tensor) -> Tensor:
        """What Stable Diffusion XL is told about the size of a picture.

        Args:
            latents: (B, 4, h, w).

        Returns:
            Original size, corner of the crop and target size, in
            pixels, (B, 6). A picture that was never made smaller or cut, in
            training as in sampling: so what is learned of one is met again.
        """
        size = [side * self.vae_factor for side in latents.shape[-2:]]
        numbers = torch.tensor([*size, 0, 0, *size], dtype=self.dtype)
        numbers = numbers.to(latents.device, non_blocking=True)
        return numbers.expand(len(latents), -1)
