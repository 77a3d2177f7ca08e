"""What a run shows of itself: previews, timeline, curves, TensorBoard."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image
from runs import REPO, config, learn
from tensorboard.backend.event_processing.event_accumulator import (
    EventAccumulator,
)
from tiny import at_step, batch_of, make_hiper, picture
from tiny import train as train_by_hand
from tolerances import EXACT, GREY_LEVEL

from mmhiper.engine import LossCurveHook, PreviewHook
from mmhiper.engine.hooks.loss_curve_hook import LOSSES, STEPS, draw_curves
from mmhiper.engine.launch import train
from mmhiper.utils.sheet import MIN_PANEL, cut_panels

CONFIGS = REPO / 'configs'
WORD = CONFIGS / 'textual_inversion' / 'textual_inversion.py'
TENSORBOARD = {
    'visualizer.vis_backends.0.type': 'TensorboardVisBackend',
}


def every(cfg: Config, interval: int) -> Config:
    """Has the hooks that show something do it at an interval."""
    for hook in cfg.custom_hooks:
        if hook.type in ('PreviewHook', 'LossCurveHook'):
            hook.interval = interval
    cfg.default_hooks.checkpoint.interval = 2
    cfg.default_hooks.logger.interval = 1
    return cfg


@pytest.fixture(scope='module')
def run(tiny_sd1, tmp_path_factory):
    """A run of four iterations in TensorBoard, resumed for a fifth."""
    folder = tmp_path_factory.mktemp('seeing')
    stale = folder / 'run' / 'previews' / 'iter_000003.png'
    stale.parent.mkdir(parents=True)
    stale.write_bytes(b'of another run, with another interval')
    prompts = {'model.val_prompts': ['a dog on the beach', 'a dog at night']}
    options = {**TENSORBOARD, **prompts}
    cfg = config(folder, tiny_sd1, iters=4, previews=True, **options)
    first = train(every(cfg, 2))
    cfg = config(folder, tiny_sd1, iters=5, previews=True, **options)
    return first, train(every(cfg, 2), resume='auto')


def events_of(runner) -> EventAccumulator:
    """What the event file of a run holds."""
    (file,) = Path(runner.log_dir).rglob('events.out.tfevents*')
    return EventAccumulator(str(file)).Reload()


# ------------------------------------------------------------------- pictures
def test_tensorboard_has_the_previews_and_the_losses(run):
    first, _ = run
    events = events_of(first)

    assert [event.step for event in events.Images('preview')] == [2, 4]
    shown = Image.open(
        io.BytesIO(events.Images('preview')[1].encoded_image_string)
    )
    file = Path(first.work_dir, 'previews', 'iter_000004.png')
    with Image.open(file) as saved:
        assert np.array_equal(np.asarray(shown), np.asarray(saved))
    losses = [event.value for event in events.Scalars('loss')]
    assert len(losses) == 4 and min(losses) > 0
    fixed = events.Scalars('fixed_loss')
    assert [event.step for event in fixed] == [0, 2, 4]


def test_the_local_backend_has_them_too(tmp_path, tiny_sd1):
    runner = train(every(config(tmp_path, tiny_sd1, previews=True), 2))

    folder = Path(runner.log_dir, 'vis_data')
    names = {file.name for file in folder.rglob('preview*.png')}
    assert names == {'preview_2.png'}
    lines = (folder / 'scalars.json').read_text().splitlines()
    scalars = [json.loads(line) for line in lines]
    assert [s['step'] for s in scalars if 'fixed_loss' in s] == [0, 2]
    assert (tmp_path / 'run' / 'loss.png').is_file()
    # one preview makes no timeline
    assert not (tmp_path / 'run' / 'timeline.png').exists()


def test_a_preview_has_a_panel_for_each_validation_prompt(run):
    _, runner = run
    with Image.open(runner.message_hub.get_info('last_preview')) as sheet:
        panels = cut_panels(sheet)

    assert [caption for caption, _ in panels] == [
        'source',
        '[a standing dog] + hiper',
        '[a sitting dog] + 0.8 hiper',
        '[a sitting dog]',
        'a dog on the beach',
        'a dog at night',
    ]
    assert sheet.width == 4 * MIN_PANEL + 5 * 8  # in rows of four
    # drawn as `infer` draws it, from the noise that all panels have
    expected = np.asarray(
        runner.model.infer(
            'a dog on the beach',
            num_inference_steps=20,
            seed=1,
            show_progress=False,
        )['samples'][0].resize((MIN_PANEL,) * 2, Image.Resampling.LANCZOS)
    ).astype(int)
    # a level before it is enlarged, and one after
    difference = np.abs(np.asarray(panels[4][1]) - expected)
    assert difference.max() <= 2 * GREY_LEVEL


def test_the_timeline_has_a_row_for_each_preview(run):
    _, runner = run
    with Image.open(Path(runner.work_dir, 'timeline.png')) as timeline:
        pixels = np.asarray(timeline.convert('RGB'))

    previews = sorted(Path(runner.work_dir, 'previews').iterdir())
    assert [int(file.stem[5:]) for file in previews] == [2, 3, 4, 5]
    assert pixels.shape[1] == 6 * MIN_PANEL + 7 * 8
    bottom = pixels[-8 - MIN_PANEL : -8]
    for column, (_, panel) in enumerate(cut_panels(Image.open(previews[-1]))):
        left = 8 + column * (MIN_PANEL + 8)
        there = bottom[:, left : left + MIN_PANEL]
        assert np.array_equal(there, np.asarray(panel))
    # the third is none of this run
    assert 3 * MIN_PANEL < pixels.shape[0] < 4 * MIN_PANEL


# --------------------------------------------------------------------- curves
def test_a_resumed_run_has_the_whole_curve(run):
    first, resumed = run
    scalars = resumed.message_hub.log_scalars

    assert scalars['train/loss'].data[0].shape == (5,)
    assert scalars[STEPS].data[0].tolist() == [0, 2, 4, 5]
    before = first.message_hub.log_scalars[LOSSES].data[0]
    assert scalars[LOSSES].data[0][:3].tolist() == before.tolist()
    with Image.open(Path(resumed.work_dir, 'loss.png')) as curve:
        assert curve.size == (1000, 400)


def test_the_curves_are_what_they_say():
    steps, losses = np.arange(1, 1001), np.linspace(1, 2, 1000)
    fixed = (np.array([0, 500, 1000]), np.array([3.0, 2.0, 1.0]))

    left, right = draw_curves((steps, losses), fixed).axes

    raw, mean = left.get_lines()
    assert np.array_equal(raw.get_ydata(), losses)
    assert mean.get_xdata().tolist() == steps[99:].tolist()
    expected = [losses[i - 100 : i].mean() for i in range(100, 1001)]
    np.testing.assert_allclose(mean.get_ydata(), expected)
    assert right.get_lines()[0].get_ydata().tolist() == [3, 2, 1]
    assert len(draw_curves((steps, losses)).axes) == 1


def test_the_fixed_loss_is_of_what_was_learned_alone(tiny_folder):
    images = [picture(0), picture(1)]
    editor = make_hiper(tiny_folder, source_text=['a dog', 'a fox'])
    data = editor.data_preprocessor(batch_of(images, [0, 1]))

    def measure(iteration):
        at_step(iteration)
        return editor.fixed_losses(**data, draws=8).mean().item()

    start = measure(0)
    assert measure(7) == start
    train_by_hand(editor, images, 60)
    assert measure(60) < start


@pytest.mark.usefixtures('float64')
def test_the_fixed_loss_of_an_untrained_text_is_by_hand(tiny_sd1):
    editor = make_hiper(tiny_sd1)
    at_step(0)
    data = editor.data_preprocessor(batch_of([picture(0)], [0]))
    calls = []
    handle = editor.sd.unet.register_forward_hook(
        lambda module, args, out: calls.append((*args, out[0]))
    )
    try:
        loss = editor.fixed_losses(**data, draws=5).mean().item()
    finally:
        handle.remove()

    assert [int(t) for _, t, _ in calls] == [100, 300, 500, 700, 900]
    (z0,) = editor._latents.values()
    errors = []
    for noised, t, output in calls:
        alpha = editor.sd.scheduler.alphas_cumprod[int(t)].double()
        noise = (noised - alpha.sqrt() * z0) / (1 - alpha).sqrt()
        errors.append((output - noise).square().mean().item())
    np.testing.assert_allclose(loss, np.mean(errors), **EXACT)


# ------------------------------------------------------- leaving it unchanged
@pytest.mark.parametrize(
    ('file', 'prompts'),
    [
        (CONFIGS / 'hiper' / 'dog.py', ['a dog', 'a cat']),
        (WORD, ['a <cat-toy>', '<cat-toy> at night']),
    ],
)
def test_seeing_leaves_the_training_alone(tmp_path, tiny_sd1, file, prompts):
    options = {'model.num_vectors_per_token': 2} if file == WORD else {}
    plain = config(tmp_path, tiny_sd1, iters=3, file=file, **options)
    embedding = learn(plain)

    options['model.val_prompts'] = prompts
    seen = config(
        tmp_path, tiny_sd1, iters=3, file=file, previews=True, **options
    )
    assert torch.equal(learn(every(seen, 2)), embedding)


@pytest.mark.parametrize('hook', [PreviewHook, LossCurveHook])
def test_intervals_are_checked(hook):
    with pytest.raises(ValueError, match=r'at least 1.* got 0'):
        hook(interval=0)


def test_validation_prompts_are_texts(tiny_sd1):
    with pytest.raises(ValueError, match='`val_prompts` must be a text'):
        make_hiper(tiny_sd1, val_prompts=['a dog', ''])
    assert make_hiper(tiny_sd1, val_prompts='a dog').val_prompts == ['a dog']
