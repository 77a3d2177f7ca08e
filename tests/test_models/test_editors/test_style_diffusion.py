"""StyleDiffusion: what it learns, what it keeps, how it edits."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler
from inversion import TOKENS, batch, make, train, with_image_encoder
from tiny import FAMILIES, batch_of, picture
from tolerances import EXACT, float64
from transformers import CLIPVisionModelWithProjection

from mmhiper.models import Conditioning, guided, run_scheduler
from mmhiper.models.attention import AttentionControl, attention_control
from mmhiper.models.edit_options import EditOptions
from mmhiper.models.guidance import Guidance
from mmhiper.utils.pixels import to_pil

pytestmark = [
    # many tests need no training to its end
    pytest.mark.filterwarnings('ignore:0 of 4 timesteps'),
    # all numbers are of double precision
    pytest.mark.usefixtures('float64'),
]


@pytest.fixture(scope='module')
def folders(tiny_sd1, tiny_sd2, tmp_path_factory):
    """Each family with an image encoder."""
    root = tmp_path_factory.mktemp('encoders')
    return {
        name: with_image_encoder(folder, root / name, FAMILIES[name].width)
        for name, folder in (('sd1', tiny_sd1), ('sd2', tiny_sd2))
    }


@pytest.fixture(params=['sd1', 'sd2'])
def folder(request, folders):
    return folders[request.param]


@pytest.fixture
def sd1(folders):
    return folders['sd1']


@pytest.fixture(scope='module')
def trained(folders):
    """An editor that has learned a picture, and what it logged."""
    with float64():
        editor = make(folders['sd1'], num_inner_steps=12)
        logs = train(editor, picture(0))
    return editor, logs


# ----------------------------------------------------------------- inversion
@torch.no_grad()
def test_editing_starts_where_the_inversion_ends(folder):
    editor = make(folder)
    data = batch(editor, picture(0))
    latents = editor.invert(**data).latents

    assert len(latents) == 5
    assert torch.equal(latents[0], editor.sd.encode_image(data['inputs']))
    assert torch.equal(editor.start, latents[-1])


@torch.no_grad()
def test_picture_tokens_are_those_of_clip_after_its_layer_norm(folder):
    editor = make(folder)
    data = batch(editor, picture(0))
    editor.invert(**data)

    clip = CLIPVisionModelWithProjection.from_pretrained(
        folder / 'image_encoder', dtype=torch.float64
    )
    small = F.interpolate(
        data['inputs'], (32, 32), mode='bicubic', antialias=True
    )
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711])
    pixels = ((small + 1) / 2).clamp(0, 1) - mean.reshape(3, 1, 1)
    vision = clip.vision_model
    hidden = vision(pixels / std.reshape(3, 1, 1)).last_hidden_state
    torch.testing.assert_close(
        editor.embedding.image_tokens,
        vision.post_layernorm(hidden),
        **EXACT,
    )
    # the first one, projected, is what CLIP itself calls the picture
    torch.testing.assert_close(
        clip.visual_projection(editor.embedding.image_tokens[:, 0]),
        clip(pixels / std.reshape(3, 1, 1)).image_embeds,
        **EXACT,
    )


# ------------------------------------------------------------------ training
def test_an_untrained_editor_maps_texts_to_themselves(sd1):
    editor = make(sd1)
    editor.invert(**batch(editor, picture(0)))
    text = editor.sd.encode_text(['a cat'])

    for step in range(4):
        mapped = editor.positive(text, step)
        assert torch.equal(mapped.values, text.tokens)
        assert mapped.tokens is text.tokens


def test_a_loss_is_the_formula_of_the_paper(folder):
    editor = make(folder, attention_weight=0.7)
    data = batch(editor, picture(0))
    inversion = editor.invert(**data)
    with torch.no_grad():  # away from the identity
        for weight in editor.embedding.mappers[0].parameters():
            weight += 0.05

    losses = editor(**data, mode='loss')

    # guided prediction at z_T, both branches in one batch
    text = editor.sd.encode_text(['', 'a dog'])
    values = text.tokens.clone()
    values[1:] = editor.embedding(values[1:], 0).detach()
    scheduler = DDIMScheduler.from_config(editor.sd.scheduler.config)
    scheduler.set_timesteps(4)
    t, z = scheduler.timesteps[0], inversion.latents[-1]
    with torch.no_grad(), attention_control(editor.sd.unet):
        empty, full = editor.sd.predict(
            torch.cat([z, z]), t, text.with_values(values)
        ).chunk(2)
    reached = scheduler.step(empty + 7.5 * (full - empty), t, z).prev_sample
    latent = (reached - inversion.latents[-2]).square().mean()
    attention = sum(
        (maps - inversion.maps[-1][name]).square().mean()
        for name, maps in editor._store.maps.items()
    )
    assert attention > 0 and len(inversion.maps[-1]) == 3
    torch.testing.assert_close(losses['latent'], latent, **EXACT)
    torch.testing.assert_close(
        losses['loss'], latent + 0.7 * attention, **EXACT
    )
    torch.testing.assert_close(
        losses['attention'], attention.detach(), **EXACT
    )


class Recorder(AttentionControl):
    """Keeps the maps of some layers, pass after pass."""

    def __init__(self, names):
        self.names = names
        self.passes = []

    def wants_maps(self, layer):
        return layer.name in self.names

    def see(self, layer, maps):
        if layer.name == self.names[0]:
            self.passes.append([])
        self.passes[-1].append(maps)
        return maps


@torch.no_grad()
def test_the_attention_that_a_step_is_to_have(sd1):
    """Number the inversion's steps k = 1..T: step i has k = T - i + 1."""
    editor = make(sd1)
    data = batch(editor, picture(0))
    latents = editor.invert(**data).latents
    names = [layer.name for layer in editor.map_layers]
    text = editor.sd.encode_text(['a dog'])
    seen = Recorder(names)
    with attention_control(editor.sd.unet, seen):
        for z, t in zip(latents, [1, 251, 501, 751], strict=False):
            editor.sd.predict(z, torch.tensor(t), text)
    wanted = dict(enumerate(seen.passes, start=1))
    wanted[5] = wanted[4]  # there is no step beyond T

    for i, t in enumerate([751, 501, 251, 1]):
        editor.progress[0] = i
        editor.reached.copy_(latents[4 - i])
        now = Recorder(names)
        with attention_control(editor.sd.unet, now):
            editor.sd.predict(latents[4 - i], torch.tensor(t), text)
        expected, mirrored = (
            sum(
                (a - b).square().mean()
                for a, b in zip(goal, now.passes[0], strict=True)
            )
            for goal in (wanted[5 - i], wanted[4 - i])
        )
        editor._fixed = None
        loss = editor(**data, mode='loss')['attention']
        torch.testing.assert_close(loss, expected, rtol=1e-4, atol=0)
        assert i == 0 or not torch.isclose(expected, mirrored, rtol=1e-2)


