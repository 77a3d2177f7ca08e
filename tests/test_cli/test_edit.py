"""Which photos are edited, and by which texts."""

from __future__ import annotations

import argparse

import pytest
from PIL import Image
from runs import draw_image

from mmhiper.cli import main
from mmhiper.cli.photos import read_photos
from mmhiper.io import read_picture_record


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two photos with captions, and one without."""
    monkeypatch.chdir(tmp_path)
    photos = tmp_path / 'photos'
    photos.mkdir()
    for number, name in enumerate(('cat.png', 'dog.png')):
        draw_image(photos / name, number)
    (photos / 'cat.txt').write_text('a lying\n cat\n')
    (photos / 'dog.caption').write_text('a standing dog')
    draw_image(tmp_path / 'fox.png', 3)
    return tmp_path


def photos_of(*photos, source=None, target=('a fox',)):
    args = argparse.Namespace(
        photos=list(map(str, photos)), source=source, target=target
    )
    return [
        (each.name, each.source, *each.targets) for each in read_photos(args)
    ]


def test_one_photo(folder):
    assert photos_of('fox.png', source=['a dog'], target=['a', 'b']) == [
        ('fox', 'a dog', 'a', 'b')
    ]


def test_a_folder_with_captions(folder):
    expected = [
        ('cat', 'a lying cat', 'a fox'),
        ('dog', 'a standing dog', 'a fox'),
    ]
    assert photos_of('photos') == expected
    assert photos_of('photos/cat.png', 'photos/dog.png') == expected


def test_a_text_for_all_and_for_each(folder):
    files = ('fox.png', 'photos/dog.png')
    with pytest.warns(UserWarning, match=r'Not read.*dog\.caption'):
        assert [each[1] for each in photos_of(*files, source=['x'])] == [
            'x',
            'x',
        ]
        assert [each[1] for each in photos_of(*files, source=['x', 'y'])] == [
            'x',
            'y',
        ]


def test_a_table(folder):
    (folder / 'my.csv').write_text(
        'name;image;prompt;target\n'
        'one;photos/dog.png;a dog;a cat\n'
        'two;fox.png;a dog;a wolf\n'
        'three;photos/dog.png;a dog;a fox\n'
    )
    assert photos_of('my.csv', target=None) == [
        ('one', 'a dog', 'a cat', 'a fox'),
        ('two', 'a dog', 'a wolf'),
    ]
    assert photos_of('my.csv', 'fox.png', source=['a'], target=['b']) == [
        ('one', 'a dog', 'a cat', 'a fox', 'b'),
        ('two', 'a dog', 'a wolf', 'b'),
        ('fox', 'a', 'b'),
    ]


def test_photos_of_one_name_have_folders_of_their_own(folder):
    (folder / 'DOG.png').write_bytes((folder / 'fox.png').read_bytes())
    names = [
        each[0]
        for each in photos_of('photos/dog.png', 'DOG.png', source=['a', 'b'])
    ]
    assert names == ['dog', 'DOG-2']
    # what all photos have together has a place as well
    draw_image(folder / 'index.html.png')
    ((name, *_),) = photos_of('index.html.png', source=['a'])
    assert name == 'index.html-2'


@pytest.mark.parametrize(
    ('photos', 'values', 'words'),
    [
        (['fox.png'], {}, r"'fox\.png' show\? .*'fox\.txt' or 'fox\.caption'"),
        (['photos'], dict(target=None), 'with --target TEXT'),
        (['photos'], dict(target=['A lying  cat']), 'for both'),
        (['photos'], dict(source=['a', 'b', 'c']), 'of 2, but got 3'),
        (['.git'], dict(source=None), 'What does'),
        (['empty'], {}, "'empty' holds no picture"),
        (['bad.csv'], dict(target=None), '`tau_c`, which HiPer does not'),
        (['none.csv'], {}, 'none.csv'),
    ],
)
def test_what_cannot_be_edited(folder, photos, values, words):
    (folder / 'empty').mkdir()
    (folder / 'bad.csv').write_text(
        'name,image,prompt,target,tau_c\na,fox.png,a dog,a cat,0.5\n'
    )
    with pytest.raises(ValueError, match=words) as caught:
        photos_of(*photos, **values)
    assert '\n' not in str(caught.value)


def test_several_photos_in_one_command(folder, tiny_sd1, capsys):
    options = ['--pretrained', str(tiny_sd1), '--iters', '2', '--out-dir', 'o']
    options += ['--scheduler', 'DPMSolverMultistepScheduler']
    options += ['use_karras_sigmas=True', '--target', 'a fox']
    assert main(['edit', 'photos', *options]) == 0

    output = capsys.readouterr().out
    assert 'Images 1-2 of 2  cat, dog' in output
    assert (folder / 'o' / 'index.html').is_file()
    assert (folder / 'o' / 'embeddings.safetensors').is_file()
    for name, source in (('cat', 'a lying cat'), ('dog', 'a standing dog')):
        assert (folder / 'o' / name / 'sheet.png').is_file()
        first = read_picture_record(folder / 'o' / name / '001.png')
        assert first['prompt'] == source
        assert first['options']['scheduler'] == dict(
            type='DPMSolverMultistepScheduler', use_karras_sigmas=True
        )

    # of the file of all, one is drawn by its row
    words = ['infer', 'o/embeddings.safetensors', '--prompt', 'a dog']
    words += ['--num-images', '1', '--options', 'num_inference_steps=2']
    assert main([*words, 'image=1', '--out-dir', 'drawn']) == 0
    options = read_picture_record(folder / 'drawn' / '000.png')['options']
    assert (options['image'], options['num_inference_steps']) == (1, 2)
    photo = ['--image', 'photos/dog.png', '--mask', 'white.png']
    with Image.open('photos/dog.png') as image:
        Image.new('L', image.size, 255).save('white.png')
    photo += ['--denoise', '0.5', '--out-dir', 'drawn']
    assert main([*words, 'index=1', *photo]) == 0
    options = read_picture_record(folder / 'drawn' / '000.png')['options']
    assert (options['index'], options['denoise']) == (1, 0.5)
    assert options['image']['file'] == 'dog.png'
    assert options['mask']['file'] == 'white.png'
    for more, told in (
        (['image=1', *photo], '`index=3` of --options'),
        (['denoise=1'], '--denoise'),
        (['index=0', '--denoise', '0.5'], '`denoise` is of a picture'),
        (['image=2'], '`image` must be'),
        (['imag=1'], 'Did you mean `image`?'),
        (['seed=1'], '--seed'),
        (['return_type=numpy'], '`return_type` is no option'),
        (['image'], 'wanted KEY=VALUE'),
    ):
        with pytest.raises(SystemExit):
            main([*words, *more])
        assert told in capsys.readouterr().err


def test_a_bad_photo_does_not_stop_the_others(folder, tiny_sd1, capsys):
    (folder / 'photos' / 'dog.png').write_bytes(b'x')
    words = ['edit', 'photos/dog.png', 'photos/cat.png', '--target', 'x']
    words += ['--pretrained', str(tiny_sd1), '--iters', '1']
    assert main(words) == 1
    assert 'dog.png' in capsys.readouterr().out
    out = folder / 'work_dirs' / 'edit_photos'
    assert (out / 'cat' / 'sheet.png').is_file()
    assert 'dog.png' in (out / 'dog' / 'error.txt').read_text()
    with pytest.warns(UserWarning, match=r'no pictures:.*dog\.png'):
        assert len(photos_of('photos')) == 1
    draw_image(folder / 'photos' / 'dog.png')

    for more, words in (
        (['--mask', 'fox.png'], '--mask is of one photo'),
        (['--share', '2/2'], 'NUMBER/COUNT'),
        (['--images-per-step', '0'], '`images_per_step` must be'),
        (['--scheduler', 'DPM'], '`scheduler` must be one of'),
        (['--scheduler', 'DDIMScheduler', 'x'], 'a NAME and then KEY=VALUE'),
        (['--scheduler', 'DDIMScheduler', 'x=1'], "has no 'x'"),
    ):
        with pytest.raises(SystemExit):
            main(['edit', 'photos', '--target', 'x', *more])
        assert words in capsys.readouterr().err
