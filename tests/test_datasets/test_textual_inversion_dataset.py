"""A folder of pictures of a concept, and its sentences."""

import contextlib
import os
import warnings

import pytest
import torch
from PIL import Image
from runs import REPO, draw_image

from mmhiper.registry import DATASETS
from mmhiper.utils import register_all_modules
from mmhiper.utils.errors import UserError

PIPELINE = [
    dict(type='LoadUprightImage'),
    dict(type='SquareCrop'),
    dict(type='PackSourceImage'),
]


def build(root, template=('a photo of a {}', 'my {} here'), **options):
    """The dataset of the pictures in ``root / 'toy'``."""
    register_all_modules()
    config = dict(
        type='TextualInversionDataset',
        data_root=str(root),
        concept_dir='toy',
        placeholder='<toy>',
        template=template,
        pipeline=PIPELINE,
    )
    return DATASETS.build({**config, **options})


@pytest.fixture
def folder(tmp_path):
    """A folder with two pictures."""
    (tmp_path / 'toy').mkdir()
    for k in (2, 1):
        draw_image(tmp_path / 'toy' / f'{k}.png', seed=k)
    return tmp_path


def test_an_item_is_a_picture_with_all_its_sentences(folder):
    dataset = build(folder)
    items = [dataset[0], dataset[1]]

    assert len(dataset) == 2
    for index, item in enumerate(items):
        sample = item['data_samples']
        assert sample.img_path.endswith(f'{index + 1}.png')
        assert sample.image_index == index
        assert sample.prompts == ('a photo of a <toy>', 'my <toy> here')
        assert item['inputs'].dtype == torch.uint8
        assert item['inputs'].shape == (3, 64, 64)
    assert dataset[0] is items[0]  # decoded once


def test_templates_come_from_a_file(folder):
    path = folder / 'templates.txt'
    path.write_text('a {}\n\n  the {}  \n')

    sample = build(folder, str(path))[0]['data_samples']
    assert sample.prompts == ('a <toy>', 'the <toy>')


@pytest.mark.parametrize(
    ('name', 'count', 'some'),
    [
        # as published with the method: short facts, some of them twice
        ('imagenet_templates_small', 27, ('a rendition of a', 'a photo of')),
        ('imagenet_style_templates_small', 19, ('a weird painting in',)),
        ('mini_sd_templates', 21, ('a photo of a',)),
        ('mini_sd_style_templates', 14, ('a painting in',)),
    ],
)
def test_the_lists_that_come_along_are_fit_for_use(folder, name, count, some):
    prompts = build(folder, str(REPO / 'data' / f'{name}.txt')).prompts[0]

    assert len(prompts) == count
    assert all(any(p.startswith(s) for p in prompts) for s in some)


def test_a_backbone_may_have_templates_of_its_own(folder):
    template = {'default': ['a {}'], 'mini-sd': ['the {}', 'my {}']}
    sample = build(folder, template)[0]['data_samples']

    assert sample.prompts == {
        'default': ('a <toy>',),
        'mini-sd': ('the <toy>', 'my <toy>'),
    }
    with pytest.raises(ValueError, match="the key 'default'"):
        build(folder, {'mini-sd': ['the {}']})


# ---------------------------------------------------------- several concepts
@pytest.fixture
def folders(folder):
    """A second concept with a picture, and one of both."""
    for name, seed in (('cat', 3), ('both', 4)):
        (folder / name).mkdir()
        draw_image(folder / name / '1.png', seed=seed)
    return folder


def test_every_folder_has_its_word_and_its_sentences(folders):
    words = ['<toy>', '<cat>', ['<toy>', '<cat>']]
    dataset = build(
        folders,
        template=[['a {}'], {'default': 'the {}'}, ['a {} and a {}']],
        concept_dir=['toy', 'cat', 'both'],
        placeholder=words,
    )

    samples = [item['data_samples'] for item in dataset]
    assert [sample.image_index for sample in samples] == [0, 1, 2, 3]
    assert [sample.prompts for sample in samples] == [
        ('a <toy>',),
        ('a <toy>',),
        {'default': ('the <cat>',)},
        ('a <toy> and a <cat>',),
    ]


