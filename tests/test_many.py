"""Many photos at once: the same as one at a time, however they are shared."""

from __future__ import annotations

import gc
import json
import os
import re
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from runs import REPO, config, draw_image, embedding_of, last
from tiny import batch_of, make_hiper, picture
from tiny import train as train_plainly
from tolerances import EXACT

from mmhiper.apis import load_editor
from mmhiper.cli import main
from mmhiper.engine.launch import train
from mmhiper.engine.share import Share
from mmhiper.engine.together import learn_together
from mmhiper.io import read_picture_record
from mmhiper.io.export import read_export
from mmhiper.many import Personaliser, Photo, personalise
from mmhiper.models import HiPer

FOLDER = REPO / 'configs' / 'hiper' / 'folder.py'
STEPS = 4
QUICK = dict(num_inference_steps=1)  # drawing is not what is tested


def settings(backbone: Path, size: int = 2, **more: object) -> Config:
    """The config of the project as a run of seconds."""
    cfg = Config.fromfile(FOLDER)
    cfg.merge_from_dict(
        {
            'images_per_step': size,
            'model.sd.pretrained': str(backbone),
            'model.sd.without_cuda': None,
            'train_cfg.max_iters': STEPS,
            **more,
        }
    )
    return cfg


def photo_of(folder: Path, number: int) -> Photo:
    """A photo of its own, with a text of its own."""
    path = folder / f'{number}.png'
    if not path.exists():
        draw_image(path, number)
    return Photo(
        str(path), f'a {"x" * (number + 1)}', ('a cat',), f'n{number}'
    )


def learned(out_dir: Path, photo: Photo) -> torch.Tensor:
    """What a photo has learned."""
    path = out_dir / photo.name / 'embedding.safetensors'
    return read_export(path)[0]['embedding.tail']


# ------------------------------------------------------------- independence
@pytest.mark.usefixtures('float64')
@pytest.mark.parametrize('size', [1, 2, 5])
def test_an_image_learns_what_it_learns_alone(tiny_folder, size):
    """By a plain loop of PyTorch's Adam over this image only."""
    texts = ['a dog', 'a fox', 'a cat', 'two x', 'y'][:size]
    cfg = settings(tiny_folder)
    together = make_hiper(tiny_folder, source_text=texts, target_text=None)
    data = batch_of([*map(picture, range(size))], [*range(size)])
    learn_together(together, data, cfg)

    for number, text in enumerate(texts):
        alone = make_hiper(tiny_folder, source_text=text)
        start = alone.embedding.tail.detach().clone()
        seed = cfg.randomness.seed
        tail = train_plainly(alone, [picture(number)], STEPS, seed)
        found = together.learned_of(number)
        assert list(found) == list(alone.learned_state())
        torch.testing.assert_close(found['embedding.tail'], tail, **EXACT)
        # Adam moves by up to its rate at each step
        assert (tail - start).abs().max() > cfg.optim_wrapper.optimizer.lr


def test_an_image_that_diverges_leaves_the_others_alone(tiny_folder):
    cfg = settings(tiny_folder)
    results = []
    for broken in (False, True):
        editor = make_hiper(
            tiny_folder, source_text=['a dog', 'a fox', 'y'], target_text=None
        )
        if broken:
            with torch.no_grad():
                editor.embedding.tail[1] = float('nan')
        learn_together(
            editor, batch_of([*map(picture, range(3))], [0, 1, 2]), cfg
        )
        results.append(editor.embedding.tail.detach())

    sound, broken = results
    assert sound.isfinite().all() and not broken[1].isfinite().any()
    for image in (0, 2):
        assert torch.equal(sound[image], broken[image])


def test_company_changes_no_bit(tiny_sd1, tmp_path):
    """The same place in a batch of the same size, beside others."""
    photos = [photo_of(tmp_path, number) for number in range(5)]
    cfg = settings(tiny_sd1)
    first, second = tmp_path / 'first', tmp_path / 'second'
    personalise(photos[:4], cfg, first, QUICK)
    other = [photos[4], photos[1], photos[2], photos[4]]
    worker = Personaliser(cfg, second, QUICK)
    worker(other[:2])
    worker(other[2:])

    for photo in photos[1:3]:
        assert torch.equal(learned(first, photo), learned(second, photo))


