"""What user interfaces show of the files that are written here."""

import base64
import hashlib
import io
import json
import struct

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save, save_file
from tiny import make_hiper, make_word

from mmhiper.cli import main
from mmhiper.io import (
    TokenFile,
    read_export,
    read_token_file,
    write_export,
    write_token_file,
)
from mmhiper.io.file_content import pack
from mmhiper.io.modelspec import (
    MOST_THUMBNAIL,
    add_thumbnail,
    check_given,
    choose_panel,
    fields_in,
    kept,
    kind_of,
    public_name,
    thumbnail,
)
from mmhiper.utils.pixels import without_sources


def fields_of(path) -> dict[str, str]:
    """The fields of a file, as any reader of safetensors finds them."""
    with safe_open(path, framework='pt') as file:
        return fields_in(file.metadata())


def rows(width: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, width, generator=generator)


def noise(side: int) -> Image.Image:
    """A picture that JPEG cannot make small."""
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3))
    return Image.fromarray(pixels.astype(np.uint8))


# ------------------------------------------------------------------ the fields
def test_an_export_has_what_the_standard_asks_for(tiny_sd1, tmp_path):
    editor = make_hiper(tiny_sd1)
    path = tmp_path / 'a.safetensors'
    record = dict(editor.export_metadata(), step=5)
    given = check_given(dict(license='cc-by-4.0', author='Ä', title=None))

    write_export(
        path, editor.learned_state(), record, editor.model_facts() | given
    )
    fields = fields_of(path)

    assert fields.pop('hash_sha256').startswith('0x')
    assert fields == dict(
        sai_model_spec='1.0.1',
        architecture='stable-diffusion-32/hiper',
        implementation='mmhiper',
        title='HiPer a dog',
        description=f'What HiPer learned of "a dog" on {tiny_sd1.name}, in 5 '
        'iterations.',
        usage_hint='Draw with mmhiper: load_editor(FILE).infer(TEXT).',
        tags='mmhiper, hiper',
        resolution='64x64',
        prediction_type='epsilon',
        license='cc-by-4.0',
        author='Ä',
    )
    # no folder of this machine, but where the record needs it
    assert str(tiny_sd1) not in ''.join(fields.values())


def test_a_word_says_how_to_call_it(tiny_sd1, tmp_path):
    editor = make_word(tiny_sd1)
    path = tmp_path / 'a.safetensors'
    write_export(path, editor.learned_state(), editor.export_metadata())
    fields = fields_of(path)

    assert fields['trigger_phrase'] == fields['title'] == '<cat-toy>'
    assert fields['architecture'].endswith('/textual-inversion')
    assert fields['implementation'] == 'diffusers'
    assert '<cat-toy>' in fields['usage_hint']
    assert 'license' not in fields and 'date' not in fields


@pytest.mark.parametrize(
    ('widths', 'architecture'),
    [
        ((768,), 'stable-diffusion-v1'),
        ((1024,), 'stable-diffusion-v2-768-v'),
        ((768, 1280), 'stable-diffusion-xl-v1-base'),
        ((768, 1280, 4096), 'stable-diffusion-3'),
        ((1280,), 'latent-diffusion'),
        ((128,), 'stable-diffusion-128'),
    ],
)
def test_words_say_which_model_they_are_of(tmp_path, widths, architecture):
    tables = [{'<a>': rows(width)} for width in widths]
    tables += [{}] * (3 - len(tables))
    tokens = TokenFile(tables[0], 'x', tables[1], third=tables[2])
    path = tmp_path / '<a>.safetensors'

    write_token_file(path, tokens, 'kohya')

    fields = fields_of(path)
    assert fields['architecture'] == f'{architecture}/textual-inversion'
    assert fields['implementation'].endswith('kohya-ss/sd-scripts')


@pytest.mark.parametrize(
    ('family', 'architecture', 'predicts'),
    [
        ('tiny_sd2', 'stable-diffusion-64', 'v'),
        ('tiny_sdxl', 'stable-diffusion-xl-v1-base', 'epsilon'),
        ('tiny_ldm', 'latent-diffusion', 'epsilon'),
        ('tiny_sd3', 'stable-diffusion-3', None),
    ],
)
def test_the_other_families(request, family, architecture, predicts):
    facts = make_hiper(request.getfixturevalue(family)).model_facts()

    assert facts['architecture'] == architecture
    assert facts.get('prediction_type') == predicts


