"""Benches as they are published, and as strangers might make them."""

import copy
import io
import json
import shutil

import numpy as np
import pytest
from PIL import Image
from runs import draw_image

from mmhiper.evaluation.benches import decode_mask, read_bench
from mmhiper.evaluation.benches.pie_bench import PUBLISHED
from mmhiper.utils.errors import UserError

ROW = dict(
    image_path='1_change_object_80/1_artificial/a.jpg',
    original_prompt='a [dog] on the grass',
    editing_prompt='a [cat] on the grass',
    editing_instruction='Make it a cat',
    editing_type_id='1',
    blended_word='dog cat',
    mask=[1000, 3, 512 * 512 - 2, 99],
)


def write_pie(folder, **rows):
    (folder / 'annotation_images').mkdir(parents=True, exist_ok=True)
    (folder / 'mapping_file.json').write_text(json.dumps(rows))


def read(folder):
    return read_bench(folder, folder / 'pictures')


# ---------------------------------------------------------------- PIE-Bench
@pytest.mark.parametrize('below', ['.', 'data'])
def test_pie_bench(tmp_path, below):
    write_pie(tmp_path / below, **{'000': ROW})
    (case,) = read(tmp_path)

    images = tmp_path / below / 'annotation_images'
    assert case.image == str(images / ROW['image_path'])
    assert (case.source, case.target) == (
        'a dog on the grass',
        'a cat on the grass',
    )
    assert case.kind == '1 change object'
    assert case.blend == (('dog',), ('cat',))
    # as the published rows with prompt-to-prompt are made
    assert case.options == dict(
        PUBLISHED, blend_words=[['dog'], ['cat']], reweight={'cat': 2.0}
    )
    assert (case.goal, case.note) == (None, '')


def test_a_mask_is_drawn_run_by_run():
    mask = decode_mask([1000, 3, 512 * 300 + 200, 5, 512 * 512 - 2, 99])
    by_hand = np.zeros((512, 512), bool)
    by_hand[1, 488:491] = True  # 1000 = 1 * 512 + 488
    by_hand[300, 200:205] = True
    by_hand[0] = by_hand[-1] = True
    by_hand[:, 0] = by_hand[:, -1] = True
    assert (mask == by_hand).all()
    assert decode_mask([0, 512 * 512]).all()
    assert decode_mask([]).sum() == 4 * 511


def test_words_that_the_texts_do_not_have_are_left_out_and_noted(tmp_path):
    row = dict(ROW, blended_word='horse cat')
    write_pie(tmp_path, a=row, b=dict(ROW, blended_word=''))
    first, second = read(tmp_path)
    assert first.blend is None and 'horse' in first.note
    assert first.options == PUBLISHED
    assert second.blend is None and second.note == ''


def test_keys_of_our_own(tmp_path):
    row = dict(
        ROW,
        goal_path='goals/a.png',
        edit_options=dict(tau_c=0.3),
        asked=dict(species='cat'),
        subject='dog',
    )
    write_pie(tmp_path, a=row)
    (case,) = read(tmp_path)
    assert case.goal == str(tmp_path / 'goals' / 'a.png')
    assert case.options['tau_c'] == 0.3 and case.options['tau_s'] == 0.6
    assert (case.asked, case.subject) == ({'species': 'cat'}, 'dog')


def test_names_are_folders_of_their_own(tmp_path):
    write_pie(tmp_path, **{'../../a': ROW, '.._.._a': ROW, 'A': ROW, 'a': ROW})
    names = [case.name for case in read(tmp_path)]
    assert len({name.casefold() for name in names}) == 4
    assert not any('/' in name or name.startswith('.') for name in names)


WRONG = {
    'image_path': ['../a.jpg', '/etc/passwd', 'a/../../b', '', 3, None, 'a\0'],
    'original_prompt': ['', '[]', None, 3, 'x' * 10_001, 'a\x1b[31m'],
    'editing_prompt': [[], {}],
    'editing_type_id': ['10', -1, None, 'x', 1.0, True],
    'blended_word': [3, None, ['a'], 'a\nb'],
    'mask': [
        [1],
        [-1, 2],
        [0, -2],
        [512 * 512, 1],
        [0, 10**12],
        [0.5, 1],
        'x',
        None,
        [True, True],
    ],
    'goal_path': ['../b.png', 7],
    'edit_options': [
        dict(tau_x=1),
        dict(tau_c=2),
        dict(tau_c='x' * 10_000),
        [],
        None,
        dict(blend_words=3.5),
    ],
    'asked': [[], dict(a=1)],
    'subject': [3, [], 'a\nb'],
}


