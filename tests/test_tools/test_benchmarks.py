"""The benchmarks run to their end; what they say is not looked at."""

from __future__ import annotations

import json
import sys
from argparse import Namespace

import count
import cpu
import gpu
import pytest
import solvers
import time_to_quality
from runs import REPO
from sizes import TINY, make_model


def test_solvers_are_compared_and_a_stopped_run_goes_on(tiny_sd1, tmp_path):
    words = ['--pretrained', str(tiny_sd1), '--individuals', '2']
    words += ['--iters', '1', '--steps', '1', '2', '--out-dir', str(tmp_path)]
    solvers.main(words)
    (path,) = tmp_path.glob('*/cases.jsonl')
    whole = path.read_text()
    rows = [json.loads(line) for line in whole.splitlines()]

    assert len(rows) == 2 * 2 * 3
    assert all(row['to_most_steps_db'] > 70 for row in rows[::2])  # itself
    table = path.with_name('table.md').read_text().splitlines()
    assert len(table) == 2 + 2 * 3
    assert table[2].startswith('| DDIM | 2 | 4 |')

    # a killed run: its last line is half written
    path.write_text(whole[:-20])
    solvers.main(words)
    again = [json.loads(line) for line in path.read_text().splitlines()]
    assert again == rows


def test_quality_is_told_over_compute_and_a_stopped_run_goes_on(
    tiny_sd1, tmp_path
):
    config = tmp_path / 'eight.py'
    config.write_text(
        f'_base_ = {str(REPO / "configs/hiper/dog.py")!r}\n'
        'model = dict(draws_per_step=3)\n'
    )
    plain = REPO / 'configs/hiper/dog.py'
    words = ['--configs', str(plain), str(config), '--seeds', '0', '1']
    words += ['--pretrained', str(tiny_sd1), '--individuals', '2']
    words += ['--iters', '2', '--snapshots', '2', '--steps', '1']
    words += ['--timed', '3', '--out-dir', str(tmp_path / 'out')]
    time_to_quality.main(words)
    (path,) = tmp_path.glob('out/*/points.jsonl')
    whole = path.read_text()
    rows = [json.loads(line) for line in whole.splitlines()]

    found = {(row['config'], row['seed'], row['draws']) for row in rows}
    assert found == {
        (name, seed, draws * iterations)
        for name, draws in (('dog', 1), ('eight', 3))
        for seed in (0, 1)
        for iterations in (1, 2)
    }
    learned = {
        file.read_bytes() for file in path.parent.glob('seed*/n5-*/iter_2.pth')
    }
    assert len(learned) == 4  # each seed and each config learns its own
    table = (path.parent / 'table.md').read_text().splitlines()
    assert len(table) == 2 + 4
    assert all(line.endswith(' 2 |') for line in table[2:])
    assert (path.parent / 'curve.png').stat().st_size > 0

    path.write_text(whole[:-20])  # a killed run: its last line is half written
    time_to_quality.main([*words, '--no-timing'])
    again = [json.loads(line) for line in path.read_text().splitlines()]
    assert again == rows

    # what another setting has drawn is not taken for this one's
    config.write_text(config.read_text().replace('=3', '=2'))
    eight = ['--configs', str(config), '--seeds', '0', '--no-timing']
    time_to_quality.main([*words, *eight])
    table = (path.parent / 'table.md').read_text().splitlines()
    draws = [int(line.split('|')[3]) for line in table[2:]]
    assert draws == [2, 4]


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A model as the measurement of a GPU rehearses with."""
    path = tmp_path_factory.mktemp('model')
    make_model(path, TINY['sd1'])
    return path


def test_a_gpu_is_measured_against_the_plain_loop(folder, monkeypatch):
    """A rehearsal of its steps; the script runs these in processes."""
    monkeypatch.setattr(gpu, 'BATCHES', {'sd1': (1, 2)})
    report = dict(device='none', torch='2', tiny=True, rate={'bfloat16': 1e9})
    for side in ('ours', 'plain'):
        args = Namespace(
            tiny=True, size='sd1', side=side, folder=folder, seconds=60.0
        )
        report[f'{side} sd1'] = gpu.measure_steps(args)
    report['run sd1'] = dict(left_out='no time')
    ours = report['ours sd1']['rows']
    assert [row['batch'] for row in ours] == [1, 2]
    # twice the draws, and the text that they share
    assert 1.9 < ours[1]['flops'] / ours[0]['flops'] <= 2

    lines = gpu.describe(report).splitlines()
    compared = [line for line in lines if 'times the plain loop' in line]
    assert len(compared) == 2
    assert 'batch 1: ' in compared[0] and '% of the rate' in compared[0]
    assert '  left_out: no time' in lines


def test_parts_that_fail_are_named_and_the_others_stay(tmp_path):
    args = Namespace(minutes=1.0, tiny=True, out=tmp_path)
    whole = gpu.Measurement(args, tmp_path)
    whole.command('good', [sys.executable, '-c', 'print([])'], 60, json.loads)
    whole.command('bad', [sys.executable, '-c', 'no'], 60, json.loads)
    whole.end = 0
    whole.command('late', ['true'], 60, json.loads)

    found = json.loads((tmp_path / 'report.json').read_text())
    assert found['good'] == dict(rows=[])
    assert 'NameError' in found['bad']['left_out']
    assert found['late'] == dict(left_out='no time')
    assert 'late' in (tmp_path / 'report.txt').read_text()


def test_operators_of_a_step_are_counted(folder):
    found = cpu.measure(folder, TINY['sd1'], 'fp32', 1)
    operators = found['operators']
    # what FlopCounterMode counts of the same step
    step = gpu.our_step(folder, TINY['sd1'], 1, dtype='fp32')
    step()
    counted = sum(
        each['flops']
        for name, each in operators.items()
        if name not in cpu._ATTENTION
    )
    attention = [operators[name]['flops'] for name in cpu._ATTENTION]
    # backward too, but for what lies before the text
    assert 0 < attention[0] < attention[1] < 3 * attention[0]
    assert counted == gpu.count_flops(step)
    table = cpu.describe(found).splitlines()
    assert any(line.startswith('convolution') for line in table)


def test_operations_are_counted_without_numbers(capsys):
    found = count.count(TINY['sd1'])
    step = found['a step, gradients of the text alone']
    whole = found['a step, gradients of all weights too']
    # all weights have a gradient as large as the forward, the text nearly so
    assert 2 < whole / found['U-Net'] <= 3
    assert found['U-Net'] < step < whole

    count.main(['--tiny'])
    assert 'sdxl, 128 pixels' in capsys.readouterr().out