def test_one_at_a_time_is_the_ordinary_run(tiny_sd1, tmp_path):
    photo = photo_of(tmp_path, 0)
    out = tmp_path / 'out'
    assert personalise([photo], settings(tiny_sd1, 1), out, QUICK) == {}

    cfg = config(tmp_path, tiny_sd1, STEPS)
    cfg.train_dataloader.dataset.img = photo.path
    cfg.model.source_text = photo.source
    cfg.model.target_text = 'a cat'
    train(cfg)
    assert torch.equal(learned(out, photo), embedding_of(last(cfg)))


def test_a_worker_keeps_nothing_of_a_group(tiny_sd1, tmp_path):
    """Its memory is that of one group, however many there are."""

    def editors() -> int:
        gc.collect()
        return sum(isinstance(each, HiPer) for each in gc.get_objects())

    before = editors()
    worker = Personaliser(settings(tiny_sd1), tmp_path / 'out', QUICK)
    for start in (0, 2, 4):
        worker([photo_of(tmp_path, start + n) for n in range(2)])
        assert editors() == before


# ------------------------------------------------------------------- results
def test_what_is_done_is_skipped_and_what_is_bad_reported(
    tiny_sd1, tmp_path, capsys
):
    photos = [photo_of(tmp_path, number) for number in range(5)]
    bad = Path(photos[1].path)
    good = bad.read_bytes()
    bad.write_bytes(good[:40])
    cfg = settings(tiny_sd1)
    out = tmp_path / 'out'
    failed = personalise(photos, cfg, out, QUICK)

    assert list(failed) == ['n1'] and '1.png' in failed['n1']
    assert 'Traceback' in (out / 'n1' / 'error.txt').read_text()
    rows = json.loads((out / 'results.json').read_text())
    assert [row['row'] for row in rows] == [0, None, 1, 2, 3]
    page = (out / 'index.html').read_text()
    assert page.count('<img') == 4 and 'src="n4/sheet.png"' in page
    assert '1.png' in capsys.readouterr().out

    # all in one file, from which each draws as from its own
    done = [photos[0], *photos[2:]]
    editor = load_editor(out / 'embeddings.safetensors', device='cpu')
    assert editor.source_text == [photo.source for photo in done]
    for row, photo in enumerate(done):
        tail = editor.embedding.tail[row : row + 1]
        assert torch.equal(tail, learned(out, photo))
    record = read_picture_record(out / 'n2' / '001.png')
    assert record['prompt'] == photos[2].source
    assert read_picture_record(out / 'n2' / 'sheet.png')['targets'] == [
        'a cat'
    ]

    # again: another size of a step changes nothing of what is done
    def times() -> list[int]:
        return [
            (out / photo.name / 'case.json').stat().st_mtime_ns
            for photo in done
        ]

    before = times()
    bad.write_bytes(good)
    assert personalise(photos, settings(tiny_sd1, 3), out, QUICK) == {}
    assert times() == before
    assert '4 of 5 already done' in capsys.readouterr().out
    assert not (out / 'n1' / 'error.txt').exists()
    assert len(load_editor(out / 'embeddings.safetensors').source_text) == 5

    # another text, another picture, another setting are another case
    worker = Personaliser(cfg, out, QUICK)
    assert all(map(worker.is_done, photos))
    changed = Photo(photos[0].path, 'a fox', ('a cat',), 'n0')
    assert not worker.is_done(changed)
    draw_image(Path(photos[2].path), 9)
    assert not worker.is_done(photos[2])
    assert not Personaliser(cfg, out).is_done(photos[3])
    other = settings(tiny_sd1, **{'randomness.seed': 1})
    assert not Personaliser(other, out, QUICK).is_done(photos[3])


def test_a_diverged_image_is_no_result(tiny_sd1, tmp_path):
    cfg = settings(tiny_sd1, **{'optim_wrapper.optimizer.lr': 1e30})
    out = tmp_path / 'out'
    failed = personalise([photo_of(tmp_path, 0)], cfg, out, QUICK)

    assert 'diverged' in failed['n0']
    assert not list(out.rglob('*.safetensors'))