def test_names_of_editors():
    names = ['HiPer', 'TextualInversion', 'DDIMInversion', 'ProSpect']
    names += ['StyleDiffusion', 'NullTextInversion']

    assert list(map(kind_of, names)) == [
        'hiper',
        'textual-inversion',
        'ddim-inversion',
        'prospect',
        'style-diffusion',
        'null-text-inversion',
    ]


@pytest.mark.parametrize(
    ('model', 'name'),
    [
        ('CompVis/stable-diffusion-v1-4', 'CompVis/stable-diffusion-v1-4'),
        ('mini-sd', 'mini-sd'),
        ('/home/me/models/sd/', 'sd'),
        (r'C:\Users\me\sd.safetensors', 'sd.safetensors'),
        ('../models/sd', 'sd'),
        ('/sd', 'sd'),
    ],
)
def test_models_are_named_without_folders(model, name):
    assert public_name(model) == name


# -------------------------------------------------------------------- the file
def test_the_hash_is_that_of_all_tensors(tmp_path):
    path = tmp_path / 'a.safetensors'
    tensors = {'b': torch.arange(3.0), 'a': torch.ones(5).half()}
    write_export(path, tensors, {})

    data = path.read_bytes()
    (length,) = struct.unpack('<Q', data[:8])
    digest = hashlib.sha256(data[8 + length :]).hexdigest()
    assert fields_of(path)['hash_sha256'] == f'0x{digest}'
    add_thumbnail(path, Image.new('RGB', (8, 8)))
    assert fields_of(path)['hash_sha256'] == f'0x{digest}'


def test_the_same_content_is_the_same_file():
    """safetensors' own writer has another order of the metadata each time."""
    tensors = {'b': torch.arange(3.0).reshape(3, 1).T, 'a': torch.ones(5)}
    notes = {f'key {number}': 'ä"\n' for number in range(9)}
    files = {pack(tensors, dict(sorted(notes.items()))) for _ in range(9)}
    files.add(pack(tensors, dict(reversed(notes.items()))))

    assert len(files) == 1
    (data,) = files
    plain = {name: each.contiguous() for name, each in tensors.items()}
    (length,) = struct.unpack('<Q', data[:8])
    assert length % 8 == 0
    header = json.loads(data[8 : 8 + length])
    assert header.pop('__metadata__') == notes
    own = save(plain)
    (own_length,) = struct.unpack('<Q', own[:8])
    assert header == json.loads(own[8 : 8 + own_length])
    assert data[8 + length :] == own[8 + own_length :]


def test_a_thumbnail_is_small_whatever_the_picture(tmp_path):
    uri = thumbnail(noise(512))

    assert uri is not None and len(uri) <= MOST_THUMBNAIL
    start, text = uri.split(',')
    assert start == 'data:image/jpeg;base64'
    with Image.open(io.BytesIO(base64.b64decode(text))) as picture:
        assert picture.format == 'JPEG' and max(picture.size) >= 64
    plain = thumbnail(Image.new('RGBA', (900, 300)))
    with Image.open(io.BytesIO(base64.b64decode(plain[23:]))) as picture:
        assert picture.size == (256, 85)


def test_a_thumbnail_leaves_the_rest_alone(tmp_path):
    path = tmp_path / 'a.safetensors'
    write_export(path, dict(a=torch.ones(2)), dict(version=1, step=3))
    before = fields_of(path), read_export(path)

    add_thumbnail(path, noise(64))

    fields = fields_of(path)
    assert fields.pop('thumbnail').startswith('data:image/jpeg')
    tensors, record = read_export(path)
    assert (fields, record) == (before[0], before[1][1])
    assert torch.equal(tensors['a'], torch.ones(2))


def test_the_thumbnail_is_no_source_picture():
    captions = ['source (faded: not learned)', 'autoencoder', 'reconstruction']
    captions += ['a cat', 'a dog']
    panels = [
        (text, Image.new('L', (1, 1), i)) for i, text in enumerate(captions)
    ]
    shown = without_sources(panels)

    assert [text for text, _ in shown] == captions[2:]
    assert choose_panel(shown).getpixel((0, 0)) == 3
    assert choose_panel(shown[:1]).getpixel((0, 0)) == 2
    words = [('<a>: source', panels[0][1]), ('<a> in a source', panels[1][1])]
    assert without_sources(words) == words[1:]


