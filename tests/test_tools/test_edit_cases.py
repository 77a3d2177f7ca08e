"""The table of cases: what it draws, what it skips, what it survives."""

import json
import os
import runpy
import subprocess
import sys

import pytest
import torch
from inversion import with_image_encoder
from PIL import Image
from runs import REPO, draw_image, free_port
from tiny import FAMILIES
from transformers import CLIPTokenizer

from mmhiper.models.edit_options import EditOptions
from mmhiper.models.loading import BUNDLED
from mmhiper.models.prompt import Prompt
from mmhiper.models.prompt_to_prompt import PromptToPrompt

TOOL = REPO / 'tools' / 'edit_cases.py'
TABLE = REPO / 'data' / 'style_diffusion_cases.csv'
HEADER = 'name,image,prompt,target,tau_c,blend_words,reweight\n'


@pytest.fixture(scope='module')
def folder(tiny_sd1, tmp_path_factory):
    root = tmp_path_factory.mktemp('encoder')
    return with_image_encoder(tiny_sd1, root / 'sd1', FAMILIES['sd1'].width)


@pytest.fixture
def call(folder, tmp_path, monkeypatch):
    """Runs the tool on a table, with a tiny model; gives its exit code."""

    def run(rows, *words, header=HEADER):
        draw_image(tmp_path / 'a.png')
        table = tmp_path / 'cases.csv'
        table.write_text(header + rows)
        argv = [TOOL, table, '--out-dir', tmp_path / 'out', *words]
        argv += [
            '--cfg-options',
            f'model.sd.pretrained={folder}',
            'model.sd.without_cuda=None',
            f'model.image_encoder.pretrained={folder}',
            'model.image_encoder.without_cuda=None',
            'model.num_steps=2',
            'model.num_inner_steps=2',
        ]
        monkeypatch.setattr(sys, 'argv', [str(word) for word in argv])
        with pytest.raises(SystemExit) as exit_:
            runpy.run_path(str(TOOL), run_name='__main__')
        return exit_.value.code

    return run


def test_cases_are_drawn_and_failures_do_not_stop_it(call, tmp_path, capsys):
    rows = (
        'one,a.png,a dog,a cat,,dog > cat,\n'
        'bad,a.png,a dog,a cat,,dog > fox,\n'
        'gone,b.png,a dog,a cat,,,\n'
        'two,a.png,a dog,a big dog,1,,big=2\n'
    )
    code = call(rows)

    out = tmp_path / 'out'
    assert code == 1
    for name in ('one', 'two'):
        assert sorted(path.name for path in (out / name).iterdir()) == [
            'autoencoder.png',
            'case.json',
            'edit.png',
            'inversion.png',
            'sheet.png',
            'source.png',
        ]
        with Image.open(out / name / 'sheet.png') as sheet:
            assert sheet.width > 4 * 256
    printed = capsys.readouterr().out
    assert '2 case(s) failed' in printed
    assert "bad: The word 'fox' is not in the prompt" in printed
    assert 'b.png' in printed
    assert 'Traceback' in (out / 'bad' / 'error.txt').read_text()
    # the same picture and prompt are inverted once
    inversions = list((out / 'inversions').iterdir())
    assert len([path for path in inversions if path.name[15] == 'a']) == 1
    options = json.loads((out / 'two' / 'case.json').read_text())['options']
    assert options == {'tau_c': 1, 'reweight': {'big': 2}}

    # again: what is done is skipped, what failed is tried
    before = (out / 'one' / 'edit.png').stat().st_mtime_ns
    rows = rows.replace('fox', 'cat').replace('gone', 'three')
    assert call(rows.replace('b.png', 'a.png')) == 0
    printed = capsys.readouterr().out
    assert 'one: already done' in printed and 'two: already done' in printed
    assert (out / 'one' / 'edit.png').stat().st_mtime_ns == before
    assert (out / 'bad' / 'sheet.png').is_file()
    assert not (out / 'bad' / 'error.txt').exists()
    assert (out / 'three' / 'sheet.png').is_file()


