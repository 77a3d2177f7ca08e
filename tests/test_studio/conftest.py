"""What people ask of the studio."""

import pytest
from PIL import Image

from mmhiper.studio import requests

EDITS = ('a dog', 'a cat\n\n a  fox ', 'center', 2, 2)


@pytest.fixture
def picture():
    return Image.effect_noise((64, 48), 90).convert('RGB')


@pytest.fixture
def ask(picture):
    """Asks for a photo to be personalised, and edited."""

    def ask(root, *values, pretrained=None, mask=None):
        values = values or EDITS
        return requests.personalise(
            root, picture, mask, *values, pretrained=pretrained
        )

    return ask
