"""What every editor keeps to: learning, saving, loading, resuming, drawing.

One suite for all of them, also for one from outside the package: an editor
that is new is added to `tests/editors.py`, and nothing here.
"""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import interpolation  # noqa: F401  registers the editor of the docs
import numpy as np
import pytest
import torch
from editors import EDITORS, Sample, model_of, run_of
from inversion import with_image_encoder
from mmengine.config import Config
from PIL import Image
from tiny import FAMILIES, at_step, batch_of, picture
from tolerances import GREY_LEVEL

from mmhiper.apis import list_editors, load_editor
from mmhiper.engine.launch import train
from mmhiper.io import write_export
from mmhiper.io.modelspec import MOST_THUMBNAIL
from mmhiper.models import Editor
from mmhiper.registry import MODELS

# a run of a few iterations is no training to its end
pytestmark = pytest.mark.filterwarnings('ignore:. of 3 timesteps are trained')


@dataclass
class Learned:
    """An editor that has learned, and what it left behind."""

    kind: str
    sample: Sample
    backbone: Path
    folder: Path
    editor: Editor
    before: dict[str, torch.Tensor]
    cfg: Config

    @property
    def checkpoint(self) -> Path:
        return self.folder / 'run' / 'iter_4.pth'

    @property
    def export(self) -> Path:
        return self.checkpoint.with_suffix('.safetensors')

    def fresh(self, **options: Any) -> Editor:
        """The same editor, untrained."""
        return MODELS.build(model_of(self.kind, self.backbone, **options))

    def draw(self, editor: Editor | None = None, **options: Any):
        """Draws its prompt in as few steps as it can, as a tensor."""
        if not self.sample.inverts:
            options.setdefault('num_inference_steps', 2)
        options.setdefault('return_type', 'tensor')
        options.setdefault('prompt', self.sample.prompt)
        return (editor or self.editor).infer(show_progress=False, **options)[
            'samples'
        ]

    def same_as(self, editor: Editor) -> None:
        """Fails unless it holds and draws the same."""
        state = editor.state_dict()
        for name, tensor in self.editor.state_dict().items():
            assert torch.equal(state[name], tensor), name
        assert torch.equal(self.draw(editor), self.draw())


def one_batch() -> dict:
    """A picture as a training step gets it, for any editor."""
    data = batch_of([picture(0)], [0])
    data['data_samples'][0].set_metainfo(dict(prompts=['a <toy>']))
    return data


@pytest.fixture(scope='module')
def backbones(tiny_sd1, tiny_sd2, tmp_path_factory):
    """Two families, each with an image encoder for those that need one."""
    root = tmp_path_factory.mktemp('backbones')
    return {
        name: with_image_encoder(folder, root / name, FAMILIES[name].width)
        for name, folder in (('sd1', tiny_sd1), ('sd2', tiny_sd2))
    }


@pytest.fixture(scope='module', params=EDITORS)
def learned(request, backbones, tmp_path_factory):
    """Each editor in turn, after a run of four iterations."""
    kind, sample = request.param, EDITORS[request.param]
    backbone = backbones['sd1']
    folder = tmp_path_factory.mktemp(kind)
    if sample.config is None:  # there is nothing to learn
        editor = MODELS.build(model_of(kind, backbone))
        before = copy.deepcopy(editor.state_dict())
        editor.invert(**editor.data_preprocessor(one_batch()))
        cfg = Config(dict(model=model_of(kind, backbone)))
        (folder / 'run').mkdir()
        cfg.dump(folder / 'run' / 'dog.py')
        path = folder / 'run' / 'iter_4.pth'
        meta = dict(embedding=editor.export_metadata())
        torch.save(dict(state_dict=editor.state_dict(), meta=meta), path)
        write_export(
            path.with_suffix('.safetensors'),
            editor.learned_state(),
            editor.export_metadata(),
        )
    else:
        cfg = run_of(kind, backbone, folder)
        before = MODELS.build(cfg.model).state_dict()
        with warnings.catch_warnings():
            warnings.filterwarnings('ignore', '.* timesteps are trained')
            editor = train(cfg).model
    return Learned(kind, sample, backbone, folder, editor, before, cfg)


