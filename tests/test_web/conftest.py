"""A server of the page for all tests, and a browser."""

from __future__ import annotations

import browser
import pytest
from inversion import with_image_encoder
from tiny import FAMILIES
from transformers import CLIPImageProcessor


@pytest.fixture(scope='session')
def backbone(tmp_path_factory, tiny_sd1):
    """A tiny model whose pictures and texts can be compared."""
    width = FAMILIES['sd1'].width
    folder = tmp_path_factory.mktemp('backbone') / 'sd1'
    with_image_encoder(tiny_sd1, folder, width, projection=width)
    size = dict(height=32, width=32)
    CLIPImageProcessor(
        size=dict(shortest_edge=32), crop_size=size
    ).save_pretrained(folder / 'feature_extractor')
    return folder


@pytest.fixture(scope='session')
def root(tmp_path_factory):
    return tmp_path_factory.mktemp('work_dirs')


@pytest.fixture(scope='session')
def address(root, backbone):
    options = ('--pretrained', backbone, '--iters', 2, '--steps', 2)
    with browser.serving(root, *options) as found:
        yield found


@pytest.fixture(scope='session')
def browsing():
    with browser.browsing() as found:
        yield found


@pytest.fixture
def chrome(browsing):
    """The browser, whose windows are closed again: each asks for news."""
    yield browsing
    for context in browsing.contexts:
        context.close()
