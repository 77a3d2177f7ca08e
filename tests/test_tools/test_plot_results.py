"""Curves and cases of benches: chosen by their scores, and by nothing else."""

import json
import sys

import pytest
from PIL import Image

from mmhiper.utils.sheet import read_panels
from tools import plot_results


def write(folder, scores, shift=0.0):
    """A folder as ``mmhiper bench`` leaves it."""
    lines = []
    for method in ('hiper', 'plain'):
        for number, score in enumerate(scores):
            case = f'c{number}'
            for place in ('sources', f'{method}/{case}'):
                (folder / place).mkdir(parents=True, exist_ok=True)
            level = int(100 * score)
            picture = Image.new('RGB', (64, 64), (level,) * 3)
            picture.save(folder / method / case / 'edit.png')
            picture.save(folder / 'sources' / f'{case}.png')
            metrics = dict(clip_whole=score + shift, identity_clip=score)
            lines.append(
                dict(
                    method=method,
                    case=case,
                    kind='1 a',
                    source='a',
                    target=f'b{number}',
                    note='',
                    metrics=metrics,
                    encoders=dict(clip_whole='tiny'),
                )
            )
    text = ''.join(json.dumps(line) + '\n' for line in lines)
    (folder / 'cases.jsonl').write_text(text)
    return folder


@pytest.fixture
def call(monkeypatch, tmp_path):
    def run(*words):
        words = ['plot_results.py', *words, '--out-dir', tmp_path / 'plots']
        monkeypatch.setattr(sys, 'argv', [str(word) for word in words])
        plot_results.main()
        return tmp_path / 'plots'

    return run


def test_best_median_and_worst_are_those_of_the_score(call, tmp_path):
    first = write(tmp_path / 'one', [0.5, 0.1, 0.9, 0.3, 0.7])
    second = write(tmp_path / 'two', [0.5, 0.1, 0.9, 0.3, 0.7], 1.0)
    plots = call(first, second)

    names = sorted(path.name for path in plots.iterdir())
    assert names == ['curves.png', 'hiper.png', 'plain.png', 'table.md']
    panels = read_panels(plots / 'hiper.png')
    captions = [caption for caption, _ in panels[1::2]]
    assert captions == [
        'best: b2 (CLIP whole 1.90)',
        'median: b0 (CLIP whole 1.50)',
        'worst: b1 (CLIP whole 1.10)',
    ]
    levels = [picture.getpixel((9, 9))[0] for _, picture in panels[1::2]]
    assert levels == [90, 50, 10]
    table = (plots / 'table.md').read_text()
    assert '# one' in table and '# two' in table and 'tiny' in table
    with Image.open(plots / 'curves.png') as curves:
        assert curves.width > 400


def test_a_distance_is_best_where_it_is_small(tmp_path):
    lines = [
        dict(case=str(n), metrics=dict(mse=value))
        for n, value in enumerate([0.2, 0.1, 0.3])
    ]
    found = plot_results.extremes(lines, 'mse')
    cases = {rank: line['case'] for rank, line in found.items()}
    assert cases == dict(best='1', median='0', worst='2')


def test_what_is_no_bench_is_told(call, tmp_path):
    with pytest.raises(FileNotFoundError, match='lines of a bench'):
        call(tmp_path)
    folder = write(tmp_path / 'one', [0.5])
    with pytest.raises(ValueError, match="no metric 'magic'"):
        call(folder, '--x', 'magic')
    for text in ('', '3\n', '{"a": 1}\n', '{"a'):
        (folder / 'cases.jsonl').write_text(text)
        with pytest.raises(ValueError, match=r'cases\.jsonl'):
            call(folder)