@pytest.mark.parametrize(
    ('values', 'words'),
    [
        ({'optim_wrapper.clip_grad': dict(max_norm=1)}, 'clip_grad'),
        ({'param_scheduler': [dict(type='ConstantLR')]}, 'param_scheduler'),
        ({'images_per_step': 0}, '`images_per_step` must be a whole number'),
        ({'randomness.seed': None}, r'`randomness\.seed`'),
        ({'model.type': 'DDIMInversion'}, 'is of HiPer'),
        ({'model.more_source_texts': ['x']}, 'more_source_texts'),
    ],
)
def test_what_would_join_the_images_is_refused(
    tiny_sd1, tmp_path, values, words
):
    with pytest.raises(ValueError, match=words) as caught:
        Personaliser(settings(tiny_sd1, **values), tmp_path)
    assert '\n' not in str(caught.value)


def test_a_mistake_of_all_is_told_once(tiny_sd1, tmp_path):
    cfg = settings(tiny_sd1, **{'model.n_hiper': 99})
    with pytest.raises(ValueError, match='n_hiper'):
        personalise([photo_of(tmp_path, 0)], cfg, tmp_path / 'out')


def test_texts_are_no_markup(tiny_sd1, tmp_path):
    path = draw_image(tmp_path / 'x.png')
    photo = Photo(str(path), 'a <b> & "c"', ('<i>',), 'a&b')
    personalise([photo], settings(tiny_sd1), tmp_path / 'out', QUICK)

    page = (tmp_path / 'out' / 'index.html').read_text()
    assert 'a &lt;b&gt; &amp;' in page and '<i>' not in page
    (source,) = re.findall('src="([^"]*)"', page)
    assert source == 'a%26b/sheet.png'


# -------------------------------------------------------------------- shares
def test_shares_are_all_and_disjoint(monkeypatch):
    items = list(range(11))
    parts = []
    for rank in ('0', '1'):
        monkeypatch.setenv('RANK', rank)
        monkeypatch.setenv('WORLD_SIZE', '2')
        parts += [Share.of(f'{n}/3').take(items) for n in range(3)]
    assert sorted(each for part in parts for each in part) == items
    assert len({*map(tuple, parts)}) == 6
    for wrong in ('3/3', '1', '-1/2', 'a/b', '0/0'):
        with pytest.raises(ValueError, match='NUMBER/COUNT'):
            Share.of(wrong)


def test_two_shares_make_one_result(tiny_sd1, tmp_path):
    photos = [photo_of(tmp_path, number) for number in range(3)]
    cfg = settings(tiny_sd1, 1)
    out = tmp_path / 'out'
    personalise(photos, cfg, out, QUICK, Share(1, 2))
    rows = json.loads((out / 'results.json').read_text())
    assert [row['row'] for row in rows] == [None, 0, None]
    assert (out / 'index.html').read_text().count('not done yet') == 2
    personalise(photos, cfg, out, QUICK, Share(0, 2))
    assert len(load_editor(out / 'embeddings.safetensors').source_text) == 3


def table_of(folder: Path, count: int) -> Path:
    """A table of photos, the second of which is none."""
    lines = ['name,image,prompt,target']
    for number in range(count):
        photo = photo_of(folder, number)
        lines.append(f'{photo.name},{number}.png,{photo.source},a cat')
    (folder / '1.png').write_bytes(b'none')
    table = folder / 'my.csv'
    table.write_text('\n'.join(lines))
    return table


