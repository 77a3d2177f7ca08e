"""What earlier versions wrote is read, and drawn from, by every later one."""

from pathlib import Path

import pytest
import torch

from mmhiper.apis import list_editors
from mmhiper.inferencer import EditInferencer
from mmhiper.io import read_token_file
from mmhiper.models import TextualInversion

FOLDER = Path(__file__).parents[1] / 'data'
FILES = sorted(
    path
    for path in FOLDER.glob('*/*')
    if path.suffix in ('.pth', '.safetensors')
)


def test_there_is_one_of_each_editor():
    names = editors_of_the_package()

    assert names <= set(list_editors())
    for suffix in ('.pth', '.safetensors'):
        assert {f.stem for f in FILES if f.suffix == suffix} >= names


def editors_of_the_package() -> set[str]:
    """Without those that another test has registered."""
    from mmhiper import models

    return {
        name
        for name in models.__all__
        if name in list_editors() and name != 'EmbeddingEditor'
    }


@pytest.mark.parametrize(
    'path', FILES, ids=lambda path: f'{path.parent.name}-{path.name}'
)
def test_it_draws(path):
    inferencer = EditInferencer(path, device='cpu')
    editor = inferencer.editor
    assert type(editor).__name__ == path.stem
    arguments = editor.export_metadata()['arguments']

    if isinstance(editor, TextualInversion):
        assert editor.placeholder_token == '<cat-toy>'
        prompt = 'a <cat-toy> on a sofa'
    else:
        assert arguments['source_text'].startswith('a standing dog')
        prompt = 'a standing cat on the grass'
    steps = {} if editor.deterministic else dict(num_inference_steps=1)
    drawn = inferencer(
        prompt, show_progress=False, return_type='tensor', **steps
    )['samples']

    assert drawn.isfinite().all() and drawn.std() > 0.05
    # the checkpoint and the export beside it hold the same
    twin = path.with_suffix('.pth')
    state = torch.load(twin)['state_dict']
    for name, tensor in editor.state_dict().items():
        assert torch.equal(tensor, state[name]), name


def test_a_word_is_read_as_a_word():
    for path in FILES:
        if path.name == 'TextualInversion.safetensors':
            assert read_token_file(path).placeholders == ['<cat-toy>']
