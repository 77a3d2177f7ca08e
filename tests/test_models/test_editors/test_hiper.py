"""HiPer: what it learns from, how it conditions, what it keeps."""

import warnings

import numpy as np
import pytest
import torch
from mmengine.logging import MessageHub
from mmengine.structures import BaseDataElement
from tiny import at_step, batch_of, make_hiper, picture, train
from tolerances import EXACT, GREY_LEVEL

from mmhiper import to_diffusers
from mmhiper.models import StableDiffusion
from mmhiper.registry import MODELS


def losses_at(editor, pictures, iteration, seed=0):
    """The loss of each picture in one step."""
    at_step(iteration, seed)
    data = editor.data_preprocessor(
        batch_of(pictures, list(range(len(pictures))))
    )
    return editor.image_losses(**data).detach()


# --------------------------------------------------------------- conditioning
def test_it_starts_as_the_plain_source_text(tiny_folder):
    editor = make_hiper(tiny_folder, n_hiper=5)
    source = editor.sd.encode_text(['a dog']).tokens

    assert torch.equal(editor.embedding.tail, source[:, -5:])
    with torch.no_grad():
        start = editor.train_condition([BaseDataElement()])
    assert torch.equal(start.tokens, source)


def test_an_edit_is_the_target_text_with_the_scaled_tail(tiny_folder):
    editor = make_hiper(tiny_folder, n_hiper=5)
    with torch.no_grad():
        editor.embedding.tail.normal_(
            generator=torch.Generator().manual_seed(0)
        )
        default = editor.condition(['a sitting dog', 'x']).tokens
        reconstruction = editor.condition(['a dog'], strength=1.0).tokens

    # eq. 5 of the paper, written out: c = [c_tgt[:, :M-N], s * h]
    tail = editor.embedding.tail.detach()
    text = editor.sd.encode_text(['a sitting dog', 'x']).tokens
    expected = torch.cat([text[:, :72], 0.8 * tail.expand(2, -1, -1)], 1)
    assert torch.equal(default, expected)
    source = editor.sd.encode_text(['a dog']).tokens
    assert torch.equal(reconstruction[:, :72], source[:, :72])
    assert torch.equal(reconstruction[:, 72:], tail)


def test_strength_and_image_choose_what_infer_uses(tiny_sd1):
    editor = make_hiper(tiny_sd1, source_text=['a dog', 'a fox'])
    with torch.no_grad():
        editor.embedding.tail[1].neg_()

    def draw(**options):
        return editor.infer(
            'a cat',
            num_inference_steps=2,
            show_progress=False,
            return_type='tensor',
            **options,
        )['samples']

    assert torch.equal(draw(), draw(image=0, strength=0.8))
    assert not torch.allclose(draw(), draw(image=1), atol=1e-4)
    assert not torch.allclose(draw(), draw(strength=0.2), atol=1e-4)


@pytest.mark.parametrize('n_hiper', [1, 5, 76])
@pytest.mark.filterwarnings('ignore:A text of 4 tokens')  # N=76 has no room
def test_a_long_text_is_cut_and_the_embedding_is_not(tiny_sd1, n_hiper):
    editor = make_hiper(tiny_sd1, n_hiper=n_hiper)
    limit = min(77 - n_hiper - 1, 75)
    fitting, long = 'x' * limit, 'x' * (limit + 1)

    if limit:
        with warnings.catch_warnings():
            warnings.simplefilter('error')
            editor.encode_content([fitting])
    with pytest.warns(UserWarning, match=f'{limit + 1} tokens.* {limit}'):
        cut = editor.encode_content([long])

    # what stands at the content positions is the text up to the limit
    marks = editor.sd.encode_text([long], free=n_hiper)
    assert torch.equal(cut.tokens, marks.tokens)
    with torch.no_grad(), pytest.warns(UserWarning):
        condition = editor.condition([long], strength=1.0)
    assert torch.equal(condition.tokens[:, -n_hiper:], editor.embedding.tail)