def test_a_bad_case_of_one_process_does_not_end_the_other(folder, tmp_path):
    draw_image(tmp_path / 'z.png')
    table = tmp_path / 'cases.csv'
    # the first of two inversions, which is the first process's, fails at once
    table.write_text(
        'name,image,prompt,target\ngone,b.png,a dog,a cat\n'
        'one,z.png,a dog,a cat\n'
    )
    words = ['-m', 'torch.distributed.run', '--nproc_per_node', '2']
    words += ['--master_port', free_port(), TOOL, table]
    words += ['--out-dir', tmp_path / 'out', '--editor', 'DDIMInversion']
    words += ['--cfg-options', f'model.sd.pretrained={folder}']
    # long after the launcher would have ended it
    words += ['model.sd.without_cuda=None', 'model.num_steps=400']
    result = subprocess.run(
        [sys.executable, *map(str, words)],
        env={**os.environ, 'CUDA_VISIBLE_DEVICES': ''},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )

    assert result.returncode == 1, result.stdout
    assert '1 case(s) failed' in result.stdout
    assert (tmp_path / 'out' / 'one' / 'case.json').is_file(), result.stdout


@pytest.fixture(scope='module')
def read_cases():
    return runpy.run_path(str(TOOL))['read_cases']


def test_cells_are_what_the_original_has(read_cases, tmp_path):
    columns = {
        'name': 'one',
        'image': 'a.png',
        'prompt': 'a dog on grass',
        'target': 'a cat on grass',
        'align': 'official',
        'tau_c': '"(0.1, 0.6)"',
        'tau_s': '.6',
        'blend_words': 'dog; #3 > cat',
        'substruct_words': '#0',
        'thresholds': '"(.3, .5)"',
        'start_blend': '0.1',
        'reweight': 'cat=-2; #3=.5',
        'cross_replace': '"cat=(0, .5)"',
    }
    table = tmp_path / 'cases.csv'
    table.write_text(f'{",".join(columns)}\n{",".join(columns.values())}\n')

    (case,) = read_cases(table)

    assert case.options == dict(
        align='official',
        tau_c=(0.1, 0.6),
        tau_s=0.6,
        blend_words=[['dog', 3], ['cat']],
        substruct_words=[[0], [0]],
        thresholds=(0.3, 0.5),
        start_blend=0.1,
        reweight={'cat': -2, 3: 0.5},
        cross_replace={'cat': (0, 0.5)},
    )
    EditOptions(**case.options)


def test_a_row_with_lists_of_fractions_is_an_edit_with_each(
    read_cases, tmp_path
):
    table = tmp_path / 'cases.csv'
    table.write_text(
        'name,image,prompt,target,tau_v,tau_c,tau_u\n'
        'one,a.png,a dog,a cat,"[.2, .5]",.6,"[0, (.1, .5)]"\n'
        'two,a.png,a dog,a cat,[.2],,\n'
    )

    cases = read_cases(table)

    taus = [
        [case.options.get(tau) for tau in ('tau_v', 'tau_c', 'tau_u')]
        for case in cases
    ]
    assert taus == [
        [0.2, 0.6, 0],
        [0.2, 0.6, (0.1, 0.5)],
        [0.5, 0.6, 0],
        [0.5, 0.6, (0.1, 0.5)],
        [0.2, None, None],
    ]
    assert [case.name for case in cases] == [
        'one-tau_v0.2-tau_u0',
        'one-tau_v0.2-tau_u0.1-0.5',
        'one-tau_v0.5-tau_u0',
        'one-tau_v0.5-tau_u0.1-0.5',
        'two-tau_v0.2',
    ]


