"""Pictures that a browser sends."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from runs import draw_image

from mmhiper.utils.errors import UserError
from mmhiper.web import uploads


def test_uploads_are_upright_and_from_their_folder(tmp_path, monkeypatch):
    monkeypatch.setenv('GRADIO_TEMP_DIR', str(tmp_path / 'uploads'))
    (tmp_path / 'uploads').mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    photo = tmp_path / 'uploads' / 'photo.jpg'
    Image.new('RGB', (3000, 600), 'red').save(photo, exif=exif)
    image, remarks = uploads.read_upload(str(photo))
    assert image.size == (307, uploads.MOST_SIDE) and not remarks

    outside = draw_image(tmp_path / 'outside.png')
    with pytest.raises(UserError, match='Only uploaded'):
        uploads.read_upload(str(outside))
    (tmp_path / 'uploads' / 'link.png').symlink_to(outside)
    with pytest.raises(UserError, match='Only uploaded'):
        uploads.read_upload(str(tmp_path / 'uploads' / 'link.png'))
    photo.write_bytes(b'GIF89a')
    with pytest.raises(UserError, match=r"'photo\.jpg'") as caught:
        uploads.read_upload(str(photo))
    assert str(tmp_path) not in str(caught.value)
    for paths in (None, [str(photo)] * 41):
        with pytest.raises(UserError, match='1 to 40'):
            uploads.read_uploads(paths)


def test_paint_is_the_mask():
    picture = Image.effect_noise((64, 48), 90).convert('RGB')
    layer = Image.new('RGBA', picture.size)
    layer.paste((255, 80, 0, 255), (10, 0, 20, 48))
    painted = dict(background=picture.convert('RGBA'), layers=[layer])
    found, mask = uploads.split_painted(painted)
    assert np.asarray(found).tolist() == np.asarray(picture).tolist()
    assert (np.asarray(mask) == 255).sum() == 10 * 48
    assert uploads.split_painted(painted | {'layers': []})[1] is None
    with pytest.raises(UserError, match='Choose a photo'):
        uploads.split_painted(dict(background=None, layers=[]))
