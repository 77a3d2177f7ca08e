"""The baselines: what each does in the unconditional branch."""

import pytest
import torch
import torch.nn.functional as F
from inversion import batch, make, train, with_image_encoder
from tiny import picture
from tolerances import EXACT

from mmhiper.models import NullTextInversion, guided, run_scheduler
from mmhiper.models.guidance import noise_level

pytestmark = [
    pytest.mark.filterwarnings('ignore:0 of 4 timesteps'),
    # all numbers are of double precision
    pytest.mark.usefixtures('float64'),
]


def reconstruction_error(editor) -> float:
    with torch.no_grad():
        reached = editor.reconstruct()
    return float(F.mse_loss(reached, editor._inversion.latents[0]))


def inverted(folder, kind, **options):
    editor = make(folder, kind, **options)
    editor.invert(**batch(editor, picture(0)))
    return editor


def test_ddim_inversion_learns_nothing(tiny_one_text):
    editor = inverted(tiny_one_text, 'DDIMInversion')

    assert not list(editor.parameters())
    assert list(editor.state_dict()) == ['start']
    sd = editor.sd
    text = sd.encode_text(['', 'a dog'])
    with torch.no_grad():
        plain = run_scheduler(
            guided(lambda z, t: sd.predict(z, t, text), 7.5),
            editor.start,
            sd.scheduler,
            4,
        )
        ours = editor.reconstruct()
    torch.testing.assert_close(ours, plain, **EXACT)


def test_negative_prompt_inversion_cancels_guidance(tiny_one_text):
    editor = inverted(tiny_one_text, 'NegativePromptInversion')
    sd = editor.sd
    text = sd.encode_text(['a dog'])

    with torch.no_grad():
        unguided = run_scheduler(
            lambda z, t: sd.predict(z, t, text),
            editor.start,
            sd.scheduler,
            4,
        )
        ours = editor.reconstruct()

    # equal branches, whatever the scale
    torch.testing.assert_close(ours, unguided, **EXACT)
    ddim = inverted(tiny_one_text, 'DDIMInversion')
    assert reconstruction_error(editor) < reconstruction_error(ddim)


def test_negative_prompt_inversion_edits_with_the_source_as_negative(
    tiny_sd1,
):
    editor = inverted(tiny_sd1, 'NegativePromptInversion')
    ddim = inverted(tiny_sd1, 'DDIMInversion')
    plain = dict(tau_c=0, tau_s=0, show_progress=False, return_type='tensor')

    ours = editor.infer('a cat', **plain)['samples']
    same = ddim.infer('a cat', negative_prompt='a dog', **plain)['samples']

    torch.testing.assert_close(ours, same, **EXACT)


def direct_edit_by_hand(editor, target, scale):
    """Direct inversion as its paper has it: distances are added, no maps."""
    sd, path = editor.sd, editor._inversion.latents
    text = sd.encode_text(['', '', 'a dog', target])
    z = path[-1].repeat(2, 1, 1, 1)
    for step, t in enumerate(editor.timesteps()):
        empty, full = sd.predict(torch.cat([z, z]), t, text).chunk(2)
        z = sd.scheduler.step(empty + scale * (full - empty), t, z).prev_sample
        distance = path[-2 - step] - z[:1]
        z = torch.cat([z[:1] + distance, z[1:]])
    return z


def test_direct_inversion_is_that_of_its_paper(tiny_one_text):
    editor = inverted(tiny_one_text, 'DirectInversion')
    free = dict(tau_c=0, tau_s=0, return_reconstruction=True)

    drawn = editor.infer(
        'a cat', show_progress=False, return_type='tensor', **free
    )

    with torch.no_grad():
        source, edit = editor.sd.decode(
            direct_edit_by_hand(editor, 'a cat', 7.5)
        ).clamp(-1, 1)
    torch.testing.assert_close(drawn['samples'][0], edit, **EXACT)
    torch.testing.assert_close(drawn['reconstructions'][0], source, **EXACT)
    # of the picture itself nothing is lost, whatever the guidance
    assert reconstruction_error(editor) < 1e-25
    ddim = inverted(tiny_one_text, 'DDIMInversion')
    assert reconstruction_error(ddim) > 1e-6


