"""Drawing pictures of many prompts, with what made them."""

import functools
import hashlib
import itertools
import json
import warnings

import diffusers
import inversion
import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image
from safetensors.torch import save_file
from tiny import make_hiper, picture
from tolerances import GREY_LEVEL

import mmhiper
from mmhiper.apis import load_editor
from mmhiper.inferencer import EditInferencer
from mmhiper.io import read_picture_record, write_export
from mmhiper.registry import MODELS

STEPS = dict(num_inference_steps=2, show_progress=False)


@pytest.fixture(scope='module')
def run(tiny_sd1, tmp_path_factory):
    """What a training run of HiPer leaves behind."""
    folder = tmp_path_factory.mktemp('run')
    editor = make_hiper(tiny_sd1, n_hiper=3, strength=0.7)
    generator = torch.Generator().manual_seed(0)
    editor.embedding.tail.data += torch.randn(
        editor.embedding.tail.shape, generator=generator
    )
    model = dict(
        type='HiPer',
        sd=dict(type='StableDiffusion', pretrained=str(tiny_sd1)),
        source_text='a dog',
        target_text='a cat',
        n_hiper=3,
        strength=0.7,
    )
    Config(dict(model=model)).dump(folder / 'dog.py')
    record = dict(editor.export_metadata(), step=9, seed=4)
    torch.save(
        dict(state_dict=editor.state_dict(), meta=dict(embedding=record)),
        folder / 'iter_9.pth',
    )
    write_export(folder / 'iter_9.safetensors', editor.learned_state(), record)
    return folder


@pytest.fixture(scope='module')
def inferencer(run):
    return EditInferencer(run, device='cpu')


def arrays(result: dict) -> list[np.ndarray]:
    return [np.asarray(each, np.int16) for each in result['samples']]


def test_a_picture_is_the_same_in_any_batch(
    inferencer, untouched_global_generators
):
    prompts = ['a sitting dog', 'a cat']
    alone = arrays(inferencer(prompts, num_images=3, seed=5, **STEPS))
    assert len(alone) == 6

    for size in (2, 4, 100):
        together = inferencer(
            prompts, num_images=3, seed=5, batch_size=size, **STEPS
        )
        for one, other in zip(alone, arrays(together), strict=True):
            assert abs(one - other).max() <= GREY_LEVEL
    # and each is another one
    for first, second in itertools.pairwise(alone):
        assert abs(first - second).max() > 10 * GREY_LEVEL


def test_it_draws_what_the_editor_draws(inferencer, run):
    result = inferencer('a cat', num_images=2, seed=7, batch_size=2, **STEPS)

    expected = load_editor(run, device='cpu').infer(
        'a cat', num_images_per_prompt=2, seed=7, **STEPS
    )
    assert [each.tobytes() for each in result['samples']] == [
        each.tobytes() for each in expected['samples']
    ]


@pytest.mark.parametrize('kind', ['tensor', 'numpy'])
def test_arrays(inferencer, kind):
    images = inferencer(['a', 'b'], **STEPS)['samples']
    result = inferencer(['a', 'b'], return_type=kind, **STEPS)['samples']

    assert isinstance(result, torch.Tensor if kind == 'tensor' else np.ndarray)
    assert result.shape == (2, 3, 64, 64)
    unit = np.asarray(result).transpose(0, 2, 3, 1) / 2 + 0.5
    drawn = np.stack([np.asarray(image) for image in images])
    assert np.array_equal((unit * 255).round().astype(np.uint8), drawn)


def test_files_say_what_made_them(inferencer, run, tmp_path):
    out = tmp_path / 'new' / 'out'
    result = inferencer(
        ['a sitting dog', 'ein Kätzchen 🐈'],
        num_images=2,
        seed=5,
        out_dir=out,
        guidance_scale=3.0,
        strength=0.9,
        **STEPS,
    )

    names = [f'00{i}.png' for i in range(4)]
    assert [path.name for path in result['files']] == names
    assert sorted(p.name for p in out.iterdir()) == [*names, 'pictures.json']
    table = json.loads((out / 'pictures.json').read_text('utf-8'))
    for number, (path, record) in enumerate(
        zip(result['files'], result['records'], strict=True)
    ):
        assert read_picture_record(path) == record
        assert table[number] == dict(file=path.name, **record)
        with Image.open(path) as image:
            assert image.tobytes() == result['samples'][number].tobytes()
            assert image.text['Description'] == record['prompt']
    checkpoint = run / 'iter_9.pth'
    assert table[3] == dict(
        file='003.png',
        prompt='ein Kätzchen 🐈',
        seed=6,
        editor='HiPer',
        backbone=inferencer.editor.sd.backbone,
        checkpoint=dict(
            file='iter_9.pth',
            sha256=hashlib.sha256(checkpoint.read_bytes()).hexdigest(),
        ),
        sd=dict(dtype='fp32', sampler='DDIMScheduler'),
        learned=dict(
            source_text='a dog',
            target_text='a cat',
            n_hiper=3,
            strength=0.7,
            data_preprocessor=None,
            val_prompts=None,
            hold_outside=0.0,
            noise_offset=0.0,
            min_snr_gamma=None,
            debiased=False,
            more_source_texts=None,
            tail_dropout=0.0,
            draws_per_step=1,
            draw_times='random',
            time_range=None,
        ),
        versions=dict(
            mmhiper=mmhiper.__version__,
            torch=torch.__version__,
            diffusers=diffusers.__version__,
        ),
        options=dict(
            num_inference_steps=2, guidance_scale=3.0, eta=0.0, strength=0.9
        ),
    )