def test_training_goes_back_the_timesteps_of_the_inversion(sd1):
    editor = make(sd1)
    seen = []
    handle = editor.sd.unet.register_forward_pre_hook(
        lambda module, args: seen.append(int(args[1]))
    )
    try:
        train(editor, picture(0))
    finally:
        handle.remove()

    assert seen[:4] == [1, 251, 501, 751]
    trained = list(dict.fromkeys(seen[4:]))
    assert trained == [751, 501, 251, 1]


def test_training_meets_the_picture(trained, sd1):
    editor, logs = trained
    with torch.no_grad():
        wanted = editor._inversion.latents[0]
        learned = editor.reconstruct()
        plain = make(sd1)
        plain.start.copy_(editor.start)
        unlearned = plain.reconstruct()

    assert F.mse_loss(learned, wanted) < 0.8 * F.mse_loss(unlearned, wanted)
    torch.testing.assert_close(learned, editor.reached, **EXACT)
    first = [log for log in logs if log['timestep'] == 1]
    assert first[-1]['loss'] < first[0]['loss']


def test_a_timestep_has_at_most_its_inner_steps(trained):
    _, logs = trained

    for i in range(4):
        inner = [log['inner_step'] for log in logs if log['timestep'] == i + 1]
        assert inner == list(range(1, len(inner) + 1))
        assert len(inner) <= math.ceil(12 * math.exp(-0.1 * i))
    assert [log['timestep'] for log in logs] == sorted(
        log['timestep'] for log in logs
    )


@pytest.mark.parametrize(
    ('position', 'loss', 'done'),
    [(0, 0.9e-5, True), (0, 1.1e-5, False), (3, 6.9e-5, True), (3, 1, False)],
)
def test_a_timestep_ends_early_below_its_threshold(sd1, position, loss, done):
    editor = make(sd1)
    editor.progress[0] = position

    assert editor.end_inner_step(loss) is done
    assert editor.inner_step == 1


