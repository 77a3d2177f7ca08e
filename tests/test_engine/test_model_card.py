"""The page about a run: what it says, and that its code runs."""

import re
import shlex
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from runs import config, learn
from tiny import make_hiper, make_word, randomise

from mmhiper.cli import main
from mmhiper.engine.launch import train
from mmhiper.engine.model_card import MARK, Learned, card_of, write_card
from mmhiper.io import write_export
from mmhiper.io.file_content import read_safetensors
from mmhiper.io.modelspec import fields_in
from mmhiper.io.record import Record, read_record


@pytest.fixture(scope='module')
def run(tiny_sd1, tmp_path_factory) -> Path:
    """The work dir of a run of two iterations."""
    folder = tmp_path_factory.mktemp('card')
    cfg = config(folder, tiny_sd1, previews=True)
    cfg.modelspec.update(license='CC-BY-4.0', tags='dog, drawing')
    train(cfg)
    return Path(cfg.work_dir)


def front_of(card: str) -> dict:
    """The YAML before a page."""
    _, front, _ = card.split('---\n', 2)
    return yaml.safe_load(front)


def section(card: str, name: str) -> str:
    """What stands below a heading."""
    return card.split(f'## {name}\n')[1].split('\n## ')[0]


def code(card: str, name: str, language: str = 'python') -> str:
    """The code below a heading."""
    (found,) = re.findall(
        rf'```{language}\n(.*?)\n```', section(card, name), re.DOTALL
    )
    return found


def card_of_editor(folder: Path, editor, pictures=(), **changes) -> str:
    """The page of an editor that is written to a folder."""
    path = folder / 'iter_7.safetensors'
    record = dict(editor.export_metadata(), step=7, **changes)
    write_export(path, editor.learned_state(), record, editor.model_facts())
    fields = fields_in(read_safetensors(path)[1])
    learned = Learned(path.name, read_record(record, path), fields)
    return card_of(learned, pictures)


# --------------------------------------------------------------- what it says
def test_hubs_can_read_it(run):
    card = (run / 'README.md').read_text()

    assert front_of(card) == dict(
        library_name='mmhiper',
        pipeline_tag='text-to-image',
        tags=['dog', 'drawing', 'mmhiper', 'hiper', 'text-to-image'],
        license='cc-by-4.0',
    )
    assert MARK in card
    from huggingface_hub import ModelCard

    assert ModelCard(card).data.license == 'cc-by-4.0'
    assert 'CC-BY-4.0' in section(card, 'License')


def test_it_shows_the_pictures_that_there_are(run):
    card = (run / 'README.md').read_text()
    links = re.findall(r'!\[.*?\]\((.*?)\)', card)

    assert links == ['previews/iter_000002.png', 'loss.png']
    for link in links:
        with Image.open(run / link) as picture:
            picture.load()


def test_it_says_how_it_was_learned_and_no_folder(run, tiny_sd1):
    card = (run / 'README.md').read_text()
    settings = section(card, 'Settings')

    for row in (
        'iterations | 2',
        'optimizer.lr | 0.005',
        r'n\_hiper | 5',
        r'source\_text | a standing dog',
        f'frozen model | {tiny_sd1.name}',
    ):
        assert f'| {row} |' in settings
    assert str(tiny_sd1.parent) not in card and str(run) not in card
    assert 'Neither takes what HiPer learned' in card


# -------------------------------------------------------------- its code runs
def test_the_command_draws(run, monkeypatch, tmp_path):
    card = (run / 'README.md').read_text()
    program, *words = shlex.split(code(card, 'With mmhiper', 'bash'))
    assert program == 'mmhiper'
    monkeypatch.chdir(run)

    words += ['--num-images', '1', '--options', 'num_inference_steps=2']
    assert main([*words, '--out-dir', str(tmp_path)]) == 0
    assert (tmp_path / '000.png').is_file()


@pytest.mark.parametrize('name', ['With mmhiper', 'With diffusers'])
def test_the_snippets_draw(run, monkeypatch, name):
    monkeypatch.chdir(run)
    names: dict = {}

    exec(code((run / 'README.md').read_text(), name), names)

    assert names['image'].size == (64, 64)


def test_a_word_of_a_hub_model_is_loaded_by_diffusers_alone(
    tiny_sd1, tmp_path, monkeypatch
):
    editor = make_word(tiny_sd1, num_vectors_per_token=2)
    randomise(editor)
    card = card_of_editor(tmp_path, editor, backbone='owner/tiny')
    front = front_of(card)
    assert front['base_model'] == 'owner/tiny'
    assert front['library_name'] == 'diffusers'
    assert front['instance_prompt'] == '<cat-toy>'
    assert 'textual_inversion' in front['tags']

    snippet = code(card, 'With diffusers')
    assert 'mmhiper' not in snippet
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(snippet.replace("'owner/tiny'", repr(str(tiny_sd1))), names)

    pipeline = names['pipeline']
    ids = pipeline.tokenizer.convert_tokens_to_ids(
        ['<cat-toy>', '<cat-toy>_1']
    )
    table = pipeline.text_encoder.get_input_embeddings().weight
    assert torch.equal(table[ids], editor.embedding.rows)
    assert names['image'].size == (64, 64)


