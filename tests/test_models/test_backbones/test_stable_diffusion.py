"""The frozen model: what is loaded, and that it is what diffusers has."""

import json
import shutil

import pytest
import torch
from mmengine.logging import MMLogger
from safetensors.torch import load_file, save_file
from single_file import original_layout
from tiny import FAMILIES, pipeline_of
from tolerances import EPS, EXACT

from mmhiper.models import Conditioning, StableDiffusion
from mmhiper.utils.errors import UserError


def noise(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    torch.testing.assert_close(ours, theirs, **EXACT)


# ------------------------------------------------------------------ the parts
@pytest.mark.usefixtures('float64')
def test_texts_are_encoded_as_by_the_pipeline(tiny_folder):
    sd = StableDiffusion(str(tiny_folder))
    # the two tokenizers of SDXL take an exclamation mark differently
    texts = ['a dog', '', 'x' * 200, 'what a dog!']

    ours = sd.encode_text(texts)
    tokens, _, *pooled = pipeline_of(tiny_folder).encode_prompt(
        texts,
        device='cpu',
        num_images_per_prompt=1,
        do_classifier_free_guidance=False,
    )

    close(ours.tokens, tokens)
    if pooled:
        close(ours.pooled, pooled[0])
    else:
        assert ours.pooled is None


def test_a_limit_cuts_the_text_and_not_the_padding(tiny_sd1):
    sd = StableDiffusion(str(tiny_sd1))

    cut = sd.encode_text(['abcdefgh'], free=77 - 1 - 3)
    short = sd.encode_text(['abc '])

    assert cut.tokens.shape == (1, 77, 32)
    # 'abc' inside a word and at its end are other tokens: compare the first
    # two letters, and with causal attention what comes after differs
    assert torch.equal(cut.tokens[:, :3], short.tokens[:, :3])
    nothing = sd.encode_text(['abcdefgh'], free=76)
    assert torch.equal(nothing.tokens, sd.encode_text(['']).tokens)


@pytest.mark.usefixtures('float64')
def test_images_become_scaled_latents_and_back(tiny_sd1):
    sd = StableDiffusion(str(tiny_sd1))
    pixels = noise(0, 2, 3, 64, 64).clamp(-1, 1)

    mean = sd.encode_image(pixels)
    sample = sd.encode_image(pixels, torch.Generator().manual_seed(1))
    again = sd.encode_image(pixels, torch.Generator().manual_seed(1))

    vae = pipeline_of(tiny_sd1).vae
    with torch.no_grad():
        posterior = vae.encode(pixels).latent_dist
        factor = vae.config.scaling_factor
        close(mean, posterior.mean * factor)
        close(sd.decode(mean), vae.decode(mean / factor).sample)
    assert torch.equal(sample, again)
    # a sample of the posterior, not the mean with something else
    unit = (sample - mean) / factor / posterior.std
    assert 0.8 < unit.std() < 1.2


@pytest.mark.usefixtures('float64')
def test_noising_and_targets_are_those_of_the_papers(tiny_folder):
    sd = StableDiffusion(str(tiny_folder))
    z, eps = noise(0, 2, 4, 8, 8), noise(1, 2, 4, 8, 8)
    t = torch.tensor([3, 900])

    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000).square()
    alphas = (1 - betas).cumprod(0)
    schedule = sd.scheduler.alphas_cumprod.double()
    # of single precision: each of up to 1000 factors adds its rounding
    torch.testing.assert_close(schedule, alphas, rtol=1000 * EPS, atol=0)
    alpha = schedule[t].reshape(2, 1, 1, 1)
    close(
        sd.process.add_noise(z, eps, t),
        alpha.sqrt() * z + (1 - alpha).sqrt() * eps,
    )
    velocity = alpha.sqrt() * eps - (1 - alpha).sqrt() * z
    expected = {'epsilon': eps, 'v_prediction': velocity}
    close(
        sd.process.target(z, eps, t),
        expected[sd.scheduler.config.prediction_type],
    )


