"""What a run leaves behind: checkpoints, exports, previews, closing words."""

import base64
import io
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.logging import HistoryBuffer
from PIL import Image
from runs import REPO, config, learn
from safetensors import safe_open

from mmhiper.engine import PlainCheckpointHook, PreviewHook
from mmhiper.engine.hooks import to_plain
from mmhiper.engine.hooks.preview_hook import SHARE, spacing
from mmhiper.engine.launch import train
from mmhiper.engine.sources import sources_of
from mmhiper.io import read_export
from mmhiper.io.modelspec import fields_in
from mmhiper.registry import MODELS
from mmhiper.utils.sheet import cut_panels, draw_sheet, read_panels


@pytest.fixture(scope='module')
def run(tiny_sd1, tmp_path_factory):
    """A run of three iterations with all hooks, and its console output."""
    folder = tmp_path_factory.mktemp('hooks')
    cfg = config(folder, tiny_sd1, iters=3, previews=True)
    cfg.default_hooks.checkpoint.interval = 2
    cfg.modelspec.license = 'cc0-1.0'
    for hook in cfg.custom_hooks:
        if hook.type == 'PreviewHook':
            hook.interval = 2
            hook.guidance_interval = (0.3, 5)
    runner = train(cfg)
    log = next(Path(runner.log_dir).glob('*.log')).read_text()
    return cfg, runner, log


def test_contract_4(run):
    """The snippet of the README, as it stands."""
    cfg, runner, _ = run
    checkpoint = torch.load(f'{cfg.work_dir}/iter_2.pth')
    model = MODELS.build(cfg.model)
    model.load_state_dict(checkpoint['state_dict'])
    sample = model.infer('a sitting dog', num_inference_steps=2)['samples'][0]

    assert sample.size == (64, 64)
    assert list(checkpoint['state_dict']) == ['embedding.tail']
    final = torch.load(f'{cfg.work_dir}/iter_3.pth')
    assert torch.equal(
        final['state_dict']['embedding.tail'],
        runner.model.state_dict()['embedding.tail'],
    )


def test_checkpoint_says_what_it_belongs_to(run, tiny_sd1):
    cfg, *_ = run
    meta = torch.load(f'{cfg.work_dir}/iter_2.pth')['meta']

    assert (meta['iter'], meta['seed']) == (2, 200000)
    assert meta['embedding']['editor'] == 'HiPer'
    assert meta['embedding']['backbone'] == str(tiny_sd1)
    assert meta['embedding']['arguments']['source_text'] == 'a standing dog'


def test_checkpoint_is_small(run):
    cfg, *_ = run
    assert Path(cfg.work_dir, 'iter_3.pth').stat().st_size < 30_000


@pytest.mark.parametrize('step', [2, 3])
def test_export_beside_each_checkpoint(run, step):
    cfg, *_ = run
    path = Path(cfg.work_dir, f'iter_{step}.safetensors')
    tensors, metadata = read_export(path)
    state = torch.load(path.with_suffix('.pth'))['state_dict']

    assert torch.equal(tensors['embedding.tail'], state['embedding.tail'])
    assert metadata == dict(
        torch.load(path.with_suffix('.pth'))['meta']['embedding'], step=step
    )
    assert metadata['seed'] == 200000
    assert metadata['arguments']['n_hiper'] == 5


def test_exports_say_what_user_interfaces_show(run):
    cfg, *_ = run
    found = []
    for step in (2, 3):
        path = Path(cfg.work_dir, f'iter_{step}.safetensors')
        with safe_open(path, framework='pt') as file:
            found.append(fields_in(file.metadata()))
    first, last = found

    mark = json.loads(Path(cfg.work_dir, 'run.json').read_text())
    assert first['date'] == last['date'] == mark['started']
    assert last['license'] == 'cc0-1.0' and 'author' not in last
    assert last['architecture'] == 'stable-diffusion-32/hiper'
    assert first['hash_sha256'] != last['hash_sha256']
    # a picture of what was learned, of the last one alone
    assert 'thumbnail' not in first
    content = base64.b64decode(last['thumbnail'].partition(',')[2])
    with Image.open(io.BytesIO(content)) as small:
        thumbnail = np.asarray(small.convert('RGB'), np.float32)
    panels = read_panels(Path(cfg.work_dir, 'previews', 'iter_000003.png'))
    distances = {
        caption: np.abs(
            thumbnail - np.asarray(panel.resize(small.size), np.float32)
        ).mean()
        for caption, panel in panels
    }
    assert min(distances, key=distances.get) == '[a sitting dog] + 0.8 hiper'


