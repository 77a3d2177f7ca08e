"""What the shell is answered at a TAB."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytest.importorskip('argcomplete')


@pytest.mark.parametrize(
    ('line', 'words'),
    [
        ('mmhiper ', {'train', 'edit', 'infer', 'doctor', '--version'}),
        ('mmhiper in', {'infer', 'info'}),
        ('mmhiper infer --sch', {'--scheduler'}),
        ('mmhiper merge --format ', {'diffusers', 'a1111', 'kohya'}),
        ('mmhiper train --de', {'--debug'}),
        ('mmhiper edit --nothing-like-it', set()),
    ],
)
def test_completion(tmp_path, line, words):
    answer = tmp_path / 'answer'
    subprocess.run(
        [sys.executable, '-c', 'from mmhiper.cli import main; main()'],
        env={
            **os.environ,
            '_ARGCOMPLETE': '1',
            '_ARGCOMPLETE_IFS': '\n',
            '_ARGCOMPLETE_STDOUT_FILENAME': str(answer),
            'COMP_LINE': line,
            'COMP_POINT': str(len(line)),
        },
        check=True,
        timeout=300,
        capture_output=True,
    )
    found = {each.strip() for each in answer.read_text().split('\n')} - {''}
    assert words <= found
    if line[-1] != ' ':
        assert found == words