def test_templates_may_be_those_of_all_folders(folders):
    dataset = build(
        folders,
        concept_dir=['toy', 'cat'],
        placeholder=['<toy>', '<cat>'],
        mask_dir=None,
    )

    assert dataset.prompts[0] == ('a photo of a <toy>', 'my <toy> here')
    assert dataset.prompts[-1] == ('a photo of a <cat>', 'my <cat> here')


def test_masks_may_be_those_of_some_folders(folders):
    (folders / 'masks').mkdir()
    Image.new('L', (64, 64), 255).save(folders / 'masks' / '1.png')
    dataset = build(
        folders,
        concept_dir=['toy', 'cat'],
        placeholder=['<toy>', '<cat>'],
        mask_dir=[None, 'masks'],
    )

    masked = ['mask' in item['data_samples'] for item in dataset]
    assert masked == [False, False, True]


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        (dict(placeholder='<toy>'), '`placeholder` must have one entry'),
        (dict(placeholder=['<toy>']), '`placeholder` must have one entry'),
        (dict(template=[['a {}']]), '`template` must have one entry'),
        (dict(mask_dir=['masks']), '`mask_dir` must have one entry'),
        (dict(template=['a {} and a {}']), 'one {}'),
        (dict(placeholder=['<toy>', ['<toy>', '<cat>']]), '2 {}, one for'),
    ],
)
def test_there_must_be_one_of_each_for_every_folder(folders, options, words):
    config = dict(concept_dir=['toy', 'cat'], placeholder=['<toy>', '<cat>'])
    with pytest.raises(ValueError, match=words):
        build(folders, **{**config, **options})


# ------------------------------------------------------------------ mistakes
def test_files_that_are_no_pictures_are_named_and_skipped(folder):
    (folder / 'toy' / 'notes.txt').write_text('not a picture')
    (folder / 'toy' / 'below').mkdir()

    with pytest.warns(UserWarning, match=r'no pictures: notes\.txt'):
        assert len(build(folder)) == 2


def test_what_is_in_place_of_a_picture_is_named(folder):
    pointer = 'version https://git-lfs.github.com/spec/v1\n'
    (folder / 'toy' / '3.png').write_text(pointer)
    with pytest.warns(UserWarning, match=r'3\.png \(a pointer of Git LFS'):
        assert len(build(folder)) == 2

    (folder / 'toy' / '4.png').write_bytes(b'\xff\x0a' + bytes(30))
    with pytest.raises(ValueError, match=r'4\.png.*a JPEG XL picture'):
        build(folder)


