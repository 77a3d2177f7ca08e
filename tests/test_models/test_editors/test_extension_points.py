"""Each method that docs/en/add_an_editor.md names is one: it acts."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest
import torch
from editors import EDITORS
from interpolation import TextInterpolation
from runs import REPO
from tiny import at_step, batch_of, make_hiper, make_word, picture
from torch import Tensor

from mmhiper.engine.hooks.next_steps_hook import NextStepsHook
from mmhiper.evaluation.learned import draw_comparison
from mmhiper.models import Conditioning, StableDiffusion

PAGE = (REPO / 'docs' / 'en' / 'add_an_editor.md').read_text()
TEXTS = EDITORS['TextInterpolation'].options


def build(cls: type, folder, **options):
    """An editor of a class that is in no registry."""
    return cls(StableDiffusion(str(folder)), **TEXTS, **options)


def batch(editor) -> dict:
    """One picture, half of which counts."""
    data = batch_of([picture(0)], [0])
    mask = torch.zeros(80, 80, dtype=torch.uint8)
    mask[:40] = 255
    data['data_samples'][0].set_data(dict(mask=mask))
    at_step(3)
    return editor.data_preprocessor(data, training=True)


def loss_of(editor) -> Tensor:
    """Of a step as MMEngine's loops take it."""
    return editor.parse_losses(editor(**batch(editor), mode='loss'))[0]


def other_text(self, *_) -> Conditioning:
    """One text that no other method gives."""
    return self.sd.encode_text(['something else'])


def learns_from(folder, **methods) -> tuple[Tensor, Tensor]:
    """The loss of the example, without and with methods of its own."""
    other = type('Other', (TextInterpolation,), methods)
    return tuple(
        loss_of(build(cls, folder)) for cls in (TextInterpolation, other)
    )


def check_train_condition(folder):
    plain, other = learns_from(folder, train_condition=other_text)
    assert plain != other


def check_predict_draw(folder):
    def predict_draw(self, draw, conditioning):
        return draw.noise + 2, draw.noise  # in every place 2 off

    plain, other = learns_from(folder, predict_draw=predict_draw)
    assert plain != other
    torch.testing.assert_close(other, torch.tensor(4.0))

    other = type('Other', (TextInterpolation,), {'predict_draw': predict_draw})
    editor = build(other, folder)
    data = batch(editor)
    assert editor.fixed_losses(**data).mean().item() == pytest.approx(4.0)
    output, target = editor.predict_training_step(**data)
    torch.testing.assert_close(output - target, torch.full_like(output, 2.0))


def check_image_losses(folder):
    def image_losses(self, inputs, data_samples):
        return torch.full((len(inputs),), 7.0)

    plain, other = learns_from(folder, image_losses=image_losses)
    assert plain != other
    assert other == 7


def check_loss(folder):
    def loss(self, inputs, data_samples):
        return dict(loss=torch.tensor(1.0), loss_more=torch.tensor(2.0))

    assert learns_from(folder, loss=loss)[1] == 3


def check_plain_condition(folder):
    class Other(TextInterpolation):
        def __init__(self, *args, hold_outside, **options):
            super().__init__(*args, **options)
            self.hold_outside = hold_outside

    with pytest.raises(ValueError, match='leave out `hold_outside`'):
        loss_of(build(Other, folder, hold_outside=1.0))
    Other.plain_condition = other_text
    plain = loss_of(build(Other, folder, hold_outside=0.0))
    assert loss_of(build(Other, folder, hold_outside=1.0)) > plain


def check_fixed_condition(folder):
    other = type(
        'Other', (TextInterpolation,), {'fixed_condition': other_text}
    )
    editors = [build(cls, folder) for cls in (TextInterpolation, other)]
    plain, changed = (
        each.fixed_losses(**batch(each)).mean().item() for each in editors
    )
    assert plain != changed


def check_condition(folder):
    other = type('Other', (TextInterpolation,), {'condition': other_text})
    options = dict(num_inference_steps=1, show_progress=False)
    plain, changed = (
        build(cls, folder).infer('a cat', return_type='tensor', **options)
        for cls in (TextInterpolation, other)
    )
    assert not torch.equal(plain['samples'], changed['samples'])


def check_edit_condition(folder):
    other = type('Other', (TextInterpolation,), {'edit_condition': other_text})
    plain, changed = (
        editor(**batch(editor), mode='predict')[0].edited
        for editor in (build(TextInterpolation, folder), build(other, folder))
    )
    assert not torch.equal(plain, changed)


def check_preview_conditions(folder):
    def preview_conditions(self):
        return [('my caption', other_text(self))]

    methods = {'preview_conditions': preview_conditions}
    editor = build(type('Other', (TextInterpolation,), methods), folder)
    assert [caption for caption, _ in editor.preview(1)] == ['my caption']


def check_comparisons(folder):
    editor = build(TextInterpolation, folder)
    with pytest.raises(ValueError, match='no prompts to compare by'):
        draw_comparison(editor, 1, 1)

    def comparisons(self):
        return [('a text', self.condition(['a cat']), other_text(self))]

    methods = {'comparisons': comparisons}
    editor = build(type('Other', (TextInterpolation,), methods), folder)
    ((text, learned, plain),) = draw_comparison(editor, 1, 1)
    assert text == 'a text'
    assert learned[0].tobytes() != plain[0].tobytes()


def check_example_prompt(folder, tmp_path):
    methods = {'example_prompt': lambda self: 'my own prompt'}
    editor = build(type('Other', (TextInterpolation,), methods), folder)
    said = []
    checkpoint = tmp_path / 'iter_1.pth'
    checkpoint.touch()
    runner = SimpleNamespace(
        model=editor,
        iter=1,
        work_dir=tmp_path,
        cfg=SimpleNamespace(filename='my.py'),
        message_hub=SimpleNamespace(get_info=lambda *_: str(checkpoint)),
        logger=SimpleNamespace(info=said.append),
    )
    hook = NextStepsHook()
    hook.before_train(runner)
    hook.after_run(runner)
    assert "--prompt 'my own prompt'" in said[0]


CHECKS = {
    name.removeprefix('check_'): check
    for name, check in globals().items()
    if name.startswith('check_')
}


def test_all_that_the_page_names_are_checked():
    named = re.findall(r'^\| `(\w+)\(', PAGE, re.MULTILINE)

    assert len(named) == len(set(named)) > 10
    assert set(named) == set(CHECKS)


@pytest.mark.parametrize('name', CHECKS)
def test_it_acts(name, tiny_sd1, tmp_path):
    places = (tmp_path,) if name == 'example_prompt' else ()
    CHECKS[name](tiny_sd1, *places)


def test_to_condition_changes_nothing(tiny_sd1):
    """A training step may ask for it once, twice, or not at all."""
    word = make_word(tiny_sd1, num_vectors_per_token=3, progressive_interval=2)
    prompts = dict(prompts=('a <cat-toy>', 'my <cat-toy>'))
    for editor in (make_hiper(tiny_sd1), word):
        samples = batch(editor)['data_samples']  # of iteration 3
        samples[0].set_metainfo(prompts)
        before = editor.learned_state()
        first = editor.train_condition(samples).tokens
        second = editor.train_condition(samples).tokens
        assert torch.equal(first, second)
        after = editor.learned_state()
        assert after.keys() == before.keys()
        for name, tensor in before.items():
            assert torch.equal(tensor, after[name])
