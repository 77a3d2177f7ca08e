"""The measurements: what is asked is what is judged."""

import functools
import json
import math
from dataclasses import replace

import evaluate
import evaluate_hiper
import evaluate_textual_inversion
import fingerprint
import numpy as np
import panels
import pytest
import torch
from mmengine.config import Config
from tolerances import EPS

from mmhiper.io.file_content import FileContent, write_content
from mmhiper.utils.errors import FileError

import judge
from world import ACCESSORIES, FURS, PLACES, POSES, draw, sample_scene


def test_psnr_is_that_of_the_definition():
    a = torch.zeros(2, 3, 8, 8)
    b = torch.stack([torch.full((3, 8, 8), 0.2), torch.full((3, 8, 8), 2.0)])
    # the range is 2, so 10 log10(4 / mse)
    # the mean of 192 equal numbers
    bound = 192 * EPS * 10 / math.log(10)
    assert panels.psnr(a, b).tolist() == pytest.approx([20, 0], abs=bound)


def test_shares_count_only_what_was_asked():
    asked = [{'pose': 'sitting', 'fur': 'white'}, {'pose': 'lying'}]
    said = [
        {'pose': 'sitting', 'fur': 'black'},
        {'pose': 'lying', 'fur': 'gray'},
    ]
    assert evaluate.shares(asked, said) == {
        'pose': 1.0,
        'fur': 0.0,
        'everything': 0.5,
    }


def test_prompts_say_what_is_asked():
    rng = np.random.default_rng(0)
    for _ in range(50):
        prompt, asked = evaluate.sample_prompt(rng)
        words = set(prompt.split())
        assert words & set(POSES) == {asked['pose']}
        assert words & set(PLACES) <= {asked['place']}
        assert asked['fur'] in words & set(FURS)
        worn = words & set(ACCESSORIES)
        assert set(asked) & set(ACCESSORIES) == worn
        assert set(asked) <= set(judge.ANSWERS)


def test_cases_change_one_thing_and_differ_from_each_other():
    cases = [evaluate_hiper.make_case(i) for i in range(8)]
    assert len({case.scene.individual for case in cases}) == 8
    for case in cases:
        assert case.source_text.split()[1] == case.scene.pose
        assert len(case.targets) == len(case.asked) == 4
        for text, asked in zip(case.targets, case.asked, strict=True):
            assert text != case.source_text
            assert asked['species'] == case.scene.individual.species
            assert asked['pose'] in text
        other = case.asked[2]['place']
        assert other != case.scene.place


def test_truth_follows_the_scene():
    scene = sample_scene(np.random.default_rng(5))
    answers = judge.truth(scene)
    assert answers['pose'] == scene.pose
    assert set(answers) == set(judge.ANSWERS)
    for question, answer in answers.items():
        assert answer is None or answer in judge.ANSWERS[question]


def test_each_accessory_is_asked_for_on_its_own():
    scene = sample_scene(np.random.default_rng(5))
    worn = {'accessory': 'hat', 'second_accessory': 'ball'}
    answers = judge.truth(replace(scene, **worn))
    assert [answers[name] for name in ACCESSORIES] == ['yes', 'no', 'yes']


@pytest.fixture(scope='module')
def trained():
    """A judge of a few steps."""
    return judge.train(individuals=64, epochs=4)


def test_a_judge_learns_and_is_kept(trained, tmp_path):
    path = tmp_path / 'judge.safetensors'
    trained.accuracy = judge.report(trained, individuals=20)
    judge.save_judge(trained, path)
    again = judge.load_judge(path)
    assert again.accuracy == trained.accuracy
    assert trained.accuracy['species'] > 1 / 3  # better than a guess
    pictures = [draw(sample_scene(np.random.default_rng(i))) for i in range(3)]
    said, features = again.look(pictures)
    assert said == trained.look(pictures)[0]
    assert features.shape == (3, 64)
    # the squares of 64 numbers add up
    torch.testing.assert_close(
        features.norm(dim=1), torch.ones(3), rtol=0, atol=64 * EPS
    )


def test_the_judge_that_ships_is_as_good_as_it_says():
    """It needs no training, and its figures are those of its weights."""
    assert judge.DEFAULT_PATH.stat().st_size <= 2e6
    shipped = judge.load_judge()
    individuals = 40
    found = judge.report(shipped, individuals)
    assert set(found) == {*judge.ANSWERS, 'identity'}
    for name, share in shipped.accuracy.items():
        assert share > 0.95
        # a binomial share of at least 40 pictures: four standard deviations,
        # and a picture more, where next to nothing is wrong
        spread = math.sqrt(share * (1 - share) / individuals)
        assert abs(found[name] - share) <= 4 * spread + 1 / individuals


