"""Each answer that docs/en/add_a_backbone.md names is one: it acts."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from inversion import make as make_inversion
from runs import REPO
from tiny import at_step, batch_of, picture
from torch import Tensor

import mmhiper
from mmhiper.io import write_export
from mmhiper.io.file_content import read_safetensors
from mmhiper.models import Backbone, HiPer, StableDiffusion
from mmhiper.models.backbones import Diffusion
from mmhiper.models.editors import ExtendedTextualInversion
from mmhiper.models.loading import PartKind
from mmhiper.models.text_encoders import TextEncoders
from mmhiper.models.vocabulary import Vocabulary
from mmhiper.models.weighted_text import WeightedText

PAGE = (REPO / 'docs' / 'en' / 'add_a_backbone.md').read_text()
JOINT = Backbone.text_layers
QUICK = dict(num_inference_steps=2, show_progress=False, return_type='tensor')


@pytest.fixture(autouse=True)
def families(monkeypatch):
    """Families that a test defines are gone after it."""
    monkeypatch.setattr(Backbone, 'families', [*Backbone.families])


def variants(folder, **answers) -> tuple[StableDiffusion, StableDiffusion]:
    """A model as it is, and one with answers of its own."""
    other = type('Other', (StableDiffusion,), answers)
    return StableDiffusion(str(folder)), other(str(folder))


def noises(folder, **answers) -> tuple[StableDiffusion, StableDiffusion]:
    """Likewise, of its noise."""
    kind = type('OtherNoise', (Diffusion,), answers)

    def make_process(self, config, changes):
        return kind(config, changes, self.backbone)

    return variants(folder, make_process=make_process)


def edit(sd, **options) -> HiPer:
    return HiPer(sd, 'a dog', **{'n_hiper': 3, **options})


def drawn(sd, **options) -> Tensor:
    return edit(sd).infer('a cat', **QUICK, **options)['samples']


def step_of(editor) -> dict:
    at_step(3)
    return editor.data_preprocessor(batch_of([picture(0)], [0]), True)


def loss_of(sd) -> Tensor:
    editor = edit(sd)
    return editor(**step_of(editor), mode='loss')['loss'].detach()


def changed(folder: Path, target: Path, change) -> Path:
    """A copy of a folder with another index."""
    shutil.copytree(folder, target)
    path = target / 'model_index.json'
    index = json.loads(path.read_text())
    change(index)
    path.write_text(json.dumps(index))
    return target


# ------------------------------------------------------------- the family
def check_title(folder, tmp_path):
    _, other = variants(folder, title='my own', attention=None)
    with pytest.raises(ValueError, match='is a my own, where it cannot be'):
        make_inversion(folder, 'DDIMInversion', sd=other)


def check_kinds(folder, tmp_path):
    class Other(StableDiffusion):
        kinds = dict(
            StableDiffusion.kinds,
            unet=PartKind('network', 'diffusers.UNet2DConditionModel'),
        )

    def rename(index):
        index['network'] = index.pop('unet')

    model = changed(folder, tmp_path / 'model', rename)
    (model / 'unet').rename(model / 'network')

    assert type(StableDiffusion(str(model))) is Other
    assert torch.equal(
        drawn(StableDiffusion(str(model))), drawn(StableDiffusion(str(folder)))
    )
    # and what it has is a part that no other family has
    both = changed(
        folder,
        tmp_path / 'both',
        lambda index: index.update(network=index['unet']),
    )
    with pytest.raises(ValueError, match=r'Wanted a Stable Diffusion .*unet'):
        StableDiffusion(str(both))


def check_usual_guidance(folder, tmp_path):
    plain, other = variants(folder, usual_guidance=3.0)
    assert (plain.guidance_scale, other.guidance_scale) == (7.5, 3.0)


def check_reads_weights(folder, tmp_path):
    plain, other = variants(folder, reads_weights=False)
    with pytest.raises(ValueError, match='needs a Stable Diffusion'):
        WeightedText(other)
    pytest.importorskip('compel', reason='reads the weights')
    WeightedText(plain)


def check_predict(folder, tmp_path):
    def predict(self, latents, times, conditioning):
        return torch.zeros_like(latents)

    plain, other = variants(folder, predict=predict)
    assert not torch.equal(drawn(plain), drawn(other))
    assert loss_of(plain) != loss_of(other)


def check_pipeline(folder, tmp_path):
    def pipeline(self, tokenizers, models):
        made = SimpleNamespace(given=(tokenizers, models))
        made.to = lambda device: made
        return made

    _, other = variants(folder, pipeline=pipeline)
    tokenizers, models = mmhiper.to_diffusers(edit(other)).pipeline.given
    assert tokenizers == other.tokenizers
    assert models == [other.text_encoder]


def check_attention(folder, tmp_path):
    plain, other = variants(folder, attention=None)
    make_inversion(folder, 'DDIMInversion', sd=plain)
    with pytest.raises(ValueError, match='controls attention'):
        make_inversion(folder, 'DDIMInversion', sd=other)


def check_architecture(folder, tmp_path):
    plain, other = variants(folder, architecture='mine-2')
    path = tmp_path / 'a.safetensors'
    for sd, name in ((plain, 'stable-diffusion-32'), (other, 'mine-2')):
        editor = edit(sd)
        record = editor.export_metadata()
        write_export(
            path, editor.learned_state(), record, editor.model_facts()
        )
        metadata = read_safetensors(path)[1]
        assert metadata['modelspec.architecture'] == f'{name}/hiper'


def check_text_layers(folder, tmp_path):
    def build(sd):
        return ExtendedTextualInversion(sd, '<toy>', 'x')

    plain, other = variants(folder, text_layers=5)
    assert build(plain).num_groups == plain.text_layers == 4
    assert build(other).num_groups == 5
    joint = type('Joint', (StableDiffusion,), dict(text_layers=JOINT))
    with pytest.raises(ValueError, match='no layer reads the text alone'):
        build(joint(str(folder)))


def check_fits(folder, tmp_path):
    class Other(StableDiffusion):
        kinds = dict(StableDiffusion.kinds)

        @classmethod
        def fits(cls, source):
            return source.index.get('_class_name') == 'MyPipeline'

    model = changed(
        folder,
        tmp_path / 'model',
        lambda index: index.update(_class_name='MyPipeline'),
    )
    assert type(StableDiffusion(str(model))) is Other
    assert type(StableDiffusion(str(folder))) is StableDiffusion


def check_read_single_file(folder, tmp_path):
    seen = []

    @classmethod
    def read_single_file(cls, source, dtype):
        seen.append((source.path, dtype))
        return {}  # and so all parts come from the folder of the file

    model = changed(folder, tmp_path / 'model', lambda index: None)
    file = model / 'model.ckpt'
    file.touch()
    _, other = variants(file.parent, read_single_file=read_single_file)
    assert not seen
    single = type(other)(str(file))
    assert seen == [(str(file), torch.float32)]
    assert torch.equal(drawn(single), drawn(other))


def check_join(folder, tmp_path):
    class Louder(TextEncoders):
        def forward(self, ids, rows=None):
            text = super().forward(ids, rows)
            return text.with_tokens(2 * text.tokens)

    plain, other = variants(folder, join=lambda self, models: Louder(models))
    one, two = (sd.encode_text(['a dog']).tokens for sd in (plain, other))
    assert torch.equal(two, 2 * one)


def check_read_vocabulary(folder, tmp_path):
    def read_vocabulary(self, tokenizer, model):
        return Vocabulary(tokenizer, 20)

    plain, other = variants(folder, read_vocabulary=read_vocabulary)
    shapes = [sd.encode_text(['a']).tokens.shape for sd in (plain, other)]
    assert shapes == [(1, 77, 32), (1, 20, 32)]
    assert other.room() == 18


def check_make_process(folder, tmp_path):
    def make_process(self, config, changes):
        config = dict(config, num_train_timesteps=10)
        return Diffusion(config, changes, self.backbone)

    _, other = variants(folder, make_process=make_process)
    editor = edit(other)
    assert editor._draw_step(**step_of(editor)).timesteps < 10


def check_adapt(folder, tmp_path):
    def adapt(self):
        self.unet.conv_out.bias.data += 1

    plain, other = variants(folder, adapt=adapt)
    assert loss_of(plain) != loss_of(other)


def check_encode_nothing(folder, tmp_path):
    def encode_nothing(self, count):
        return self.encode_text(['something'] * count)

    plain, other = variants(folder, encode_nothing=encode_nothing)
    assert not torch.equal(drawn(plain), drawn(other))
    away = drawn(plain, negative_prompt='something')
    assert torch.equal(drawn(other), away)


def check_num_positions(folder, tmp_path):
    plain, other = variants(folder, num_positions=5)
    edit(plain, n_hiper=70)
    with pytest.raises(ValueError, match=r'`n_hiper` must be in \[1, 4\]'):
        edit(other, n_hiper=5)


def check_free_in(folder, tmp_path):
    plain, other = variants(folder, free_in=lambda self, free: [0])
    assert (plain.room(9), other.room(9)) == (67, 75)
    long = ['x' * 75]
    texts = [sd.encode_text(long, free=9).tokens for sd in (plain, other)]
    assert torch.equal(texts[1], plain.encode_text(long).tokens)
    assert not torch.equal(texts[0], texts[1])


# ---------------------------------------------------------------- its noise
def check_draw_time(folder, tmp_path):
    _, other = noises(folder, draw_time=lambda self, g: torch.tensor([7]))
    editor = edit(other)
    assert editor._draw_step(**step_of(editor)).timesteps.tolist() == [7]


def check_spread_time(folder, tmp_path):
    def spread_time(self, number, count):
        return torch.tensor([7])

    losses = [
        editor.fixed_losses(**step_of(editor), draws=2)
        for editor in map(edit, noises(folder, spread_time=spread_time))
    ]
    assert not torch.equal(*losses)


def check_time_at(folder, tmp_path):
    _, other = noises(folder, time_at=lambda self, share: torch.tensor([7]))
    editor = edit(other, time_range=[0.0, 0.5])
    assert editor._draw_step(**step_of(editor)).timesteps.tolist() == [7]


def check_add_noise(folder, tmp_path):
    def add_noise(self, latents, noise, times):
        return latents

    plain, other = noises(folder, add_noise=add_noise)
    assert loss_of(plain) != loss_of(other)


def check_target(folder, tmp_path):
    def target(self, latents, noise, times):
        return noise + 100  # far from everything

    plain, other = noises(folder, target=target)
    assert loss_of(plain) < 1000 < loss_of(other)


def check_loss_weights(folder, tmp_path):
    def loss_weights(self, times, min_snr_gamma, debiased):
        return torch.zeros(len(times))

    plain, other = noises(folder, loss_weights=loss_weights)
    assert loss_of(plain) > 0 == loss_of(other)


def check_make_sampler(folder, tmp_path):
    make = Diffusion.make_sampler

    def make_sampler(self, scheduler=None):
        return make(self, scheduler or 'EulerDiscreteScheduler')

    plain, other = noises(folder, make_sampler=make_sampler)
    euler = drawn(plain, scheduler='EulerDiscreteScheduler')
    assert torch.equal(drawn(other), euler)
    assert not torch.equal(drawn(plain), euler)


def check_samples_with(folder, tmp_path):
    def named(self):
        return 'EulerDiscreteScheduler'

    ours = property(named, lambda self, value: None)
    plain, other = noises(folder, samples_with=ours)
    names = [sd.given_arguments()['sampler'] for sd in (plain, other)]
    assert names == ['DDIMScheduler', 'EulerDiscreteScheduler']


CHECKS = {
    name.removeprefix('check_'): check
    for name, check in globals().items()
    if name.startswith('check_')
}


def test_all_that_the_page_names_are_checked():
    named = re.findall(r'^\| `(\w+)[`(]', PAGE, re.MULTILINE)

    assert len(named) == len(set(named)) > 20
    assert set(named) == set(CHECKS)


@pytest.mark.parametrize('name', CHECKS)
def test_it_acts(name, tiny_sd1, tmp_path):
    CHECKS[name](tiny_sd1, tmp_path)


def test_the_example_is_the_file():
    (shown,) = re.findall(
        r'^<!-- module: (\S+) -->\n```python\n(.*?)^```$',
        PAGE,
        re.DOTALL | re.MULTILINE,
    )
    folder = REPO / 'mmhiper' / 'models' / 'backbones'

    assert shown[1] == (folder / shown[0]).read_text()