def test_the_last_inner_step_ends_a_timestep(sd1):
    editor = make(sd1, num_inner_steps=3)

    assert [editor.end_inner_step(1.0) for _ in range(3)] == [
        False, False, True
    ]  # fmt: skip
    assert editor.max_iters == 3 + 3 + 3 + 3
    assert make(sd1, num_inner_steps=100).max_iters == 100 + 91 + 82 + 75


def test_rates_fall_by_one_in_a_hundred(sd1):
    editor = make(sd1)
    editor.progress[0] = 3

    assert editor.rate == pytest.approx(0.97)


def test_each_timestep_starts_from_the_one_before(sd1):
    editor = make(sd1)
    data = batch(editor, picture(0))
    editor(**data, mode='loss')
    with torch.no_grad():
        for weight in editor.active_parameters():
            weight.normal_(generator=torch.Generator().manual_seed(1))
    before = editor.reached.clone()

    editor.advance()

    first, second, third, _ = editor.embedding.mappers
    for one, two, three in zip(
        first.parameters(), second.parameters(), third.parameters(),
        strict=True,
    ):  # fmt: skip
        assert torch.equal(one, two) and not torch.equal(two, three)
    assert editor.position == 1 and editor.inner_step == 0
    assert not torch.equal(editor.reached, before)
    assert editor.active_parameters()[0] is next(second.parameters())


def test_only_the_network_of_the_timestep_gets_gradients(sd1):
    editor = make(sd1)
    editor.invert(**batch(editor, picture(0)))
    editor.progress[0] = 2

    editor(**batch(editor, picture(0)), mode='loss')['loss'].backward()

    for step, mapper in enumerate(editor.embedding.mappers):
        for weight in mapper.parameters():
            assert (weight.grad is not None) == (step == 2)
    assert all(weight.grad is None for weight in editor.sd.parameters())


def test_without_the_attention_term(sd1):
    editor = make(sd1, attention_weight=0)
    losses = editor(**batch(editor, picture(0)), mode='loss')

    assert 'attention' not in losses
    assert torch.equal(losses['loss'].detach(), losses['latent'])
    assert not any(editor._inversion.maps)


def test_the_unconditional_branch_is_computed_once_per_timestep(sd1):
    editor = make(sd1, num_inner_steps=5)
    passes = []
    handle = editor.sd.unet.register_forward_pre_hook(
        lambda module, args: passes.append(len(args[0]))
    )
    try:
        iterations = len(train(editor, picture(0)))
    finally:
        handle.remove()

    # inversion, one unconditional pass and one advance per timestep
    assert passes == [1] * (4 + 4 + 4 + iterations)


def test_the_image_encoder_runs_once(sd1, monkeypatch):
    editor = make(sd1)
    calls = []
    encode = editor.image_encoder.encode
    monkeypatch.setattr(
        editor.image_encoder,
        'encode',
        lambda pixels: calls.append(1) or encode(pixels),
    )

    train(editor, picture(0))

    assert len(calls) == 1


# --------------------------------------------------------------- checkpoints
def test_another_picture_is_refused_when_resuming(sd1):
    editor = make(sd1)
    editor(**batch(editor, picture(0)), mode='loss')
    editor.progress[1] = 1
    other = make(sd1)
    other.load_state_dict(editor.state_dict())

    with pytest.raises(ValueError, match='another picture'):
        other(**batch(other, picture(1)), mode='loss')
    assert torch.equal(other.start, editor.start)


def test_the_size_at_stable_diffusion(folders):
    from mmhiper.models.embeddings import ValueMappers

    with torch.device('meta'):
        embedding = ValueMappers(30, 197, 77, 768)

    one = sum(w.numel() for w in embedding.mappers[0].parameters())
    # 197 -> 154, 154 -> 154 with normalisation, 154 -> 154
    assert one == (197 + 1) * 154 + 2 * (154 + 1) * 154 + 2 * 154
    everything = sum(t.numel() for t in embedding.state_dict().values())
    assert 9.5e6 < 4 * everything < 10.5e6  # bytes