def test_a_missing_judge_is_told_and_not_trained(tmp_path, monkeypatch):
    monkeypatch.setattr(judge, 'train', lambda *_: pytest.fail('trains'))
    with pytest.raises(FileNotFoundError, match=r'judge\.py --train'):
        judge.load_judge(tmp_path / 'judge.safetensors')


@pytest.mark.parametrize(
    'note',
    [
        '{"species": 1}',
        '["species", "pose"]',
        '7',
        'much',
        '[' * 100_000,
        json.dumps(dict.fromkeys([*judge.ANSWERS, 'identity'], 7)),
        json.dumps(dict.fromkeys([*judge.ANSWERS, 'identity'], 'all')),
    ],
)
def test_what_a_file_says_of_itself_is_checked(tmp_path, note):
    path = tmp_path / 'judge.safetensors'
    content = FileContent(path, judge.Judge().state_dict(), {'accuracy': note})
    write_content(content)
    with pytest.raises(FileError, match=r'judge\.py --train'):
        judge.load_judge(path)


def test_a_score_counts_success_and_identity():
    cases = [evaluate_hiper.make_case(i) for i in range(3)]

    class Oracle(judge.Judge):
        """Knows every answer, and takes case 2's edits for case 0's."""

        def look(self, images):
            said = [asked for case in cases for asked in case.asked]
            own = torch.arange(3).repeat_interleave(4)
            if len(images) == 3:
                return said[:3], torch.eye(3)
            own[own == 2] = 0
            return said, torch.eye(3)[own]

    images = [case.source for case in cases for _ in case.targets]
    result = evaluate_hiper.score(Oracle(), cases, images)
    assert result['edit_success'] == 1
    assert result['identity'] == pytest.approx(2 / 3)
    assert result['both'] == pytest.approx(2 / 3)


# --------------------------------------------------------- learned words
def test_concepts_are_different_individuals_of_all_species():
    concepts = [evaluate_textual_inversion.make_concept(i) for i in range(6)]
    assert [c.word for c in concepts] == ['dog', 'cat', 'toy'] * 2
    first = {concept.pictures[0].tobytes() for concept in concepts}
    assert len(first) == 6
    for concept in concepts:
        assert len({picture.tobytes() for picture in concept.pictures}) == 5


def test_places_are_read_off_the_text():
    texts = ['a photo of a dog at night', 'a dog in the snow', 'a dog']
    places = evaluate_textual_inversion.places_named(texts)
    assert places == ['night', 'snow', None]


def test_drawings_of_a_concept_pass_the_gate_and_others_do_not(
    trained, monkeypatch
):
    """The gate itself, on drawings, with a judge of a few steps."""
    monkeypatch.setattr(  # the rivals of both are the same
        evaluate_textual_inversion,
        'make_concept',
        functools.cache(evaluate_textual_inversion.make_concept),
    )
    one, other = (evaluate_textual_inversion.make_concept(i) for i in (0, 3))

    def share(pictures):
        return evaluate_textual_inversion.measure_pictures(
            trained, one.pictures, ['a dog'], [pictures]
        )['identity']

    assert share(one.pictures) > share(other.pictures)


def test_words_are_learned_anew_for_other_weights_and_settings(tmp_path):
    """Never taken from a run of another rate, or of the weights before."""
    weights = tmp_path / 'unet.safetensors'
    weights.write_bytes(b'one')

    def key(**more):
        cfg = Config.fromfile(evaluate_textual_inversion.CONFIG)
        cfg.merge_from_dict(more)
        return fingerprint.hash_run(cfg, tmp_path)

    first = key()
    assert key() == first
    # the words of concepts differ, in folders of their own
    assert key(**{'model.initialize_token': 'dog'}) == first
    others = [
        key(**{'optim_wrapper.optimizer.lr': 1.0}),
        key(**{'train_cfg.max_iters': 7}),
        key(**{'model.num_vectors_per_token': 3}),
        key(param_scheduler=[dict(type='LinearLR')]),
        key(custom_hooks=[]),
    ]
    weights.write_bytes(b'two')
    others.append(key())
    assert len({first, *others}) == 1 + len(others)