def test_a_model_that_predicts_something_else_cannot_be_trained(tiny_sd1):
    sd = StableDiffusion(
        str(tiny_sd1), scheduler=dict(prediction_type='sample')
    )
    z = noise(0, 1, 4, 8, 8)

    with pytest.raises(ValueError, match="'sample'"):
        sd.process.target(z, z, torch.tensor([3]))


def test_it_is_frozen_but_gradients_pass(tiny_sd1):
    sd = StableDiffusion(str(tiny_sd1))
    tokens = noise(0, 1, 77, 32).requires_grad_()

    sd.train()
    output = sd.predict(
        noise(1, 1, 4, 8, 8), torch.tensor(500), Conditioning(tokens)
    )
    output.square().mean().backward()

    assert tokens.grad.abs().max() > 0
    assert not any(module.training for module in sd.modules())
    weights = list(sd.parameters())
    assert len(weights) > 100
    assert not any(w.requires_grad or w.grad is not None for w in weights)


def test_properties_come_from_the_configs(tiny_folder):
    sd = StableDiffusion(str(tiny_folder))

    assert sd.backbone == str(tiny_folder)
    assert (sd.image_size, sd.vae_factor, sd.num_positions) == (64, 8, 77)
    assert sd.latent_shape(64, 32) == (4, 8, 4)
    assert sd.device.type == 'cpu'
    assert sd.count_tokens('abc') == 3


@pytest.mark.usefixtures('has_bf16')
@pytest.mark.parametrize('dtype', ['bf16', 'fp16'])
def test_every_part_has_the_precision_and_results_are_fp32(tiny_sd1, dtype):
    sd = StableDiffusion(str(tiny_sd1), dtype=dtype)
    wanted = dict(bf16=torch.bfloat16, fp16=torch.float16)[dtype]

    assert {w.dtype for w in sd.parameters()} == {wanted}
    text = sd.encode_text(['a dog'])
    latents = sd.encode_image(noise(0, 1, 3, 64, 64))
    output = sd.predict(latents, torch.tensor(500), text)
    pixels = sd.decode(latents)
    for result in (text.tokens, latents, output, pixels):
        assert result.dtype == torch.float32
        assert result.isfinite().all()


def test_autocast_does_not_reach_the_encoders(tiny_sd1):
    sd = StableDiffusion(str(tiny_sd1))
    plain = sd.encode_text(['a dog']).tokens

    with torch.autocast('cpu', dtype=torch.bfloat16):
        under_autocast = sd.encode_text(['a dog']).tokens

    assert torch.equal(plain, under_autocast)


# ---------------------------------------------------------------- the loading
def test_the_scheduler_is_ddim_with_the_config_of_the_folder(tiny_folder):
    scheduler = StableDiffusion(str(tiny_folder)).scheduler
    config = json.loads(
        (tiny_folder / 'scheduler/scheduler_config.json').read_text()
    )

    assert type(scheduler).__name__ == 'DDIMScheduler'
    for name in ('beta_start', 'beta_end', 'steps_offset', 'prediction_type'):
        assert scheduler.config[name] == config[name]
    assert scheduler.config.clip_sample is False


def test_single_values_of_the_scheduler_can_be_changed(tiny_sd1):
    scheduler = StableDiffusion(
        str(tiny_sd1), scheduler=dict(steps_offset=0)
    ).scheduler

    assert scheduler.config.steps_offset == 0
    assert scheduler.config.beta_end == 0.012