def test_another_editor_has_the_steps_of_its_own_paper():
    tool = runpy.run_path(str(TOOL))
    (case,) = tool['read_cases'](TABLE)[:1]

    def model_of(*words):
        with pytest.MonkeyPatch.context() as patch:
            argv = [str(TOOL), str(TABLE), '--out-dir', 'out', *words]
            patch.setattr(sys, 'argv', argv)
            return tool['make_config'](case, tool['parse_args']()).model

    null_text = ('--editor', 'NullTextInversion')
    assert model_of()['num_inner_steps'] == 20
    same = model_of('--editor', 'StyleDiffusion')
    assert same['num_inner_steps'] == 20
    ours = model_of(*null_text)
    assert not {'num_steps', 'num_inner_steps', 'image_encoder'} & set(ours)
    asked = model_of(*null_text, '--cfg-options', 'model.num_steps=30')
    assert asked['num_steps'] == 30


@pytest.mark.parametrize(
    'editor',
    [
        'NullTextInversion',
        'NegativePromptInversion',
        'DirectInversion',
        'DDIMInversion',
    ],
)
def test_a_case_with_another_editor(call, tmp_path, editor):
    assert call('one,a.png,a dog,a cat,,,\n', '--editor', editor) == 0

    assert (tmp_path / 'out' / 'one' / 'sheet.png').is_file()
    trained = list((tmp_path / 'out').glob('inversions/*/iter_*.pth'))
    assert bool(trained) == (editor == 'NullTextInversion')
    for path in trained:
        assert 'embedding.texts.1' in torch.load(path)['state_dict']


def test_processes_share_the_table(call, tmp_path, monkeypatch):
    rows = 'one,a.png,a dog,a cat,,,\ntwo,a.png,a fox,a cat,,,\n'
    monkeypatch.setenv('WORLD_SIZE', '2')
    monkeypatch.setenv('RANK', '1')

    assert call(rows, '--editor', 'DDIMInversion') == 0

    sheets = list((tmp_path / 'out').glob('*/sheet.png'))
    assert [path.parent.name for path in sheets] == ['two']


@pytest.mark.parametrize(
    ('rows', 'header', 'message'),
    [
        ('', HEADER, 'has no cases'),
        ('a,b\n', 'name,imag\n', "missing: ['image', 'prompt', 'target']"),
        ('a,a.png,x,y,much,,\n', HEADER, '`tau_c` must be a number'),
        ('a,a.png,x,y,[],,\n', HEADER, '`tau_c` must be a number'),
        ('a,a.png,x,y,,,big\n', HEADER, '`reweight` must be words'),
        ('a,a.png,x,y,,,big=x\n', HEADER, '`reweight` must be words'),
        ('a,a.png,x,y,,,\n' * 2, HEADER, "but got 'a'"),
        ('a/b,a.png,x,y,,,\n', HEADER, "but got 'a/b'"),
    ],
)
def test_a_table_with_a_mistake(call, capsys, rows, header, message):
    assert call(rows, header=header) == 1

    error = capsys.readouterr().err
    assert error.startswith('error: ') and message in error


def test_a_mistake_in_an_edit_costs_no_inversion(call, tmp_path, capsys):
    rows = 'one,a.png,a dog,a cat,,dog > fox,\ntwo,a.png,a dog,a cat,7,,\n'

    assert call(rows) == 1

    printed = capsys.readouterr().out
    assert "'fox' is not in the prompt" in printed and '`tau_c`' in printed
    assert not (tmp_path / 'out' / 'inversions').exists()


def test_the_table_of_the_project_is_sound(monkeypatch):
    cases = runpy.run_path(str(TOOL))['read_cases'](TABLE)
    tokenizer = CLIPTokenizer.from_pretrained(BUNDLED['mini-sd'] / 'tokenizer')

    def parse(text: str) -> Prompt:
        return Prompt.parse(
            text,
            lambda word: tokenizer(word, add_special_tokens=False).input_ids,
            77,
        )

    assert len(cases) >= 8
    for case in cases:
        with Image.open(case.image) as image:
            assert image.size == (512, 512)
        source, target = parse(case.prompt), parse(case.target)
        options = EditOptions(**case.options)
        PromptToPrompt(source, target, options, 30, torch.device('cpu'))
        for prompt, words in zip(
            (source, target),
            options.words_of_both('blend_words') or ((), ()),
            strict=True,
        ):
            prompt.indicator(words)