def test_every_editor_goes_through():
    assert set(list_editors()) <= set(EDITORS)


# ------------------------------------------------------------------ learning
def test_it_learns_and_the_frozen_model_does_not(learned):
    state = learned.editor.state_dict()

    assert any(
        not torch.equal(tensor, learned.before[name])
        for name, tensor in state.items()
        if tensor.is_floating_point()
    )
    assert all(tensor.isfinite().all() for tensor in state.values())
    frozen = learned.editor.sd
    fresh = learned.fresh().sd.state_dict()
    for name, weight in frozen.state_dict().items():
        assert torch.equal(weight, fresh[name]), name
    for weight in frozen.parameters():
        assert not weight.requires_grad and weight.grad is None
    ours = {id(weight) for weight in learned.editor.parameters()}
    assert ours.isdisjoint(map(id, frozen.parameters()))


def test_a_half_precision_model_teaches_in_single_precision(learned):
    if learned.sample.config is None:
        return
    for dtype in ('bf16', 'fp16'):
        editor = learned.fresh(sd=dict(dtype=dtype))
        before = [weight.detach().clone() for weight in editor.parameters()]
        optimizer = torch.optim.Adam(editor.parameters(), lr=5e-3)
        for iteration in range(3):
            at_step(iteration)
            data = editor.data_preprocessor(one_batch(), True)
            loss = editor(**data, mode='loss')['loss']
            assert loss.dtype == torch.float32 and loss.isfinite()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

        weights = list(editor.parameters())
        assert {weight.dtype for weight in weights} == {torch.float32}
        assert {w.grad.dtype for w in weights if w.grad is not None} == {
            torch.float32
        }
        moved = [
            (weight - old).abs().max().item()
            for weight, old in zip(weights, before, strict=True)
        ]
        # a step of Adam that half precision would round away
        assert max(moved) > 0.005


@pytest.mark.usefixtures('untouched_global_generators')
def test_global_generators_are_left_alone(learned):
    editor = learned.fresh()
    at_step(0)
    data = editor.data_preprocessor(one_batch(), True)
    if learned.sample.config is None:
        editor.invert(**data)
    else:
        editor(**data, mode='loss')['loss'].backward()
    learned.draw(editor)
    editor.preview(*() if learned.sample.inverts else (2,))


def test_a_resumed_run_is_the_uninterrupted_one(learned, tmp_path):
    if learned.sample.config is None:
        return
    train(run_of(learned.kind, learned.backbone, tmp_path, iterations=2))
    cfg = run_of(learned.kind, learned.backbone, tmp_path)

    editor = train(cfg, resume='auto').model

    learned.same_as(editor)


# -------------------------------------------------------- saving and loading
def test_only_what_is_learned_is_saved(learned):
    state = torch.load(learned.checkpoint)['state_dict']

    assert list(state) == list(learned.editor.state_dict())
    names = {name.split('.')[0] for name in state}
    assert names == set(learned.sample.learned)
    # with Adam's two moments, and the log; a backbone is many times more
    size = sum(tensor.nbytes for tensor in state.values())
    assert learned.checkpoint.stat().st_size < 3 * size + 50_000
    assert learned.export.stat().st_size < size + 10_000 + MOST_THUMBNAIL


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_it_comes_back_from_its_files(learned, suffix):
    file = learned.checkpoint.with_suffix(suffix)
    learned.same_as(load_editor(learned.cfg, file, device='cpu'))
    learned.same_as(load_editor(file.parent, file, device='cpu'))


def test_the_lines_of_the_readme(learned):
    checkpoint = torch.load(learned.checkpoint)
    model = MODELS.build(learned.cfg.model)
    result = model.load_state_dict(checkpoint['state_dict'])

    assert not result.missing_keys and not result.unexpected_keys
    learned.same_as(model)


