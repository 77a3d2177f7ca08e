"""A bench from its folder to its tables, tiny and in seconds."""

import csv
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from encoders import build_lpips, build_tiny_dino
from inversion import with_image_encoder
from PIL import Image
from runs import REPO, draw_image, embedding_of, free_port, last
from runs import config as run_config
from tiny import FAMILIES

from mmhiper.bench import (
    METHODS,
    Bench,
    Drawing,
    MetricChoice,
    method_config,
)
from mmhiper.bench.methods import (
    build,
    learn_alone,
    subject_of,
    with_word,
)
from mmhiper.bench.report import Mean, means_of
from mmhiper.cli import main
from mmhiper.cli.bench import chosen, method_configs, share_of_array
from mmhiper.engine.launch import train
from mmhiper.evaluation import EditMetric
from mmhiper.evaluation.benches import BenchCase, read_bench
from mmhiper.io import read_learned
from mmhiper.models import StableDiffusion
from mmhiper.registry import METRICS

SIZE = 64  # of the tiny model
QUICK = [
    '--steps=2',
    '--cfg-options',
    'style_diffusion.model.num_steps=2',
    'style_diffusion.model.num_inner_steps=1',
    'null_text.model.num_steps=2',
    'null_text.model.num_inner_steps=1',
    'negative_prompt.model.num_steps=2',
    'direct.model.num_steps=2',
    'ddim_p2p.model.num_steps=2',
    'hiper.train_cfg.max_iters=2',
    'textual_inversion.train_cfg.max_iters=2',
]


def quick(*methods):
    """Options of a run of seconds, of these methods."""
    return [
        word
        for word in QUICK
        if word.partition('.')[0] in methods or not re.match(r'\w+\.', word)
    ]


@pytest.fixture(scope='module')
def folder(tiny_sd1, tmp_path_factory):
    root = tmp_path_factory.mktemp('encoder')
    return with_image_encoder(tiny_sd1, root / 'sd1', FAMILIES['sd1'].width)


def row(image, **more):
    return {
        'image_path': image,
        'original_prompt': 'a [dog] x',
        'editing_prompt': 'a [cat] x',
        'editing_instruction': '',
        'editing_type_id': '1',
        'blended_word': 'dog cat',
        'mask': [512 * 100 + 100, 50],
        **more,
    }


def write_bench(root, rows):
    images = root / 'annotation_images'
    images.mkdir(parents=True, exist_ok=True)
    for number in range(3):
        draw_image(images / f'{number}.png', number)
    (root / 'mapping_file.json').write_text(json.dumps(rows))
    return root


@pytest.fixture
def bench_folder(tmp_path):
    rows = {
        'one': row('0.png'),
        'two': row('1.png', editing_type_id='9', mask=[0, 512 * 512]),
    }
    return write_bench(tmp_path / 'bench', rows)


@pytest.fixture
def call(folder, bench_folder, tmp_path):
    def run(*words, methods='ddim_p2p,plain'):
        words = [
            *('bench', bench_folder, '--methods', methods),
            *('--out-dir', tmp_path / 'out', '--pretrained', folder, *words),
            *quick(*methods.split(',')),
        ]
        return main([str(word) for word in words])

    return run


def lines_of(out):
    text = (out / 'cases.jsonl').read_text()
    return [json.loads(line) for line in text.splitlines()]


