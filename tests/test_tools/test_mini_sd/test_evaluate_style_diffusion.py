"""The measure of edits: true masks, known similarities."""

import csv

import numpy as np
import pytest
import torch
from evaluate_style_diffusion import (
    make_edits,
    masked_psnr,
    score,
    ssim_map,
    write_table,
)
from PIL import Image
from tolerances import EPS, EXACT

from judge import ANSWERS
from world import draw, draw_with_mask


@pytest.mark.parametrize('index', range(4))
def test_edits_say_what_they_ask_for(index):
    edits = make_edits(index)

    assert [edit.name[3:] for edit in edits] == [
        'species',
        'fur',
        'place',
        'accessory',
    ]
    for edit in edits:
        assert edit.prompt != edit.target
        for question, answer in edit.asked.items():
            assert answer in ANSWERS[question]
        for words in filter(None, edit.blend_words.split(' > ')):
            assert words in f'{edit.prompt} {edit.target}'.split()
    again = make_edits(index)
    assert edits == again and edits != make_edits(index + 4)


def test_the_masks_are_true():
    species, fur, place, accessory = make_edits(0)
    _, mask = draw_with_mask(fur.source, 128)
    subject = np.asarray(mask) > 127

    assert not (fur.keep() & subject).any()
    assert place.keep().any() and not (place.keep() & ~subject).any()
    for edit in (species, accessory):
        changes = np.abs(
            np.asarray(draw(edit.goal)).astype(int)
            - np.asarray(draw(edit.source)).astype(int)
        ).sum(2)
        inside = edit.keep()
        assert inside.mean() > 0.2
        # the goal differs from the source where it may; shadows aside
        assert (changes[inside] > 0).mean() < 0.02


@pytest.mark.usefixtures('float64')
def test_similarity():
    generator = torch.Generator().manual_seed(0)
    a = torch.rand(2, 3, 32, 32, generator=generator) * 2 - 1
    b = a.clone()
    b[0, :, :, 16:] = -a[0, :, :, 16:]

    similar = ssim_map(a, b)

    torch.testing.assert_close(similar[1], torch.ones(32, 32), **EXACT)
    torch.testing.assert_close(similar[0, :, :12], torch.ones(32, 12), **EXACT)
    assert similar[0, :, 20:].mean() < 0


def test_psnr_where_a_mask_is_set():
    a = torch.zeros(1, 3, 4, 4)
    b = a.clone()
    b[..., 2:] = 0.2
    left = torch.zeros(1, 4, 4, dtype=torch.bool)
    left[..., :2] = True

    # the least error that counts is 1e-12; 10 log10(4 / mse)
    assert masked_psnr(a, b, left).item() == pytest.approx(126, abs=1)
    assert masked_psnr(a, b, ~left).item() == pytest.approx(20, rel=20 * EPS)


class Seer:
    """Answers what it is told to."""

    def __init__(self, answers):
        self.answers = answers

    def look(self, images):
        return self.answers[: len(images)], None


def test_a_perfect_edit_has_a_perfect_score(tmp_path):
    edits = make_edits(0)
    table = write_table(edits, tmp_path)
    for edit in edits:
        (tmp_path / edit.name).mkdir()
        source, keep = draw(edit.source), edit.keep()
        edited = np.where(keep[..., None], source, draw(edit.goal))
        for kind in ('source', 'autoencoder', 'inversion'):
            source.save(tmp_path / edit.name / f'{kind}.png')
        Image.fromarray(edited).save(tmp_path / edit.name / 'edit.png')
    answers = [dict.fromkeys(ANSWERS, '') | edit.asked for edit in edits]

    figures = score(Seer(answers), edits, tmp_path)

    assert figures['edit_success'] == 1
    assert figures['kept_psnr_db'] > 100
    assert figures['reconstruction_psnr_db'] > 100
    assert 0.9 < figures['kept_ssim'] <= 1
    answers[0]['species'] = 'robot'
    figures = score(Seer(answers), edits, tmp_path)
    assert figures['edit_success'] == 0.75
    kinds = ('species', 'fur', 'place', 'accessory')
    assert [figures[f'{kind}_success'] for kind in kinds] == [0, 1, 1, 1]
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert [row['name'] for row in rows] == [edit.name for edit in edits]
    assert (tmp_path / rows[0]['image']).is_file()