def test_direct_inversion_pins_what_attention_is_taken_from(tiny_sd1):
    """The edit takes over the maps of the path, not of its own source."""
    editor = inverted(tiny_sd1, 'DirectInversion')
    ddim = inverted(tiny_sd1, 'DDIMInversion')
    options = dict(show_progress=False, return_type='tensor')

    ours, theirs = (
        each.infer('a cat', tau_c=1, tau_s=1, **options)['samples']
        for each in (editor, ddim)
    )
    same = [
        each.infer('a cat', tau_c=0, tau_s=0, **options)['samples']
        for each in (editor, ddim)
    ]

    torch.testing.assert_close(*same, **EXACT)
    assert (ours - theirs).abs().max() > 1e-4


def test_a_saved_direct_inversion_has_its_path(tiny_sd1):
    editor = inverted(tiny_sd1, 'DirectInversion')
    again = make(tiny_sd1, 'DirectInversion')
    again.load_state_dict(editor.state_dict())
    options = dict(show_progress=False, return_type='tensor')

    assert torch.equal(
        editor.infer('a cat', **options)['samples'],
        again.infer('a cat', **options)['samples'],
    )


def test_null_text_inversion_meets_the_picture(tiny_sd1):
    editor = make(tiny_sd1, 'NullTextInversion', num_inner_steps=12)
    empty = editor.sd.encode_text(['']).tokens
    assert all(torch.equal(row, empty) for row in editor.embedding.texts)

    logs = train(editor, picture(0))

    ddim = inverted(tiny_sd1, 'DDIMInversion')
    assert reconstruction_error(editor) < 0.8 * reconstruction_error(ddim)
    assert all(not torch.equal(row, empty) for row in editor.embedding.texts)
    assert set(logs[0]) == {'loss', 'latent', 'timestep', 'inner_step'}
    assert [n for n, _ in editor.named_parameters()] == [
        f'embedding.texts.{i}' for i in range(4)
    ]


def null_texts_by_hand(sd, latents, timesteps, steps, stop):
    """Null-text inversion as its paper's code goes: losses by timestep."""
    text, null = sd.encode_text(['a dog']), sd.encode_text([''])
    row, z, losses = null.tokens, latents[-1], []
    for i, t in enumerate(timesteps):
        row = row.clone().requires_grad_()
        adam = torch.optim.Adam([row], lr=1e-2 * (1 - i / 100))
        with torch.no_grad():
            full = sd.predict(z, t, text)

        def reached(row, t=t, z=z, full=full):
            empty = sd.predict(z, t, null.with_tokens(row))
            guided_ = empty + 7.5 * (full - empty)
            return sd.scheduler.step(guided_, t, z).prev_sample

        for _ in range(steps):
            loss = (reached(row) - latents[-2 - i]).square().mean()
            adam.zero_grad()
            loss.backward()
            adam.step()
            losses.append((i, loss.item()))
            if loss.item() < stop + 2e-5 * i:
                break
        row = row.detach()
        with torch.no_grad():
            z = reached(row)
    return losses


def test_null_text_inversion_is_that_of_its_paper(tiny_one_text):
    editor = make(tiny_one_text, 'NullTextInversion', num_inner_steps=3)
    logs = train(editor, picture(0))

    expected = null_texts_by_hand(
        editor.sd, editor._inversion.latents, editor.timesteps(), 3, 1e-5
    )

    steps = [int(log['timestep']) - 1 for log in logs]
    assert steps == [i for i, _ in expected]
    losses = torch.tensor([log['loss'] for log in logs])
    torch.testing.assert_close(
        losses, torch.tensor([loss for _, loss in expected]), rtol=1e-3, atol=0
    )


def test_each_method_takes_as_many_steps_as_its_paper(tiny_sd1):
    options = dict(
        sd=dict(type='StableDiffusion', pretrained=str(tiny_sd1)),
        source_text='a dog',
    )
    editor = NullTextInversion(**options)

    assert editor.num_steps == 50
    assert {editor.max_inner_steps(i) for i in range(50)} == {10}
    assert editor.max_iters == 500
    short = NullTextInversion(
        **options, num_steps=30, num_inner_steps=20, inner_steps='decaying'
    )
    assert [short.max_inner_steps(i) for i in (0, 1, 10, 29)] == [20, 19, 8, 2]
    assert short.max_iters == 215  # as StyleDiffusion