def test_loading_is_strict(learned, backbones):
    state = learned.editor.state_dict()
    first = next(name for name in state if state[name].ndim)
    other = MODELS.build(model_of(learned.kind, backbones['sd2']))
    renamed = copy.deepcopy(state)
    renamed[f'{first}_of_another'] = renamed.pop(first)
    reshaped = copy.deepcopy(state)
    reshaped[first] = state[first][..., :-1].clone()
    foreign = copy.deepcopy(state)
    foreign._metadata['']['editor'] = 'SomeOther'
    cases = {
        'empty': {},
        'renamed': renamed,
        'reshaped': reshaped,
        'more': {**state, 'unet.conv_in.weight': torch.zeros(1)},
        'another backbone': other.state_dict(),
        'another editor': foreign,
    }
    if learned.sample.config is not None:  # else only a file's record tells
        cases['its export'] = other.learned_state()
    editor = learned.fresh()
    before = copy.deepcopy(editor.state_dict())

    for case, wrong in cases.items():
        for strict in (True, False):
            with pytest.raises(ValueError, match='does not belong') as error:
                editor.load_state_dict(wrong, strict=strict)
            expected, found = str(error.value).splitlines()[1:3]
            assert f'editor {learned.kind}' in expected, case
            assert f'backbone {learned.backbone}' in expected, case
            assert found.split(':', 1)[1] != expected.split(':', 1)[1], case
    for name, tensor in editor.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_another_backbone_is_refused_from_files(learned, backbones, tmp_path):
    other = MODELS.build(model_of(learned.kind, backbones['sd2']))
    torch.save(dict(state_dict=other.state_dict()), tmp_path / 'a.pth')
    write_export(
        tmp_path / 'a.safetensors',
        other.learned_state(),
        other.export_metadata(),
    )

    for name in ('a.pth', 'a.safetensors'):
        with pytest.raises(ValueError, match='does not belong') as error:
            load_editor(learned.cfg, tmp_path / name)
        assert str(backbones['sd2']) in str(error.value)


def test_files_say_what_they_belong_to(learned):
    metadata = learned.editor.export_metadata()

    assert metadata['editor'] == learned.kind
    assert metadata['backbone'] == str(learned.backbone)
    copied = learned.editor.learned_state()
    for tensor in copied.values():
        tensor.zero_()
    state = learned.editor.state_dict().values()
    assert any(tensor.any() for tensor in state)  # it was a copy


# ------------------------------------------------------------------- drawing
def test_previews(learned):
    panels = learned.editor.preview(*() if learned.sample.inverts else (2,))

    assert panels
    for caption, image in panels:
        assert caption and isinstance(image, Image.Image)
        assert image.size == (64, 64)
    if learned.sample.config is not None:
        (file,) = (learned.folder / 'run' / 'previews').glob('*_000004.png')
        with Image.open(file) as sheet:
            assert sheet.width > 256


def test_predict_mode_draws_the_edit(learned):
    (sample,) = learned.editor.test_step(one_batch())

    assert sample.edited.shape == (3, 64, 64)
    assert sample.edited.dtype == torch.uint8
    target = learned.sample.options.get('target_text')
    if target is not None:
        result = learned.editor.infer(target, show_progress=False)
        expected = np.asarray(result['samples'][0]).astype(int)
        drawn = sample.edited.permute(1, 2, 0).numpy()
        assert np.abs(drawn - expected).max() <= GREY_LEVEL


def test_the_seed_decides_where_anything_is_drawn_at_random(learned):
    first, other = learned.draw(seed=3), learned.draw(seed=4)
    torch.manual_seed(9)

    assert torch.equal(learned.draw(seed=3), first)
    same = torch.equal(first, other)
    assert same == learned.sample.inverts == learned.editor.deterministic
    generator = torch.Generator().manual_seed(3)
    assert torch.equal(learned.draw(generator=generator, seed=8), first)


