"""Previews show what is learned from, as the model sees it."""

import numpy as np
import pytest
from mmengine.structures import BaseDataElement
from runs import draw_image
from tiny import at_step, make_hiper, picture

from mmhiper.datasets import SourceImageDataset, TextualInversionDataset
from mmhiper.engine.sources import sources_of
from mmhiper.utils import register_all_modules

PIPELINE = [
    dict(type='LoadUprightImage'),
    dict(type='SquareCrop'),
    dict(type='PackSourceImage'),
]


@pytest.fixture
def folder(tmp_path):
    """Two folders of two pictures."""
    register_all_modules()
    for name, seeds in (('a', (0, 1)), ('b', (2, 3))):
        (tmp_path / name).mkdir()
        for seed in seeds:
            draw_image(tmp_path / name / f'{seed}.png', seed=seed)
    return tmp_path


def array_of(pixels) -> np.ndarray:
    """(H, W, 3) bytes."""
    return pixels.permute(1, 2, 0).numpy()


def test_the_first_image_is_shown(folder, tiny_sd1):
    files = [str(folder / 'a' / f'{n}.png') for n in (1, 0)]
    dataset = SourceImageDataset(img=files, pipeline=PIPELINE)
    preprocess = make_hiper(tiny_sd1).data_preprocessor

    sources = sources_of(dataset, preprocess)

    ((caption, shown),) = sources.panels
    assert caption == 'source'
    assert np.array_equal(np.asarray(shown), array_of(dataset[0]['inputs']))
    assert sources.pixels.shape == (1, 3, 64, 64)


def test_a_picture_of_each_word_is_shown(folder, tiny_sd1):
    dataset = TextualInversionDataset(
        data_root=str(folder),
        concept_dir=['a', 'b'],
        placeholder=['<toy>', '<cat>'],
        template=['a {}'],
        pipeline=PIPELINE,
    )
    assert dataset.examples == {'<toy>: ': 0, '<cat>: ': 2}

    sources = sources_of(dataset, make_hiper(tiny_sd1).data_preprocessor)

    panels = dict(sources.panels)
    assert list(panels) == ['<toy>: source', '<cat>: source']
    for index, shown in zip((0, 2), panels.values(), strict=True):
        expected = array_of(dataset[index]['inputs'])
        assert np.array_equal(np.asarray(shown), expected)


def test_a_single_word_needs_no_name(folder):
    dataset = TextualInversionDataset(
        data_root=str(folder),
        concept_dir='a',
        placeholder='<toy>',
        template=['a {}'],
        pipeline=PIPELINE,
    )
    assert dataset.examples == {'': 0}


def test_it_is_not_mirrored_and_of_any_dataset(tiny_sd1):
    editor = make_hiper(tiny_sd1, data_preprocessor=dict(random_flip=True))
    items = [dict(inputs=picture(0, 64), data_samples=BaseDataElement())]

    for iteration in range(8):
        at_step(iteration)
        editor.data_preprocessor(dict(inputs=[picture(0, 64)]), training=True)
        ((_, shown),) = sources_of(items, editor.data_preprocessor).panels
        assert np.array_equal(np.asarray(shown), array_of(picture(0, 64)))
