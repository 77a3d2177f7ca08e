"""Pictures with what was learned against pictures without."""

import pytest
import torch
from PIL import Image
from tiny import make_hiper

from mmhiper.evaluation import compare_with_plain
from mmhiper.evaluation.learned import draw_comparison


class Colours:
    """Features that are known: a picture's colour, a text's colour word."""

    words = dict(red=(1, 0, 0), green=(0, 1, 0))

    def images(self, images):
        rows = [image.getpixel((0, 0)) for image in images]
        return torch.tensor(rows) / 255

    def texts(self, texts):
        rows = [self.words[text] for text in texts]
        return torch.tensor(rows, dtype=torch.float32)


def plain(colour, count=2):
    return [Image.new('RGB', (8, 8), colour)] * count


def test_measures_are_those_of_their_definition():
    red, lime = plain('red'), plain('lime')
    drawn = [('red', red, lime), ('green', red, lime)]
    report = compare_with_plain(Colours(), plain('red', 3), drawn)

    assert report['learned'] == pytest.approx(
        dict(image_similarity=1, text_similarity=0.5, prompt_followed=0.5)
    )
    assert report['plain'] == pytest.approx(
        dict(image_similarity=0, text_similarity=0.5, prompt_followed=0.5)
    )


def test_a_prompt_is_compared_with_what_it_is_about():
    red, lime = plain('red'), plain('lime')
    drawn = [('red', red, lime), ('green', lime, lime)]
    report = compare_with_plain(
        Colours(), [*red, *lime], drawn, about=[[0, 1], [2]]
    )

    assert report['learned']['image_similarity'] == 1
    assert report['plain']['image_similarity'] == 0.5


def test_one_prompt_has_no_other_to_be_nearer_to():
    report = compare_with_plain(
        Colours(), plain('red'), [('red', plain('red'), plain('lime'))]
    )
    assert set(report['learned']) == {'image_similarity', 'text_similarity'}


def test_both_sides_start_from_the_same_noise(tiny_sd1):
    editor = make_hiper(tiny_sd1, strength=1.0, target_text='a dog')
    [(text, learned, without)] = draw_comparison(editor, 2, seed=3)

    # untrained, [source, hiper] is the source text itself
    assert text == 'a dog'
    for one, other in zip(learned, without, strict=True):
        assert one.tobytes() == other.tobytes()
    assert learned[0].tobytes() != learned[1].tobytes()
