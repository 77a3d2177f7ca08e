"""What files say about themselves on the command line."""

import hashlib

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from tiny import make_hiper

from mmhiper.cli import main
from mmhiper.io import write_export, write_picture


@pytest.fixture
def told(capsys):
    """Runs ``mmhiper info`` and gives its lines by their first words."""

    def tell(path) -> dict[str, str]:
        assert main(['info', str(path)]) == 0
        lines = capsys.readouterr().out.splitlines()
        return {line[:28].strip(): line[29:].strip() for line in lines}

    return tell


@pytest.fixture
def editor(tiny_sd1):
    return make_hiper(tiny_sd1, n_hiper=3)


def test_a_checkpoint(editor, told, tmp_path, tiny_sd1):
    path = tmp_path / 'iter_9.pth'
    record = dict(editor.export_metadata(), step=9)
    content = dict(state_dict=editor.state_dict(), meta=dict(embedding=record))
    torch.save(content, path)
    facts = told(path)

    assert facts['file'].startswith(str(path)) and ' KB)' in facts['file']
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert facts['sha256'] == digest
    assert facts['kind'].startswith('training checkpoint')
    assert (facts['editor'], facts['step']) == ('HiPer', '9')
    assert facts['backbone'] == str(tiny_sd1)
    assert (facts['source_text'], facts['strength']) == ('a dog', '0.8')
    assert facts['sd.dtype'] == 'fp32'
    norm = editor.embedding.tail.norm()
    assert facts['embedding.tail'] == f'(1, 3, 32) float32, norm {norm:.4g}'


def test_a_checkpoint_of_a_stock_runner(editor, told, tmp_path):
    path = tmp_path / 'iter_9.pth'
    torch.save(dict(state_dict=editor.state_dict(), meta={}), path)
    facts = told(path)

    assert facts['kind'].startswith('training checkpoint')
    assert facts['editor'] == 'HiPer'


def test_an_export(editor, told, tmp_path):
    path = tmp_path / 'iter_9.safetensors'
    write_export(path, editor.learned_state(), editor.export_metadata())
    facts = told(path)

    assert facts['kind'] == 'export of what was learned'
    assert facts['n_hiper'] == '3'
    assert facts['embedding.tail'].startswith('(1, 3, 32)')


def test_an_embedding_of_another_program(tmp_path, capsys):
    save_file({'<toy>': torch.ones(2, 768)}, tmp_path / 'toy.safetensors')
    assert main(['info', str(tmp_path / 'toy.safetensors')]) == 0

    printed = capsys.readouterr().out
    assert 'Textual Inversion' in printed
    assert '<toy>' in printed and 'Stable Diffusion 1.x' in printed


def test_a_picture(told, tmp_path):
    path = tmp_path / 'a.png'
    record = dict(prompt='ein Hündchen', seed=3, versions=dict(torch='2'))
    write_picture(path, Image.new('RGB', (8, 4)), record)
    facts = told(path)

    assert facts['kind'] == 'picture, 8 x 4 pixels'
    assert (facts['prompt'], facts['seed']) == ('ein Hündchen', '3')
    assert facts['versions torch'] == '2'


@pytest.mark.parametrize(
    ('name', 'content', 'words'),
    [
        ('none.pth', None, 'does not exist'),
        ('broken.pth', b'not a checkpoint', 'broken.pth'),
        ('.', None, 'is a folder'),
    ],
)
def test_mistakes(tmp_path, capsys, name, content, words):
    if content:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(SystemExit) as exit_:
        main(['info', str(tmp_path / name)])

    assert exit_.value.code == 1
    out, error = capsys.readouterr()
    assert words in error and not out
