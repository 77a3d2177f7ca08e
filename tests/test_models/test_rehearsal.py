"""Every editor on a device without numbers: nothing waits in a loop."""

from functools import partial

import pytest
import torch
from inversion import with_image_encoder
from mmengine.optim import build_optim_wrapper
from rehearsal import Rehearsal
from tiny import FAMILIES, at_step, batch_of, picture

from mmhiper.apis import list_editors
from mmhiper.models import TextualInversion, run_scheduler
from mmhiper.models.editors.curriculum import CurriculumEditor
from mmhiper.models.editors.inversion import InversionEditor
from mmhiper.models.schedulers import scheduler_names
from mmhiper.registry import MODELS

# those of the package: others are only there when their tests are, too
KINDS = [
    kind
    for kind in list_editors()
    if MODELS.get(kind).__module__.startswith('mmhiper.')
]
INVERTING = [k for k in KINDS if issubclass(MODELS.get(k), InversionEditor)]
BY_STEP = [k for k in KINDS if issubclass(MODELS.get(k), CurriculumEditor)]
LEARNING = [k for k in KINDS if k in BY_STEP or k not in INVERTING]
OPTIONS = dict(
    HiPer=dict(source_text='a dog', target_text='a cat', n_hiper=3),
    TextualInversion=dict(
        placeholder_token='<cat-toy>',
        initialize_token='x',
        num_vectors_per_token=2,
        progressive_interval=1,
        embedding_reg_weight=0.1,
    ),
    ExtendedTextualInversion=dict(
        placeholder_token='<cat-toy>', initialize_token='x'
    ),
    ProSpect=dict(
        placeholder_token='<cat-toy>', initialize_token='x', num_stages=4
    ),
)
INVERSION = dict(source_text='a dog', target_text='a cat', num_steps=2)
# What happens once, when a picture is first seen: it is encoded with noise
# that was drawn on the CPU, the noise schedule is copied to the device, and
# StyleDiffusion loads its image encoder.
ONCE = (
    'base.encode_image',
    'noise.add_noise',
    'image_encoder._load',
    'image_encoder.encode',
)
# Where a draw starts: noise that was drawn on the CPU, what steers attention,
# and whether what was learned is finite.
STARTS = (
    'drawing.draw_latents',
    'base._check_finite',
    'prompt_to_prompt.__init__',
    'prompt_to_prompt.marks_of',
)
# The one place in a loop: whether a timestep of the curriculum is done.
STOP = 'curriculum.train_step'
# Of diffusers, in each step: those that add noise draw it on the CPU, so that
# every device draws the same picture, and UniPC makes its coefficients anew.
WAITING = {
    'DDPMScheduler',
    'EulerAncestralDiscreteScheduler',
    'KDPM2AncestralDiscreteScheduler',
    'LCMScheduler',
    'UniPCMultistepScheduler',
}

pytestmark = [
    pytest.mark.filterwarnings('ignore:.* timesteps are trained'),
    pytest.mark.filterwarnings('ignore:.* copying from a non-meta parameter'),
]


@pytest.fixture(scope='module')
def folders(
    tiny_sd1, tiny_sd2, tiny_sdxl, tiny_ldm, tiny_sd35, tmp_path_factory
):
    """A model of each family, with an image encoder where there is a use."""
    target = tmp_path_factory.mktemp('rehearsal')
    inverted = {
        name: with_image_encoder(folder, target / name, FAMILIES[name].width)
        for name, folder in (('sd1', tiny_sd1), ('sd2', tiny_sd2))
    }
    return dict(inverted, sdxl=tiny_sdxl, ldm=tiny_ldm, sd3=tiny_sd35)


def make(folder, kind, **options):
    """An editor of a kind, on the CPU."""
    config = dict(
        type=f'mmhiper.{kind}',
        sd=dict(type='StableDiffusion', pretrained=str(folder)),
        **OPTIONS.get(kind, INVERSION),
    )
    return MODELS.build({**config, **options})


def raw():
    """A batch as the dataset gives it, with a mask only where one is set."""
    data = batch_of([picture(0)], [0])
    prompts = ['a <cat-toy>', 'x <cat-toy>']
    data['data_samples'][0].set_metainfo(dict(prompts=prompts))
    return data


def train(editor, first, last, make_batch=raw):
    """Iterations of a run."""
    optimizer = build_optim_wrapper(
        editor, dict(optimizer=dict(type='Adam', lr=1e-2))
    )
    for iteration in range(first, last):
        at_step(iteration)
        log = editor.train_step(make_batch(), optimizer)
    return log


def go_on(editor, iteration):
    """One iteration of an editor that learns, else its inversion."""
    if list(editor.parameters()):
        train(editor, iteration, iteration + 1)
    else:
        editor.invert(**editor.data_preprocessor(raw(), True))


