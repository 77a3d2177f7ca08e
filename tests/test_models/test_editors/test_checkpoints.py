"""Contract C4: what a checkpoint holds, and what it refuses to load into."""

import copy

import pytest
import torch
from mmengine.runner import Runner, load_checkpoint
from tiny import make_hiper, picture, train
from torch.utils.data import Dataset


class Pictures(Dataset):
    """A dataset that knows nothing of this package."""

    def __init__(self, count: int = 1) -> None:
        self.items = [dict(inputs=picture(seed)) for seed in range(count)]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict:
        return self.items[index]


def config_of(folder) -> dict:
    return dict(
        type='mmhiper.HiPer',
        sd=dict(type='StableDiffusion', pretrained=str(folder)),
        source_text='a dog',
        n_hiper=3,
    )


def run(folder, work_dir, iterations=2, **options) -> Runner:
    """Trains under the stock Runner, in a foreign scope.

    Its own checkpoints hold pickled objects; the hook makes them plain.
    """
    runner = Runner(
        model=config_of(folder),
        work_dir=str(work_dir),
        experiment_name=f'stock-{work_dir.name}',
        train_dataloader=dict(
            dataset=Pictures(),
            batch_size=1,
            num_workers=0,
            sampler=dict(type='InfiniteSampler', shuffle=False),
        ),
        train_cfg=dict(by_epoch=False, max_iters=iterations),
        optim_wrapper=dict(optimizer=dict(type='Adam', lr=5e-3)),
        default_hooks=dict(
            checkpoint=dict(type='CheckpointHook', interval=2, by_epoch=False)
        ),
        custom_hooks=[dict(type='mmhiper.PlainCheckpointHook')],
        default_scope='mmengine',
        randomness=dict(seed=4),
        **options,
    )
    runner.train()
    return runner


@pytest.fixture(scope='module')
def trained(tiny_sd1, tmp_path_factory):
    """A finished run: its work_dir, and its learned tail."""
    work_dir = tmp_path_factory.mktemp('run')
    runner = run(tiny_sd1, work_dir)
    return work_dir, runner.model.embedding.tail.detach().clone()


def test_the_stock_runner_trains_it(trained, tiny_sd1):
    _, tail = trained

    by_hand = train(make_hiper(tiny_sd1), [picture(0)], 2, seed=4)

    assert torch.equal(tail, by_hand)


def test_only_the_learned_tensor_is_saved(trained):
    work_dir, tail = trained
    path = work_dir / 'iter_2.pth'

    checkpoint = torch.load(path)
    state = checkpoint['state_dict']

    assert list(state) == ['embedding.tail']
    assert torch.equal(state['embedding.tail'], tail)
    assert path.stat().st_size < 100_000
    assert len(checkpoint['optimizer']['state']) == 1


def test_frozen_weights_are_not_logged(trained):
    work_dir, _ = trained
    (log,) = work_dir.glob('*/*.log')

    text = log.read_text()

    assert 'Iter(train)' in text or 'Saving checkpoint' in text
    assert 'conv_in.weight' not in text
    assert 'Name of parameter' not in text


def test_mmengine_loads_it_too(trained, tiny_sd1, tmp_path):
    work_dir, tail = trained
    path = tmp_path / 'checkpoint.pth'
    torch.save(
        dict(state_dict=torch.load(work_dir / 'iter_2.pth')['state_dict']),
        path,
    )
    editor = make_hiper(tiny_sd1)

    load_checkpoint(editor, str(path), strict=True)

    assert torch.equal(editor.embedding.tail, tail)


def test_the_record_survives_saving(trained, tiny_sd1, tmp_path):
    path = tmp_path / 'state.pth'
    torch.save(make_hiper(tiny_sd1).state_dict(), path)

    for state in (
        torch.load(path),
        torch.load(trained[0] / 'iter_2.pth')['state_dict'],
        copy.deepcopy(make_hiper(tiny_sd1)).state_dict(),
    ):
        record = state._metadata['']
        assert record['editor'] == 'HiPer'
        assert record['backbone'] == str(tiny_sd1)


@pytest.fixture(scope='module')
def foreign_states(tiny_sd1, tiny_sd2) -> dict:
    """State dicts that must not load into N = 3 on the SD 1.x model."""
    own = make_hiper(tiny_sd1).state_dict()
    other_editor = copy.deepcopy(own)
    other_editor._metadata['']['editor'] = 'TextualInversion'
    other_backbone = copy.deepcopy(own)
    other_backbone._metadata['']['backbone'] = 'owner/other'
    two = make_hiper(tiny_sd1, source_text=['a', 'b'])
    return {
        'empty': {},
        'longer': make_hiper(tiny_sd1, n_hiper=5).state_dict(),
        'wider': make_hiper(tiny_sd2).state_dict(),
        'wider, no record': {'embedding.tail': torch.zeros(1, 3, 64)},
        'renamed': {'embedding.rows': own['embedding.tail']},
        'more': {**own, 'text_encoder.weight': torch.zeros(1)},
        'more images': two.state_dict(),
        'other editor': other_editor,
        'other backbone': other_backbone,
    }


@pytest.mark.parametrize('loader', ['torch', 'torch, not strict', 'mmengine'])
def test_a_foreign_embedding_is_refused(
    tiny_sd1, foreign_states, tmp_path, loader
):
    editor = make_hiper(tiny_sd1)
    before = editor.embedding.tail.detach().clone()
    path = tmp_path / 'checkpoint.pth'

    for case, state in foreign_states.items():
        torch.save(dict(state_dict=state), path)
        with pytest.raises(ValueError, match='does not belong') as error:
            if loader == 'mmengine':
                load_checkpoint(editor, str(path))
            else:
                editor.load_state_dict(state, strict=loader == 'torch')

        expected, found = str(error.value).splitlines()[1:3]
        assert 'editor HiPer' in expected
        assert f'backbone {tiny_sd1}' in expected
        assert 'embedding.tail (1, 3, 32)' in expected
        assert found.split(':', 1)[1] != expected.split(':', 1)[1], case
        assert torch.equal(editor.embedding.tail, before)


def test_a_plain_mapping_without_a_record_loads(tiny_sd1):
    editor = make_hiper(tiny_sd1)

    editor.load_state_dict({'embedding.tail': torch.ones(1, 3, 32)})

    assert torch.equal(editor.embedding.tail, torch.ones(1, 3, 32))


def test_the_runner_refuses_it_too(trained, tiny_sd2, tmp_path):
    path = tmp_path / 'checkpoint.pth'
    state = torch.load(trained[0] / 'iter_2.pth')['state_dict']
    torch.save(dict(state_dict=state, meta={}), path)

    with pytest.raises(ValueError, match='does not belong'):
        run(tiny_sd2, tmp_path / 'other', load_from=str(path))
