"""Tables of edits: what is read, and what is refused in one line."""

from dataclasses import fields

import pytest

from mmhiper.io.case_table import OPTIONS, Case, read_cases
from mmhiper.models.edit_options import EditOptions
from mmhiper.utils.errors import UserError

HEADER = 'name,image,prompt,target,tau_c,edit_type\n'
ROW = 'one,a.png,a dog,a cat,0.5,refinement\n'


def write(path, text, encoding='utf-8'):
    path.write_bytes(text.encode(encoding))
    return path


def test_a_table(tmp_path):
    text = HEADER + ROW + '\n"zwei, 2",b/c.png,"a ""big"" dog",a cat,,\n'
    one, two = read_cases(write(tmp_path / 'a.csv', text))

    assert one == Case(
        'one',
        str(tmp_path / 'a.png'),
        'a dog',
        'a cat',
        {'tau_c': 0.5, 'edit_type': 'refinement'},
    )
    assert (two.name, two.prompt) == ('zwei, 2', 'a "big" dog')
    assert two.image == str(tmp_path / 'b' / 'c.png') and not two.options


def test_the_mark_that_editors_of_windows_write(tmp_path):
    path = write(tmp_path / 'a.csv', HEADER + ROW, 'utf-8-sig')

    assert read_cases(path)[0].name == 'one'


@pytest.mark.parametrize(
    'name',
    ['..', '.', '', '...', '../one', '/one', 'a/b', 'a\\b', 'C:', '.git']
    + ['one.', 'one ', ' ', 'nul', 'NUL.txt', 'con', 'Com1', 'lpt9.png']
    + ['inversions', 'Inversions', 'a*', 'a?', 'a|b', 'a:b', 'a\tb', '\x1b[2J']
    + ['x' * 300, 'o\u0308 ', '\u202etxt'],
)
def test_a_name_that_is_no_folder_of_its_own(tmp_path, name):
    row = ROW.replace('one', f'"{name}"')

    with pytest.raises(UserError) as error:
        read_cases(write(tmp_path / 'a.csv', HEADER + row))

    assert 'Line 2' in str(error.value)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize('pair', [('one', 'ONE'), ('Straße', 'STRASSE')])
def test_names_that_are_one_folder_on_some_systems(tmp_path, pair):
    rows = ''.join(ROW.replace('one', name) for name in pair)

    with pytest.raises(UserError, match=r'Line 3.*whatever its'):
        read_cases(write(tmp_path / 'a.csv', HEADER + rows))


@pytest.mark.parametrize('name', ['one.two', 'a-b_c', 'ünï', '1', 'console'])
def test_names_that_are_folders(tmp_path, name):
    path = write(tmp_path / 'a.csv', HEADER + ROW.replace('one', name))

    assert read_cases(path)[0].name == name


@pytest.mark.parametrize(
    ('text', 'words'),
    [
        ('', 'missing:'),
        (HEADER, 'has no cases'),
        (HEADER + 'one,a.png,a dog\n', 'Line 2.* must have 6 cells'),
        (HEADER + ROW.strip() + ',more\n', 'must have 6 cells.* has 7'),
        (HEADER + 'one,"a.png,a dog,a cat,,\n', 'no sound .csv table'),
        (HEADER + f'one,{"x" * 200_000},a dog,a cat,,\n', 'field larger'),
        (HEADER + 'one,,a dog,a cat,,\n', 'empty cell in `image`'),
        (HEADER + ROW.replace('0.5', 'much'), '`tau_c` must be'),
        (HEADER.replace('tau_c', 'image') + ROW, 'each once'),
        (HEADER + ROW.replace('dog', 'd\0g'), 'zero bytes'),
    ],
)
def test_a_damaged_table(tmp_path, text, words):
    with pytest.raises(UserError, match=words) as error:
        read_cases(write(tmp_path / 'a.csv', text))

    assert 'a.csv' in str(error.value)
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize('encoding', ['utf-16', 'utf-16-le', 'latin-1'])
def test_another_encoding(tmp_path, encoding):
    text = HEADER + ROW + ROW.replace('one', 'zwölf')
    path = write(tmp_path / 'a.csv', text, encoding)

    with pytest.raises(UserError, match=r'not a \.csv table .* in UTF-8'):
        read_cases(path)


def test_lists_that_multiply_have_a_limit(tmp_path):
    columns = 'tau_v,tau_c,tau_s,tau_u'
    values = ','.join(4 * ['"[' + ','.join(6 * ['0.5']) + ']"'])
    text = f'name,image,prompt,target,{columns}\none,a.png,a,b,{values}\n'
    path = write(tmp_path / 'a.csv', text)

    with pytest.raises(UserError, match=r'1,296 edits; at most 1,000'):
        read_cases(path)


@pytest.mark.parametrize('cell', ['[]', '[0.5', '(0.1, x)', '[[0.1], 2]'])
def test_a_list_of_something_else(tmp_path, cell):
    text = f'name,image,prompt,target,tau_c\none,a.png,a,b,"{cell}"\n'

    with pytest.raises(UserError, match='`tau_c` must be a number, or num'):
        read_cases(write(tmp_path / 'a.csv', text))


def test_every_column_is_an_option_of_edits():
    assert set(OPTIONS) == {field.name for field in fields(EditOptions)}