def test_the_mapper_is_its_formula(sd1):
    editor = make(sd1)
    embedding = editor.embedding
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in embedding.parameters():
            weight.normal_(generator=generator)
        embedding.image_tokens.normal_(generator=generator)
    text = torch.randn(2, 77, 32, generator=generator)

    first, second, norm, _, last = embedding.mappers[1]
    x = first.weight[:, :, 0] @ embedding.image_tokens[0] + first.bias[:, None]
    x = second.weight[:, :, 0] @ x + second.bias[:, None]
    x = (x - x.mean(1, True)) / (
        x.var(1, correction=0, keepdim=True) + 1e-5
    ).sqrt()
    x = norm.weight[:, None] * x + norm.bias[:, None]
    x = torch.where(x > 0, x, 0.01 * x)
    x = last.weight[:, :, 0] @ x + last.bias[:, None]
    assert embedding.image_tokens.shape == (1, TOKENS, 32)
    expected = text * x[:77] + x[77:]
    for mode in (True, False):
        torch.testing.assert_close(
            embedding.train(mode)(text, 1), expected, **EXACT
        )


# ------------------------------------------------------------------- editing
def pixels_of(editor, prompt='a cat', **options):
    result = editor.infer(
        prompt,
        show_progress=False,
        return_type='tensor',
        return_reconstruction=True,
        **options,
    )
    return result['samples'], result['reconstructions']


NOTHING = dict(tau_v=0, tau_c=0, tau_s=0, tau_u=0)


@torch.no_grad()
@pytest.mark.parametrize('negative', [None, 'a fox'])
def test_with_all_fractions_zero_it_is_plain_sampling(folder, negative):
    editor = make(folder)
    editor.invert(**batch(editor, picture(0)))

    edited, reconstructed = pixels_of(
        editor, **NOTHING, negative_prompt=negative
    )

    sd = editor.sd
    for prompt, empty, ours in (
        ('a cat', negative or '', edited),
        ('a dog', '', reconstructed),
    ):
        text = sd.encode_text([empty, prompt])
        plain = run_scheduler(
            guided(lambda z, t, c=text: sd.predict(z, t, c), 7.5),
            editor.start,
            sd.scheduler,
            4,
        )
        expected = sd.decode(plain).clamp(-1, 1)
        torch.testing.assert_close(ours, expected, **EXACT)


@torch.no_grad()
@pytest.mark.parametrize(
    ('tau_v', 'steps'),
    [(0.5, {0, 1}), (0.3, {0, 1}), ((0.25, 0.75), {1, 2})],
)
def test_values_reach_the_conditional_branch_alone(trained, tau_v, steps):
    editor, _ = trained
    seen = []
    plain = editor.sd.predict

    def watch(z, t, condition):
        seen.append(condition)
        return plain(z, t, condition)

    editor.sd.predict = watch
    try:
        editor.infer('a cat', show_progress=False, tau_v=tau_v)
    finally:
        del editor.sd.predict

    texts = editor.sd.encode_text(['', '', 'a dog', 'a cat'])
    for step, condition in enumerate(seen):
        torch.testing.assert_close(condition.tokens, texts.tokens, **EXACT)
        expected = texts.tokens.clone()
        mapped = [2, 3] if step in steps else [2]
        expected[mapped] = editor.embedding(texts.tokens[mapped], step)
        torch.testing.assert_close(condition.values, expected, **EXACT)
        assert (expected[2] - texts.tokens[2]).abs().max() > 1e-3


def test_the_reconstruction_does_not_depend_on_the_edit(trained):
    editor, _ = trained

    _, one = pixels_of(editor, 'a cat')
    _, other = pixels_of(editor, 'two old cats', tau_u=0.5, **dict(tau_v=1))
    with torch.no_grad():
        alone = editor.sd.decode(editor.reconstruct()).clamp(-1, 1)

    torch.testing.assert_close(one, other, **EXACT)
    torch.testing.assert_close(one, alone, **EXACT)


def test_the_source_as_its_own_edit_is_the_reconstruction(trained):
    editor, _ = trained

    edited, reconstructed = pixels_of(editor, 'a dog', tau_v=1)

    torch.testing.assert_close(edited, reconstructed, **EXACT)


@pytest.mark.parametrize(
    'options',
    [
        dict(tau_v=1),
        dict(tau_c=1),
        dict(tau_s=1),
        dict(tau_u=1),
        dict(tau_c=1, reweight={'cat': 5}),
        dict(cross_replace={'cat': 1}),
    ],
)
def test_every_option_changes_the_edit_alone(trained, options):
    editor, _ = trained
    plain, source = pixels_of(editor, **NOTHING)
    base = pixels_of(editor, **{**NOTHING, 'tau_c': 1})[0]

    edited, reconstructed = pixels_of(editor, **{**NOTHING, **options})

    reference = base if 'reweight' in options else plain
    assert (edited - reference).abs().max() > 5e-3
    torch.testing.assert_close(reconstructed, source, **EXACT)