def see(editor):
    """Has an editor see its picture."""
    with Rehearsal(*ONCE, STOP, reads=1.0):
        go_on(editor, 0)
    return editor


@pytest.fixture(scope='module')
def seen(folders):
    """Editors on the device that have seen their picture, by kind."""
    return {kind: see(make(folders['sd1'], kind).to('meta')) for kind in KINDS}


# ------------------------------------------------------------- the rehearsal
def mistakes():
    there, here = torch.ones(3, 3, device='meta'), torch.ones(3, 3)
    scalar = torch.ones((), dtype=torch.int64, device='meta')
    return {
        'item': lambda: scalar.item(),
        'tolist': lambda: there.tolist(),
        'int': lambda: int(scalar),
        'float': lambda: float(there.sum()),
        'if': lambda: 1 if there.any() else 0,
        'a scalar as an index': lambda: there[scalar],
        'a scalar as an index of numbers': lambda: here[scalar],
        'a scalar as a step': lambda: list(range(9))[scalar],
        'a mask as an index': lambda: there[there > 0],
        'a list as an index': lambda: there[[0, 2]],
        'a list as a target': lambda: there.__setitem__([0, 2], 1.0),
        'an index on the CPU': lambda: there[torch.tensor([0, 2])],
        'nonzero': lambda: there.nonzero(),
        'where': lambda: torch.where(there > 0),
        'unique': lambda: there.unique(),
        'equal': lambda: torch.equal(there, there),
        'cpu': lambda: there.cpu(),
        'to': lambda: there.to('cpu'),
        'copy to the CPU': lambda: here.copy_(there),
        'another device': lambda: there + here,
        'a product of devices': lambda: there @ here,
        'a copy that blocks': lambda: here.to('meta'),
        'a copy in place that blocks': lambda: there.copy_(here),
        'numbers of Python': lambda: torch.tensor([1.0], device='meta'),
    }


@pytest.mark.parametrize('name', mistakes())
def test_a_mistake_is_seen(name):
    mistake = mistakes()[name]

    with Rehearsal(), pytest.raises(AssertionError):
        mistake()


def test_what_is_asynchronous_may_be_done():
    there, here = torch.ones(3, 3, device='meta'), torch.ones(3, 3)

    with Rehearsal() as rehearsal:
        moved = here.to('meta', non_blocking=True)
        there.copy_(here, non_blocking=True)
        results = [
            moved * here[0, 0],  # a scalar is an argument of the kernel
            there[torch.arange(2, device='meta')],
            torch.stack([there[row] for row in [0, 2]]),
            torch.zeros(3, device='meta').fill_(2.0),
            there.double(),
        ]

    assert all(each.is_meta for each in results)
    assert here.tolist() == [[1.0] * 3] * 3
    assert not rehearsal.waits


# ------------------------------------------------------------------ training
@pytest.mark.parametrize('kind', LEARNING)
def test_training(seen, kind):
    editor = seen[kind]

    with Rehearsal(STOP, reads=1.0) as rehearsal:
        log = train(editor, 1, 2)

    assert rehearsal.waits == ({STOP: 1} if kind in BY_STEP else {})
    assert log['loss'].is_meta
    assert all(weight.is_meta for weight in editor.parameters())


@pytest.mark.parametrize(
    ('kind', 'family'),
    [
        ('HiPer', 'sd2'),
        ('HiPer', 'sdxl'),
        ('HiPer', 'sd3'),
        ('TextualInversion', 'sdxl'),
        ('TextualInversion', 'sd3'),
        ('TextualInversion', 'ldm'),
    ],
)
def test_training_of_other_families(folders, kind, family):
    editor = see(make(folders[family], kind).to('meta'))

    with Rehearsal():
        train(editor, 1, 2)


def test_training_with_a_mask(folders):
    def masked():
        data = raw()
        mask = torch.zeros(80, 80, dtype=torch.uint8)
        mask[20:60, 20:60] = 255
        data['data_samples'][0].set_data(dict(mask=mask))
        return data

    kind = 'TextualInversion'
    editor = make(folders['sd1'], kind, hold_outside=0.5).to('meta')
    picture_and_mask = masked()  # the same tensors each time, as of a dataset
    with Rehearsal(*ONCE, 'data_preprocessor._share_of'):
        train(editor, 0, 1, lambda: dict(picture_and_mask))

    with Rehearsal():
        train(editor, 1, 2, lambda: dict(picture_and_mask))


@pytest.mark.parametrize('kind', KINDS)
def test_the_fixed_losses(seen, kind):
    editor = seen[kind]
    data = editor.data_preprocessor(raw(), False)

    with Rehearsal():
        losses = editor.fixed_losses(**data, draws=3)

    if kind in INVERTING:
        assert losses is None
    else:
        assert losses.shape == (3,)