def test_the_loss_of_null_text_inversion_is_its_formula(tiny_one_text):
    editor = make(tiny_one_text, 'NullTextInversion')
    data = batch(editor, picture(0))
    inversion = editor.invert(**data)
    with torch.no_grad():
        editor.embedding.texts[0] += 0.1

    loss = editor(**data, mode='loss')['loss']

    sd, t, z = editor.sd, editor.timesteps()[0], inversion.latents[-1]
    null = sd.encode_text(['']).with_tokens(editor.embedding.texts[0])
    with torch.no_grad():
        empty = sd.predict(z, t, null)
        full = sd.predict(z, t, sd.encode_text(['a dog']))
        guided_ = empty + 7.5 * (full - empty)
        reached = sd.scheduler.step(guided_, t, z).prev_sample
    expected = (reached - inversion.latents[-2]).square().mean()
    torch.testing.assert_close(loss, expected, **EXACT)
    loss.backward()
    grads = [row.grad is not None for row in editor.embedding.texts]
    assert grads == [True, False, False, False]


@pytest.mark.parametrize('kind', ['DDIMInversion', 'StyleDiffusion'])
def test_a_stable_diffusion_xl_is_refused(tiny_sdxl, kind):
    with pytest.raises(ValueError, match=f'{kind}.* is a Stable Diffusion XL'):
        make(tiny_sdxl, kind)


# -------------------------------------------------------------------- guidance
def pixels_of(editor, **options):
    drawn = editor.infer(
        'a cat',
        show_progress=False,
        return_type='tensor',
        return_reconstruction=True,
        **options,
    )
    return torch.cat([drawn['samples'], drawn['reconstructions']])


def test_steps_without_guidance_leave_the_unconditional_rows_out(tiny_sd1):
    editor = inverted(tiny_sd1, 'DDIMInversion')
    levels = [noise_level(editor.sd.scheduler, t) for t in editor.timesteps()]
    sizes = []
    handle = editor.sd.unet.register_forward_pre_hook(
        lambda module, args: sizes.append(len(args[0]))
    )
    try:
        pixels_of(editor, guidance_interval=(levels[3], levels[1]))
    finally:
        handle.remove()

    assert sizes == [2, 4, 4, 2]


@pytest.mark.parametrize(
    'options',
    [
        dict(tau_c=0, tau_s=0),
        dict(tau_c=0.6, tau_s=0.6),
        dict(tau_c=1, tau_u=1, reweight={'cat': 3}),
        dict(tau_c=1, cross_replace={'cat': 0.3}, blend_words=('dog', 'cat')),
    ],
)
def test_prompt_to_prompt_is_the_same_without_unconditional_rows(
    tiny_sd1, options
):
    editor = inverted(tiny_sd1, 'DDIMInversion')
    barely = 1 + 1e-14  # with all rows, and no guidance to speak of

    none = pixels_of(editor, guidance_scale=1, **options)

    torch.testing.assert_close(
        none, pixels_of(editor, guidance_scale=barely, **options), **EXACT
    )
    outside = pixels_of(editor, guidance_interval=(50, 60), **options)
    assert torch.equal(outside, none)
    everywhere = pixels_of(editor, guidance_interval=(0, 60), **options)
    assert torch.equal(everywhere, pixels_of(editor, **options))
    assert (everywhere - none).abs().max() > 1e-3


def test_rescaled_edits_differ_and_mistakes_are_named(tiny_sd1):
    editor = inverted(tiny_sd1, 'DDIMInversion')

    plain, rescaled = (
        pixels_of(editor, guidance_rescale=share) for share in (0, 0.7)
    )

    assert (plain - rescaled).abs().max() > 1e-3
    with pytest.raises(ValueError, match='`guidance_rescale`'):
        pixels_of(editor, guidance_rescale=2)
    with pytest.raises(ValueError, match='`guidance_interval`'):
        editor.preview(guidance_interval=(3, 1))


@pytest.mark.parametrize(
    'kind', ['StyleDiffusion', 'NullTextInversion', 'DDIMInversion']
)
def test_training_guidance_of_none_is_the_backbones_own(
    tiny_sd1, tmp_path, kind
):
    folder = with_image_encoder(tiny_sd1, tmp_path / 'own', 32)
    (folder / 'guidance.json').write_text('{"guidance_scale": 2.5}')

    # the papers' number, whatever the backbone says, unless it is asked
    assert make(folder, kind).guidance_scale == 7.5
    editor = make(folder, kind, guidance_scale=None)
    assert editor.guidance_scale == editor.default_guidance == 2.5
    # and what was learned with it keeps it
    assert editor.export_metadata()['arguments']['guidance_scale'] == 2.5


def test_null_texts_need_guidance(tiny_sd1):
    with pytest.raises(ValueError, match=r'above 1, but is 1\. .*DDIM'):
        make(tiny_sd1, 'NullTextInversion', guidance_scale=1)