@torch.no_grad()
def test_a_local_blend_keeps_the_source_elsewhere(sd1):
    editor = make(sd1, source_text='a dog by the sea')
    for name, weight in editor.sd.unet.named_parameters():
        if 'attn2.to_q' in name:  # so that words have places
            weight.mul_(30)
    editor.invert(**batch(editor, picture(2)))
    taus = {**NOTHING, 'tau_c': 1, 'cross_replace': {'cat': 0}}

    plain, blended = (
        editor.edit_latents(
            'a cat by the sea',
            EditOptions(**taus, blend_words=words),
            Guidance(7.5),
        )
        for words in (None, 'by')
    )

    kept = (blended[0] == blended[1]).all(0)  # (8, 8)
    assert 0 < kept.sum() < 64
    assert (plain[0] != plain[1]).all()
    torch.testing.assert_close(blended[0], plain[0], **EXACT)


def test_several_prompts_are_edited_one_after_another(trained):
    editor, _ = trained

    both = editor.infer(
        ['a cat', 'a red dog'], show_progress=False, return_type='numpy'
    )['samples']

    assert both.shape == (2, 3, 64, 64)
    for prompt, picture_ in zip(['a cat', 'a red dog'], both, strict=True):
        alone, _ = pixels_of(editor, prompt)
        np.testing.assert_allclose(alone[0].numpy(), picture_, **EXACT)


def test_the_config_gives_defaults_to_edits(trained, sd1):
    editor, _ = trained
    other = make(sd1, num_inner_steps=12, edit=dict(tau_v=1, tau_c=0))
    other.load_state_dict(editor.state_dict())

    ours, _ = pixels_of(other)
    explicit, _ = pixels_of(editor, tau_v=1, tau_c=0)

    assert torch.equal(ours, explicit)


def test_the_defaults_of_edits_are_plain_data(sd1):
    words = dict(blend_words=('dog', 'cat'), reweight={1: 2.0})
    editor = make(sd1, edit=dict(tau_c=(0, 0.5), tau_s=0.6, **words))

    assert editor.edit == dict(
        tau_c=[0, 0.5], blend_words=['dog', 'cat'], reweight=[[1, 2.0]]
    )


def test_processors_come_back_after_an_error(trained):
    editor, _ = trained
    before = editor.sd.unet.attn_processors

    with pytest.raises(ValueError):
        editor.infer('a cat', show_progress=False, reweight={'fox': 2})

    after = editor.sd.unet.attn_processors
    assert all(before[name] is after[name] for name in before)


def test_the_words_of_the_picture_can_be_shown(trained):
    editor, _ = trained

    everything = editor.show_attention()
    one = editor.show_attention('dog')

    assert everything.height == one.height
    assert everything.width == 2 * one.width - 256 // 32
    with pytest.raises(ValueError, match="'cat' is not in the prompt"):
        editor.show_attention('cat')


def test_a_preview_shows_what_can_be_had(trained):
    editor, _ = trained
    source = batch(editor, picture(0))['inputs']
    panels = editor.preview(source=source)

    assert [caption for caption, _ in panels] == [
        'autoencoder', 'reconstruction', 'a cat'
    ]  # fmt: skip
    best = editor.sd.decode(editor._inversion.latents[0]).clamp(-1, 1)
    assert np.array_equal(np.asarray(panels[0][1]), to_pil(best[0]))
    assert [caption for caption, _ in editor.preview()] == [
        'reconstruction', 'a cat'
    ]  # fmt: skip