# ---------------------------------------------------------------- whole runs
def test_every_method_edits_and_is_measured(call, tmp_path, capsys):
    lpips = build_lpips(tmp_path / 'lpips', 'alex')
    dino = build_tiny_dino(tmp_path / 'dino')
    words = ['--lpips', lpips, '--dino', dino, '--among', 2]
    assert call(*words, methods=','.join(METHODS)) == 0

    out = tmp_path / 'out'
    lines = lines_of(out)
    assert [(line['method'], line['case']) for line in lines] == [
        (method, case) for method in METHODS for case in ('one', 'two')
    ]
    for line in lines:
        metrics = line['metrics']
        assert {'mse', 'lpips', 'structure', 'identity_dino'} <= set(metrics)
        assert all(np.isfinite(value) for value in metrics.values())
        # the second case may change everywhere
        assert ('background_psnr' in metrics) == (line['case'] == 'one')
        assert line['encoders']['lpips'] == f'alex of {lpips}'
        assert line['encoders']['structure'] == str(dino)
        with Image.open(
            out / line['method'] / line['case'] / 'edit.png'
        ) as image:
            assert image.size == (SIZE, SIZE)
    table = (out / 'table.md').read_text()
    assert '## all' in table and '## 9 change style' in table
    assert 'Background: 1 of 2 cases are left out' in table
    assert f'| structure x1e3 ↓ | {dino} |' in table
    assert f'| measure | in features of | {" | ".join(METHODS)} |' in table
    page = (out / 'index.html').read_text()
    assert page.count('<img') == 2 * (1 + len(METHODS))
    # no image encoder of a pair is there, so no CLIP, and the line says how
    said = capsys.readouterr().out
    assert '--clip openai/clip-vit-large-patch14' in said
    assert 'LPIPS is left out' not in said


def test_what_is_done_is_skipped_and_what_changed_is_not(
    call, bench_folder, tmp_path, capsys
):
    assert call() == 0
    out = tmp_path / 'out'
    assert 'Add --lpips FOLDER' in capsys.readouterr().out
    edit = out / 'ddim_p2p' / 'one' / 'edit.png'
    before = {path: path.stat().st_mtime_ns for path in out.glob('*/*/*')}

    # nothing changes: nothing is drawn, nothing written
    assert call() == 0
    assert 'ddim_p2p  one' not in capsys.readouterr().out
    assert before == {p: p.stat().st_mtime_ns for p in out.glob('*/*/*')}
    # a metric more: measured anew, drawn no more
    lpips = build_lpips(tmp_path / 'lpips', 'alex')
    assert call('--lpips', lpips) == 0
    assert edit.stat().st_mtime_ns == before[edit]
    assert 'lpips' in lines_of(out)[0]['metrics']
    # another right answer: measured anew, drawn no more
    rows = json.loads((bench_folder / 'mapping_file.json').read_text())
    for each in rows.values():
        each['goal_path'] = 'annotation_images/2.png'
    write_bench(bench_folder, rows)
    assert call('--lpips', lpips) == 0
    assert edit.stat().st_mtime_ns == before[edit]
    assert 'goal_mse' in lines_of(out)[0]['metrics']
    # what draws differs: the text alone does not know the inversion
    assert call('--guidance-scale', 3) == 0
    assert edit.stat().st_mtime_ns != before[edit]
    # a damaged line, and a picture that is gone, are done anew
    (out / 'plain' / 'one' / 'case.json').write_text('{"made')
    (out / 'plain' / 'two' / 'edit.png').unlink()
    assert call('--guidance-scale', 3) == 0
    said = capsys.readouterr().out
    assert 'plain  one' in said and 'plain  two' in said
    assert len(lines_of(out)) == 4


def test_a_failing_case_is_listed_and_does_not_stop_the_rest(
    call, bench_folder, tmp_path, capsys
):
    rows = {
        'bad': row('none.png'),
        'long': row('1.png', editing_prompt='a cat ' + 'x ' * 90),
        'good': row('0.png'),
    }
    write_bench(bench_folder, rows)
    assert call(methods='hiper,direct') == 1

    out = tmp_path / 'out'
    done = [(line['method'], line['case']) for line in lines_of(out)]
    assert ('hiper', 'good') in done and ('direct', 'good') in done
    said = capsys.readouterr().out
    assert re.search(r'failed +hiper/bad: .*none\.png', said)
    assert re.search(r'failed +direct/long: ', said)
    assert 'Traceback' in (out / 'direct' / 'bad' / 'error.txt').read_text()
    assert 'none.png' in (out / 'table.md').read_text()

    # mended, it is done, and no error is left
    draw_image(bench_folder / 'annotation_images' / 'none.png', 7)
    rows['long'] = row('1.png')
    write_bench(bench_folder, rows)
    assert call(methods='hiper,direct') == 0
    assert len(lines_of(out)) == 6
    assert not list(out.glob('*/*/error.txt'))