def test_previews_are_files_that_sort(run):
    cfg, runner, _ = run
    files = sorted(Path(cfg.work_dir, 'previews').iterdir())

    assert [file.name for file in files] == [
        'iter_000002.png',
        'iter_000003.png',
    ]
    with Image.open(files[0]) as picture:
        assert picture.width > 4 * 256  # four panels
    assert list(Path(runner.log_dir).rglob('preview_2.png'))


def test_closing_words_name_files_and_a_command_that_works(run):
    cfg, _, log = run
    closing = log[log.index('Done: 3 iterations') :]
    named = re.findall(r'(?:checkpoint|picture) +(\S+)', closing)
    words = shlex.split(closing.splitlines()[-1])

    assert len(named) == 2
    assert all(Path(file).is_file() for file in named)
    config_file, checkpoint, option, prompt = words[2:]
    assert words[:2] == ['mmhiper', 'infer']
    assert Path(checkpoint) == Path(named[0])
    assert (option, prompt) == ('--prompt', 'a sitting dog')
    # the config as it was run
    assert (
        Config.fromfile(config_file).model.sd.pretrained
        == cfg.model.sd.pretrained
    )


def test_previews_leave_the_training_alone(run, tiny_sd1, tmp_path):
    _, runner, _ = run
    without = learn(config(tmp_path, tiny_sd1, iters=3, previews=False))

    assert torch.equal(without, runner.model.state_dict()['embedding.tail'])


def test_to_plain():
    buffer = HistoryBuffer([1.0, 2.0], [1, 1])
    value = dict(
        numbers=[np.float64(1.5), np.int64(2), np.arange(2)],
        version=torch.__version__,
        nested=({'a'}, None, True),
        buffer=buffer,
        tensor=torch.ones(2),
        kind=HistoryBuffer,
    )

    plain = to_plain(value)

    assert plain['numbers'] == [1.5, 2, [0, 1]]
    assert [type(number) for number in plain['numbers']] == [float, int, list]
    assert type(plain['version']) is str
    assert plain['nested'] == (['a'], None, True)
    assert plain['buffer'] == dict(
        log_history=[1.0, 2.0], count_history=[1, 1], max_length=1000000
    )
    assert plain['tensor'] is value['tensor']
    assert isinstance(plain['kind'], str)


def test_log_buffers_come_back(tmp_path):
    buffer = HistoryBuffer([1.0, 2.0], [1, 3])
    checkpoint = dict(
        state_dict={}, message_hub=dict(log_scalars=dict(loss=buffer))
    )
    hook = PlainCheckpointHook()

    hook.before_save_checkpoint(None, checkpoint)
    torch.save(checkpoint, tmp_path / 'file.pth')
    loaded = torch.load(tmp_path / 'file.pth', weights_only=True)
    hook.after_load_checkpoint(None, loaded)

    restored = loaded['message_hub']['log_scalars']['loss']
    assert restored.mean() == buffer.mean() == 0.75


def test_previews_are_guided_as_the_hook_says(run):
    cfg, runner, _ = run
    with Image.open(f'{cfg.work_dir}/previews/iter_000003.png') as sheet:
        sheet.load()
        record = json.loads(sheet.text['mmhiper'])
    assert record == dict(guidance_scale=7.5, guidance_interval=[0.3, 5])

    panels = cut_panels(sheet)
    dataset = runner.train_dataloader.dataset
    sources = sources_of(dataset, runner.model.data_preprocessor)
    drawn = runner.model.preview(guidance_interval=(0.3, 5))
    again = cut_panels(draw_sheet([[*sources.panels, *drawn]]))
    assert [image.tobytes() for _, image in panels] == [
        image.tobytes() for _, image in again
    ]