def test_single_parts_can_come_from_elsewhere(tiny_sd1, tmp_path):
    other = tmp_path / 'other'
    shutil.copytree(tiny_sd1 / 'unet', other / 'fine-tuned')
    path = other / 'fine-tuned/diffusion_pytorch_model.safetensors'
    weights = load_file(path)
    weights['conv_out.bias'] += 1
    save_file(weights, path)

    sd = StableDiffusion(
        str(tiny_sd1),
        unet=dict(pretrained=str(other), subfolder='fine-tuned'),
    )
    plain = StableDiffusion(str(tiny_sd1))

    shift = sd.unet.conv_out.bias - plain.unet.conv_out.bias
    # of a bias below 1 in single precision
    torch.testing.assert_close(shift, torch.ones(4), rtol=0, atol=2 * EPS)
    assert sd.backbone == str(tiny_sd1)


def test_half_precision_files_load_under_either_name(tiny_sd1, tmp_path):
    folder = tmp_path / 'half'
    shutil.copytree(tiny_sd1, folder)
    for path in folder.glob('*/*.safetensors'):
        half = {name: w.half() for name, w in load_file(path).items()}
        save_file(half, path, metadata=dict(format='pt'))
    named = tmp_path / 'variant'
    shutil.copytree(folder, named)
    for path in named.glob('*/*.safetensors'):
        path.rename(path.with_suffix('.fp16.safetensors'))

    one, two = StableDiffusion(str(folder)), StableDiffusion(str(named))

    assert {w.dtype for w in one.parameters()} == {torch.float32}
    assert torch.equal(
        one.encode_text(['a dog']).tokens, two.encode_text(['a dog']).tokens
    )
    assert torch.equal(one.unet.conv_in.weight, two.unet.conv_in.weight)


@pytest.mark.usefixtures('float64')
@pytest.mark.parametrize('suffix', ['.safetensors', '.ckpt'])
def test_single_files_are_the_same_model(tiny_sd1, tmp_path, suffix):
    # as in published repositories: the file at the root of a diffusers
    # folder, whose small config files say how to read it
    shutil.copytree(
        tiny_sd1,
        tmp_path,
        dirs_exist_ok=True,
        ignore=shutil.ignore_patterns('*.safetensors'),
    )
    path = tmp_path / f'model{suffix}'
    weights = original_layout(tiny_sd1)
    if suffix == '.ckpt':
        torch.save(dict(state_dict=weights), path)
    else:
        save_file({k: w.contiguous() for k, w in weights.items()}, path)

    sd, plain = StableDiffusion(str(path)), StableDiffusion(str(tiny_sd1))

    assert sd.backbone == str(path)
    text, same = sd.encode_text(['a dog']), plain.encode_text(['a dog'])
    close(text.tokens, same.tokens)
    z, t = noise(0, 1, 4, 8, 8), torch.tensor(300)
    close(sd.predict(z, t, text), plain.predict(z, t, same))
    close(sd.decode(z), plain.decode(z))
    assert sd.scheduler.config.steps_offset == 1


def test_a_single_file_of_sdxl_is_refused(tiny_sdxl, tmp_path):
    shutil.copytree(
        tiny_sdxl,
        tmp_path,
        dirs_exist_ok=True,
        ignore=shutil.ignore_patterns('*.safetensors'),
    )
    path = tmp_path / 'model.safetensors'
    weights = original_layout(tiny_sdxl)
    save_file({k: w.contiguous() for k, w in weights.items()}, path)

    with pytest.raises(ValueError, match='XL cannot be read from the single'):
        StableDiffusion(str(path))


def test_other_families_are_refused(tiny_sd1, tmp_path):
    folder = tmp_path / 'model'
    shutil.copytree(tiny_sd1, folder)
    path = folder / 'model_index.json'
    index = json.loads(path.read_text())
    index['_class_name'] = 'SomeOtherPipeline'
    index['text_encoder_2'] = ['transformers', 'T5EncoderModel']
    path.write_text(json.dumps(index))

    with pytest.raises(ValueError, match=r'2\.x .* XL .*SomeOtherPipeline'):
        StableDiffusion(str(folder))