# ------------------------------------------------------------------- training
@pytest.mark.usefixtures('float64')
def test_the_loss_is_that_of_the_paper(tiny_folder):
    images = [picture(0), picture(1)]
    editor = make_hiper(tiny_folder, source_text=['a dog', 'a fox'])
    at_step(3, seed=11)
    data = editor.data_preprocessor(batch_of(images, [0, 1]))

    # record what reaches the U-Net, and redo the arithmetic by hand
    calls = []
    handle = editor.sd.unet.register_forward_hook(
        lambda module, args, kwargs, out: calls.append((args, kwargs, out)),
        with_kwargs=True,
    )
    try:
        loss = editor(**data, mode='loss')['loss']
    finally:
        handle.remove()

    (((noised, t), kwargs, output),) = calls
    z0 = torch.cat(editor._latents.values())
    alphas = editor.sd.scheduler.alphas_cumprod.double()
    alpha = alphas[t].reshape(2, 1, 1, 1)
    eps = (noised - alpha.sqrt() * z0) / (1 - alpha).sqrt()
    target = eps
    if editor.sd.scheduler.config.prediction_type == 'v_prediction':
        target = alpha.sqrt() * eps - (1 - alpha).sqrt() * z0
    by_hand = (output[0] - target).square().mean(dim=(1, 2, 3)).sum()
    torch.testing.assert_close(loss, by_hand, **EXACT)
    assert abs(eps.mean()) < 0.2
    assert 0.8 < eps.std() < 1.2
    tokens = kwargs['encoder_hidden_states']
    source = editor.sd.encode_text(['a dog', 'a fox']).tokens
    assert torch.equal(tokens, source)  # nothing is learned yet


def test_training_changes_the_tail_alone_and_lowers_the_loss(tiny_folder):
    editor = make_hiper(tiny_folder)
    frozen = {n: w.clone() for n, w in editor.sd.named_parameters()}
    before = editor.embedding.tail.detach().clone()
    image = [picture(0)]

    def mean_loss():
        return torch.stack(
            [losses_at(editor, image, i, seed=99) for i in range(20)]
        ).mean()

    start = mean_loss()
    train(editor, image, 40)

    assert mean_loss() < start
    assert (editor.embedding.tail - before).abs().max() > 0.05
    for name, weight in editor.sd.named_parameters():
        assert torch.equal(weight, frozen[name])
        assert weight.grad is None


def test_parameters_and_state_are_the_learned_tensors(tiny_folder):
    editor = make_hiper(tiny_folder, n_hiper=4)
    width = editor.sd.unet.config.cross_attention_dim

    assert [name for name, _ in editor.named_parameters()] == [
        'embedding.tail'
    ]
    state = editor.state_dict()
    assert list(state) == ['embedding.tail']
    assert state['embedding.tail'].shape == (1, 4, width)
    assert state['embedding.tail'].dtype == torch.float32


@pytest.mark.usefixtures('float64')
def test_noise_depends_on_seed_picture_and_iteration_alone(tiny_sd1):
    editor = make_hiper(tiny_sd1, source_text=['a dog'] * 2)
    a, b, c = picture(0), picture(1), picture(2)

    alone = losses_at(make_hiper(tiny_sd1), [b], 5)
    beside_a = losses_at(editor, [a, b], 5)[1]
    beside_c = losses_at(editor, [b, c], 5)[0]
    torch.testing.assert_close(alone[0], beside_a, **EXACT)
    torch.testing.assert_close(alone[0], beside_c, **EXACT)

    torch.manual_seed(1)  # whatever else draws random numbers
    fresh = make_hiper(tiny_sd1)
    assert torch.equal(losses_at(fresh, [b], 5), alone)
    assert not torch.allclose(losses_at(fresh, [b], 6), alone, atol=1e-3)
    assert not torch.allclose(losses_at(fresh, [b], 5, 1), alone, atol=1e-3)
    assert not torch.allclose(losses_at(fresh, [c], 5), alone, atol=1e-3)


