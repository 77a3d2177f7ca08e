"""The sweep over guidance: every case once, the best by `both`."""

import json

import pytest
import sweep_guidance
from inversion import with_image_encoder
from PIL import Image
from sweep_guidance import Cases, best_of, means, parse_args, run, settings

from mmhiper.models.guidance import Guidance

import judge


@pytest.fixture(scope='module')
def seer(tmp_path_factory):
    """A judge of a few steps."""
    path = tmp_path_factory.mktemp('judge') / 'judge.pth'
    return judge.train(path, individuals=64, epochs=1)


def test_all_variants_have_all_scales():
    found = settings(parse_args(['hiper', '--scales', '1', '2', '3']))

    assert len(set(map(str, found))) == len(found) == 3 + 3 * 2
    assert [each.scale for each in found[:3]] == [1, 2, 3]
    assert found[-1] == Guidance(3, 0.7, (0.28, 5.42))
    alone = ['hiper', '--rescale', '0', '--interval']
    assert len(settings(parse_args(alone))) == 7
    with pytest.raises(ValueError, match='`guidance_interval`'):
        settings(parse_args(['hiper', '--interval', '3']))


def test_the_best_is_chosen_among_complete_settings():
    def row(scale, index, both, **more):
        return dict(
            method='HiPer',
            individual=index,
            guidance_scale=scale,
            both=both,
            **more,
        )

    rows = [row(2, 0, 0.5), row(2, 1, 0.75), row(3, 0, 0.25), row(3, 1, 0.5)]
    rows += [row(5, 0, 1.0), row(3, 0, 0.75, guidance_rescale=0.7)]
    rows += [row(3, 1, 0.75, guidance_rescale=0.7)]

    averaged = means(rows, ('both',))

    assert [each['both'] for each in averaged] == [0.625, 0.375, 1.0, 0.75]
    # that of scale 5 has drawn one source alone
    best = best_of(averaged)['HiPer']
    assert (best['guidance_scale'], best['guidance_rescale']) == (3, 0.7)


def test_hiper_is_swept_and_resumed(tiny_sd1, tmp_path, seer, monkeypatch):
    words = ['hiper', '--pretrained', str(tiny_sd1), '--individuals', '2']
    words += ['--iters', '1', '--steps', '2', '--scales', '1', '2']
    words += ['--rescale', '0', '--out-dir', str(tmp_path)]

    out = run(parse_args(words), seer)

    rows = Cases(out / 'cases.jsonl').rows
    assert [(each['individual'], each['guidance_scale']) for each in rows] == [
        (0, 1), (0, 2), (0, 2), (1, 1), (1, 2), (1, 2),
    ]  # fmt: skip
    for each in rows:
        assert 0 <= each['both'] <= min(each['edit_success'], each['identity'])
    assert (rows[0] | {'guidance_scale': 2}) != rows[1]
    table = (out / 'table.md').read_text().splitlines()
    assert len(table) == 2 + 3 and 'interval (0.28, 5.42)' in table[-1]
    assert json.loads((out / 'best.json').read_text())['HiPer']['both'] >= 0
    with Image.open(out / 'curve.png') as curve:
        assert curve.width > 1000

    # a line cut short is drawn again, the others are not
    text = (out / 'cases.jsonl').read_text()
    (out / 'cases.jsonl').write_text(text[:-5])
    drawn = []
    add = Cases.add
    monkeypatch.setattr(
        Cases, 'add', lambda *args: (drawn.append(args), add(*args))
    )
    assert run(parse_args(words), seer) == out
    assert len(drawn) == 1
    assert (out / 'cases.jsonl').read_text() == text


def test_inversions_are_swept(tiny_sd1, tmp_path, seer):
    folder = with_image_encoder(tiny_sd1, tmp_path / 'model', 32)
    words = ['style_diffusion', '--pretrained', str(folder)]
    words += ['--individuals', '1', '--scales', '1', '3', '--interval']
    words += ['--editors', 'DDIMInversion', 'NegativePromptInversion']
    words += ['--out-dir', str(tmp_path / 'out')]

    out = run(parse_args(words), seer)

    rows = Cases(out / 'cases.jsonl').rows
    assert len(rows) == 2 * 3
    for each in rows:
        assert 0 <= each['both'] <= each['edit_success'] + 1e-4
        assert each['reconstruction_psnr_db'] > 0
    assert set(json.loads((out / 'best.json').read_text())) == {
        'DDIMInversion',
        'NegativePromptInversion',
    }
    # guidance 1 leaves nothing to move away from
    first, second = (
        next(each for each in rows if each['method'] == method)
        for method in ('DDIMInversion', 'NegativePromptInversion')
    )
    assert first['guidance_scale'] == second['guidance_scale'] == 1
    assert first['edit_success'] == second['edit_success']


def test_null_texts_are_not_learned_without_guidance(tiny_sd1, tmp_path, seer):
    words = ['style_diffusion', '--pretrained', str(tiny_sd1)]
    words += ['--individuals', '1', '--scales', '1', '--interval']
    words += ['--editors', 'NullTextInversion', 'DDIMInversion']
    words += ['--out-dir', str(tmp_path)]

    out = run(parse_args(words), seer)

    assert len(sweep_guidance.Cases(out / 'cases.jsonl').rows) == 1
