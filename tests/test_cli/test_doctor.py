"""The examination of a machine."""

import shutil

import pytest
import torch
from huggingface_hub import constants
from packaging.requirements import Requirement
from safetensors.torch import load_file, save_file

from mmhiper.cli import doctor, main
from mmhiper.utils import devices


def lines_of(capsys) -> list[str]:
    return [line.strip() for line in capsys.readouterr().out.splitlines()]


def test_a_good_machine(tiny_sd1, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(tmp_path / 'cache'))
    assert main(['doctor', '--pretrained', str(tiny_sd1)]) == 0

    lines = lines_of(capsys)
    assert lines[-1] == 'All is well.'
    for words in (
        f'ok       torch {torch.__version__}',
        f'ok       PyTorch: {torch.__version__}',
        'ok       GCC: ',
        f'ok       cache of the hub: {tmp_path}/cache',
        'ok       drew 64 x 64 pixels',
    ):
        assert any(line.startswith(words) for line in lines), words


def test_a_backbone_that_is_not_there(capsys):
    assert main(['doctor', '--pretrained', '/none']) == 1

    lines = lines_of(capsys)
    assert any(
        line.startswith('PROBLEM') and "'/none'" in line for line in lines
    )
    assert lines[-1] == '1 problem(s) found.'


def test_a_backbone_that_draws_nonsense(tiny_sd1, tmp_path):
    folder = tmp_path / 'damaged'
    shutil.copytree(tiny_sd1, folder)
    file = folder / 'unet' / 'diffusion_pytorch_model.safetensors'
    weights = load_file(file)
    weights['conv_in.weight'][0] = float('nan')
    save_file(weights, file, {'format': 'pt'})

    *_, last = doctor.look_at_backbone(str(folder))

    assert last.kind == 'PROBLEM' and 'not finite' in last.words
    assert last.remedy


@pytest.mark.parametrize(
    ('requirement', 'words'),
    [
        ('no-such-package>=2', 'is not installed'),
        ('torch>=999', f'torch {torch.__version__} is there, not torch>=999'),
    ],
)
def test_a_requirement_that_is_not_met(requirement, words):
    finding = doctor.look_at_requirement(Requirement(requirement))

    assert finding.kind == 'PROBLEM' and words in finding.words
    assert finding.remedy == f'pip install "{requirement}"'


def test_a_package_that_cannot_be_imported(tmp_path, monkeypatch):
    """Its metadata is there, its code fails."""
    (tmp_path / 'odd-1.0.dist-info').mkdir()
    (tmp_path / 'odd-1.0.dist-info' / 'METADATA').write_text(
        'Metadata-Version: 2.1\nName: odd\nVersion: 1.0\n'
    )
    (tmp_path / 'odd.py').write_text('raise ImportError("no such symbol")')
    monkeypatch.syspath_prepend(tmp_path)

    finding = doctor.look_at_requirement(Requirement('odd>=1'))
    assert finding.kind == 'PROBLEM' and 'no such symbol' in finding.words


def test_a_folder_that_cannot_be_written():
    finding = doctor.look_at_folder('cache', doctor.Path('/proc/x'), 'Move.')

    assert finding.kind == 'PROBLEM' and finding.remedy == 'Move.'
    assert '/proc/x' in finding.words


def test_what_breaks_mim_is_told(tmp_path, monkeypatch):
    """Without its `pkg_resources`, as of setuptools 82, and with it."""
    find_spec = doctor.util.find_spec
    monkeypatch.setattr(
        doctor.util,
        'find_spec',
        lambda name: None if name == 'pkg_resources' else find_spec(name),
    )
    *_, last = doctor.look_at_packages()
    assert last.kind == 'note' and '`mim`' in last.words
    assert last.remedy.startswith('pip install "setuptools<82"')

    monkeypatch.undo()
    (tmp_path / 'pkg_resources.py').write_text('')
    monkeypatch.syspath_prepend(tmp_path)
    assert not any('`mim`' in each.words for each in doctor.look_at_packages())


def test_what_is_nice_to_have_is_no_problem(monkeypatch):
    monkeypatch.setattr(doctor, 'OPTIONAL', {'no-such-package': 'for nothing'})

    found = [f for f in doctor.look_at_packages() if 'no-such' in f.words]
    assert [each.kind for each in found] == ['note']
    assert found[0].remedy == 'pip install no-such-package, for nothing'


def test_a_look_that_fails_is_a_finding(capsys):
    def look():
        yield doctor.Finding('ok', 'first')
        raise RuntimeError('driver')

    first, second = doctor.guarded(look)
    assert first.kind == 'ok'
    assert second.kind == 'PROBLEM' and second.remedy
    assert second.words == 'RuntimeError: driver'


def test_requirements_are_those_of_the_project():
    names = {each.name for each in doctor.requirements()}
    assert {'torch', 'diffusers', 'mmengine'} <= names
    assert 'pytest' not in names


@pytest.mark.parametrize(
    ('known', 'kind', 'words'),
    [
        ({'amx_bf16': True, 'avx512_bf16': True}, 'ok', 'has it (amx_bf16)'),
        ({'amx_bf16': False, 'avx512_bf16': True}, 'ok', '(avx512_bf16)'),
        ({'bf16': True}, 'ok', '(bf16)'),
        ({'avx512_f': True, 'bf16': False}, 'note', 'would emulate it'),
    ],
)
def test_whether_the_processor_has_bf16(monkeypatch, known, kind, words):
    monkeypatch.setattr(devices, '_capabilities', lambda: known)
    found = doctor.look_at_bf16()
    assert found.kind == kind and words in found.words


def test_what_pytorch_says_of_this_processor():
    """Whatever it is: the same as its own question about instructions."""
    found = devices.native_bf16()
    if torch.cpu._is_amx_tile_supported():
        assert found == 'amx_bf16'
    elif torch.cpu._is_avx512_bf16_supported():
        assert found == 'avx512_bf16'
    else:
        assert not found.startswith(('amx', 'avx'))