def test_a_record_has_the_picture_that_was_drawn_from(
    inferencer, tmp_path, untouched_global_generators
):
    image = Image.fromarray(picture(0, 96).permute(1, 2, 0).numpy())
    image.save(tmp_path / 'photo.png')
    mask = torch.ones(96, 96)
    draw = functools.partial(inferencer, 'a cat', num_images=2, **STEPS)

    result = draw(
        image=tmp_path / 'photo.png', mask=mask, out_dir=tmp_path / 'out'
    )

    recorded = read_picture_record(result['files'][1])['options']
    digest = hashlib.sha256((tmp_path / 'photo.png').read_bytes()).hexdigest()
    assert recorded['image'] == dict(file='photo.png', sha256=digest)
    assert recorded['denoise'] == 0.8  # which was left out
    # what is in memory is named by what it shows
    options = draw(image=image, denoise=1.0)['records'][0]['options']
    same = draw(image=image.copy())['records'][0]['options']
    assert options['image'] == same['image'] != recorded['mask']
    assert options['image'].keys() == recorded['mask'].keys() == {'pixels'}
    assert (options['denoise'], same['denoise']) == (1.0, 0.8)
    assert 'mask' not in options
    # each picture by its own seed, from the same source
    apart = [arrays(draw(image=image, batch_size=n)) for n in (1, 2)]
    for one, other in zip(*apart, strict=True):
        assert abs(one - other).max() <= GREY_LEVEL
    assert 'denoise' not in draw(image=0)['records'][0]['options']
    with pytest.raises(ValueError, match='`image` must be one for all'):
        draw(image=[image, image])
    with pytest.raises(FileNotFoundError, match=r"'none\.png' does not exist"):
        draw(image='none.png')


def test_the_record_draws_the_picture_again(inferencer, run, tmp_path):
    guidance = dict(guidance_rescale=0.6, guidance_interval=(0.3, 10))
    result = inferencer('a', seed=3, out_dir=tmp_path, **guidance, **STEPS)
    path = result['files'][0]
    record = read_picture_record(path)
    # the backbone's own is told by its number
    assert record['options']['guidance_scale'] == 7.5
    assert record['options']['guidance_interval'] == [0.3, 10]

    again = EditInferencer(
        record['editor'], run / record['checkpoint']['file']
    )
    (picture,) = again(
        record['prompt'],
        seed=record['seed'],
        show_progress=False,
        **record['options'],
    )['samples']

    assert picture.tobytes() == Image.open(path).tobytes()


@pytest.mark.parametrize('suffix', ['pth', 'safetensors'])
def test_the_name_of_an_editor_and_what_it_learned_are_enough(
    run, inferencer, suffix, tmp_path
):
    file = tmp_path / f'mailed.{suffix}'  # no config beside it
    file.write_bytes((run / f'iter_9.{suffix}').read_bytes())
    named = EditInferencer('HiPer', file, device='cpu')

    assert named.editor.strength == 0.7
    expected, got = (
        each('a cat', **STEPS)['samples'][0].tobytes()
        for each in (inferencer, named)
    )
    assert got == expected


def test_an_editor_in_hand(run, inferencer, tiny_sd1):
    editor = make_hiper(tiny_sd1, n_hiper=3, strength=0.7).train()
    unlearned = EditInferencer(editor)
    assert 'checkpoint' not in unlearned.facts and not editor.training
    before = unlearned('a cat', **STEPS)['samples'][0].tobytes()

    learned = EditInferencer(editor, run / 'iter_9.pth')
    after = learned('a cat', **STEPS)['samples'][0].tobytes()
    expected = inferencer('a cat', **STEPS)['samples'][0].tobytes()
    assert after == expected != before
    assert learned.facts == inferencer.facts