@pytest.mark.parametrize(
    ('family', 'words', 'varying'),
    [
        ('tiny_sdxl', '<cat-toy>', False),
        ('tiny_sd1', ['<cat-toy>', '<sketchy>'], False),
    ],
)
def test_other_words_come_through_mmhiper(
    request, tmp_path, monkeypatch, family, words, varying
):
    folder = request.getfixturevalue(family)
    editor = make_word(folder, placeholder_token=words)
    monkeypatch.chdir(tmp_path)
    names: dict = {}

    exec(code(card_of_editor(tmp_path, editor), 'With diffusers'), names)

    assert names['image'].size == (64, 64)
    assert '<cat-toy>' in names['pipeline'].tokenizer.get_vocab()


def test_a_strength_that_varies_becomes_one_number(
    tiny_sd1, tmp_path, monkeypatch
):
    editor = make_hiper(tiny_sd1, strength=[1.0, 0.5])
    monkeypatch.chdir(tmp_path)
    names: dict = {}

    exec(code(card_of_editor(tmp_path, editor), 'With diffusers'), names)

    assert names['image'].size == (64, 64)


# -------------------------------------------------------- honest about others
@pytest.mark.parametrize(
    ('editor', 'family', 'words', 'said'),
    [
        ('StyleDiffusion', 'v1', None, 'No pipeline of diffusers'),
        ('ProSpect', 'v1', '<a>', 'No pipeline of diffusers'),
        ('TextualInversion', '3', '<a>', 'No pipeline of diffusers'),
        ('TextualInversion', 'v1', '*', 'no word of a single sign'),
    ],
)
def test_what_diffusers_cannot_do_is_said(editor, family, words, said):
    kind = dict(placeholder_token=words) if words else {}
    record = Record(Path('a'), editor, 'owner/sd', kind)
    fields = dict(architecture=f'stable-diffusion-{family}/x')
    card = card_of(Learned('iter_7.safetensors', record, fields), [])

    assert said in section(card, 'With diffusers')
    assert '```' not in section(card, 'With diffusers')


@pytest.mark.parametrize(
    ('architecture', 'words', 'said', 'not_said'),
    [
        (
            'stable-diffusion-v1',
            '<a b>',
            '`embedding:ab` in ComfyUI',
            '--only',
        ),
        ('stable-diffusion-xl-v1-base', '<a>', '`a.safetensors`', '--only'),
        ('stable-diffusion-v1', ['<a>', '<b>'], "--only '<a>'", 'Neither'),
        ('mini-sd', '<a>', 'Neither draws with mini-sd', 'Copy'),
        ('stable-diffusion-3', '<a>', 'Neither draws with', 'Copy'),
    ],
)
def test_where_words_go_in_other_programs(architecture, words, said, not_said):
    kind = dict(placeholder_token=words)
    record = Record(Path('a'), 'TextualInversion', 'mini-sd', kind)
    fields = dict(architecture=f'{architecture}/textual-inversion')
    card = card_of(Learned('iter_7.safetensors', record, fields), [])
    text = section(card, 'In the A1111 web UI and ComfyUI')

    assert said in text and not_said not in text


def test_texts_are_no_markup(tmp_path):
    nasty = '---\n# x\n```\n<script>|![a](b) \x1b[0m "\''
    arguments = dict(source_text=nasty, target_text=nasty)
    record = Record(Path('a'), 'HiPer', '/home/me/sd', arguments, step=1)
    fields = dict(title=nasty, description=nasty, license=nasty, tags=nasty)
    card = card_of(Learned('iter_7.safetensors', record, fields), [nasty])

    assert front_of(card)['license'] == 'other'
    assert '\x1b' not in card and '\n# x' not in card
    assert '/home/me' not in card
    body = card.split('---\n', 2)[2]
    plain = re.sub(r'```\w+\n.*?\n```', '', body, flags=re.DOTALL)
    assert '```' not in plain and not re.search(r'(?<!\\)<script', plain)
    names = dict(editor=_Echo())
    exec(code(card, 'With mmhiper').split('\n')[-1], names)
    assert names['image'] == nasty.replace('\n', '\\n').replace(
        '\x1b', '\\x1b'
    )


class _Echo:
    """Answers as an editor does, with what it was asked."""

    def infer(self, prompt: str) -> dict:
        return dict(samples=[prompt])


# ----------------------------------------------------------- whose page it is
def test_a_page_of_the_user_stays(tiny_sd1, tmp_path):
    cfg = config(tmp_path, tiny_sd1)
    card = Path(cfg.work_dir, 'README.md')
    card.parent.mkdir()
    card.write_text('# Mine\n')

    learn(cfg)

    assert card.read_text() == '# Mine\n'
    assert write_card(cfg.work_dir) is None
    card.unlink()
    card.mkdir()
    assert write_card(cfg.work_dir) is None


def test_ours_is_written_anew_until_the_user_takes_it(tiny_sd1, tmp_path):
    cfg = config(tmp_path, tiny_sd1)
    card = Path(cfg.work_dir, 'README.md')
    learn(cfg)
    assert '| iterations | 2 |' in card.read_text()

    cfg.train_cfg.max_iters = 3
    learn(cfg, resume='auto')
    assert '| iterations | 3 |' in card.read_text()

    text = card.read_text().replace(MARK, '')
    card.write_text(text)
    cfg.train_cfg.max_iters = 4
    learn(cfg, resume='auto')
    assert card.read_text() == text


def test_no_page_without_an_export(tiny_sd1, tmp_path):
    cfg = config(tmp_path, tiny_sd1)
    cfg.custom_hooks = [
        hook for hook in cfg.custom_hooks if hook.type != 'ExportHook'
    ]
    learn(cfg)

    assert not Path(cfg.work_dir, 'README.md').exists()