def test_mistakes_in_what_previews_draw_end_the_run_at_its_start(
    tiny_sd1, tmp_path
):
    with pytest.raises(ValueError, match=r"'strength'.*guidance_scale"):
        PreviewHook(strength=1)
    cfg = config(tmp_path, tiny_sd1, iters=3, previews=True)
    for hook in cfg.custom_hooks:
        if hook.type == 'PreviewHook':
            hook.guidance_rescale = 7
    with pytest.raises(ValueError, match=r'`guidance_rescale`.*\[0, 1\]'):
        train(cfg)
    assert not list(tmp_path.rglob('iter_*'))


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        (dict(scheduler='Euler'), '`scheduler` must be one of'),
        (dict(share=0), '`share` of PreviewHook must be above 0'),
    ],
)
def test_mistakes_in_how_previews_are_drawn(
    tiny_sd1, tmp_path, options, words
):
    cfg = config(tmp_path, tiny_sd1, iters=1, previews=True)
    for hook in cfg.custom_hooks:
        if hook.type == 'PreviewHook':
            hook.update(options)
    with pytest.raises(ValueError, match=words):
        train(cfg)


def test_previews_are_drawn_where_the_share_pays_for_them(tiny_sd1, tmp_path):
    cfg = config(tmp_path, tiny_sd1, iters=40, previews=True)
    cfg.default_hooks.checkpoint.interval = 10
    cfg.custom_hooks = [
        dict(
            type='PreviewHook',
            share=0.6,
            num_inference_steps=2,
            scheduler='DPMSolverMultistepScheduler',
        ),
    ]
    runner = train(cfg)

    # a step 2.08 passes, a preview 3 * (2 * 2 + 3.13): one in 20 iterations
    names = [f'iter_{step:06d}.png' for step in (20, 40)]
    folder = tmp_path / 'run' / 'previews'
    assert sorted(path.name for path in folder.iterdir()) == names
    assert (tmp_path / 'run' / 'timeline.png').is_file()
    with Image.open(folder / names[0]) as sheet:
        sheet.load()
    assert json.loads(sheet.text['mmhiper']) == dict(
        guidance_scale=7.5,
        num_inference_steps=2,
        scheduler='DPMSolverMultistepScheduler',
    )
    # and cost what was counted
    passes: list[int] = []
    editor = runner.model
    editor.sd.unet.register_forward_pre_hook(
        lambda module, args: passes.append(len(args[0]))
    )
    drawn = editor.preview(num_inference_steps=3)
    step, preview = editor.costs(1, num_inference_steps=3)
    assert preview == pytest.approx(sum(passes) + 3.13 * len(drawn))
    assert step == 2.08


@pytest.mark.parametrize(
    ('name', 'previews'),
    [
        ('hiper/dog.py', 2),
        ('textual_inversion/textual_inversion.py', 3),
        ('textual_inversion/two_concepts.py', None),
    ],
)
def test_previews_of_a_config_are_at_most_a_share_of_its_work(
    tiny_sd1, name, previews
):
    cfg = Config.fromfile(REPO / 'configs' / name)
    words = {'model.sd.pretrained': str(tiny_sd1), 'model.sd.without_cuda': ''}
    if 'initialize_token' in cfg.model:
        words['model.initialize_token'] = 'x'
    cfg.merge_from_dict(words)
    cfg.model.sd.without_cuda = None
    length = cfg.train_cfg.max_iters
    checkpoints = cfg.default_hooks.checkpoint.interval
    (hook,) = (h for h in cfg.custom_hooks if h.type == 'PreviewHook')
    assert 'interval' not in hook

    editor = MODELS.build(cfg.model)
    costs = editor.costs(cfg.train_dataloader.batch_size)
    every = spacing(length, costs, SHARE, checkpoints)
    count = -(-length // every)
    assert every % checkpoints == 0
    assert count * costs[1] <= 0.15 * length * costs[0]
    assert previews in (None, count)


def test_previews_are_few_where_a_run_is_short():
    assert spacing(10, (2, 1000), 0.15, 1) == 10
    assert spacing(10, None, 0.15, 3) == 10
    assert spacing(1000, (2, 100), 0.15, 1) == 334
    assert spacing(1000, (2, 100), 0.15, 100) == 400


def test_preview_interval_is_checked():
    with pytest.raises(ValueError, match='at least 1 iteration, but got 0'):
        PreviewHook(interval=0)