def test_a_training_that_diverges_does_not_stop_the_rest(
    call, tmp_path, capsys
):
    """Two cases in one step, by a rate beyond all numbers."""
    rate = 'hiper.optim_wrapper.optimizer.lr=1e38'
    assert call('--cfg-options', rate, methods='hiper,plain') == 1
    done = [line['method'] for line in lines_of(tmp_path / 'out')]
    assert done == ['plain', 'plain']
    said = capsys.readouterr().out
    assert re.search('failed +hiper/one: ', said)
    assert re.search('failed +hiper/two: ', said)


def test_cases_are_shared_by_processes(call, folder, bench_folder, tmp_path):
    words = ['-m', 'torch.distributed.run', '--nproc_per_node', '2']
    words += ['--master_port', free_port(), REPO / 'tools/evaluate_editing.py']
    words += [bench_folder, '--methods', 'ddim_p2p,plain']
    words += ['--out-dir', tmp_path / 'out', '--pretrained', folder]
    words += quick('ddim_p2p', 'plain')
    result = subprocess.run(
        [sys.executable, *map(str, words)],
        env={**os.environ, 'CUDA_VISIBLE_DEVICES': ''},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert len(lines_of(tmp_path / 'out')) == 4
    # alone it would do the same: nothing is left to do
    before = (tmp_path / 'out' / 'cases.jsonl').read_text()
    assert call() == 0
    assert (tmp_path / 'out' / 'cases.jsonl').read_text() == before


@METRICS.register_module()
class StopsAtTheSecond(EditMetric):
    """Ctrl-C while the second edit is measured."""

    seen = 0

    def measure(self, edited):
        StopsAtTheSecond.seen += 1
        if StopsAtTheSecond.seen == 2:
            raise KeyboardInterrupt
        return dict(seen=1.0)


def test_a_stop_says_what_is_done(folder, bench_folder, tmp_path):
    def bench():
        configs = method_configs(['plain'], {}, {}, {}, str(folder))
        more = [dict(type='mmhiper.StopsAtTheSecond')]
        return Bench(
            read_bench(bench_folder, tmp_path),
            configs,
            tmp_path / 'out',
            Drawing(1),
            MetricChoice(more=more),
        )

    with pytest.raises(KeyboardInterrupt, match=r'1 of 2 edit\(s\) are done'):
        bench().run()
    assert bench().run() == {}
    lines = lines_of(tmp_path / 'out')
    assert [line['metrics']['seen'] for line in lines] == [1, 1]


# ------------------------------------------------------------------- learning
@pytest.mark.parametrize('name', ['hiper', 'textual_inversion'])
def test_it_learns_what_a_run_learns(name, tiny_sd1, tmp_path):
    """The same bits as ``mmhiper train``."""
    image = draw_image(tmp_path / 'image.png')
    cfg = method_config(name)
    cfg.merge_from_dict(
        {
            'model.sd.pretrained': str(tiny_sd1),
            'model.sd.without_cuda': None,
            'train_cfg.max_iters': 3,
        }
    )
    case = BenchCase('one', str(image), 'a dog', 'a cat', '1', subject='x')
    sd = StableDiffusion(str(tiny_sd1))
    editor, dataset = build(name, cfg, sd, case, tmp_path / 'alone')
    learn_alone(editor, dataset, cfg)

    file = REPO / 'configs' / f'{METHODS[name].config}.py'
    more = {}
    if name == 'hiper':
        more['model.source_text'] = 'a dog'
    else:
        more = {
            'model.placeholder_token': '<it>',
            'model.val_prompts': ['a <it>'],
            'train_dataloader.dataset.placeholder': '<it>',
        }
    run = run_config(tmp_path, tiny_sd1, 3, file, **more)
    if name == 'textual_inversion':
        run.train_dataloader.dataset.template = (
            cfg.train_dataloader.dataset.template
        )
        run.train_dataloader.dataset.data_root = str(tmp_path)
        run.train_dataloader.dataset.concept_dir = 'alone'
    train(run)
    (learned,) = editor.learned_state().values()
    assert torch.equal(learned, embedding_of(last(run)))


def test_style_diffusion_learns_what_a_run_learns(folder, tmp_path):
    image = draw_image(tmp_path / 'image.png')
    short = {'model.num_steps': 3, 'model.num_inner_steps': 2}
    encoder = {
        'model.image_encoder.pretrained': str(folder),
        'model.image_encoder.without_cuda': None,
    }
    cfg = method_config('style_diffusion')
    cfg.merge_from_dict({**short, **encoder})
    case = BenchCase('one', str(image), 'a dog', 'a cat', '1')
    sd = StableDiffusion(str(folder))
    editor, dataset = build('style_diffusion', cfg, sd, case, tmp_path)
    learn_alone(editor, dataset, cfg)

    file = REPO / 'configs' / 'style_diffusion' / 'dog.py'
    more = {'model.source_text': 'a dog', **short, **encoder}
    run = run_config(tmp_path, folder, 2, file, **more)
    run.train_cfg.pop('max_iters')
    train(run)
    (checkpoint,) = (tmp_path / 'run').glob('iter_*.pth')
    state, _ = read_learned(checkpoint)
    for key, value in editor.learned_state().items():
        assert torch.equal(value, state[key]), key


def test_hiper_learns_several_at_once_as_alone(tiny_sd1, tmp_path):
    """To rounding, whatever their number."""
    images = [draw_image(tmp_path / f'{n}.png', n) for n in range(3)]
    cases = [
        BenchCase(f'c{n}', str(image), f'a {"x" * (n + 1)}', 'a cat', '1')
        for n, image in enumerate(images)
    ]
    drawn = []
    for size in (1, 3):
        cfg = method_config('hiper')
        cfg.merge_from_dict(
            {
                'model.sd.pretrained': str(tiny_sd1),
                'model.sd.without_cuda': None,
                'train_cfg.max_iters': 2,
            }
        )
        bench = Bench(
            cases,
            dict(hiper=cfg),
            tmp_path / f'out{size}',
            Drawing(2),
            images_per_step=size,
        )
        assert bench.run() == {}
        drawn.append(
            [
                np.asarray(
                    Image.open(bench.folder('hiper', case) / 'edit.png')
                )
                for case in cases
            ]
        )
    for one, other in zip(*drawn, strict=True):
        assert np.abs(one.astype(int) - other).max() <= 2


# -------------------------------------------------------------------- texts
@pytest.mark.parametrize(
    'source, target, blend, subject, expected',
    [
        ('a Dog on grass', 'a dog in snow', None, '', 'a <it> in snow'),
        ('a dog', 'a cat', (('dog',), ('cat',)), '', 'a <it> cat'),
        ('a dog', 'hotdogs', None, '', 'hotdogs <it>'),
        ('', 'a bird flying', None, '', 'a <it> flying'),
        (
            'a stuffed animal',
            'a red stuffed animal',
            None,
            'stuffed animal',
            'a red <it>',
        ),
    ],
)
def test_the_word_stands_for_the_subject(
    source, target, blend, subject, expected
):
    case = BenchCase(
        'a', 'a.png', source, target, '1', blend=blend, subject=subject
    )
    assert with_word(case) == expected
    assert subject_of(case)


def test_a_picture_that_nobody_describes_is_told(folder, tmp_path, capsys):
    originals = tmp_path / 'bench' / 'originals'
    originals.mkdir(parents=True)
    draw_image(originals / 'bird.png')
    rows = [dict(img_name='bird.png', target_text='a bird')]
    (tmp_path / 'bench' / 'input_list.json').write_text(json.dumps(rows))
    words = ['bench', tmp_path / 'bench', '--methods', 'direct,plain']
    words += ['--out-dir', tmp_path / 'out', '--pretrained', folder]
    assert main([str(word) for word in [*words, *quick('direct')]]) == 1
    said = capsys.readouterr().out
    assert re.search('failed +direct/000-bird: .* text file beside', said)
    (originals / 'bird.txt').write_text('a bird')
    assert main([str(word) for word in [*words, *quick('direct')]]) == 0


# -------------------------------------------------------------- command line
def test_options_of_one_method_and_of_all():
    found = method_configs(
        ['hiper', 'direct', 'plain'],
        {},
        {'model.sd.dtype': 'bf16', 'hiper.model.n_hiper': 3},
        {'model.sd.dtype': 'bf16', 'hiper.model.n_hiper': '3'},
        'mini-sd',
    )
    assert [cfg.model.sd.pretrained for cfg in found.values()] == [
        'mini-sd'
    ] * 3
    assert {cfg.model.sd.dtype for cfg in found.values()} == {'bf16'}
    assert found['hiper'].model.n_hiper == 3
    assert found['direct'].model.type == 'DirectInversion'
    assert 'image_encoder' not in found['direct'].model


@pytest.mark.parametrize(
    'words, expected',
    [
        (['--methods', 'magic'], "no method 'magic'"),
        (['--methods', 'plain,plain'], 'each once'),
        (['--methods', ''], 'each once'),
        (['--num-cases', '9'], r'in \[1, 2\]'),
        (['--config', 'magic=a.py'], 'METHOD=CONFIG'),
        (['--cfg-options', 'hiper.model.n_hiper=3'], "option of 'hiper'"),
        (['--among', '1'], 'at least 2'),
        (['--share', '4/4'], 'NUMBER/COUNT'),
        (['--lpips', 'nowhere'], 'nowhere'),
        (['--guidance-rescale', '2'], 'guidance_rescale'),
    ],
)
def test_mistakes_are_one_line(
    folder, bench_folder, tmp_path, capsys, words, expected
):
    usual = ['--methods', 'plain', '--pretrained', folder]
    usual += ['--out-dir', tmp_path / 'out']
    with pytest.raises(SystemExit) as exit_:
        main(['bench', *map(str, [bench_folder, *usual, *words])])
    error = capsys.readouterr().err
    assert exit_.value.code == 1 and error.count('\n') == 1
    assert re.search(expected, error)


def test_cases_are_chosen_evenly(bench_folder):
    cases = read_bench(bench_folder, bench_folder) * 5
    assert chosen(cases, None) == cases
    assert chosen(list(range(200)), 20) == list(range(0, 200, 10))
    assert chosen([1, 2, 3], 3) == [1, 2, 3]


def test_a_job_array_of_slurm_shares_the_cases():
    names = ('ID', 'MIN', 'COUNT', 'STEP')

    def share(*values):
        pairs = zip(names, values, strict=False)
        return share_of_array(
            {f'SLURM_ARRAY_TASK_{name}': value for name, value in pairs}
        )

    assert share('0', '0', '4') == '0/4'
    assert share('13', '10', '4', '1') == '3/4'
    assert share('4', '0', '3', '2') == '2/3'
    assert share() is None and share('a', '0', '4') is None


# --------------------------------------------------------------------- tables
def test_means_have_intervals_and_the_papers_scale():
    def line(kind, **metrics):
        return dict(kind=kind, method='m', metrics=metrics, encoders={})

    values = [0.01, 0.02, 0.03, 0.06]
    lines = [line('1 a', structure=value) for value in values]
    lines.append(line('2 b', clip_whole=25.0))
    means = means_of(lines)
    assert list(means) == ['all', '1 a', '2 b']
    mean = means['1 a']['m']['structure']
    assert (mean.count, mean.value) == (4, pytest.approx(30))
    assert 10 <= mean.low < 30 < mean.high <= 60
    assert means['all']['m']['structure'] == mean
    assert means['2 b']['m']['clip_whole'] == Mean(1, 25, 25, 25)


def test_an_interval_covers_the_mean_as_often_as_it_says():
    """Of 300 samples of 40 normal numbers; the bound is four deviations."""
    rng = np.random.default_rng(3)
    covered = [
        mean.low <= 0 <= mean.high
        for mean in (Mean.of(rng.normal(size=40)) for _ in range(300))
    ]
    assert 0.95 - 4 * (0.05 * 0.95 / 300) ** 0.5 - 0.02 < np.mean(covered) < 1


def test_numbers_for_programs(call, tmp_path):
    assert call() == 0
    with (tmp_path / 'out' / 'table.csv').open() as file:
        rows = list(csv.DictReader(file))
    names = {(row['kind'], row['method']) for row in rows}
    assert ('all', 'plain') in names and ('1 change object', 'plain') in names
    mse = next(row for row in rows if row['metric'] == 'mse')
    assert float(mse['low']) <= float(mse['mean']) <= float(mse['high'])