def test_all_timesteps_are_drawn(tiny_sd1):
    editor = make_hiper(tiny_sd1)
    seen = []
    handle = editor.sd.unet.register_forward_pre_hook(
        lambda module, args: seen.append(int(args[1]))
    )
    try:
        for iteration in range(100):
            losses_at(editor, [picture(0)], iteration)
    finally:
        handle.remove()

    assert min(seen) < 100
    assert max(seen) > 900
    assert 400 < np.mean(seen) < 600


@pytest.mark.usefixtures('float64')
def test_k_images_at_once_are_k_single_runs(tiny_folder):
    pictures = [picture(seed) for seed in range(3)]
    texts = ['a dog', 'a fox', 'a cat']

    together = train(make_hiper(tiny_folder, source_text=texts), pictures, 5)

    for k in range(3):
        editor = make_hiper(tiny_folder, source_text=texts[k])
        alone = train(editor, [pictures[k]], 5)
        moved = (
            alone
            - make_hiper(tiny_folder, source_text=texts[k]).embedding.tail
        )
        assert moved.abs().max() > 0.02
        torch.testing.assert_close(alone[0], together[k], **EXACT)


@pytest.mark.usefixtures('float64')
def test_copies_of_a_picture_in_a_batch_count_once(tiny_sd1):
    editor = make_hiper(tiny_sd1)
    at_step(0)

    def loss(copies):
        data = editor.data_preprocessor(
            batch_of([picture(0)] * copies, [0] * copies)
        )
        return editor(**data, mode='loss')['loss']

    torch.testing.assert_close(loss(3), loss(1), **EXACT)


def test_picture_and_text_are_encoded_once(tiny_sd1):
    editor = make_hiper(tiny_sd1)
    calls = []
    handles = [
        editor.sd.vae.encoder.register_forward_hook(
            lambda *_: calls.append('image')
        ),
        editor.sd.text_encoder.register_forward_hook(
            lambda *_: calls.append('text')
        ),
    ]
    try:
        train(editor, [picture(0)], 5)
    finally:
        for handle in handles:
            handle.remove()

    assert calls == ['image']


def test_another_seed_draws_another_posterior_sample(tiny_sd1):
    editor = make_hiper(tiny_sd1)

    for seed in (0, 1, 0):
        losses_at(editor, [picture(0)], 0, seed)

    first, second = editor._latents.values()
    assert not torch.equal(first, second)
    mean = editor.sd.encode_image(
        editor.data_preprocessor(batch_of([picture(0)], [0]))['inputs']
    )
    assert not torch.equal(first, mean)


def test_under_autocast_the_loss_is_fp32(tiny_sd1):
    editor = make_hiper(tiny_sd1)
    at_step(0)
    data = editor.data_preprocessor(batch_of([picture(0)], [0]))

    with torch.autocast('cpu', dtype=torch.bfloat16):
        loss = editor(**data, mode='loss')['loss']
    loss.backward()

    assert loss.dtype == torch.float32
    assert editor.embedding.tail.grad.dtype == torch.float32


def test_the_frozen_model_follows_the_editor(tiny_sd1):
    editor = make_hiper(tiny_sd1)
    losses_at(editor, [picture(0)], 0)

    editor.to('meta')
    assert not editor._latents.values()  # they were on the old device
    assert editor.embedding.tail.device.type == 'meta'
    assert editor.sd.device.type == 'meta'
    assert editor.content.device.type == 'meta'


# ---------------------------------------------------------------- other modes
def test_tensor_mode_gives_the_output_of_the_unet(tiny_sd1):
    editor = make_hiper(tiny_sd1)
    at_step(0)
    data = editor.data_preprocessor(batch_of([picture(0)], [0]))

    output, target = editor.predict_training_step(**data)

    assert torch.equal(editor(**data, mode='tensor'), output)
    assert output.shape == target.shape == (1, 4, 8, 8)


def test_predict_mode_draws_the_edit_of_each_image(tiny_sd1):
    editor = make_hiper(
        tiny_sd1,
        source_text=['a dog', 'a fox'],
        target_text=['a cat', 'a hen'],
    )
    data = batch_of([picture(1), picture(0)], [1, 0])

    first, second = editor.test_step(data)

    for i, (sample, text, image) in enumerate(
        [(first, 'a hen', 1), (second, 'a cat', 0)]
    ):
        (expected,) = editor.infer(
            text, image=image, seed=1 + i, show_progress=False
        )['samples']
        drawn = sample.edited.permute(1, 2, 0).numpy().astype(int)
        assert np.abs(drawn - np.asarray(expected)).max() <= GREY_LEVEL


