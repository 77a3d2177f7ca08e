"""Stable Diffusion 3 and 3.5, against the unmodified pipeline."""

import shutil
from pathlib import Path

import pytest
import torch
from diffusers.training_utils import compute_density_for_timestep_sampling
from inversion import make as make_inversion
from safetensors.torch import load_file, save_file
from tiny import (
    at_step,
    batch_of,
    build_tiny_sd3,
    make_hiper,
    make_word,
    picture,
    pipeline_of_flow,
    randomise,
    train,
)
from tolerances import EPS, EXACT

import mmhiper
from mmhiper.apis import load_editor
from mmhiper.io import read_token_file
from mmhiper.io.export import write_export
from mmhiper.models import Conditioning, StableDiffusion
from mmhiper.models.backbones import Flow, StableDiffusion3
from mmhiper.models.guidance import noise_level
from mmhiper.utils.errors import UserError

TAILS = ('clip', 't5', 'both')
TEXTS = ['a dog', '', 'x' * 300, 'what a cat!']
QUICK = dict(num_inference_steps=3, show_progress=False, return_type='tensor')
CLIP, T5 = 77, 256  # positions


def noise(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def close(ours, theirs):
    torch.testing.assert_close(ours, theirs, **EXACT)


def config(folder: Path, **options) -> dict:
    return dict(type='StableDiffusion', pretrained=str(folder), **options)


def encoded_by(pipeline, texts: list[str]) -> tuple[torch.Tensor, ...]:
    """Tokens and pooled texts of the pipeline."""
    tokens, _, pooled, _ = pipeline.encode_prompt(
        texts, None, None, do_classifier_free_guidance=False
    )
    return tokens, pooled


@pytest.fixture(params=['sd3', 'sd35'])
def folder(request: pytest.FixtureRequest) -> Path:
    """The first one, and 3.5 medium."""
    return request.getfixturevalue(f'tiny_{request.param}')


@pytest.fixture(scope='module')
def without_t5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As people load it who have not the memory for T5."""
    return build_tiny_sd3(
        tmp_path_factory.mktemp('without'), dual=False, t5=False
    )


# ------------------------------------------------------------------ the model
def test_it_is_found_by_its_parts(folder):
    sd = StableDiffusion(str(folder))

    assert type(sd) is StableDiffusion3
    assert isinstance(sd.process, Flow)
    assert (sd.image_size, sd.vae_factor) == (64, 8)
    assert sd.latent_shape(64, 32) == (16, 8, 4)
    assert sd.guidance_scale == 7
    assert sd.attention is None


@pytest.mark.usefixtures('float64')
def test_texts_are_encoded_as_by_the_pipeline(tiny_sd3, without_t5):
    for folder in (tiny_sd3, without_t5):
        has_t5 = folder is tiny_sd3
        with torch.no_grad():
            tokens, pooled = encoded_by(
                pipeline_of_flow(folder, t5=has_t5), TEXTS
            )
        for tail in TAILS if has_t5 else ('clip',):
            ours = StableDiffusion(str(folder), tail=tail).encode_text(TEXTS)
            close(ours.pooled, pooled)
            assert ours.tokens.shape == tokens.shape == (4, CLIP + T5, 96)
            close(ours.tokens, tokens[:, order_of(tail)])


def order_of(tail: str) -> list[int]:
    """Where each position was in the pipeline's order, CLIP before T5."""
    clip, t5 = list(range(CLIP)), list(range(CLIP, CLIP + T5))
    if tail == 'clip':
        return t5 + clip
    if tail == 't5':
        return clip + t5
    turns = [at for pair in zip(clip, t5[-CLIP:], strict=True) for at in pair]
    return t5[:-CLIP] + turns


@pytest.mark.usefixtures('float64')
def test_the_order_of_a_text_means_nothing(folder):
    z, t = noise(0, 2, 16, 8, 8), torch.tensor(700.0)
    outputs = []
    for tail in TAILS:
        sd = StableDiffusion(str(folder), tail=tail)
        outputs.append(sd.predict(z, t, sd.encode_text(['a dog', 'x'])))

    assert not torch.equal(outputs[0][0], outputs[0][1])
    for output in outputs[1:]:
        close(output, outputs[0])


@pytest.mark.usefixtures('float64')
def test_images_become_shifted_latents_and_back(tiny_sd3):
    sd = StableDiffusion(str(tiny_sd3))
    pixels = noise(0, 1, 3, 64, 64).clamp(-1, 1)

    vae = pipeline_of_flow(tiny_sd3).vae
    with torch.no_grad():
        mean = vae.encode(pixels).latent_dist.mean
        latents = (mean - 0.0609) * 1.5305
        close(sd.encode_image(pixels), latents)
        close(sd.decode(latents), vae.decode(mean).sample)


# ------------------------------------------------------------------- sampling
@pytest.mark.usefixtures('float64')
@pytest.mark.parametrize('scale', [None, 1.0])
def test_pictures_are_those_of_the_pipeline(folder, scale):
    # in the order of the pipeline: its scheduler rounds to single precision
    # in each step, so two orders would be two roundings
    editor = make_word(folder, sd=config(folder, tail='t5'))
    latents = noise(0, 1, 16, 8, 8)
    text = editor.sd.encode_text(['a dog'])

    ours = editor.sample(
        text, latents=latents, num_inference_steps=4, guidance_scale=scale
    )
    theirs = pipeline_of_flow(folder)(
        'a dog',
        latents=latents,
        num_inference_steps=4,
        guidance_scale=7.0 if scale is None else scale,
        output_type='pt',
    ).images

    close(ours / 2 + 0.5, theirs)


def test_schedulers_are_those_of_flows(tiny_sd3):
    editor = make_hiper(tiny_sd3)
    name = 'FlowMatchHeunDiscreteScheduler'

    assert editor.sd.process.samples_with == 'FlowMatchEulerDiscreteScheduler'
    euler = editor.infer('a cat', **QUICK)['samples']
    heun = editor.infer('a cat', scheduler=name, **QUICK)['samples']
    assert not torch.equal(euler, heun)
    with pytest.raises(ValueError, match=f"one of .*{name}, but got 'DDIMSch"):
        editor.infer('a cat', scheduler='DDIMScheduler', **QUICK)
    with pytest.raises(ValueError, match='`eta` belongs to DDIM'):
        editor.infer('a cat', eta=0.5, **QUICK)


def test_guidance_acts_between_levels_of_noise(tiny_sd3):
    editor = make_hiper(tiny_sd3)
    sampler = editor.sd.process.make_sampler()

    assert noise_level(sampler, torch.tensor(500.0)) == 1
    assert noise_level(sampler, torch.tensor(750.0)) == pytest.approx(3)
    assert noise_level(sampler, torch.tensor(1000.0)) == 4096

    def draw(scale, interval=None):
        options = dict(guidance_scale=scale, guidance_interval=interval)
        return editor.infer('a cat', **QUICK, **options)['samples']

    assert torch.equal(draw(7.0, (0, 1e-9)), draw(1.0))
    assert torch.equal(draw(7.0, (0, 5000)), draw(7.0))
    assert not torch.equal(draw(7.0), draw(1.0))


# ------------------------------------------------------------------- training
def test_times_are_drawn_as_in_training_scripts(tiny_sd3):
    process = StableDiffusion(str(tiny_sd3)).process
    scheduler = pipeline_of_flow(tiny_sd3).scheduler

    for seed in range(20):
        u = compute_density_for_timestep_sampling(
            'logit_normal',
            1,
            0.0,
            1.0,
            generator=torch.Generator().manual_seed(seed),
        )
        expected = scheduler.timesteps[(u * 1000).long()]
        drawn = process.draw_time(torch.Generator().manual_seed(seed))
        assert torch.equal(drawn, expected)


def test_times_are_logit_normal_and_shifted(tiny_sd3):
    process = StableDiffusion(str(tiny_sd3)).process
    generator = torch.Generator().manual_seed(0)
    count = 4000
    times = [process.draw_time(generator) for _ in range(count)]
    sigma = torch.cat(times) / 1000

    for quantile, logit in ((0.25, -0.67449), (0.5, 0.0), (0.75, 0.67449)):
        plain = torch.sigmoid(torch.tensor(logit))
        # the schedule falls, and is shifted by 3
        bound = 3 * plain / (1 + 2 * plain)
        below = (sigma < bound).double().mean().item()
        # five standard deviations of a share, and a step of the schedule
        spread = 5 * (quantile * (1 - quantile) / count) ** 0.5 + 2e-3
        assert abs(below - quantile) < spread
    fixed = [float(process.spread_time(n, 4)) for n in range(4)]
    assert fixed == sorted(fixed, reverse=True)
    assert fixed[1] > 750 > fixed[2]  # the median


def test_noise_and_target_lie_on_a_line(tiny_sd3):
    process = StableDiffusion(str(tiny_sd3)).process
    scheduler = pipeline_of_flow(tiny_sd3).scheduler
    z, eps = noise(0, 2, 16, 8, 8), noise(1, 2, 16, 8, 8)
    index = torch.tensor([100, 900])
    times = scheduler.timesteps[index]
    sigma = scheduler.sigmas[index].view(2, 1, 1, 1)

    noised = process.add_noise(z, eps, times)
    # of single precision, on values below 8: four roundings
    bound = 4 * EPS * 8
    expected = (1 - sigma) * z + sigma * eps
    torch.testing.assert_close(noised, expected, rtol=0, atol=bound)
    assert torch.equal(process.target(z, eps, times), eps - z)


@pytest.mark.parametrize('options', [(5.0, False), (None, True)])
def test_weights_are_those_of_the_noise_that_is_implied(tiny_sd3, options):
    process = StableDiffusion(str(tiny_sd3)).process
    times = torch.tensor([3.0, 400.0, 900.0])
    sigma = times.double() / 1000
    snr = ((1 - sigma) / sigma) ** 2
    gamma, debiased = options
    wanted = snr.rsqrt() if debiased else (gamma / snr).clamp(max=1)

    error = torch.tensor(0.3)  # of a velocity
    of_noise = (1 - sigma) * error  # z_t + (1 - sigma) v
    weights = process.loss_weights(times, *options)
    torch.testing.assert_close(
        weights.double() * error**2, wanted * of_noise**2, rtol=4 * EPS, atol=0
    )
    assert process.loss_weights(times, None, False).tolist() == [1, 1, 1]
    # pure noise has no signal to weigh
    assert process.loss_weights(torch.tensor([1e3]), *options).tolist() == [0]


@pytest.mark.usefixtures('float64')
@pytest.mark.parametrize('tail', TAILS)
def test_hiper_learns_by_the_loss_of_a_flow(tiny_sd3, tail):
    editor = make_hiper(tiny_sd3, sd=config(tiny_sd3, tail=tail))
    randomise(editor)
    at_step(3)
    data = editor.data_preprocessor(batch_of([picture(0)], [0]), True)
    loss, _ = editor.parse_losses(editor(**data, mode='loss'))

    draw = editor._draw_step(**data)
    sigma = draw.timesteps / 1000
    noised = (1 - sigma) * draw.latents + sigma * draw.noise
    pipeline = pipeline_of_flow(tiny_sd3)
    with torch.no_grad():
        tokens, pooled = encoded_by(pipeline, ['a dog'])
        # learned positions, in the order of the pipeline
        tokens[:, order_of(tail)[-3:]] = editor.embedding.tail.detach()
        made = pipeline.transformer(
            hidden_states=noised,
            timestep=draw.timesteps,
            encoder_hidden_states=tokens,
            pooled_projections=pooled,
        ).sample
    target = draw.noise - draw.latents
    close(loss.detach(), (made - target).square().mean())

    loss.backward()
    assert editor.embedding.tail.grad.abs().amax(-1).min() > 0


# -------------------------------------------------------------------- editors
@pytest.mark.parametrize(
    ('tail', 'positions', 'lengths'),
    [
        ('clip', 77, (77 - 4 - 1, 255)),
        ('t5', 256, (75, 256 - 4)),
        ('both', 154, (77 - 2 - 1, 256 - 2)),
    ],
)
def test_the_free_tail_is_free_of_the_text(tiny_sd3, tail, positions, lengths):
    sd = StableDiffusion(str(tiny_sd3), tail=tail)
    clip, _, t5 = sd.vocabularies
    long = 'x ' * 300

    assert sd.num_positions == positions
    assert sd.room(4) == lengths[0]
    free = sd.free_in(4)
    rows = [
        v.encode([long], v.room(f))
        for v, f in ((clip, free[0]), (t5, free[2]))
    ]
    marks = (clip.encode(['']).unique(), t5.encode(['']).unique())
    for ids, ends, length in zip(rows, marks, lengths, strict=True):
        text = ~torch.isin(ids[0], ends)
        assert int(text.sum()) == length


def test_hiper_learns_edits_and_is_loaded(tiny_sd3, tmp_path):
    editor = make_hiper(tiny_sd3, sd=config(tiny_sd3, tail='both'))
    before = editor.infer('a cat', **QUICK)['samples']
    tail = train(editor, [picture(0)], 2)

    after = editor.infer('a cat', **QUICK)['samples']
    assert tail.shape == (1, 3, 96)
    assert not torch.equal(before, after)

    record = editor.export_metadata()
    assert record['sd']['tail'] == 'both'
    path = tmp_path / 'dog.safetensors'
    write_export(path, editor.learned_state(), record)
    again = load_editor(path, device='cpu')
    assert again.sd.tail == 'both'
    assert torch.equal(again.infer('a cat', **QUICK)['samples'], after)


@pytest.mark.usefixtures('float64')
def test_hiper_leaves_for_the_pipeline(tiny_sd3):
    editor = make_hiper(tiny_sd3)
    randomise(editor)
    out = mmhiper.to_diffusers(editor)
    out.pipeline.set_progress_bar_config(disable=True)

    theirs = out.pipeline(
        **out.embeds('a cat'),
        num_inference_steps=3,
        guidance_scale=7.0,
        generator=torch.Generator().manual_seed(1),
        output_type='pt',
    ).images

    ours = editor.infer('a cat', **QUICK)['samples']
    close(ours / 2 + 0.5, theirs)


def test_a_text_may_vary_over_the_noise(tiny_sd3):
    sd = StableDiffusion(str(tiny_sd3))
    texts = sd.encode_text(['a dog', 'x'])
    z = noise(0, 1, 16, 8, 8)

    varied = texts.by_stage(2)  # the first one in the noisier half
    for time, row in ((1000.0, 0), (700.0, 0), (300.0, 1), (1.0, 1)):
        mean = Conditioning(texts.tokens[row : row + 1], varied.pooled)
        t = torch.tensor(time)
        assert torch.equal(sd.predict(z, t, varied), sd.predict(z, t, mean))

    editor = make_hiper(tiny_sd3, sd=config(tiny_sd3), strength=[0.2, 1.0])
    randomise(editor)
    both, weak, strong = (
        editor.infer('a cat', strength=s, **QUICK)['samples']
        for s in (None, 0.2, 1.0)
    )
    assert not torch.equal(both, weak) and not torch.equal(both, strong)


def test_layers_have_no_text_of_their_own(tiny_sd3):
    options = dict(type='mmhiper.ExtendedTextualInversion')
    with pytest.raises(ValueError, match='no layer reads the text alone'):
        make_word(tiny_sd3, **options)


def test_positions_may_be_left_to_the_text(tiny_sd3):
    editor = make_hiper(
        tiny_sd3, sd=config(tiny_sd3, tail='both'), tail_dropout=0.5
    )
    tail = train(editor, [picture(0)], 2)

    assert tail.shape == (1, 3, 96)


def test_editors_that_control_attention_refuse_it(tiny_sd3):
    words = r'controls attention to the text, but .* is a Stable Diffusion 3'
    for kind in ('DDIMInversion', 'StyleDiffusion', 'NullTextInversion'):
        with pytest.raises(ValueError, match=f'{kind} {words}') as error:
            make_inversion(tiny_sd3, kind)
        assert len(str(error.value).splitlines()) == 1


# ---------------------------------------------------------------------- words
def with_rows(model, rows):
    """A text encoder whose table has more rows."""
    table = torch.cat([model.get_input_embeddings().weight.data, rows])
    model.resize_token_embeddings(len(table), mean_resizing=False)
    model.get_input_embeddings().weight.data = table
    return model


@pytest.mark.usefixtures('float64')
@pytest.mark.parametrize('t5_words', [False, True])
def test_a_word_is_a_row_of_each_table(tiny_sd3, t5_words):
    """As if the tables of the text encoders had these rows too."""
    editor = make_word(tiny_sd3, sd=config(tiny_sd3, t5_words=t5_words))
    randomise(editor)
    rows = editor.embedding.rows_of('<cat-toy>').detach()
    assert rows.shape == (1, 32 + 48 + 96 * t5_words)
    first, second, *third = rows.split([32, 48, 96][: 2 + t5_words], 1)

    text = 'a <cat-toy>'
    ours = editor.condition([text])
    ids = editor.words.encode([text], {'<cat-toy>': 1})
    pipeline = pipeline_of_flow(tiny_sd3)
    plain = pipeline.tokenizer_3(
        text, padding='max_length', max_length=T5, return_tensors='pt'
    ).input_ids
    assert torch.equal(ids[2], plain) is not t5_words
    with torch.no_grad():
        clip = [
            with_rows(model, row)(own, output_hidden_states=True)
            for model, row, own in (
                (pipeline.text_encoder, first, ids[0]),
                (pipeline.text_encoder_2, second, ids[1]),
            )
        ]
        t5 = pipeline.text_encoder_3
        embedded = t5.get_input_embeddings().weight
        if third:
            embedded = torch.cat([embedded, third[0]])
        looked_up = t5(inputs_embeds=embedded[ids[2]])[0]
    tokens = torch.cat([each.hidden_states[-2] for each in clip], -1)
    close(ours.pooled, torch.cat([each.text_embeds for each in clip], -1))
    close(ours.tokens[:, :T5], looked_up)
    close(ours.tokens[:, T5:, :80], tokens)
    assert not ours.tokens[:, T5:, 80:].any()


@pytest.mark.parametrize('t5_words', [False, True])
def test_words_learn_and_are_files_of_the_field(tiny_sd3, tmp_path, t5_words):
    editor = make_word(tiny_sd3, sd=config(tiny_sd3, t5_words=t5_words))
    at_step(0)
    batch = batch_of([picture(0)], [0])
    batch['data_samples'][0].set_metainfo(dict(prompts=('a <cat-toy>',)))
    data = editor.data_preprocessor(batch, True)
    editor.parse_losses(editor(**data, mode='loss'))[0].backward()
    gradient = editor.embedding.rows_of('<cat-toy>').grad
    for part in gradient.split([32, 48, 96][: 2 + t5_words], 1):
        assert part.abs().max() > 0

    names = ['clip_l', 'clip_g', 't5xxl'][: 2 + t5_words]
    randomise(editor)
    path = tmp_path / 'toy.safetensors'
    save_file(editor.learned_state(), path)
    assert sorted(load_file(path)) == sorted(names)
    word = read_token_file(path)
    assert len(word.widths) == len(names)

    other = make_word(
        tiny_sd3,
        placeholder_token='<other>',
        sd=config(tiny_sd3, t5_words=t5_words),
    )
    assert other.load_embeddings([path]) == ['toy']
    rows = editor.embedding.rows_of('<cat-toy>')
    assert torch.equal(other.words.loaded['toy'], rows)


def test_a_word_with_t5_needs_an_editor_with_it(tiny_sd3, tmp_path):
    path = tmp_path / 'toy.safetensors'
    rows = dict(clip_l=noise(0, 1, 32), clip_g=noise(1, 1, 48))
    save_file(rows | dict(t5xxl=noise(2, 1, 96)), path)

    with pytest.raises(ValueError, match=r'32 \+ 48 wide.*32 \+ 48 \+ 96'):
        make_word(tiny_sd3).load_embeddings([path])


def test_the_pipeline_takes_no_words(tiny_sd3):
    with pytest.raises(ValueError, match='takes no new words'):
        mmhiper.to_diffusers(make_word(tiny_sd3))


# -------------------------------------------------------------------- options
@pytest.mark.parametrize(
    ('file', 'content', 'words'),
    [
        ('scheduler/scheduler_config.json', b'{"shift": "x"}', 'scheduler'),
        (
            'scheduler/scheduler_config.json',
            b'{"use_dynamic_shifting": true}',
            'shifted by the size of a picture is not known',
        ),
        ('text_encoder_3/config.json', b'{"d_model": -1}', 'text_encoder_3'),
        ('tokenizer_3/tokenizer.json', b'{"version": 3}', 'tokenizer_3'),
        ('transformer/config.json', b'[]', 'transformer'),
    ],
)
def test_a_damaged_folder_is_told_in_one_line(
    tiny_sd3, tmp_path, file, content, words
):
    shutil.copytree(tiny_sd3, tmp_path, dirs_exist_ok=True)
    (tmp_path / file).write_bytes(content)

    with pytest.raises(UserError, match=words) as error:
        StableDiffusion(str(tmp_path))

    assert len(str(error.value).splitlines()) == 1


def test_options_belong_to_their_family(tiny_sd1, tiny_sd3, without_t5):
    with pytest.raises(ValueError, match=r"2\.x such as .* no option 'tail'"):
        StableDiffusion(str(tiny_sd1), tail='t5')
    with pytest.raises(ValueError, match=r"'both'\), but got 'clap'"):
        StableDiffusion(str(tiny_sd3), tail='clap')
    for options in (dict(tail='both'), dict(t5_words=True)):
        with pytest.raises(ValueError, match='has no T5'):
            StableDiffusion(str(without_t5), **options)


def test_nothing_is_printed(tiny_sd3, capfd):
    StableDiffusion(str(tiny_sd3)).encode_text(['a dog'])

    assert capfd.readouterr() == ('', '')


@pytest.mark.usefixtures('has_bf16')
@pytest.mark.parametrize('dtype', ['bf16', 'fp16'])
def test_every_part_has_the_precision_and_results_are_fp32(tiny_sd3, dtype):
    sd = StableDiffusion(str(tiny_sd3), dtype=dtype)

    text = sd.encode_text(['a dog'])
    latents = sd.encode_image(noise(0, 1, 3, 64, 64))
    output = sd.predict(latents, torch.tensor(500.0), text)
    for result in (text.tokens, text.pooled, output, sd.decode(latents)):
        assert result.dtype == torch.float32
        assert result.isfinite().all()


def test_memory_is_saved_at_no_cost(tiny_sd3):
    """Offloading and checkpointing compute the same."""

    def step(**options):
        sd = config(tiny_sd3, t5_words=True, **options)
        editor = make_word(tiny_sd3, sd=sd)
        at_step(0)
        batch = batch_of([picture(0)], [0])
        batch['data_samples'][0].set_metainfo(dict(prompts=('a <cat-toy>',)))
        data = editor.data_preprocessor(batch, True)
        loss, _ = editor.parse_losses(editor(**data, mode='loss'))
        loss.backward()
        return loss, editor.embedding.rows_of('<cat-toy>').grad

    loss, gradient = step()
    for saver in ('offload', 'gradient_checkpointing'):
        again = step(**{saver: True})
        assert torch.equal(again[0], loss)
        assert torch.equal(again[1], gradient)
