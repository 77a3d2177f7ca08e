"""The bench that is drawn: true, as published ones are, and it runs."""

import csv
import json
import sys

import make_bench
import numpy as np
import pytest
from judge_metric import MiniWorldEdit
from PIL import Image
from runs import REPO

from mmhiper.cli import main
from mmhiper.evaluation import Edited
from mmhiper.evaluation.benches import decode_mask, read_bench

from world import Scene, draw, sample_individual

EVERY = [
    (k, n) for k, count in make_bench.COUNTS.items() for n in range(count)
]


def test_all_cases_say_what_they_change():
    """In two prompts, one of which has what is changed in brackets."""
    assert len(EVERY) == 200
    prompts = set()
    for kind, number in EVERY:
        edit = make_bench.make_edit(kind, number)
        assert edit == make_bench.make_edit(kind, number)
        assert edit.source != edit.goal
        assert edit.prompts[0] != edit.prompts[1]
        assert '[' in ''.join(edit.prompts)
        for words, prompt in zip(edit.words, edit.prompts, strict=False):
            assert words in prompt.replace('[', '').replace(']', '').split()
        prompts.add(edit.prompts)
    assert len(prompts) > 150


def test_a_mask_is_written_as_it_is_read():
    mask = np.zeros((512, 512), bool)
    mask[3, 10:20] = mask[3, 500:] = mask[4, :7] = mask[511, 511] = True
    runs = make_bench.runs_of(mask)
    assert runs == [3 * 512 + 10, 10, 3 * 512 + 500, 19, 512 * 512 - 1, 1]
    border = decode_mask([])
    assert (decode_mask(runs) == mask | border).all()


@pytest.mark.parametrize('kind', make_bench.COUNTS)
def test_a_right_answer_differs_inside_its_mask_alone(kind):
    edit = make_bench.make_edit(kind, 0)
    drawn = make_bench.draw_both(edit)
    mask = make_bench.mask_of(edit, drawn)
    old, new = (np.asarray(picture).astype(int) for picture, _ in drawn)
    changed = (old != new).any(2)
    assert changed.any() and not (changed & ~mask).any()
    assert mask.all() == (kind == 9)


def test_the_judge_sees_what_was_asked_in_a_right_answer():
    who = sample_individual(np.random.default_rng(5), 'dog')
    before = Scene(who, 'standing', 'grass')
    after = Scene(who, 'sitting', 'snow')
    other = sample_individual(np.random.default_rng(6), 'cat')
    rival = draw(Scene(other, 'sitting', 'room'), 128)
    asked = dict(species='dog', pose='sitting', place='snow')
    metric = MiniWorldEdit()

    def measure(edited):
        return metric.measure(
            Edited(draw(before), edited, asked=asked, others=[rival])
        )

    right, wrong = measure(draw(after)), measure(draw(before))
    assert (right['success_judge'], wrong['success_judge']) == (1, 0)
    assert (
        right['retrieval_judge'] == 1
        and measure(rival)['retrieval_judge'] == 0
    )
    assert wrong['identity_judge'] == pytest.approx(1, abs=1e-5)


def test_twenty_cases_are_drawn_edited_and_measured(
    tmp_path, monkeypatch, capsys
):
    """From a fresh clone, with the bundled model and nothing else."""
    bench, out = tmp_path / 'bench', tmp_path / 'out'
    words = ['make_bench.py', '--out-dir', bench, '--num-cases', 20]
    monkeypatch.setattr(sys, 'argv', [str(word) for word in words])
    make_bench.main()
    cases = read_bench(bench, tmp_path)
    assert len(cases) == 20
    assert {case.kind[0] for case in cases} == set('012345689')
    options = [case for case in cases if case.kind[0] == '8']
    assert options[0].options['tau_c'] == 0.3
    for case in cases:
        for path in (case.image, case.goal):
            with Image.open(path) as image:
                assert image.size == (512, 512)

    code = main(
        [
            *('bench', str(bench), '--methods', 'ddim_p2p,hiper,plain'),
            *('--pretrained', 'mini-sd', '--steps', '2'),
            *('--out-dir', str(out), '--among', '5'),
            *('--metrics', str(REPO / 'configs/_base_/mini_world_bench.py')),
            *('--cfg-options', 'ddim_p2p.model.num_steps=2'),
            *('hiper.train_cfg.max_iters=2', 'hiper.model.strength=0.8'),
        ]
    )
    assert code == 0
    text = (out / 'cases.jsonl').read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert len(lines) == 60
    # distances to the right answer, and whose eyes saw it
    for line in lines:
        assert {'goal_mse', 'goal_judge', 'goal_clip'} <= set(line['metrics'])
        assert line['encoders']['clip_whole'] == 'mini-sd'
        assert 'judge' in line['encoders']['success_judge']
    inverted = [line for line in lines if line['method'] == 'ddim_p2p']
    drawn = [line for line in lines if line['method'] == 'plain']
    kept = [
        np.mean([line['metrics']['identity_judge'] for line in side])
        for side in (inverted, drawn)
    ]
    # what starts from the picture keeps more of it than what does not
    assert kept[0] > kept[1]
    with (out / 'table.csv').open() as file:
        rows = list(csv.DictReader(file))
    assert {row['method'] for row in rows} == {'ddim_p2p', 'hiper', 'plain'}
    style = [line for line in lines if line['kind'].startswith('9')]
    assert style and all(line['full_mask'] for line in style)
    assert 'left out of its averages' in (out / 'table.md').read_text()
    assert 'Add --lpips' in capsys.readouterr().out