# ------------------------------------------------------------------- previews
def test_a_preview_is_three_panels_from_one_sampling_run(tiny_sd1):
    editor = make_hiper(tiny_sd1)
    train(editor, [picture(0, 64)], 1)
    sizes = []
    handle = editor.sd.unet.register_forward_pre_hook(
        lambda module, args: sizes.append(len(args[0]))
    )
    try:
        panels = editor.preview(num_inference_steps=3)
    finally:
        handle.remove()

    assert sizes == [6] * 3  # three pictures, each with and without text
    assert [caption for caption, _ in panels] == [
        '[a dog] + hiper',
        '[a cat] + 0.8 hiper',
        '[a cat]',
    ]
    for (caption, panel), options in zip(
        panels[:2],
        [('a dog', dict(strength=1.0)), ('a cat', {})],
        strict=True,
    ):
        prompt, keywords = options
        (expected,) = editor.infer(
            prompt, num_inference_steps=3, show_progress=False, **keywords
        )['samples']
        difference = np.asarray(panel).astype(int) - np.asarray(expected)
        assert np.abs(difference).max() <= GREY_LEVEL, caption


def test_a_preview_without_a_target_text(tiny_sd1):
    panels = make_hiper(tiny_sd1, target_text=None).preview(2)

    assert [caption for caption, _ in panels] == [
        '[a dog] + hiper',
        '[a dog] + 0.8 hiper',
        '[a dog]',
    ]


# --------------------------------------------------------------------- errors
@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(n_hiper=0), r'`n_hiper` must be in \[1, 76\], but got 0'),
        (dict(n_hiper=77), r'`n_hiper` must be in \[1, 76\], but got 77'),
        (dict(source_text=''), '`source_text`'),
        (dict(source_text=[]), '`source_text`'),
        (dict(target_text=' '), '`target_text`'),
        (dict(target_text=['a', 'b']), '1 source texts, but got 2'),
    ],
)
def test_mistakes_are_named(tiny_sd1, options, message):
    with pytest.raises(ValueError, match=message):
        make_hiper(tiny_sd1, **options)


@pytest.mark.parametrize(('index', 'found'), [(2, '2'), (None, 'none')])
def test_an_image_index_that_does_not_exist(tiny_sd1, index, found):
    editor = make_hiper(tiny_sd1, source_text=['a dog', 'a fox'])
    at_step(0)
    data = batch_of([picture(0)], [index])
    if index is None:
        del data['data_samples']

    with pytest.raises(ValueError, match=rf'\[0, 1\].*got {found}'):
        editor(**editor.data_preprocessor(data), mode='loss')


def test_one_image_needs_no_index(tiny_sd1):
    editor = make_hiper(tiny_sd1)
    at_step(0)

    data = editor.data_preprocessor(dict(inputs=[picture(0)]))

    assert editor(**data, mode='loss')['loss'] > 0


def test_a_step_outside_a_run_says_what_it_needs(tiny_sd1):
    editor = make_hiper(tiny_sd1)
    data = editor.data_preprocessor(batch_of([picture(0)], [0]))
    MessageHub.get_instance('nothing-set-here')

    with pytest.raises(ValueError, match='seed and iteration'):
        editor(**data, mode='loss')


def test_a_batch_that_skipped_the_preprocessor(tiny_sd1):
    editor = make_hiper(tiny_sd1)
    at_step(0)
    data = batch_of([torch.zeros(3, 64, 64)], [0])

    with pytest.raises(ValueError, match='data_preprocessor'):
        editor(**data, mode='loss')


# ------------------------------------------------------------------- building
def test_a_loaded_model_can_be_shared(tiny_sd1):
    sd = StableDiffusion(str(tiny_sd1))

    one, two = make_hiper(tiny_sd1, sd=sd), make_hiper(tiny_sd1, sd=sd)

    assert one.sd is two.sd is sd