# -------------------------------------------------------------------- errors
@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(source_text=''), '`source_text`'),
        (dict(target_text=' '), '`target_text`'),
        (dict(num_steps=0), r'`num_steps` must be in \[1, 1000\]'),
        (dict(num_steps=101), '`num_steps` must be at most 100, but got 101'),
        (dict(num_inner_steps=0), '`num_inner_steps`'),
        (dict(inner_steps='few'), r"\['decaying', 'constant'\].*'few'"),
        (dict(attention_weight=-1), '`attention_weight`'),
        (dict(map_side=16), r'one of \[4\].*got 16'),
        (dict(edit=dict(tau_c=3)), '`tau_c`'),
        (dict(source_text='x' * 80), 'at most 75 tokens'),
    ],
)
def test_mistakes_are_named(sd1, options, message):
    with pytest.raises(ValueError, match=message):
        make(sd1, **options)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(height=32), '`height`.*64.*got 32'),
        (dict(num_inference_steps=50), '`num_inference_steps`.*4.*got 50'),
        (dict(num_images_per_prompt=2), '`num_images_per_prompt`'),
        (dict(eta=0.5), '`eta`'),
        (dict(latents=torch.zeros(1, 4, 8, 8)), '`latents`'),
        (dict(return_type='pil'), '`return_type`'),
        (dict(tau_s=-1), '`tau_s`'),
        (dict(negative_prompt=['a', 'b']), 'one for each of 1'),
        (dict(blend_words=('dog', 'fox')), "'fox' is not in the prompt"),
        (dict(cross_replace={'fox': 1}), "'fox' is not in the prompt"),
    ],
)
def test_mistakes_at_editing_are_named(trained, options, message):
    with pytest.raises(ValueError, match=message):
        trained[0].infer('a cat', show_progress=False, **options)


def test_replacement_needs_as_many_words(trained):
    with pytest.raises(ValueError, match="'refinement'"):
        trained[0].infer('a red cat', edit_type='replacement')


def test_editing_needs_a_picture(sd1):
    with pytest.raises(ValueError, match='No picture is inverted'):
        make(sd1).infer('a cat', show_progress=False)


def test_an_unfinished_training_says_so(sd1):
    editor = make(sd1)
    editor.invert(**batch(editor, picture(0)))
    editor.advance()

    with pytest.warns(UserWarning, match='1 of 4 timesteps are trained'):
        editor.infer('a cat', show_progress=False)


def test_one_picture_at_a_time(sd1):
    editor = make(sd1)
    editor(**batch(editor, picture(0)), mode='loss')

    with pytest.raises(ValueError, match='one picture'):
        editor(**batch(editor, picture(1)), mode='loss')
    two = editor.data_preprocessor(batch_of([picture(0), picture(1)], [0, 1]))
    with pytest.raises(ValueError, match='edit_cases'):
        make(sd1)(**two, mode='loss')


def test_a_finished_training_has_nothing_to_learn(trained):
    editor, _ = trained
    with pytest.raises(ValueError, match='nothing left'):
        editor(**batch(editor, picture(0)), mode='loss')


def test_an_image_encoder_of_another_width(sd1, folders):
    wide = dict(pretrained=str(folders['sd2']))
    with pytest.raises(ValueError, match=r'wide as the text, 32.*64 wide'):
        make(sd1, image_encoder=wide)


def test_a_width_of_stable_diffusion_names_its_encoder(sd1):
    encoder = make(sd1).image_encoder
    with pytest.raises(ValueError, match='openai/clip-vit-base-patch16'):
        encoder.check_width(768)


def test_a_backbone_without_an_image_encoder(tiny_sd1, sd1, folders):
    with pytest.raises(ValueError, match=r'`image_encoder=dict\(pretrained'):
        make(tiny_sd1)
    named = dict(pretrained=str(sd1 / 'image_encoder'))
    assert make(tiny_sd1, image_encoder=named).embedding is not None


def test_metadata_says_what_it_is(trained, sd1):
    metadata = trained[0].export_metadata()

    assert metadata['editor'] == 'StyleDiffusion'
    assert metadata['backbone'] == str(sd1)
    assert metadata['arguments'] == dict(
        source_text='a dog',
        target_text='a cat',
        image_encoder=None,  # that of the backbone
        attention_weight=1.0,
        num_inner_steps=trained[0].num_inner_steps,
        inner_steps='decaying',
        num_steps=4,
        guidance_scale=7.5,
        edit=None,
        map_side=None,
        data_preprocessor=None,
        val_prompts=None,
    )


def test_conditionings_of_both_kinds_join():
    a, b = torch.zeros(1, 2, 3), torch.ones(1, 2, 3)
    joined = Conditioning.cat(
        [Conditioning(a), Conditioning(b).with_values(b + 1)]
    )

    assert torch.equal(joined.values, torch.cat([a, b + 1]))
    assert joined[1:].values is not None
    assert Conditioning.cat([Conditioning(a)]).values is None
