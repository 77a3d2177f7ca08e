"""The frozen parts of a Stable Diffusion model, loaded from one name."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from mmhiper.models.conditioning import Conditioning
from mmhiper.registry import MODELS

MINI_SD = 'mini-sd'
BUNDLED = {MINI_SD: Path(__file__).parents[1] / 'pretrained' / MINI_SD}
DTYPES = {
    'fp32': torch.float32,
    'bf16': torch.bfloat16,
    'fp16': torch.float16,
}
# What editing needs; the safety checker and the image encoder stay on disk.
PARTS = ('unet', 'vae', 'text_encoder', 'tokenizer', 'scheduler')
SINGLE_FILE_SUFFIXES = ('.safetensors', '.ckpt')
# What a scheduler config that leaves these out means in this family. The
# defaults of a bare DDIMScheduler are those of other models: clipping would
# cut latents, and other offsets or end points move every timestep.
SCHEDULER_DEFAULTS = dict(
    beta_start=0.00085,
    beta_end=0.012,
    beta_schedule='scaled_linear',
    set_alpha_to_one=False,
    steps_offset=1,
)


@MODELS.register_module()
class StableDiffusion(nn.Module):
    """Text encoder, autoencoder, U-Net and scheduler, all frozen.

    Args:
        pretrained (str): A hub id, a local folder in the diffusers layout, a
            single ``.safetensors`` or ``.ckpt`` file, or ``'mini-sd'``, the
            small model that comes with this package.
        without_cuda (str, optional): What a machine with no CUDA device loads
            instead. None keeps ``pretrained`` everywhere.
        dtype (str): Precision of the frozen weights: 'fp32', 'bf16', 'fp16'.
            Conditionings, latents and predictions are fp32 in every case.
        unet, vae, text_encoder (dict, optional): Overrides of single parts:
            ``pretrained`` and ``subfolder`` say where that part comes from,
            other keys are passed to its ``from_pretrained``.
        scheduler (dict, optional): The same two keys for the scheduler; other
            keys are values of its config (``dict(steps_offset=0)``).

    Attributes:
        backbone (str): What was really loaded.
        image_size (int): Side of the pictures it was trained on, in pixels.

    Raises:
        FileNotFoundError: If a local path does not exist.
        ValueError: If an option is unknown or ``pretrained`` cannot be loaded.

    Note:
        The scheduler is a ``DDIMScheduler`` with the config of the model's
        own folder. ``steps_offset`` in particular stays what the folder says:
        official folders say 1 and the diffusers pipelines run with it, where
        a bare ``DDIMScheduler`` would have 0 and visit other timesteps.
    """

    def __init__(
        self,
        pretrained: str,
        without_cuda: str | None = None,
        dtype: str = 'fp32',
        unet: dict | None = None,
        vae: dict | None = None,
        text_encoder: dict | None = None,
        scheduler: dict | None = None,
    ) -> None:
        super().__init__()
        if dtype not in DTYPES:
            raise ValueError(
                f'`dtype` must be one of {list(DTYPES)}, but got {dtype!r}.'
            )
        self.backbone = choose_backbone(pretrained, without_cuda)
        overrides = dict(
            unet=unet, vae=vae, text_encoder=text_encoder, scheduler=scheduler
        )
        parts = load_parts(self.backbone, DTYPES[dtype], overrides)
        self.tokenizer = parts['tokenizer']
        self.text_encoder = parts['text_encoder']
        self.vae = parts['vae']
        self.unet = parts['unet']
        self.scheduler = parts['scheduler']
        _check_vocabulary(self.backbone, self.tokenizer, self.text_encoder)
        # Gradients pass through the frozen model to the embedding, none is
        # computed for its weights: 0.69 of the work of a step with them.
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> StableDiffusion:
        """Stays in evaluation mode: a frozen model has no other."""
        return super().train(False)

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return next(self.unet.parameters()).device

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
    def num_positions(self) -> int:
        """Token positions of a text, M (77 in this family)."""
        return self.tokenizer.model_max_length

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """The shape of the latents of one picture.

        Args:
            height (int): In pixels, a multiple of ``vae_factor``.
            width (int): Likewise.

        Returns:
            tuple[int, int, int]: (4, h, w).
        """
        channels = self.unet.config.in_channels
        return channels, height // self.vae_factor, width // self.vae_factor

    def count_tokens(self, text: str) -> int:
        """Counts the tokens of a text, without the start and end marks.

        Args:
            text (str): Any text.

        Returns:
            int: The number of tokens.
        """
        # not verbose: "longer than the model takes" is what is to be found out
        encoded = self.tokenizer(text, add_special_tokens=False, verbose=False)
        return len(encoded.input_ids)

    @torch.no_grad()
    def encode_text(
        self, texts: list[str], max_tokens: int | None = None
    ) -> Conditioning:
        """Encodes texts, padded to all M positions.

        Args:
            texts (list[str]): B texts; '' is the unconditional one.
            max_tokens (int, optional): Tokens to keep of each text, without
                start and end marks. Defaults to what fits, M - 2.

        Returns:
            Conditioning: Tokens (B, M, D) in fp32.
        """
        if max_tokens is None:
            max_tokens = self.num_positions - 2
        rows = self.tokenizer(
            texts,
            truncation=True,
            # the end mark may fall behind the last position (see HiPer)
            max_length=min(max_tokens + 2, self.num_positions),
        )
        ids = self.tokenizer.pad(
            rows,
            padding='max_length',
            max_length=self.num_positions,
            return_tensors='pt',
        ).input_ids
        with _no_autocast(self.device):
            tokens = self.text_encoder(ids.to(self.device))[0]
        return Conditioning(tokens.float())

    @torch.no_grad()
    def encode_image(
        self, pixels: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """Encodes pictures into scaled latents.

        Args:
            pixels (Tensor): (B, 3, H, W) in [-1, 1].
            generator (torch.Generator, optional): Draws a sample of the
                posterior (on the generator's device). None takes its mean.

        Returns:
            Tensor: (B, 4, h, w) fp32, times the autoencoder's scaling factor.
        """
        with _no_autocast(self.device):
            posterior = self.vae.encode(
                pixels.to(self.device, self.dtype)
            ).latent_dist
        if generator is None:
            latents = posterior.mean
        else:
            latents = posterior.sample(generator)
        return latents.float() * self.vae.config.scaling_factor

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Decodes scaled latents into pictures.

        Args:
            latents (Tensor): (B, 4, h, w).

        Returns:
            Tensor: (B, 3, H, W) fp32, about [-1, 1], not clamped.
        """
        unscaled = latents / self.vae.config.scaling_factor
        with _no_autocast(self.device):
            pixels = self.vae.decode(unscaled.to(self.dtype)).sample
        return pixels.float()

    def add_noise(
        self, latents: Tensor, noise: Tensor, timesteps: Tensor
    ) -> Tensor:
        """Noises clean latents (arXiv 2006.11239, eq. 4).

        Args:
            latents (Tensor): (B, 4, h, w), scaled.
            noise (Tensor): (B, 4, h, w), unit normal.
            timesteps (Tensor): (B,) integers.

        Returns:
            Tensor: (B, 4, h, w).
        """
        return self.scheduler.add_noise(latents, noise, timesteps)

    def noise_target(
        self, latents: Tensor, noise: Tensor, timesteps: Tensor
    ) -> Tensor:
        """What the U-Net should put out for noised latents.

        Args:
            latents (Tensor): (B, 4, h, w), scaled.
            noise (Tensor): (B, 4, h, w), unit normal.
            timesteps (Tensor): (B,) integers.

        Returns:
            Tensor: (B, 4, h, w): the noise for models that predict epsilon,
            the velocity (arXiv 2202.00512, app. D) for v-prediction.

        Raises:
            ValueError: If the model predicts something else.
        """
        kind = self.scheduler.config.prediction_type
        if kind == 'epsilon':
            return noise
        if kind == 'v_prediction':
            return self.scheduler.get_velocity(latents, noise, timesteps)
        raise ValueError(
            "The scheduler's `prediction_type` must be 'epsilon' or "
            f"'v_prediction' to train with, but {self.backbone!r} has "
            f'{kind!r}.'
        )

    def predict_noise(
        self, latents: Tensor, timesteps: Tensor, conditioning: Conditioning
    ) -> Tensor:
        """Runs the U-Net; gradients reach the conditioning.

        Args:
            latents (Tensor): Noised latents, (B, 4, h, w).
            timesteps (Tensor): One integer, or (B,).
            conditioning (Conditioning): Tokens (B, M, D).

        Returns:
            Tensor: (B, 4, h, w) fp32, the raw output: epsilon or v.
        """
        return self.unet(
            latents.to(self.dtype),
            timesteps,
            encoder_hidden_states=conditioning.tokens.to(self.dtype),
            return_dict=False,
        )[0].float()


def choose_backbone(pretrained: str, without_cuda: str | None) -> str:
    """Decides what this machine loads, and says so once.

    Args:
        pretrained (str): What the config names.
        without_cuda (str, optional): The substitute for machines with no CUDA
            device.

    Returns:
        str: One of the two.
    """
    if without_cuda is None or torch.cuda.is_available():
        return pretrained
    print_log(
        f'No CUDA device: using {without_cuda!r} in place of {pretrained!r} '
        '(`without_cuda` of the config; None keeps the original).',
        logger='current',
        level=logging.INFO,
    )
    return without_cuda


def load_parts(
    backbone: str, dtype: torch.dtype, overrides: dict[str, dict | None]
) -> dict[str, Any]:
    """Loads the five parts that editing needs, and nothing else.

    Args:
        backbone (str): As ``pretrained`` of :class:`StableDiffusion`.
        dtype (torch.dtype): Precision of the weights.
        overrides (dict): Per part None or a dict, see
            :class:`StableDiffusion`.

    Returns:
        dict: 'unet', 'vae', 'text_encoder', 'tokenizer' and 'scheduler'.

    Raises:
        FileNotFoundError: If a local path does not exist.
        ValueError: If something cannot be loaded.
    """
    path = Path(BUNDLED.get(backbone, backbone)).expanduser()
    single_file = path.suffix in SINGLE_FILE_SUFFIXES
    looks_local = (
        backbone in BUNDLED
        or single_file
        or path.is_absolute()
        or backbone.startswith(('.', '~'))
        or backbone.count('/') > 1
    )
    if looks_local and not path.exists():
        raise FileNotFoundError(
            f'`pretrained` names a local file or folder, {str(path)!r}, '
            f'which does not exist. {_REMEDIES}'
        )
    if path.is_dir() and not (path / 'model_index.json').is_file():
        raise FileNotFoundError(
            f'The folder {str(path)!r} is not in the diffusers layout: it '
            f'has no model_index.json. {_REMEDIES}'
        )
    source = str(path) if path.exists() else backbone
    with _quiet():
        parts = _load_single_file(source, dtype) if single_file else {}
        for name in PARTS:
            override = overrides.get(name)
            if name not in parts or (override and 'pretrained' in override):
                parts[name] = _load_part(name, source, dtype, override)
        parts['scheduler'] = _as_ddim(
            parts['scheduler'], overrides.get('scheduler')
        )
    return parts


_REMEDIES = (
    'Give a local folder in the diffusers layout (with model_index.json), a '
    "single .safetensors or .ckpt file, a hub id, or 'mini-sd', the small "
    'model that comes with this package.'
)


def _load_error(source: str, what: str, error: Exception) -> ValueError:
    """Words a failure to load, with what to do about it.

    Args:
        source (str): What was to be loaded.
        what (str): Which part of it.
        error (Exception): What went wrong.

    Returns:
        ValueError: To be raised from ``error``.
    """
    lines = str(error).strip().splitlines()
    reason = lines[0] if lines else type(error).__name__
    return ValueError(
        f'Cannot load {what} of {source!r}: {reason}\n'
        'If it is a hub id, check its spelling, the network connection and '
        f'whether its licence has to be accepted first. {_REMEDIES}'
    )


def _load_part(
    name: str, source: str, dtype: torch.dtype, override: dict | None
) -> Any:
    """Loads one part from a folder or the hub.

    Args:
        name (str): The part, also its default subfolder.
        source (str): Folder or hub id of the whole model.
        dtype (torch.dtype): Precision of the weights.
        override (dict, optional): See :class:`StableDiffusion`.

    Returns:
        The part; for 'scheduler' its config.

    Raises:
        ValueError: If it cannot be loaded.
    """
    import diffusers
    import transformers

    options = dict(override or {})
    source = str(options.pop('pretrained', source))
    subfolder = options.pop('subfolder', name)
    try:
        if name == 'scheduler':  # the rest of the options is its config
            return diffusers.DDIMScheduler.load_config(
                source, subfolder=subfolder
            )
        if name == 'tokenizer':
            return transformers.CLIPTokenizer.from_pretrained(
                source, subfolder=subfolder
            )
        if name == 'text_encoder':
            load = transformers.CLIPTextModel.from_pretrained
            options['dtype'] = dtype
        elif name == 'vae':
            load = diffusers.AutoencoderKL.from_pretrained
            options['torch_dtype'] = dtype
        else:
            load = diffusers.UNet2DConditionModel.from_pretrained
            options['torch_dtype'] = dtype
        try:
            return load(source, subfolder=subfolder, **options)
        except OSError:
            if 'variant' in options:
                raise
            # Some folders have half-precision files only, under names of
            # their own. Without those too, the first error tells more.
            with contextlib.suppress(OSError, ValueError):
                return load(
                    source, subfolder=subfolder, variant='fp16', **options
                )
            raise
    except Exception as error:
        raise _load_error(source, subfolder, error) from error


def _load_single_file(source: str, dtype: torch.dtype) -> dict[str, Any]:
    """Loads all parts from one checkpoint file, tensors only.

    The configs of the parts come from the folder of the file when that is a
    diffusers folder too, as in published repositories; otherwise diffusers
    recognises the model and fetches its small config files from the hub.

    Args:
        source (str): Path of a ``.safetensors`` or ``.ckpt`` file.
        dtype (torch.dtype): Precision of the weights.

    Returns:
        dict: As :func:`load_parts`.

    Raises:
        ValueError: If it cannot be loaded.
    """
    import diffusers

    folder = Path(source).resolve().parent
    options = {}
    if (folder / 'model_index.json').is_file():
        options['config'] = str(folder)
    try:
        pipeline = diffusers.StableDiffusionPipeline.from_single_file(
            source,
            torch_dtype=dtype,
            safety_checker=None,
            feature_extractor=None,
            **options,
        )
    except Exception as error:
        raise _load_error(source, 'the parts', error) from error
    return dict(
        unet=pipeline.unet,
        vae=pipeline.vae,
        text_encoder=pipeline.text_encoder,
        tokenizer=pipeline.tokenizer,
        scheduler=dict(pipeline.scheduler.config),
    )


def _as_ddim(config: dict, override: dict | None) -> Any:
    """Makes the DDIM scheduler of a scheduler config of any class.

    Args:
        config (dict): The config of the model's folder.
        override (dict, optional): Values to change, and where it came from.

    Returns:
        diffusers.DDIMScheduler: Ready for training and sampling.
    """
    import diffusers

    changes = {
        key: value
        for key, value in (override or {}).items()
        if key not in ('pretrained', 'subfolder')
    }
    # Latents are not bounded by [-1, 1]; the pipelines never clip them.
    merged = {**SCHEDULER_DEFAULTS, **config, 'clip_sample': False, **changes}
    return diffusers.DDIMScheduler.from_config(merged)


def _check_vocabulary(
    backbone: str, tokenizer: Any, text_encoder: Any
) -> None:
    """Refuses a tokenizer that does not belong to the text encoder.

    An empty or wrong tokenizer folder gives a tokenizer of two tokens without
    a word, and every text would then mean the same.

    Args:
        backbone (str): For the message.
        tokenizer: A CLIP tokenizer.
        text_encoder: A CLIP text model.

    Raises:
        ValueError: If the sizes of their vocabularies differ.
    """
    wanted = text_encoder.config.vocab_size
    if len(tokenizer) != wanted:
        raise ValueError(
            f'The tokenizer of {backbone!r} has {len(tokenizer)} tokens, but '
            f'its text encoder knows {wanted}. The tokenizer folder is '
            f'missing, empty or of another model. {_REMEDIES}'
        )


@contextlib.contextmanager
def _no_autocast(device: torch.device) -> Iterator[None]:
    """Runs frozen parts in their own precision, also under ``--amp``.

    Args:
        device (torch.device): Where they run.

    Yields:
        None
    """
    with torch.autocast(device.type, enabled=False):
        yield


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences the loading bars and advice of the libraries for a while.

    Download bars of the hub stay: gigabytes deserve one.

    Yields:
        None
    """
    import diffusers.utils.logging as diffusers_logging
    import transformers.utils.logging as transformers_logging

    libraries = (diffusers_logging, transformers_logging)
    levels = [library.get_verbosity() for library in libraries]
    bars = [library.is_progress_bar_enabled() for library in libraries]
    for library in libraries:
        library.set_verbosity_error()
        library.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        for library, level, bar in zip(libraries, levels, bars, strict=True):
            library.set_verbosity(level)
            if bar:
                library.enable_progress_bar()
