"""``mmhiper web`` where Gradio is not as it should be."""

import sys

import pytest

from mmhiper.cli import main


def test_gradio_that_is_missing_or_in_bad_company(
    tmp_path, monkeypatch, capsys
):
    def says():
        with pytest.raises(SystemExit) as caught:
            main(['web'])
        assert caught.value.code == 1
        (line,) = capsys.readouterr().err.splitlines()
        return line

    # as a package in this folder describes itself
    about = tmp_path / 'gradio-6.31.0.dist-info'
    about.mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    head = 'Metadata-Version: 2.1\nName: gradio\nVersion: 6.31.0\n'
    needs = 'Requires-Dist: pillow<2.0\n'
    (about / 'METADATA').write_text(head + needs)
    assert 'needs pillow<2.0, but' in says()
    needs = 'Requires-Dist: no-such-package>1\n'
    (about / 'METADATA').write_text(head + needs)
    assert 'needs no-such-package>1, but it is not installed' in says()
    (about / 'METADATA').unlink()
    about.rmdir()
    monkeypatch.setattr(sys, 'path', [str(tmp_path)])
    assert 'needs Gradio, which is not installed: pip install' in says()
