"""Pictures that a stranger sends."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from runs import draw_image

from mmhiper.studio import uploads
from mmhiper.utils.errors import UserError


def test_uploads_are_upright_and_from_their_folder(tmp_path):
    folder = tmp_path / 'uploads'
    folder.mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    photo = folder / 'photo.jpg'
    Image.new('RGB', (3000, 600), 'red').save(photo, exif=exif)
    image, remarks = uploads.read_upload(str(photo), folder)
    assert image.size == (307, uploads.MOST_SIDE) and not remarks

    outside = draw_image(tmp_path / 'outside.png')
    with pytest.raises(UserError, match='Only uploaded'):
        uploads.read_upload(str(outside), folder)
    (folder / 'link.png').symlink_to(outside)
    with pytest.raises(UserError, match='Only uploaded'):
        uploads.read_upload(str(folder / 'link.png'), folder)
    photo.write_bytes(b'GIF89a')
    with pytest.raises(UserError, match=r"'photo\.jpg'") as caught:
        uploads.read_upload(str(photo), folder)
    assert str(tmp_path) not in str(caught.value)
    for paths in (None, [str(photo)] * 41):
        with pytest.raises(UserError, match='1 to 40'):
            uploads.read_uploads(paths, folder)


def test_paint_is_the_mask():
    picture = Image.effect_noise((64, 48), 90).convert('RGB')
    layer = Image.new('RGBA', picture.size)
    layer.paste((255, 80, 0, 255), (10, 0, 20, 48))
    found, mask = uploads.split_painted(picture.convert('RGBA'), [layer])
    assert np.asarray(found).tolist() == np.asarray(picture).tolist()
    assert (np.asarray(mask) == 255).sum() == 10 * 48
    assert uploads.split_painted(picture, [])[1] is None
    with pytest.raises(UserError, match='Choose a photo'):
        uploads.split_painted(None, [])