# --------------------------------------------------------- of other programs
def test_what_others_say_goes_along(tmp_path):
    said = {
        'modelspec.author': 'A. Painter',
        'modelspec.license': 'CC0',
        'modelspec.date': '2023-07-16',
        'modelspec.title': 'Two toys',
        'modelspec.hash_sha256': '0x00',
        'ss_steps': '7',
    }
    path = tmp_path / 'toys.safetensors'
    save_file({'<a>': rows(768), '<b>': rows(768, 1)}, path, said)
    out = tmp_path / 'out.safetensors'

    write_token_file(out, read_token_file(path))
    fields = fields_of(out)
    for name in ('author', 'license', 'date', 'title'):
        assert fields[name] == said[f'modelspec.{name}']
    assert len(fields['hash_sha256']) == 66  # computed anew
    assert read_token_file(out).metadata['ss_steps'] == '7'

    # of one of them the title of both would be wrong
    write_token_file(out, read_token_file(path).only('<b>'))
    fields = fields_of(out)
    assert (fields['title'], fields['author']) == ('<b>', 'A. Painter')


def test_hostile_fields_are_data(tmp_path, capsys):
    said = {
        'modelspec.title': '\x1b[2Jtitle\n' * 3,
        'modelspec.description': 'x' * 3_000_000,
        'modelspec.thumbnail': 'data:image/jpeg;base64,' + 'A' * 50_000,
        'modelspec.\x1b[0m' + 'y' * 9000: 'z',
        'modelspec.sai_model_spec': '../../etc',
    }
    path = tmp_path / 'a.safetensors'
    save_file({'<a>': rows(768)}, path, said)

    assert main(['info', str(path)]) == 0
    printed = capsys.readouterr().out
    assert '\x1b' not in printed and len(printed) < 3000
    assert '(3.0 MB)' in printed
    out = tmp_path / 'b.safetensors'
    assert main(['convert', str(path), str(out)]) == 0
    fields = fields_of(out)
    assert fields['sai_model_spec'] == '1.0.1'
    assert len(fields['description']) < 200  # our own
    assert not any(name.startswith('\x1b') for name in fields)


def test_fields_that_are_no_texts_are_a_damaged_file(tmp_path, capsys):
    path = tmp_path / 'a.safetensors'
    header = json.dumps({'__metadata__': {'modelspec.title': [1]}}).encode()
    path.write_bytes(struct.pack('<Q', len(header)) + header)
    with pytest.raises(SystemExit):
        main(['info', str(path)])

    assert 'not a complete safetensors file' in capsys.readouterr().err


# -------------------------------------------------------------- what users say
def test_the_command_line_says_it(tiny_sd1, tmp_path, capsys):
    editor = make_word(tiny_sd1)
    path = tmp_path / 'iter_9.safetensors'
    record = dict(editor.export_metadata(), step=9)
    facts = editor.model_facts() | {'date': '2026-01-02T03:04:05+00:00'}
    write_export(path, editor.learned_state(), record, facts)
    out = tmp_path / 'toy.safetensors'

    words = ['convert', str(path), str(out), '--modelspec']
    assert main([*words, 'license=cc-by-4.0', 'title=My toy = cat']) == 0

    fields = fields_of(out)
    assert fields['title'] == 'My toy = cat'
    assert fields['license'] == 'cc-by-4.0'
    assert fields['date'] == facts['date']
    assert fields['resolution'] == '64x64'
    assert fields['trigger_phrase'] == '<cat-toy>'
    capsys.readouterr()
    assert main(['info', str(path)]) == 0
    assert 'modelspec.date               2026-01' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('given', 'message'),
    [
        (dict(licence='x'), "takes title, author.*got 'licence'"),
        (dict(license=4), 'must be a line of text'),
        (dict(author='a\nb'), 'must be a line of text'),
        (dict(author=' '), 'must be a line of text'),
        (dict(author='a' * 3000), 'at most 2000 characters'),
    ],
)
def test_mistakes(given, message):
    with pytest.raises(ValueError, match=message):
        check_given(given)


def test_nothing_is_kept_of_files_without_fields():
    assert kept({'format': 'pt', 'license': 'x'}) == {}
