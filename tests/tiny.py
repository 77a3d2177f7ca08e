"""Tiny model folders with random weights, one per family.

Real classes of diffusers and transformers in the real folder layout, only
small: what holds for them holds for the models of their family.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DiffusionPipeline,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    LDMTextToImagePipeline,
    PNDMScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion import (
    LDMBertConfig,
    LDMBertModel,
)
from mmengine.logging import MessageHub
from mmengine.structures import BaseDataElement
from torch import Tensor
from transformers import (
    BertTokenizer,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5TokenizerFast,
)
from transformers.utils import logging as transformers_logging

from mmhiper.models import Editor, HiPer, TextualInversion
from mmhiper.registry import MODELS


@dataclass(frozen=True)
class Family:
    """What tells the families of Stable Diffusion apart."""

    widths: tuple[int, ...]  # of the text encoders
    prediction_type: str
    scheduler: type

    @property
    def width(self) -> int:
        """Of the conditioning, D."""
        return sum(self.widths)


FAMILIES = {
    # SD 1.x: 768 wide, predicts noise, folders name the PNDM scheduler
    'sd1': Family((32,), 'epsilon', PNDMScheduler),
    # SD 2.x at 768 pixels: 1024 wide, predicts velocity
    'sd2': Family((64,), 'v_prediction', DDIMScheduler),
    # SDXL: 768 + 1280 wide, a pooled text, sizes besides the timestep
    'sdxl': Family((32, 48), 'epsilon', EulerDiscreteScheduler),
}

_SCHEDULE = dict(
    beta_start=0.00085,
    beta_end=0.012,
    beta_schedule='scaled_linear',
    set_alpha_to_one=False,
    steps_offset=1,
)
POOLED = 40  # width of SDXL's pooled text


def _vocabulary() -> dict[str, int]:
    """Every byte, alone and as the end of a word, and the two marks."""
    # the byte-level alphabet of CLIP: printable bytes stand for themselves,
    # the others for code points from 256 on
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    moved = range(256, 256 + 256 - len(kept))
    letters = [chr(code) for code in [*kept, *moved]]
    tokens = [*letters, *(letter + '</w>' for letter in letters)]
    tokens += ['<|startoftext|>', '<|endoftext|>']
    return {token: number for number, token in enumerate(tokens)}


def _text_encoder(width: int, size: int, projection: int | None):
    """A CLIP text model, the second one of SDXL with a projection."""
    config = CLIPTextConfig(
        vocab_size=size,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=4,
        projection_dim=projection or width,
        bos_token_id=size - 2,
        eos_token_id=size - 1,
        pad_token_id=size - 1,
    )
    kind = CLIPTextModelWithProjection if projection else CLIPTextModel
    return kind(config)


def _unet(**options) -> UNet2DConditionModel:
    """A U-Net that listens to the text."""
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        attention_head_dim=4,
        down_block_types=('DownBlock2D', 'CrossAttnDownBlock2D'),
        up_block_types=('CrossAttnUpBlock2D', 'UpBlock2D'),
        **options,
    )
    # random weights hardly listen to the text; these do
    for name, weight in unet.named_parameters():
        if 'attn2' in name:
            weight.data.mul_(8)
    return unet


def _autoencoder(latent_channels: int = 4, **options) -> AutoencoderKL:
    """Eight pixels per latent along each side."""
    return AutoencoderKL(
        sample_size=64,
        block_out_channels=(4, 4, 8, 8),
        down_block_types=('DownEncoderBlock2D',) * 4,
        up_block_types=('UpDecoderBlock2D',) * 4,
        norm_num_groups=2,
        latent_channels=latent_channels,
        **options,
    )


def _save(pipeline: DiffusionPipeline, folder: Path | str) -> None:
    """Writes a pipeline without a progress bar."""
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    pipeline.save_pretrained(folder)
    if bars:
        transformers_logging.enable_progress_bar()


def build_tiny_folder(family: str, folder: Path | str) -> Path:
    """Writes a model of one family in the diffusers layout.

    Args:
        family (str): 'sd1', 'sd2' or 'sdxl'.
        folder (Path or str): Where to.

    Returns:
        Path: The folder.
    """
    traits = FAMILIES[family]
    vocabulary = _vocabulary()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        sizes = {}
        if len(traits.widths) > 1:
            sizes = dict(
                addition_embed_type='text_time',
                addition_time_embed_dim=8,  # of each of six numbers
                projection_class_embeddings_input_dim=6 * 8 + POOLED,
            )
        unet = _unet(cross_attention_dim=traits.width, **sizes)
        vae = _autoencoder()
        size = len(vocabulary)
        texts = [_text_encoder(traits.widths[0], size, None)]
        texts += [_text_encoder(w, size, POOLED) for w in traits.widths[1:]]
    tokenizers = [
        CLIPTokenizer(
            vocab=vocabulary, merges=[], model_max_length=77, **padding
        )
        for padding in ({}, dict(pad_token='!'))[: len(texts)]
    ]
    scheduler_config = dict(_SCHEDULE, prediction_type=traits.prediction_type)
    if traits.scheduler is DDIMScheduler:
        scheduler_config['clip_sample'] = False
    if traits.scheduler is EulerDiscreteScheduler:
        del scheduler_config['set_alpha_to_one']
        scheduler_config['timestep_spacing'] = 'leading'
    parts = dict(vae=vae, unet=unet)
    parts['scheduler'] = traits.scheduler(**scheduler_config)
    for number, suffix in enumerate(('', '_2')[: len(texts)]):
        parts[f'text_encoder{suffix}'] = texts[number]
        parts[f'tokenizer{suffix}'] = tokenizers[number]
    if len(texts) > 1:
        pipeline = StableDiffusionXLPipeline(**parts)
    else:
        pipeline = StableDiffusionPipeline(
            **parts,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    _save(pipeline, folder)
    return Path(folder)


def _bert_vocabulary() -> dict[str, int]:
    """The marks, every letter as a word and inside of one, some words."""
    letters = [chr(code) for code in range(33, 127) if not chr(code).isupper()]
    inside = [f'##{letter}' for letter in letters if letter.isalnum()]
    marks = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]']
    tokens = [*marks, *letters, *inside, 'dog', 'cat', 'photo']
    return {token: number for number, token in enumerate(tokens)}


def build_tiny_ldm(folder: Path | str) -> Path:
    """Writes a text-to-image model of latent diffusion, as published.

    Args:
        folder (Path or str): Where to.

    Returns:
        Path: The folder.
    """
    vocabulary = _bert_vocabulary()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        unet = _unet(cross_attention_dim=48)
        vae = _autoencoder()
        bert = LDMBertModel(
            LDMBertConfig(
                vocab_size=len(vocabulary),
                d_model=48,
                encoder_layers=2,
                encoder_ffn_dim=96,
                encoder_attention_heads=2,
                head_dim=8,
                init_std=0.5,  # else all texts are nearly the same
            )
        )
    pipeline = LDMTextToImagePipeline(
        vqvae=vae,
        bert=bert,
        # which says 512 as published, and the model takes 77
        tokenizer=BertTokenizer(vocab=vocabulary, model_max_length=512),
        unet=unet,
        scheduler=DDIMScheduler(**_SCHEDULE, clip_sample=False),
    )
    _save(pipeline, folder)
    return Path(folder)


def _t5_vocabulary() -> list[tuple[str, float]]:
    """Pieces and their scores: the marks, every letter, a few words."""
    letters = [chr(code) for code in range(33, 127)]
    words = ['\u2581dog', '\u2581cat', '\u2581x', '\u2581a']
    marks = ['<pad>', '</s>', '<unk>']
    pieces = [*marks, '\u2581', *letters, *words]
    return [
        (piece, 0.0 if piece in marks else -1.0 - (len(piece) == 1))
        for piece in pieces
    ]


def build_tiny_sd3(folder: Path | str, dual: bool, t5: bool = True) -> Path:
    """Writes a Stable Diffusion 3.

    Args:
        folder (Path or str): Where to.
        dual (bool): Whether it has what 3.5 medium added: a second attention
            to the picture, and normalised queries and keys.
        t5 (bool): Whether it has its third text encoder.

    Returns:
        Path: The folder.
    """
    vocabulary, t5_vocabulary = _vocabulary(), _t5_vocabulary()
    t5_tokenizer = T5TokenizerFast(vocab=t5_vocabulary, extra_ids=0)
    size = len(vocabulary)
    options = dict(dual_attention_layers=(0,), qk_norm='rms_norm')
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformer = SD3Transformer2DModel(
            sample_size=8,
            patch_size=2,
            in_channels=16,
            out_channels=16,
            num_layers=2,
            attention_head_dim=8,
            num_attention_heads=4,
            joint_attention_dim=96,
            caption_projection_dim=32,
            pooled_projection_dim=24 + POOLED,
            pos_embed_max_size=16,
            **(options if dual else {}),
        )
        # random weights hardly listen to the text; these do
        transformer.context_embedder.weight.data.mul_(8)
        parts = dict(
            transformer=transformer,
            vae=_autoencoder(
                latent_channels=16,
                scaling_factor=1.5305,
                shift_factor=0.0609,
                use_quant_conv=False,
                use_post_quant_conv=False,
            ),
            text_encoder=_text_encoder(32, size, 24),
            text_encoder_2=_text_encoder(48, size, POOLED),
            text_encoder_3=T5EncoderModel(
                T5Config(
                    vocab_size=128,  # padded, as published
                    d_model=96,
                    d_kv=8,
                    d_ff=64,
                    num_layers=2,
                    num_heads=4,
                )
            ),
        )
    assert len(t5_tokenizer) < 128
    parts['tokenizer_3'] = t5_tokenizer
    if not t5:
        parts.update(text_encoder_3=None, tokenizer_3=None)
    for suffix, padding in (('', {}), ('_2', dict(pad_token='!'))):
        parts[f'tokenizer{suffix}'] = CLIPTokenizer(
            vocab=vocabulary, merges=[], model_max_length=77, **padding
        )
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    _save(StableDiffusion3Pipeline(scheduler=scheduler, **parts), folder)
    return Path(folder)


def pipeline_of(folder: Path | str) -> DiffusionPipeline:
    """The unmodified pipeline of a folder's family, on DDIM.

    Args:
        folder (Path or str): A model in the diffusers layout.

    Returns:
        DiffusionPipeline: Without a progress bar.
    """
    scheduler = DDIMScheduler.from_pretrained(
        folder,
        subfolder='scheduler',
        clip_sample=False,
        set_alpha_to_one=False,
    )
    return _quietly(folder, scheduler=scheduler)


def pipeline_of_flow(folder: Path | str, t5: bool = True) -> DiffusionPipeline:
    """The unmodified pipeline of a Stable Diffusion 3.

    Args:
        folder (Path or str): A model in the diffusers layout.
        t5 (bool): Whether it has its third text encoder.

    Returns:
        DiffusionPipeline: Without a progress bar.
    """
    if t5:
        return _quietly(folder)
    return _quietly(folder, text_encoder_3=None, tokenizer_3=None)


def _quietly(folder: Path | str, **parts) -> DiffusionPipeline:
    """Loads a pipeline without a progress bar, now and later."""
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    pipeline = DiffusionPipeline.from_pretrained(
        folder, torch_dtype=torch.get_default_dtype(), **parts
    )
    if bars:
        transformers_logging.enable_progress_bar()
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def make_hiper(folder: Path | str, **options) -> HiPer:
    """Builds the editor as a config would.

    Args:
        folder (Path or str): A tiny model.
        **options: Of ``HiPer``, over 'a dog' -> 'a cat' and N = 3.

    Returns:
        HiPer: The editor.
    """
    config = dict(
        type='mmhiper.HiPer',
        sd=dict(type='StableDiffusion', pretrained=str(folder)),
        source_text='a dog',
        target_text='a cat',
        n_hiper=3,
    )
    return MODELS.build({**config, **options})


def make_word(folder: Path | str, **options) -> TextualInversion:
    """Builds the editor as a config would.

    Args:
        folder (Path or str): A tiny model.
        **options: Of ``TextualInversion``, over ``<cat-toy>`` from the
            letter x.

    Returns:
        TextualInversion: The editor.
    """
    config = dict(
        type='mmhiper.TextualInversion',
        sd=dict(type='StableDiffusion', pretrained=str(folder)),
        placeholder_token='<cat-toy>',
        initialize_token='x',
    )
    return MODELS.build({**config, **options})


def randomise(editor: Editor, seed: int = 0) -> None:
    """Gives an editor an embedding as if it had learned.

    Args:
        editor (Editor): Changed in place.
        seed (int): The seed.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in editor.parameters():
            learned = weight + torch.randn(weight.shape, generator=generator)
            # what a file can hold, whatever the precision of the test
            weight.copy_(learned.to(torch.float32))