def test_a_learned_word_by_its_name_with_words_from_elsewhere(
    tiny_sd1, tmp_path
):
    editor = MODELS.build(
        dict(
            type='mmhiper.TextualInversion',
            sd=dict(type='StableDiffusion', pretrained=str(tiny_sd1)),
            placeholder_token='<toy>',
            initialize_token='x',
            num_vectors_per_token=2,
        )
    )
    editor.embedding.rows.data += 1
    file = tmp_path / 'toy.safetensors'
    write_export(file, editor.learned_state(), editor.export_metadata())
    other = tmp_path / 'other.safetensors'
    save_file({'<other>': torch.ones(1, 32)}, other)

    named = EditInferencer('TextualInversion', file, 'cpu', [other])

    assert named.words == ['<other>']
    prompt = 'a <toy> and <other>'
    result = named(prompt, seed=2, **STEPS)
    editor.load_embeddings([other])
    expected = editor.infer(prompt, seed=2, **STEPS)['samples'][0]
    assert result['samples'][0].tobytes() == expected.tobytes()
    digest = hashlib.sha256(other.read_bytes()).hexdigest()
    assert result['records'][0]['embeddings'] == [
        dict(file='other.safetensors', sha256=digest)
    ]


def test_an_editor_that_draws_nothing_at_random(tiny_sd1):
    editor = inversion.make(tiny_sd1, 'DDIMInversion')
    editor.invert(**inversion.batch(editor, picture(0)))
    result = EditInferencer(editor)(
        ['a cat', 'a dog'], batch_size=2, show_progress=False
    )

    record = result['records'][0]
    assert record['seed'] is None
    assert record['learned']['num_steps'] == 4
    assert record['options']['guidance_scale'] == 7.5
    expected = editor.infer('a cat', show_progress=False)['samples'][0]
    assert result['samples'][0].tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    ('model', 'checkpoint', 'words'),
    [
        ('HiPer', None, 'needs a checkpoint'),
        ('TextualInversion', 'iter_9.pth', 'is of HiPer'),
        ('Hiper', 'iter_9.pth', 'nor an editor of that name'),
    ],
)
def test_wrong_names(run, model, checkpoint, words):
    checkpoint = checkpoint and run / checkpoint
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        EditInferencer(model, checkpoint)


def test_words_need_an_editor_with_words(run):
    with pytest.raises(ValueError, match='TextualInversion'):
        EditInferencer(run, embeddings=['word.bin'])


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        (dict(prompts=[]), 'got none'),
        (dict(num_images=0), '`num_images` must be at least 1, but got 0'),
        (dict(batch_size=0), '`batch_size` must be at least 1'),
        (dict(return_type='jpeg'), "but got 'jpeg'"),
        (dict(latents=torch.zeros(1)), '`latents` is no option'),
        (dict(negative_prompt=['a', 'b']), 'one text for all'),
    ],
)
def test_wrong_arguments(inferencer, options, words):
    with pytest.raises(ValueError, match=words):
        inferencer(**{'prompts': 'a', **STEPS, **options})


def test_ctrl_c_says_what_is_saved(inferencer, tmp_path, monkeypatch):
    infer = inferencer.editor.infer
    drawn = []

    @functools.wraps(infer)  # its signature is looked at
    def interrupted(*args, **options):
        if drawn:
            raise KeyboardInterrupt
        drawn.append(infer(*args, **options))
        return drawn[0]

    monkeypatch.setattr(inferencer.editor, 'infer', interrupted, raising=False)
    with pytest.raises(KeyboardInterrupt, match='1 of 3 picture') as error:
        inferencer(['a', 'b', 'c'], out_dir=tmp_path, **STEPS)

    assert str(tmp_path) in str(error.value)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ['000.png', 'pictures.json']
    assert len(json.loads((tmp_path / 'pictures.json').read_text())) == 1


def test_pictures_without_a_record(tmp_path):
    Image.new('RGB', (3, 2)).save(tmp_path / 'other.png')
    (tmp_path / 'broken.png').write_bytes(b'no picture')

    with pytest.raises(ValueError, match='3 x 2 pixels'):
        read_picture_record(tmp_path / 'other.png')
    with pytest.raises(ValueError, match='not an image'):
        read_picture_record(tmp_path / 'broken.png')
    with pytest.raises(FileNotFoundError):
        read_picture_record(tmp_path / 'none.png')


def test_a_warning_is_told_once_for_all_pictures(inferencer):
    def told(prompts):
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter('always')
            inferencer(prompts, num_images=3, batch_size=1, **STEPS)
        return [str(each.message) for each in found]

    (one,) = told('a <sketchy> dog')
    assert "'<sketchy>'" in one
    both = told(['a <sketchy> dog', 'a <fresh> dog'])
    assert len(both) == 2 and "'<fresh>'" in both[1]
    assert told('a <sketchy> dog') == [one]  # of another call, again
