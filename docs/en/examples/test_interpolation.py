"""The editor learns, saves what it learned, and interpolates."""

from pathlib import Path

import torch
from mmengine.config import Config

from mmhiper.apis import load_editor
from mmhiper.engine.launch import train


def test_learns_and_interpolates(tmp_path):
    cfg = Config.fromfile(Path(__file__).parent / 'interpolation_dog.py')
    cfg.model.sd.pretrained = 'mini-sd'
    cfg.train_cfg.max_iters = cfg.default_hooks.checkpoint.interval = 2
    cfg.custom_hooks = [
        dict(type='PlainCheckpointHook'),
        dict(type='ExportHook'),
    ]
    cfg.work_dir = str(tmp_path)
    editor = train(cfg).model.cpu()

    # only the text is learned, and it has moved
    learned = editor.embedding.tokens.detach()
    source = editor.sd.encode_text(['a standing dog on the grass']).tokens
    assert list(editor.state_dict()) == ['embedding.tokens']
    assert learned.shape == source.shape
    assert not torch.equal(learned, source)

    # 0 is the picture, 1 the text, and 0.5 lies in the middle
    text = editor.sd.encode_text(['a cat']).tokens
    for toward, expected in [
        (0, learned),
        (1, text),
        (0.5, (learned + text) / 2),
    ]:
        tokens = editor.condition(['a cat'], toward=toward).tokens
        torch.testing.assert_close(tokens, expected)

    # its export alone draws the same picture
    again = load_editor(tmp_path / 'iter_2.safetensors', device='cpu')
    assert again.toward == 0.6
    options = dict(
        toward=0.3,
        num_inference_steps=2,
        show_progress=False,
        return_type='tensor',
    )
    first, second = (
        each.infer('a cat', **options)['samples'] for each in (editor, again)
    )
    assert torch.equal(first, second)
