"""Tables of edits: what is read, and what is refused in one line."""

import codecs
import csv
import io
import zipfile
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


def test_another_encoding_that_could_be_any(tmp_path):
    text = HEADER + ROW + ROW.replace('one', 'zwölf')
    path = write(tmp_path / 'a.csv', text, 'latin-1')

    with pytest.raises(UserError, match=r'in UTF-8: line 3 .*zwölf.*iconv'):
        read_cases(path)


# ------------------------------------------------ as spreadsheets write them
CELLS = [
    ['name', 'image', 'prompt', 'target', 'tau_c', 'blend_words'],
    ['one', 'a.png', 'a dog, on grass', 'a "big" cat', '0.5', 'dog; x > cat'],
    ['zwölf', 'b.png', 'a\r\nb', 'a cat', '', ''],
]


def written(path, rows=CELLS, delimiter=',', end='\r\n', encoding='utf-8'):
    """A table by Python's own writer."""
    buffer = io.StringIO()
    csv.writer(buffer, delimiter=delimiter, lineterminator=end).writerows(rows)
    path.write_bytes(buffer.getvalue().encode(encoding))
    return path


def facts(cases):
    """What does not depend on the folder."""
    return [(c.name, c.prompt, c.target, c.options) for c in cases]


@pytest.mark.parametrize('delimiter', [',', ';', '\t'])
@pytest.mark.parametrize('end', ['\n', '\r\n', '\r'])
@pytest.mark.parametrize(
    'encoding', ['utf-8', 'utf-8-sig', 'utf-16', 'utf-16-le', 'utf-16-be']
)
def test_encodings_delimiters_and_line_ends(
    tmp_path, encoding, end, delimiter
):
    wanted = read_cases(written(tmp_path / 'plain.csv'))
    path = tmp_path / 'a.csv'

    cases = read_cases(written(path, CELLS, delimiter, end, encoding))

    assert facts(cases) == facts(wanted)
    assert cases[0].prompt == 'a dog, on grass'
    assert cases[1].name == 'zwölf' and cases[1].prompt == 'a\r\nb'
    assert cases[0].options['blend_words'] == [['dog', 'x'], ['cat']]


@pytest.mark.parametrize('mark', [codecs.BOM_UTF16_BE, codecs.BOM_UTF32_LE])
def test_marks_that_python_does_not_write(tmp_path, mark):
    encoding = {2: 'utf-16-be', 4: 'utf-32-le'}[len(mark)]
    path = written(tmp_path / 'a.csv', encoding=encoding)
    path.write_bytes(mark + path.read_bytes())

    assert len(read_cases(path)) == 2


def test_names_of_columns_as_people_write_them(tmp_path):
    rows = [[' Name', 'IMAGE ', 'Prompt', 'target', 'Tau C', 'blend-words']]

    cases = read_cases(written(tmp_path / 'a.csv', rows + CELLS[1:]))

    assert cases[0].options['tau_c'] == 0.5


def test_empty_cells_and_lines_of_a_spreadsheet(tmp_path):
    rows = [row + ['', ''] for row in CELLS] + [[''] * 8, [' '] * 8, ['']]

    cases = read_cases(written(tmp_path / 'a.csv', rows, ';'))

    assert [case.name for case in cases] == ['one', 'zwölf']


@pytest.mark.parametrize('note', ['sep=;\r\n', 'SEP=;\n', '"sep=;"\n'])
def test_the_note_of_the_delimiter(tmp_path, note):
    path = written(tmp_path / 'a.csv', delimiter=';')
    path.write_bytes(note.encode() + path.read_bytes())
    assert len(read_cases(path)) == 2

    path = written(tmp_path / 'a.csv', [CELLS[0], CELLS[1][:3]], ';')
    path.write_bytes(note.encode() + path.read_bytes())
    with pytest.raises(UserError, match=r'Line 3 .*semicolons'):
        read_cases(path)


@pytest.mark.parametrize(
    ('text', 'words'),
    [
        (
            'name,image,prompt,target\n\na;b.png;a dog;a cat\n',
            'Line 3 .*has 1. Are there semicolons between',
        ),
        (
            'name;image;prompt;target\na\tb.png\ta dog\ta cat\n',
            'Line 2 .*semicolons .*has 1. Are there tabs',
        ),
        ('name|image|prompt|target\na|b|c|d\n', 'first line, with commas'),
        ('# a table\n# of cases\n', 'must have the columns'),
        ('\n \r\n\t\n', 'missing: '),
        (
            'name;image;prompt;target;tau_c\na;b;c;d;0,5\n',
            "Line 2 .*decimal point.*but got '0,5'",
        ),
        (
            'name,image,prompt,target\na,b.png,"a" dog,a cat\n',
            'Line 2 of .*no sound .csv table.*quote',
        ),
    ],
)
def test_what_cannot_be_told_is_said_with_its_line(tmp_path, text, words):
    with pytest.raises(UserError, match=words) as error:
        read_cases(write(tmp_path / 'a.csv', text))

    assert len(str(error.value).splitlines()) == 1


def test_a_workbook_in_place_of_a_table(tmp_path):
    with zipfile.ZipFile(tmp_path / 'a.csv', 'w') as archive:
        archive.writestr('xl/workbook.xml', '')

    with pytest.raises(UserError, match='is a ZIP archive'):
        read_cases(tmp_path / 'a.csv')


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