def test_return_types_are_the_same_picture(learned):
    tensor = learned.draw()
    array = learned.draw(return_type='numpy')
    (image,) = learned.draw(return_type='image')

    assert tensor.shape == (1, 3, 64, 64)
    assert tensor.dtype == torch.float32 and tensor.abs().max() <= 1
    assert not tensor.requires_grad and torch.is_grad_enabled()
    assert np.array_equal(array, tensor.numpy())
    levels = ((tensor[0] / 2 + 0.5) * 255).round().permute(1, 2, 0)
    assert np.array_equal(np.asarray(image), levels.numpy())
    with pytest.raises(ValueError, match=r"'tensor'.*'jpeg'"):
        learned.draw(return_type='jpeg')


def test_several_pictures_of_several_prompts(learned):
    prompts = [learned.sample.prompt, f'two {learned.sample.prompt}']

    assert learned.draw(prompt=prompts).shape == (2, 3, 64, 64)
    if learned.sample.inverts:
        with pytest.raises(ValueError, match='`num_images_per_prompt`'):
            learned.draw(num_images_per_prompt=2)
        return
    pictures = learned.draw(prompt=prompts, num_images_per_prompt=2, seed=5)
    assert pictures.shape == (4, 3, 64, 64)
    assert (pictures[0] - pictures[1]).abs().max() > 1e-2


def test_latents_take_the_place_of_the_seed(learned):
    shape = learned.editor.sd.latent_shape(64, 64)
    generator = torch.Generator().manual_seed(3)
    latents = torch.randn(1, *shape, generator=generator)
    if learned.sample.inverts:
        with pytest.raises(ValueError, match='`latents`'):
            learned.draw(latents=latents)
        return

    assert torch.equal(learned.draw(latents=latents), learned.draw(seed=3))
    with pytest.raises(ValueError, match='`latents` must have the shape'):
        learned.draw(latents=latents[..., :4])


def test_a_negative_prompt(learned):
    if not learned.sample.negative:
        with pytest.raises(ValueError, match='leave out `negative_prompt`'):
            learned.draw(negative_prompt='a fox')
        return

    away = learned.draw(negative_prompt='a fox')
    assert (away - learned.draw()).abs().max() > 1e-3
    with pytest.raises(ValueError, match='`negative_prompt`'):
        learned.draw(negative_prompt=['a', 'b'])


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(prompt=''), '`prompt`'),
        (dict(prompt=[]), '`prompt`'),
        (dict(prompt=['a <toy> cat', ' ']), '`prompt`'),
        (dict(height=60), '`height`'),
        (dict(num_inference_steps=0), '`num_inference_steps`'),
        (dict(num_images_per_prompt=0), '`num_images_per_prompt`'),
        (dict(eta=2), '`eta`'),
    ],
)
def test_mistakes_are_named(learned, options, message):
    with pytest.raises(ValueError, match=message):
        learned.draw(**options)


def test_an_unknown_option_or_mode_is_an_error(learned):
    with pytest.raises(TypeError, match='no_such_option'):
        learned.draw(no_such_option=1)
    with pytest.raises(ValueError, match="'train'"):
        learned.editor(torch.zeros(1, 3, 64, 64), [], mode='train')


def test_progress_is_shown_on_demand(learned, capsys, monkeypatch):
    # no terminal: a line every few seconds, which this would not take
    monkeypatch.setattr('mmhiper.utils.progress.SECONDS', 0)
    learned.draw()
    assert capsys.readouterr().err == ''
    steps = learned.sample.options.get('num_steps', 3)
    learned.editor.infer(learned.sample.prompt, num_inference_steps=steps)
    assert f'{steps}/{steps}' in capsys.readouterr().err


def test_the_frozen_model_follows_the_editor(learned):
    editor = learned.fresh().train()
    assert not any(module.training for module in editor.sd.modules())

    editor.to('meta')
    assert editor.sd.device.type == 'meta'
    tensors = [*editor.parameters(), *editor.buffers()]
    assert {tensor.device.type for tensor in tensors} == {'meta'}