@pytest.mark.parametrize('kind', KINDS)
def test_resuming(folders, kind):
    before = make(folders['sd1'], kind)
    go_on(before, 0)
    editor = make(folders['sd1'], kind).to('meta')
    editor.load_state_dict(before.state_dict())

    # whether it is the same picture, once
    with Rehearsal(*ONCE, STOP, 'curriculum.invert') as rehearsal:
        go_on(editor, 1)

    assert rehearsal.waits['curriculum.invert'] == (kind in BY_STEP)
    if kind == 'TextualInversion':
        assert set(editor.embedding.active.values()) == {2}  # one before
    if kind in BY_STEP:  # a loss of 0 is the last of its timestep
        assert (before.position, before.inner_step) in [(0, 1), (1, 0)]
        assert editor.position == before.position + 1


# ----------------------------------------------------------------- inversion
@pytest.mark.parametrize('kind', INVERTING)
def test_inversion(folders, kind):
    editor = make(folders['sd2'], kind).to('meta')
    data = editor.data_preprocessor(raw(), True)

    with Rehearsal('image_encoder._load', 'image_encoder.encode'):
        inversion = editor.invert(**data)

    assert len(inversion.latents) == 3
    assert all(latents.is_meta for latents in inversion.latents)


# ------------------------------------------------------------------- drawing
def ends(rehearsal):
    """What a draw has waited for, but for its start."""
    return {k: n for k, n in rehearsal.waits.items() if k not in STARTS}


@pytest.mark.parametrize('kind', ['HiPer', 'DDIMInversion'])
def test_prediction(seen, kind, monkeypatch):
    editor = seen[kind]
    # two steps in place of fifty
    inverts = isinstance(editor, InversionEditor)
    if not inverts:
        few = partial(editor.sample, num_inference_steps=2)
        monkeypatch.setattr(editor, 'sample', few)
    end = 'pixels.as_return_type' if inverts else 'pixels.to_uint8'
    samples = editor.data_preprocessor(raw(), False)['data_samples']

    with Rehearsal(*STARTS, end, reads=1.0) as rehearsal:
        (sample,) = editor.predict(samples)

    assert ends(rehearsal) == {end: 1}
    assert sample.edited.shape == (3, 64, 64)


@pytest.mark.parametrize('kind', KINDS)
def test_a_preview(seen, kind):
    editor = seen[kind]
    end = 'pixels.to_uint8'

    with Rehearsal(*STARTS, end, reads=1.0) as rehearsal:
        panels = editor.preview(**steps(editor, 2))

    assert ends(rehearsal) == {end: len(panels)}


def steps(editor, count):
    """Of sampling; an inversion has its own."""
    if isinstance(editor, InversionEditor):
        return {}
    return dict(num_inference_steps=count)


@pytest.mark.parametrize('kind', KINDS)
def test_inference(seen, kind):
    editor = seen[kind]
    options = steps(editor, 2)
    prompt = 'a cat'
    if isinstance(editor, TextualInversion):
        prompt = 'a <cat-toy>'
    if isinstance(editor, InversionEditor):
        # everything that acts within a step
        options = dict(blend_words=('dog', 'cat'), tau_u=1.0, tau_v=1.0)
        options['reweight'] = {'cat': 2.0}

    end = 'pixels.as_return_type'
    with Rehearsal(*STARTS, end, reads=1.0) as rehearsal:
        drawn = editor.infer(
            prompt, show_progress=False, return_type='tensor', **options
        )

    assert ends(rehearsal) == {end: 1}
    assert drawn['samples'].shape == (1, 3, 64, 64)


@pytest.mark.parametrize('family', ['sd2', 'sdxl', 'ldm', 'sd3'])
def test_sampling(folders, family):
    editor = make(folders[family], 'HiPer').to('meta')
    text = editor.condition(['a cat'] * 2)

    with Rehearsal('drawing.draw_latents') as rehearsal:
        pixels = editor.sample(text, num_inference_steps=2)

    assert rehearsal.waits == {'drawing.draw_latents': 1}
    assert pixels.is_meta


@pytest.mark.parametrize('scheduler', [*scheduler_names(), 'eta'])
def test_schedulers(seen, scheduler):
    sd = seen['HiPer'].sd
    eta = 0.5 if scheduler == 'eta' else 0.0

    with Rehearsal('sampling.run_scheduler') as rehearsal:
        latents = run_scheduler(
            lambda latents, timestep: 0.1 * latents,
            torch.zeros(1, 4, 8, 8, device='meta'),
            sd.process.make_sampler(None if eta else scheduler),
            6,
            eta=eta,
            generator=torch.Generator(),
        )

    assert bool(rehearsal.waits) == (scheduler in {*WAITING, 'eta'})
    assert latents.is_meta