@pytest.mark.usefixtures('float64')
def test_a_batch_is_decoded_with_the_memory_of_one_picture(tiny_sd1):
    sd = StableDiffusion(str(tiny_sd1))
    latents = noise(0, 3, *sd.latent_shape(64, 64))
    with torch.no_grad():
        together = sd.vae.decode(latents / sd.vae.config.scaling_factor).sample
    sizes = []
    sd.vae.decoder.register_forward_hook(
        lambda module, args, output: sizes.append(len(output))
    )

    pixels = sd.decode(latents)

    assert sizes == [1, 1, 1]
    close(pixels, together)


def test_sdxl_decodes_in_full_precision_where_half_overflows(tiny_sdxl):
    sd = StableDiffusion(str(tiny_sdxl), dtype='fp16')

    assert {w.dtype for w in sd.unet.parameters()} == {torch.float16}
    assert {w.dtype for w in sd.vae.parameters()} == {torch.float32}
    assert sd.decode(noise(0, 1, 4, 8, 8)).isfinite().all()


@pytest.mark.parametrize(
    ('file', 'content'),
    [
        ('model_index.json', b'{'),
        ('model_index.json', b'[1]'),
        ('model_index.json', b'{"unet": [], "vae": 3}'),
        ('model_index.json', b'[' * 10**5),
        ('unet/config.json', b'\xff\xfe'),
        ('unet/config.json', b'[]'),
        ('unet/config.json', b'{"block_out_channels": "x"}'),
        ('unet/diffusion_pytorch_model.safetensors', b'\0' * 50),
        ('vae/config.json', b'null'),
        ('text_encoder/config.json', b'{"hidden_size": -1}'),
        ('text_encoder/model.safetensors', b''),
        ('tokenizer/tokenizer_config.json', b'{'),
        ('tokenizer/tokenizer.json', b'{"version": 3}'),
        ('tokenizer/vocab.json', b'\0'),
        ('scheduler/scheduler_config.json', b'3'),
        ('scheduler/scheduler_config.json', b'{"num_train_timesteps": 1e99}'),
        ('scheduler/scheduler_config.json', b'{"beta_start": "x"}'),
    ],
)
def test_a_damaged_folder_is_told_in_one_line(
    tiny_sd1, tmp_path, file, content
):
    shutil.copytree(tiny_sd1, tmp_path, dirs_exist_ok=True)
    (tmp_path / file).write_bytes(content)
    if file.endswith('vocab.json'):  # else it is not read
        (tmp_path / 'tokenizer/tokenizer.json').unlink()

    with pytest.raises(UserError) as error:
        StableDiffusion(str(tmp_path))

    assert str(tmp_path) in str(error.value)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize('text', ['a \ud800 dog', '\udcff'])
def test_half_a_character_is_refused(tiny_sd1, text):
    with pytest.raises(UserError, match='half a character'):
        StableDiffusion(str(tiny_sd1)).encode_text([text])


class Rogue:
    """Runs code when it is unpickled."""

    def __reduce__(self):
        return (print, ('unpickled!',))


def test_a_ckpt_that_needs_more_than_tensors_is_refused(
    tiny_sd1, tmp_path, capfd
):
    shutil.copy(tiny_sd1 / 'model_index.json', tmp_path)
    path = tmp_path / 'rogue.ckpt'
    torch.save(dict(state_dict={'a': torch.zeros(1)}, rogue=Rogue()), path)

    with pytest.raises(ValueError, match='Cannot load') as error:
        StableDiffusion(str(path))

    assert 'mini-sd' in str(error.value)
    assert 'unpickled!' not in capfd.readouterr().out


def test_pointers_of_git_lfs_in_place_of_weights(tiny_sd1, tmp_path):
    # as a clone has them where Git LFS is not installed
    pointer = 'version https://git-lfs.github.com/spec/v1\noid sha256:0\n'
    folder = tmp_path / 'model'
    shutil.copytree(tiny_sd1, folder)
    (weights,) = (folder / 'vae').glob('*.safetensors')
    weights.write_text(pointer)
    single = tmp_path / 'model.safetensors'
    single.write_text(pointer)

    for path in (folder, single):
        with pytest.raises(ValueError, match=r'pointer of Git LFS.*lfs pull'):
            StableDiffusion(str(path))