@pytest.mark.parametrize(
    'name, value', [(key, value) for key in WRONG for value in WRONG[key]]
)
def test_a_wrong_value_is_told_with_its_case(tmp_path, name, value):
    write_pie(tmp_path, first=ROW, wrong={**ROW, name: value})
    with pytest.raises(ValueError) as error:
        read(tmp_path)
    assert "Case 'wrong'" in str(error.value)
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 2000


def test_a_link_out_of_the_folder_is_refused(tmp_path):
    write_pie(tmp_path, a=dict(ROW, image_path='out/a.jpg'))
    (tmp_path / 'annotation_images' / 'out').symlink_to('/etc')
    with pytest.raises(ValueError, match='must be named by its path'):
        read(tmp_path)


@pytest.mark.parametrize(
    'text', ['', '[]', '{}', '{"a": 3}', 'null', '{"a"', '[' * 100_000]
)
def test_a_list_that_is_none(tmp_path, text):
    (tmp_path / 'mapping_file.json').write_text(text)
    with pytest.raises(ValueError):
        read(tmp_path)


def test_damaged_lists_are_read_or_refused_in_one_line(tmp_path):
    """Every value in turn becomes something odd."""
    odd = [None, -1, 10**30, 1e300, '', 'x', [], {}, [[]], True]
    for key in ROW:
        for value in odd:
            row = copy.deepcopy(ROW)
            row[key] = value
            write_pie(tmp_path, a=row)
            try:
                read(tmp_path)
            except UserError as error:
                assert '\n' not in str(error)


def test_what_is_no_bench(tmp_path):
    with pytest.raises(FileNotFoundError, match='folder of a bench'):
        read(tmp_path / 'none')
    with pytest.raises(ValueError, match=r'mapping_file\.json \(PIE-Bench\)'):
        read(tmp_path)


# -------------------------------------------------------------- PIE-Bench++
def jpeg():
    buffer = io.BytesIO()
    Image.new('RGB', (8, 8), 'red').save(buffer, 'JPEG')
    return buffer.getvalue()


def write_parquet(path, rows):
    pyarrow = pytest.importorskip('pyarrow')
    parquet = pytest.importorskip('pyarrow.parquet')
    path.parent.mkdir(exist_ok=True)
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)


PLUS = dict(
    id='111000000000',
    image=dict(bytes=jpeg(), path=None),
    source_prompt='a [dog] and a [hat]',
    target_prompt='a [cat] and a [cap]',
    edit_action='{}',
    aspect_mapping='{}',
    blended_words='["dog,cat", "hat,cap"]',
    mask='1000 3 2000 4',
)


def test_pie_bench_plus(tmp_path):
    write_parquet(tmp_path / '1_change_object_80' / 'V1-00000.parquet', [PLUS])
    write_parquet(
        tmp_path / '9_change_style_80' / 'V1-00000.parquet',
        [dict(PLUS, blended_words='[]', mask='')],
    )
    first, second = read(tmp_path)

    assert first.kind == '1 change object' and second.kind == '9 change style'
    assert (first.source, first.target) == (
        'a dog and a hat',
        'a cat and a cap',
    )
    assert first.blend == (('dog', 'hat'), ('cat', 'cap'))
    assert first.options['reweight'] == dict(cat=2.0, cap=2.0)
    assert first.mask == (1000, 3, 2000, 4) and second.mask == ()
    assert second.name != first.name
    pictures = tmp_path / 'pictures'
    assert first.image == str(pictures / '111000000000.jpg')
    assert (pictures / '111000000000.jpg').read_bytes() == jpeg()


