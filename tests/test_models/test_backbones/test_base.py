"""Which family a model is of is read from the model."""

import copy
import json
import shutil

import pytest
import torch

from mmhiper.models.backbones import StableDiffusion, StableDiffusionXL
from mmhiper.registry import MODELS


def test_a_config_names_a_model_and_never_its_family(tiny_sd1, tiny_sdxl):
    config = dict(type='mmhiper.StableDiffusion', pretrained=str(tiny_sd1))

    assert type(MODELS.build(config)) is StableDiffusion
    config['pretrained'] = str(tiny_sdxl)
    assert type(MODELS.build(config)) is StableDiffusionXL
    assert type(StableDiffusion(str(tiny_sdxl))) is StableDiffusionXL


def test_a_family_that_is_named_takes_no_other(tiny_sd1):
    wanted = r'a Stable Diffusion XL \(unet.*is a StableDiffusionPipeline with'
    with pytest.raises(ValueError, match=wanted):
        StableDiffusionXL(str(tiny_sd1))


def test_a_variant_of_a_family_is_not_taken_for_it(tiny_sd1):
    class Louder(StableDiffusion):
        def predict(self, *args):
            return 2 * super().predict(*args)

    plain, louder = StableDiffusion(str(tiny_sd1)), Louder(str(tiny_sd1))

    assert type(plain) is StableDiffusion
    assert type(louder) is Louder
    z, t = torch.ones(1, 4, 8, 8), torch.tensor(5)
    text = plain.encode_text(['a dog'])
    assert torch.equal(
        louder.predict(z, t, text), 2 * plain.predict(z, t, text)
    )


def test_a_copy_is_the_same_model(tiny_sdxl):
    sd = StableDiffusion(str(tiny_sdxl))
    other = copy.deepcopy(sd)

    assert type(other) is StableDiffusionXL
    assert other.given_arguments() == sd.given_arguments()
    assert torch.equal(
        other.encode_text(['a dog']).pooled, sd.encode_text(['a dog']).pooled
    )


def test_parts_decide_and_not_the_name_of_a_pipeline(tiny_sd1, tmp_path):
    folder = tmp_path / 'model'
    shutil.copytree(tiny_sd1, folder)
    path = folder / 'model_index.json'
    index = json.loads(path.read_text())
    index['_class_name'] = 'StableDiffusionImg2ImgPipeline'
    path.write_text(json.dumps(index))

    assert type(StableDiffusion(str(folder))) is StableDiffusion


def test_the_model_is_looked_up_once(tiny_sdxl, monkeypatch):
    """A hub is asked for the index by each reading of it."""
    import diffusers

    read = diffusers.DiffusionPipeline.load_config
    asked = []

    def watch(source, *args, **options):
        asked.append(source)
        return read(source, *args, **options)

    monkeypatch.setattr(diffusers.DiffusionPipeline, 'load_config', watch)
    StableDiffusion(str(tiny_sdxl))

    assert asked == [str(tiny_sdxl)]