def test_only_what_is_needed_is_read(tiny_sd1, tmp_path):
    folder = tmp_path / 'model'
    shutil.copytree(tiny_sd1, folder)
    index = json.loads((folder / 'model_index.json').read_text())
    index['safety_checker'] = ['diffusers', 'StableDiffusionSafetyChecker']
    index['image_encoder'] = ['transformers', 'CLIPVisionModelWithProjection']
    (folder / 'model_index.json').write_text(json.dumps(index))

    StableDiffusion(str(folder))  # neither of the two folders exists


def test_the_substitute_is_used_and_named_without_cuda(
    tiny_sd1, monkeypatch, tmp_path
):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    log = tmp_path / 'log.txt'
    MMLogger.get_instance(str(tmp_path), log_file=str(log))

    sd = StableDiffusion('owner/large', without_cuda=str(tiny_sd1))

    assert sd.backbone == str(tiny_sd1)
    (line,) = log.read_text().splitlines()
    assert f"using '{tiny_sd1}' in place of 'owner/large'" in line


def test_the_substitute_is_not_used_with_cuda(tiny_sd1, monkeypatch):
    cuda = torch.device('cuda')
    monkeypatch.setattr('mmhiper.models.loading.accelerator', lambda: cuda)
    monkeypatch.setattr('mmhiper.models.loading.lacks_room', lambda *_: False)

    sd = StableDiffusion(str(tiny_sd1), without_cuda='mini-sd')

    assert sd.backbone == str(tiny_sd1)


def test_nothing_is_printed(tiny_sd1, capfd):
    StableDiffusion(str(tiny_sd1))

    assert capfd.readouterr() == ('', '')


# ----------------------------------------------------------------- the errors
@pytest.mark.parametrize(
    'name', ['/no/such/folder', './none', 'a/b/c', 'none.safetensors']
)
def test_a_missing_path_is_named_with_remedies(name):
    with pytest.raises(FileNotFoundError, match='does not exist') as error:
        StableDiffusion(name)

    assert 'diffusers layout' in str(error.value)
    assert "'mini-sd'" in str(error.value)


def test_a_hub_id_that_cannot_be_had(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match='Cannot load') as error:
        StableDiffusion('nobody/no-such-model')

    assert 'network' in str(error.value)
    assert "'mini-sd'" in str(error.value)


def test_a_folder_of_another_layout(tmp_path):
    with pytest.raises(FileNotFoundError, match='no model_index'):
        StableDiffusion(str(tmp_path))


def test_a_truncated_part_is_named(tiny_sd1, tmp_path):
    folder = tmp_path / 'model'
    shutil.copytree(tiny_sd1, folder)
    path = folder / 'unet/diffusion_pytorch_model.safetensors'
    path.write_bytes(path.read_bytes()[:1000])

    with pytest.raises(ValueError, match='Cannot load unet'):
        StableDiffusion(str(folder))


def test_a_tokenizer_that_does_not_belong(tiny_sd1, tmp_path):
    folder = tmp_path / 'model'
    shutil.copytree(tiny_sd1, folder)
    for path in (folder / 'tokenizer').iterdir():
        path.unlink()

    with pytest.raises(ValueError, match='tokenizer') as error:
        StableDiffusion(str(folder))

    assert str(folder) in str(error.value)


def test_an_unknown_precision(tiny_sd1):
    with pytest.raises(ValueError, match=r"'fp32'.*'int4'"):
        StableDiffusion(str(tiny_sd1), dtype='int4')


def test_the_families_differ_as_they_should(tiny_folder):
    sd = StableDiffusion(str(tiny_folder))
    family = 'sd2' if sd.unet.config.cross_attention_dim == 64 else 'sd1'

    assert (
        sd.scheduler.config.prediction_type == FAMILIES[family].prediction_type
    )
