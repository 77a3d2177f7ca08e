"""What the documents show is what is there, and runs."""

import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from runs import REPO

from mmhiper.models import HiPer

DOCS = REPO / 'docs' / 'en'
PAGES = sorted(DOCS.glob('*.md'))
ALL = [
    *PAGES,
    *(REPO / name for name in ('README.md', 'SECURITY.md')),
    *(REPO / 'configs').glob('*/README.md'),
    *(REPO / 'mmhiper').glob('pretrained/*/README.md'),
]


def blocks(page: str, kind: str) -> dict[str, str]:
    """The code blocks of a page that a comment gives a name."""
    return dict(
        re.findall(
            rf'^<!-- {kind}: (\S+) -->\n```python\n(.*?)^```$',
            (DOCS / page).read_text(),
            re.DOTALL | re.MULTILINE,
        )
    )


def headings(page: Path) -> set[str]:
    """What a link can name in a page, as GitHub calls it."""
    lines = re.findall(r'^#+ (.*)$', page.read_text(), re.MULTILINE)
    words = (re.sub(r'[^\w\- ]', '', line.lower()) for line in lines)
    return {line.replace(' ', '-') for line in words}


@pytest.mark.parametrize(
    'page', ALL, ids=lambda p: f'{p.parent.name}/{p.stem}'
)
def test_links_lead_somewhere(page):
    for link in re.findall(r'\]\(([^):]+)\)', page.read_text()):
        name, _, heading = link.partition('#')
        target = page.parent / name if name else page
        assert target.exists(), link
        assert not heading or heading in headings(target), link


def test_every_page_is_linked_from_the_readme():
    readme = (REPO / 'README.md').read_text()
    for page in PAGES:
        assert f'](docs/en/{page.name})' in readme


def test_the_example_is_shown_as_it_is():
    """The files themselves are run by `pytest docs/en/examples`."""
    shown = blocks('add_an_editor.md', 'file')
    files = {
        path.name: path.read_text() for path in DOCS.glob('examples/*.py')
    }

    assert len(shown) == 3
    assert shown == files


# ------------------------------------------------------------- from mmagic
MMAGIC = blocks('from_mmagic.md', 'test')


def test_our_side_is_our_config():
    shown = Config.fromstring(MMAGIC['ours'], '.py')
    ours = Config.fromfile(
        REPO / 'configs' / 'textual_inversion' / 'textual_inversion.py'
    )

    def check(part, whole) -> None:
        for key, value in part.items():
            if isinstance(value, dict):
                check(value, whole[key])
            else:
                assert whole[key] == value, key

    check(shown, ours)


def test_a_word_of_mmagic_is_used(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr('torch.cuda.is_available', lambda: False)
    table = 'text_encoder.model.text_model.embeddings.token_embedding'
    rows = torch.randn(1, 128, generator=torch.Generator().manual_seed(0))
    state = {f'{table}.trainable_embeddings.<cat-toy>': rows}
    torch.save(dict(state_dict=state), 'iter_3000.pth')
    names: dict = {}

    exec(MMAGIC['word'], names)

    assert names['editor'].placeholders == ['<cat-toy>', '<my-toy>']
    assert names['sample'].size == (128, 128)


@pytest.fixture
def own_scope(monkeypatch):
    """MMEngine's default scope, as a project other than ours has it."""
    monkeypatch.setattr(DefaultScope, '_instance_dict', {})


def run_config(text: str, tmp_path: Path, **more) -> Runner:
    """Trains two iterations by MMEngine's own means."""
    path = tmp_path / 'config.py'
    path.write_text(text)
    cfg = Config.fromfile(path)
    stock = dict(checkpoint=dict(type='CheckpointHook', interval=9))
    values = dict(work_dir=str(tmp_path), default_hooks=stock, **more)
    cfg.merge_from_dict(values)
    cfg.train_cfg.max_iters = 2
    runner = Runner.from_cfg(cfg)
    runner.train()
    return runner


@pytest.mark.usefixtures('own_scope')
def test_the_config_for_another_project_trains(tmp_path):
    runner = run_config(MMAGIC['foreign'], tmp_path, default_scope='mmengine')

    assert isinstance(runner.model, HiPer)
    assert runner.iter == 2


@pytest.mark.usefixtures('own_scope')
def test_a_config_of_the_new_style_trains(tmp_path):
    rest = MMAGIC['foreign'].partition('train_dataloader')
    runner = run_config(
        MMAGIC['lazy'] + '\n' + rest[1] + rest[2],
        tmp_path,
        default_scope='mmengine',
    )

    assert isinstance(runner.model, HiPer)
    assert runner.iter == 2