def picture(seed: int, size: int = 80) -> Tensor:
    """A random picture, another for each seed.

    Args:
        seed (int): The seed.
        size (int): Side in pixels.

    Returns:
        Tensor: (3, size, size) uint8.
    """
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(
        256, (3, size, size), generator=generator, dtype=torch.uint8
    )


def batch_of(pictures: list[Tensor], indices: list[int]) -> dict:
    """What the collate function hands to the preprocessor.

    Args:
        pictures (list[Tensor]): (3, H, H) uint8 each.
        indices (list[int]): Which source image each is.

    Returns:
        dict: 'inputs' and 'data_samples'.
    """
    samples = [
        BaseDataElement(metainfo=dict(image_index=index)) for index in indices
    ]
    return dict(inputs=pictures, data_samples=samples)


def at_step(iteration: int, seed: int = 0) -> None:
    """Tells the editor where the run is, as RuntimeInfoHook does.

    Args:
        iteration (int): From 0.
        seed (int): Of the run.
    """
    hub = MessageHub.get_current_instance()
    hub.update_info_dict(dict(seed=seed, iter=iteration))


def train(
    editor: HiPer,
    pictures: list[Tensor],
    iterations: int,
    seed: int = 0,
    first: int = 0,
) -> Tensor:
    """Trains with a plain loop, all pictures in each batch.

    Args:
        editor (HiPer): Changed in place.
        pictures (list[Tensor]): The K source images.
        iterations (int): How many.
        seed (int): Of the run.
        first (int): The first iteration.

    Returns:
        Tensor: The learned tails, (K, N, D).
    """
    optimizer = torch.optim.Adam(editor.parameters(), lr=5e-3)
    indices = list(range(len(pictures)))
    for iteration in range(first, first + iterations):
        at_step(iteration, seed)
        data = editor.data_preprocessor(batch_of(pictures, indices), True)
        loss, _ = editor.parse_losses(editor(**data, mode='loss'))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return editor.embedding.tail.detach().clone()