@pytest.mark.parametrize(
    'name, value',
    [
        ('mask', '1 2 3'),
        ('mask', '1 x'),
        ('mask', '1 ' + '9' * 5000),
        ('blended_words', '{"a": 1}'),
        ('blended_words', '["a"'),
        ('image', dict(bytes=b'', path='/etc/passwd')),
        ('source_prompt', ''),
    ],
)
def test_a_wrong_row_is_told(tmp_path, name, value):
    write_parquet(
        tmp_path / '0_random_140' / 'a.parquet', [{**PLUS, name: value}]
    )
    with pytest.raises(ValueError, match='Row 0 of'):
        read(tmp_path)


def test_a_damaged_parquet_file_is_told(tmp_path):
    path = tmp_path / '0_random_140' / 'a.parquet'
    write_parquet(path, [PLUS])
    data = path.read_bytes()
    for damaged in (data[:-9], data[: len(data) // 2], b'PAR1', b''):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match='not a complete Parquet file'):
            read(tmp_path)
    write_parquet(path, [dict(id='1')])
    with pytest.raises(ValueError, match='no column image'):
        read(tmp_path)


# ----------------------------------------------------- TEdBench, DreamBench
def test_tedbench(tmp_path):
    root = tmp_path / 'tedbench'
    (root / 'originals').mkdir(parents=True)
    (root / 'originals' / 'bird.txt').write_text('a photo of a bird\n')
    text = 'A photo of a bird spreading wings.'
    rows = [
        dict(img_name='bird.jpeg', target_text=text),
        dict(img_name='cat.jpeg', target_text='x'),
        dict(img_name='cat.jpeg', target_text='x', source_text='a cat'),
    ]
    (root / 'input_list.json').write_text(json.dumps(rows))
    cases = read(tmp_path)

    assert [case.source for case in cases] == [
        'a photo of a bird',
        '',
        'a cat',
    ]
    assert cases[0].image == str(root / 'originals' / 'bird.jpeg')
    assert (cases[0].target, cases[0].mask) == (text, None)
    assert [case.name for case in cases] == ['000-bird', '001-cat', '002-cat']

    rows[0]['img_name'] = '../input_list.json'
    (root / 'input_list.json').write_text(json.dumps(rows))
    with pytest.raises(ValueError, match='Case 0 of'):
        read(tmp_path)


DREAM = """Classes

subject_name,class
backpack,backpack
bear_plushie,stuffed animal
dog2,dog

Prompts

Object Prompts

prompt_list = [
'a {0} {1} in the jungle'.format(unique_token, class_token),
'a red {0} {1}'.format(unique_token, class_token),
]

Live Subject Prompts

prompt_list = [
'a {0} {1} wearing a red hat'.format(unique_token, class_token)
]
"""


def test_dreambench(tmp_path):
    root = tmp_path / 'dataset'
    for name in ('backpack', 'bear_plushie', 'dog2'):
        (root / name).mkdir(parents=True)
        for number in range(2):
            draw_image(root / name / f'{number}.png', number)
    (root / 'prompts_and_classes.txt').write_text(DREAM)
    cases = read(tmp_path)

    assert [case.target for case in cases] == [
        'a backpack in the jungle',
        'a red backpack',
        'a stuffed animal in the jungle',
        'a red stuffed animal',
        'a dog wearing a red hat',
    ]
    assert cases[2].source == 'a stuffed animal'
    assert cases[2].subject == 'stuffed animal'
    assert cases[4].kind == 'live subject'
    assert len(cases[4].pictures) == 2 and cases[4].image in cases[4].pictures

    hostile = DREAM.replace('{0} {1} in', '{0.__class__} {1} in')
    (root / 'prompts_and_classes.txt').write_text(hostile)
    assert read(tmp_path)[0].target == 'a {0.__class__} backpack in the jungle'
    (root / 'prompts_and_classes.txt').write_text(DREAM[:300])
    with pytest.raises(ValueError, match='not the list of DreamBench'):
        read(tmp_path)
    (root / 'prompts_and_classes.txt').write_text(DREAM)
    shutil.rmtree(root / 'dog2')
    with pytest.raises(FileNotFoundError, match='dog2'):
        read(tmp_path)
