"""The bundled model: a member of the family that knows its world."""

from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image
from tiny import at_step, batch_of, make_hiper, train
from tolerances import EXACT
from torch import Tensor

from mmhiper.models.backbones import StableDiffusion
from mmhiper.models.guidance import FILE, read_scale
from mmhiper.models.loading import BUNDLED

FOLDER = BUNDLED['mini-sd']
DOG = Path(__file__).parents[2] / 'data' / 'dog.png'


@pytest.fixture(scope='module')
def mini() -> StableDiffusion:
    return StableDiffusion('mini-sd')


def dog() -> Tensor:
    """data/dog.png, (3, 512, 512) uint8."""
    return torch.from_numpy(np.array(Image.open(DOG))).permute(2, 0, 1)


def test_the_folder_is_small_plain_and_explained():
    files = [file for file in FOLDER.rglob('*') if file.is_file()]
    assert sum(file.stat().st_size for file in files) <= 24e6
    suffixes = {file.suffix for file in files}
    assert suffixes <= {'.json', '.txt', '.safetensors', '.md'}
    parts = {path.name for path in FOLDER.iterdir() if path.is_dir()}
    assert parts == {
        'unet',
        'vae',
        'text_encoder',
        'tokenizer',
        'scheduler',
        'image_encoder',
        'feature_extractor',
    }
    assert 'PSNR' in (FOLDER / 'README.md').read_text()


@pytest.mark.usefixtures('float64')
def test_an_unmodified_pipeline_draws_the_same():
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(
        FOLDER, safety_checker=None, torch_dtype=torch.float64
    )
    pipe.scheduler = diffusers.DDIMScheduler.from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    latents = torch.randn(
        1, 4, 16, 16, generator=torch.Generator().manual_seed(0)
    )
    editor = make_hiper('mini-sd', source_text='a dog', target_text=None)
    theirs = pipe(
        'a dog',
        num_inference_steps=5,
        guidance_scale=editor.default_guidance,
        latents=latents,
        output_type='np',
    ).images[0]
    ours = editor.infer(
        'a dog',
        num_inference_steps=5,
        latents=latents,
        strength=1.0,  # nothing is learned: the plain text
        show_progress=False,
        return_type='numpy',
    )['samples'][0]
    np.testing.assert_allclose(
        (ours.transpose(1, 2, 0) + 1) / 2, theirs, **EXACT
    )


def test_its_folder_says_its_own_guidance(mini):
    assert mini.guidance_scale == read_scale(FOLDER / FILE) != 7.5
    card = (FOLDER / 'README.md').read_text()
    assert f'drawn at guidance {mini.guidance_scale:g} unless' in card


def test_the_image_encoder_has_the_width_of_the_text(mini):
    import transformers

    encoder = transformers.CLIPVisionModelWithProjection.from_pretrained(
        FOLDER, subfolder='image_encoder'
    )
    assert encoder.config.hidden_size == mini.unet.config.cross_attention_dim


def test_colours_follow_the_text(mini):
    editor = make_hiper(
        'mini-sd', sd=mini, source_text='a cat', target_text=None
    )
    words = ('black', 'white')
    cond = editor.encode_content(
        [f'a {w} cat sitting in a room' for w in words]
    )
    pixels = editor.sample(cond, num_inference_steps=15, seed=3)
    black, white = pixels[:, :, 64:112, 48:80].mean((1, 2, 3)).tolist()
    assert white - black > 0.4  # of the range [-1, 1]


def test_learning_lowers_the_loss_on_fixed_noise(mini):
    editor = make_hiper(
        'mini-sd', sd=mini, source_text='a standing dog', n_hiper=5
    )
    data = editor.data_preprocessor(batch_of([dog()], [0]), True)

    def fixed_loss() -> float:
        losses = []
        for step in range(12):
            at_step(step, seed=99)
            with torch.no_grad():
                losses.append(editor.loss(**data)['loss'].item())
        return float(np.mean(losses))

    before = fixed_loss()
    train(editor, [dog()], 200)
    assert fixed_loss() < 0.95 * before