def test_the_metadata_says_what_the_tail_is_worth_nothing_without(tiny_sd1):
    editor = make_hiper(tiny_sd1)

    assert editor.export_metadata() == dict(
        version=1,
        editor='HiPer',
        backbone=str(tiny_sd1),
        sd=dict(dtype='fp32', sampler='DDIMScheduler'),
        arguments=dict(
            source_text='a dog',
            target_text='a cat',
            n_hiper=3,
            strength=0.8,
            data_preprocessor=None,
            val_prompts=None,
            hold_outside=0.0,
            noise_offset=0.0,
            min_snr_gamma=None,
            debiased=False,
            more_source_texts=None,
            tail_dropout=0.0,
            draws_per_step=1,
            draw_times='random',
            time_range=None,
        ),
    )
    learned = editor.learned_state()
    learned['embedding.tail'].zero_()
    assert editor.embedding.tail.abs().max() > 0  # it was a copy


def test_the_preprocessor_has_the_size_of_the_backbone(tiny_sd1):
    editor = make_hiper(tiny_sd1)

    assert editor.data_preprocessor.size == 64
    assert type(editor) is MODELS.get('mmhiper.HiPer')


def test_a_comparison_is_about_its_own_image(tiny_sd1):
    editor = make_hiper(tiny_sd1, source_text=['a dog', 'a cat'])
    samples = batch_of([picture(0), picture(1)], [0, 1])['data_samples']

    about = [[editor.is_about(k, each) for each in samples] for k in (0, 1)]
    assert about == [[True, False], [False, True]]


# ------------------------------------------------ several texts, and dropout
def conditions(editor, iterations, key='a', image=0):
    """What an image is trained with at some iterations, (I, M, D)."""
    sample = BaseDataElement(metainfo=dict(image_key=key, image_index=image))
    found = []
    for iteration in iterations:
        at_step(iteration)
        found.append(editor.train_condition([sample]).tokens.detach()[0])
    return torch.stack(found)


def test_each_step_takes_one_of_the_source_texts(tiny_sd1):
    more = ['a dog in the snow', 'a big dog']
    editor = make_hiper(tiny_sd1, more_source_texts=more)
    with torch.no_grad():
        editor.embedding.tail.neg_()
    plain = editor.sd.encode_text(['a dog', *more]).tokens[:, :-3]

    seen = conditions(editor, range(60))

    which = [
        [torch.equal(one[:-3], text) for text in plain].index(True)
        for one in seen
    ]
    assert set(which) == {0, 1, 2}
    assert torch.equal(seen, conditions(editor, range(60)))
    for one in seen:  # one tail behind all of them
        assert torch.equal(one[-3:], editor.embedding.tail[0])


def test_texts_of_an_image_do_not_depend_on_its_company(tiny_sd1):
    alone = make_hiper(tiny_sd1, more_source_texts=['a fox', 'two dogs'])
    both = make_hiper(
        tiny_sd1,
        source_text=['a cat', 'a dog'],
        more_source_texts=[['a cow'], ['a fox', 'two dogs']],
    )

    assert torch.equal(
        conditions(alone, range(9)), conditions(both, range(9), image=1)
    )


def test_the_fixed_loss_reads_the_first_text_and_the_whole_tail(tiny_sd1):
    editor = make_hiper(
        tiny_sd1, more_source_texts=['a fox'], tail_dropout=0.5
    )
    sample = BaseDataElement(metainfo=dict(image_key='a'))
    for iteration in range(4):
        at_step(iteration)
        fixed = editor.fixed_condition(sample).tokens
        expected = editor.condition(['a dog'], strength=1.0).tokens
        assert torch.equal(fixed, expected)