def test_two_processes_share_the_images(tiny_sd1, tmp_path):
    """One with a bad image, at which the launcher must not end the other."""
    result = subprocess.run(
        [
            'bash', REPO / 'tools' / 'dist_train.sh', FOLDER, '2',
            '--work-dir', tmp_path / 'out', '--cfg-options',
            f'photos={table_of(tmp_path, 5)}', 'images_per_step=1',
            f'model.sd.pretrained={tiny_sd1}', 'model.sd.without_cuda=None',
            'train_cfg.max_iters=2',
        ],
        env={
            **os.environ,
            'PYTHON': sys.executable,
            'CUDA_VISIBLE_DEVICES': '',
            'OMP_NUM_THREADS': '1',
            'PORT': str(29600 + uuid.uuid4().int % 1000),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,  # of a machine that others use, too
    )  # fmt: skip

    assert result.returncode == 1, result.stdout
    assert 'Failed        1 of 5' in result.stdout
    rows = json.loads((tmp_path / 'out' / 'results.json').read_text())
    assert [row['row'] for row in rows] == [0, None, 1, 2, 3]


def test_an_array_of_slurm_jobs_shares_the_images(tiny_sd1, tmp_path):
    """The tasks 4 and 6 of ``--array=4-6:2``, one after the other."""
    table = table_of(tmp_path, 3)
    draw_image(tmp_path / '1.png', 1)
    for task, rows in (('6', [None, 0, None]), ('4', [0, 1, 2])):
        result = subprocess.run(
            [
                'bash', REPO / 'tools' / 'slurm_train.sh', 'gpu', 'many',
                FOLDER, tmp_path / 'out', '--cfg-options', f'photos={table}',
                'images_per_step=1', f'model.sd.pretrained={tiny_sd1}',
                'model.sd.without_cuda=None', 'train_cfg.max_iters=1',
            ],
            env={
                **os.environ,
                'PYTHON': sys.executable,
                'CUDA_VISIBLE_DEVICES': '',
                'SLURM_TRAIN_DIR': str(REPO / 'tools'),
                'SLURM_ARRAY_TASK_ID': task,
                'SLURM_ARRAY_TASK_MIN': '4',
                'SLURM_ARRAY_TASK_STEP': '2',
                'SLURM_ARRAY_TASK_COUNT': '2',
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=900,
        )  # fmt: skip
        assert result.returncode == 0, result.stdout
        found = json.loads((tmp_path / 'out' / 'results.json').read_text())
        assert [row['row'] for row in found] == rows


def test_a_signal_keeps_what_is_done(tiny_sd1, tmp_path):
    """And ends with the code of the signal; then the rest is learned."""
    table = table_of(tmp_path, 4)
    draw_image(tmp_path / '1.png', 1)
    out = tmp_path / 'out'
    words = ['train', str(FOLDER), '--work-dir', str(out), '--cfg-options']
    words += [f'photos={table}', 'images_per_step=1']
    words += [f'model.sd.pretrained={tiny_sd1}', 'model.sd.without_cuda=None']
    process = subprocess.Popen(
        [sys.executable, '-m', 'mmhiper', *words, 'train_cfg.max_iters=60'],
        env={**os.environ, 'CUDA_VISIBLE_DEVICES': ''},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        end = time.monotonic() + 600
        while not (out / 'n0' / 'case.json').exists():
            assert time.monotonic() < end and process.poll() is None
            time.sleep(0.05)
        process.terminate()
        output = process.communicate(timeout=60)[0]
    finally:
        process.kill()
    assert process.returncode == 143, output
    (done,) = re.findall(r'Interrupted\. (\d) of 4 image', output)
    assert 1 <= int(done) < 4
    assert 'Traceback' not in output

    before = (out / 'n0' / 'case.json').stat().st_mtime_ns
    assert main([*words, 'train_cfg.max_iters=60']) == 0
    assert (out / 'n0' / 'case.json').stat().st_mtime_ns == before
    assert len(list(out.glob('*/case.json'))) == 4


# --------------------------------------------------------------------- doors
def test_train_takes_a_table_and_train_alone_refuses(
    tiny_sd1, tmp_path, capsys
):
    words = ['train', str(FOLDER), '--work-dir', str(tmp_path / 'out')]
    words += ['--resume', '--cfg-options', f'photos={table_of(tmp_path, 3)}']
    words += [f'model.sd.pretrained={tiny_sd1}', 'model.sd.without_cuda=None']
    assert main([*words, 'train_cfg.max_iters=1']) == 1
    assert 'Failed        1 of 3' in capsys.readouterr().out
    draw_image(tmp_path / '1.png', 1)
    assert main([*words, 'train_cfg.max_iters=1']) == 0

    with pytest.raises(SystemExit):
        main([*words[:4], '--resume', 'x.pth'])
    assert 'always goes on' in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(['train', 'hiper/dog', '--share', '0/2'])
    assert '--share is of a config' in capsys.readouterr().err
    with pytest.raises(ValueError, match='`images_per_step` is of many'):
        train(settings(tiny_sd1, work_dir=str(tmp_path)))
    with pytest.raises(SystemExit):
        main([*words[:4], '--cfg-options', 'photos=None'])
    assert '`photos` must name' in capsys.readouterr().err