def test_a_damaged_picture_is_an_error(folder):
    content = (folder / 'toy' / '1.png').read_bytes()
    (folder / 'toy' / '1.png').write_bytes(content[: len(content) // 2])

    with pytest.raises(ValueError, match=r'1\.png.*cannot be read completely'):
        build(folder)


def test_what_is_no_file_is_left_alone(folder):
    os.mkfifo(folder / 'toy' / 'pipe.png')  # to open it would wait for ever

    assert len(build(folder)) == 2


@pytest.mark.parametrize('length', [20, 60, 200])
def test_a_picture_cut_short_is_named(folder, length):
    with Image.open(folder / 'toy' / '1.png') as image:
        image.save(folder / 'toy' / '3.jpeg')
    content = (folder / 'toy' / '3.jpeg').read_bytes()
    (folder / 'toy' / '3.jpeg').write_bytes(content[:length])

    # of one that cannot be told from something else, a warning
    with (
        warnings.catch_warnings(record=True) as caught,
        contextlib.suppress(UserError),
    ):
        warnings.simplefilter('always')
        build(folder)
        assert '3.jpeg' in str(caught[0].message)


@pytest.mark.parametrize(
    ('content', 'words'),
    [
        (b'a {}\n\xe9 {}', 'line 2 .* in UTF-8|in UTF-8: line 2'),
        (b'a {}\0', 'line 1 has zero bytes'),
        (b'a {}\n\n# mine\n', 'line 3, must have one {}.*no comments'),
        (b'\r\n \r\n', 'no template'),
        (b'\xef\xbb\xbf\n', 'no template'),
        (b'a {} {}' + b'x' * 10**6, 'one {}'),
    ],
)
def test_a_damaged_file_of_templates(folder, content, words):
    path = folder / 'templates.txt'
    path.write_bytes(content)

    with pytest.raises(UserError, match=words) as error:
        build(folder, str(path))

    assert len(str(error.value)) < 500
    assert len(str(error.value).splitlines()) == 1


def test_an_empty_folder_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match='no folder'):
        build(tmp_path)
    (tmp_path / 'toy').mkdir()
    with pytest.raises(ValueError, match='holds no picture'):
        build(tmp_path)


@pytest.mark.parametrize(
    ('template', 'words'),
    [((), 'no template'), (('a dog',), 'one {}'), (('{} {}',), 'one {}')],
)
def test_templates_without_a_place_for_the_word_are_refused(
    folder, template, words
):
    with pytest.raises(ValueError, match=words):
        build(folder, template)


def test_a_missing_file_of_templates_is_an_error(folder):
    with pytest.raises(FileNotFoundError, match=r'nowhere\.txt'):
        build(folder, 'nowhere.txt')


def test_masks_are_found_by_name(folder):
    (folder / 'toy' / 'masks').mkdir()
    for k, grey in ((1, 255), (2, 200)):
        mask = Image.new('L', (64, 64), grey)
        mask.save(folder / 'toy' / 'masks' / f'{k}.jpg')

    dataset = build(folder, mask_dir='toy/masks')

    greys = [int(item['data_samples'].mask.max()) for item in dataset]
    assert greys == [255, 200]


def test_every_picture_needs_its_mask(folder):
    with pytest.raises(FileNotFoundError, match=r'masks.*mask_dir'):
        build(folder, mask_dir='masks')
    (folder / 'masks').mkdir()
    Image.new('L', (64, 64), 255).save(folder / 'masks' / '2.png')
    with pytest.raises(FileNotFoundError, match=r'no mask of: 1\.'):
        build(folder, mask_dir='masks')


# ---------------------------------------------- templates of the A1111 web UI
def captions(folder, *texts):
    """Writes a caption beside each picture."""
    for number, text in enumerate(texts, 1):
        (folder / 'toy' / f'{number}.txt').write_bytes(text)


@pytest.mark.parametrize('mark', ['[name]', '[NAME]', '{}'])
@pytest.mark.parametrize('encoding', ['utf-8-sig', 'utf-16', 'utf-16-le'])
def test_the_name_in_a_file_of_any_system(folder, mark, encoding):
    path = folder / 'style.txt'
    text = f'a {mark}\r\n\r\ra photo of {mark}, cropped\r'
    path.write_bytes(text.encode(encoding))

    sample = build(folder, str(path))[0]['data_samples']

    assert sample.prompts == ('a <toy>', 'a photo of <toy>, cropped')


def test_a_name_in_a_template_of_a_config(folder):
    assert build(folder, 'a [name]').prompts[0] == ('a <toy>',)
    both = ['a [name]', 'my {} and [x] (y)', '[name], near [name]']
    wanted = ('a <toy>', 'my <toy> and [x] (y)', '<toy>, near <toy>')
    assert build(folder, both).prompts[0] == wanted
    # of a folder each, and a file whose name looks like a template
    (folder / 'a [name].txt').write_text('the {}')
    dataset = build(
        folder,
        [['a [name]'], str(folder / 'a [name].txt')],
        concept_dir=['toy', 'toy'],
        placeholder=['<toy>', '<cat>'],
    )
    assert dataset.prompts[0] == ('a <toy>',)
    assert dataset.prompts[-1] == ('the <cat>',)


def test_captions_are_those_of_their_pictures(folder, recwarn):
    path = folder / 'filewords.txt'
    path.write_text('a [name], [filewords]\nmy {} with [FileWords]\n')
    captions(folder, '\ufeffein Hündchen,\r\n{} on grass\n'.encode(), b'b')

    prompts = build(folder, str(path)).prompts

    assert prompts == [
        ('a <toy>, ein Hündchen, {} on grass',)
        + ('my <toy> with ein Hündchen, {} on grass',),
        ('a <toy>, b', 'my <toy> with b'),
    ]
    assert not [w for w in recwarn if 'toy' in str(w.message)]


def test_captions_of_kohya_by_backbone_and_with_the_name(folder):
    captions(folder, b'[name] in a box')
    (folder / 'toy' / '2.caption').write_text('a [Name]')
    template = {'default': '[filewords]', 'mini-sd': 'the {}'}

    prompts = build(folder, template).prompts

    assert prompts == [
        {'default': ('<toy> in a box',), 'mini-sd': ('the <toy>',)},
        {'default': ('a <toy>',), 'mini-sd': ('the <toy>',)},
    ]


def test_captions_that_have_the_word_itself(folder):
    """Each is the sentence, whatever its capitals, on one line."""
    captions(folder, '\ufeffa <TOY>\r\nin a box'.encode(), b'the <toy>s')
    assert build(folder, '[filewords]').prompts == [
        ('a <TOY> in a box',),
        ('the <toy>s',),
    ]
    # of several words all
    both = dict(concept_dir=['toy'], placeholder=[['<toy>', '<cat>']])
    captions(folder, b'a <toy> and a <cat>', b'a <cat> by a <toy>')
    prompts = build(folder, [['[filewords]']], **both).prompts
    assert prompts == [('a <toy> and a <cat>',), ('a <cat> by a <toy>',)]
    captions(folder, b'a <toy> and a <cat>', b'[name] and a <toy>')
    with pytest.raises(UserError, match=r"2\.txt. has no .* nor '<cat>' its"):
        build(folder, [['[filewords]']], **both)
    # a word of letters is a whole one
    captions(folder, b'a sks', b'two desks')
    with pytest.raises(UserError, match=r"2\.txt. has no .* nor 'sks' itself"):
        build(folder, '[filewords]', placeholder='sks')


def test_captions_that_are_not_read_are_named(folder):
    captions(folder, b'a', b'b')

    with pytest.warns(UserWarning, match=r'no template has .*1\.txt, 2\.tx'):
        build(folder)


@pytest.mark.parametrize(
    ('template', 'texts', 'words'),
    [
        ('[name] [filewords]', [b'a'], r"2\.png' needs one.*'2\.txt' \(or"),
        ('[name] [filewords]', [b'a', b' \n'], r'caption .*2\.txt.*is empty'),
        ('[name] [filewords]', [b'a', b'\xe9'], r'2\.txt.*in UTF-8: line 1'),
        ('[name] [filewords]', [b'a\x1b[2J'], r"character '\\x1b'"),
        ('[name] [filewords]', [b'a ' * 5001], r'10000 .*has more letters'),
        ('[filewords]', [b'a', b'b'], r'1\.txt. has no \[name\] either'),
        ('a {} [name]', [], r'either \{\} or \[name\]'),
        ('a [names]', [], r'a \[names\]. does not exist'),
    ],
)
def test_what_templates_of_captions_want(folder, template, texts, words):
    captions(folder, *texts)

    with pytest.raises(UserError, match=words) as error:
        build(folder, template)

    assert len(str(error.value).splitlines()) == 1


def test_a_name_does_not_say_which_of_several(folders):
    with pytest.raises(UserError, match=r'2 \{\}.*\[name\] does not say'):
        build(
            folders,
            ['a [name] and a [name]'],
            concept_dir=['both'],
            placeholder=[['<toy>', '<cat>']],
        )