def test_dropped_positions_are_plain_and_as_many_as_asked(tiny_sd1):
    editor = make_hiper(tiny_sd1, n_hiper=5, tail_dropout=0.25)
    with torch.no_grad():
        editor.embedding.tail.add_(1)
    plain = editor.sd.encode_text(['a dog']).tokens[0]

    seen = conditions(editor, range(400))

    left = (seen == plain).all(-1)
    assert left[:, :-5].all()
    learned = seen == torch.cat([plain[:-5], editor.embedding.tail[0]])
    assert (left | learned.all(-1)).all()
    # 2000 draws of chance 1/4: the share's deviation is .0097; six of them
    assert abs(left[:, -5:].float().mean() - 0.25) < 0.06


def test_dropped_positions_get_no_gradient(tiny_sd1):
    editor = make_hiper(tiny_sd1, n_hiper=5, tail_dropout=0.5)
    sample = BaseDataElement(metainfo=dict(image_key='a'))
    at_step(3)
    tokens = editor.train_condition([sample]).tokens
    plain = editor.sd.encode_text(['a dog']).tokens
    with torch.no_grad():
        editor.embedding.tail.add_(1)
    left = (editor.train_condition([sample]).tokens == plain).all(-1)[0, -5:]

    tokens.sum().backward()

    gradient = editor.embedding.tail.grad[0]
    assert left.any() and not left.all()
    assert torch.equal((gradient == 0).all(-1), left)


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        (dict(more_source_texts='a fox'), 'list of texts'),
        (dict(more_source_texts=[['a fox'], ['x']]), 'each of 1'),
        (dict(more_source_texts=['a fox', '']), 'more_source_texts'),
        (
            dict(source_text=['a', 'b'], more_source_texts=['x', 'y']),
            'lists for 2',
        ),
        (dict(tail_dropout=1.0), r'in \[0, 1\)'),
        (dict(tail_dropout=-0.1), r'in \[0, 1\)'),
    ],
)
def test_wrong_texts_and_shares_are_refused(tiny_sd1, options, words):
    with pytest.raises(ValueError, match=words):
        make_hiper(tiny_sd1, **options)


# --------------------------------------------------- a strength of each stage
def test_a_strength_of_each_stage(tiny_sd1):
    editor = make_hiper(tiny_sd1)
    texts = ['a cat', 'a fox']
    with torch.no_grad():
        editor.embedding.tail.neg_()

    varied = editor.condition(texts, strength=[0.2, 0.9, 1.0])

    assert varied.tokens.shape[:3] == (2, 3, 1)
    for stage, strength in enumerate((0.2, 0.9, 1.0)):
        one = editor.condition(texts, strength=strength).tokens
        assert torch.equal(varied.tokens[:, stage, 0], one)
    same = make_hiper(tiny_sd1, strength=[0.2, 0.9, 1.0])
    same.load_state_dict(editor.state_dict())
    assert torch.equal(same.condition(texts).tokens, varied.tokens)
    caption, _ = same.preview_conditions()[1]
    assert '0.2, 0.9, 1 hiper' in caption


def test_equal_strengths_are_one(tiny_sd1):
    editor = make_hiper(tiny_sd1)

    def draw(strength):
        return editor.infer(
            'a cat',
            num_inference_steps=3,
            show_progress=False,
            return_type='tensor',
            strength=strength,
        )['samples']

    assert torch.equal(draw([0.5, 0.5, 0.5]), draw(0.5))
    assert not torch.equal(draw([0.1, 0.5, 1.0]), draw(0.5))


@pytest.mark.parametrize('strength', [[], ['0.8'], [0.8, None], float('nan')])
def test_a_strength_is_numbers(tiny_sd1, strength):
    with pytest.raises(ValueError, match=r'`strength`.* must be a number'):
        make_hiper(tiny_sd1, strength=strength)
    with pytest.raises(ValueError, match=r'`strength`.* must be a number'):
        make_hiper(tiny_sd1).condition(['a cat'], strength=strength)


def test_a_pipeline_takes_one_strength(tiny_sd1):
    pipeline = to_diffusers(make_hiper(tiny_sd1, strength=[0.5, 1.0]))

    with pytest.raises(ValueError, match='one text in all steps'):
        pipeline.embeds('a cat')
    assert pipeline.embeds('a cat', strength=0.8)
