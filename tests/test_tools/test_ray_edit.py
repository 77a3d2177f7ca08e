"""A local Ray with two workers, one of which is killed at its work."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from runs import REPO, draw_image

from mmhiper.cli.photos import photos_of
from mmhiper.io.export import read_export
from mmhiper.many import personalise

pytest.importorskip(
    'ray.data', reason='Ray, an option: pip install "ray[data]"'
)
NAMES = [f'n{number}' for number in range(6)]
MARK = 'MMHIPER_TEST_RAY'  # in the environment of all that this test starts


def workers(mark: str) -> list[int]:
    """The processes of this test that have a frozen model."""
    found = []
    for folder in Path('/proc').glob('[0-9]*'):
        try:
            name = (folder / 'cmdline').read_bytes()
            ours = (
                f'{MARK}={mark}'.encode() in (folder / 'environ').read_bytes()
            )
        except OSError:  # it has ended, or is another user's
            continue
        if ours and name.startswith(b'ray::') and b'MapWorker' in name:
            found.append(int(folder.name))
    return found


@pytest.mark.skipif(not Path('/proc/self/environ').exists(), reason='no /proc')
def test_a_killed_worker_changes_nothing(tiny_sd1, tmp_path):
    lines = ['name,image,prompt,target']
    for number, name in enumerate(NAMES):
        draw_image(tmp_path / f'{name}.png', number)
        lines.append(f'{name},{name}.png,a {"x" * (number + 1)},a cat')
    table = tmp_path / 'my.csv'
    table.write_text('\n'.join(lines))
    values = {
        'images_per_step': 1,
        'model.sd.pretrained': str(tiny_sd1),
        'model.sd.without_cuda': None,
        'train_cfg.max_iters': 20,
    }
    mark = uuid.uuid4().hex
    out = tmp_path / 'out'
    process = subprocess.Popen(
        [
            sys.executable, REPO / 'tools' / 'ray_edit.py', table,
            '--out-dir', out, '--workers', '2', '--cfg-options',
            *(f'{name}={value}' for name, value in values.items()),
        ],
        env={
            **os.environ,
            MARK: mark,
            'CUDA_VISIBLE_DEVICES': '',
            'OMP_NUM_THREADS': '1',
            'RAY_USAGE_STATS_ENABLED': '0',
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )  # fmt: skip
    try:
        end = time.monotonic() + 300
        # its folder is there: somebody learns it
        while not list(out.glob('n*')) and process.poll() is None:
            assert time.monotonic() < end
            time.sleep(0.1)
        alive = workers(mark)
        assert alive
        os.kill(alive[0], signal.SIGKILL)
        output = process.communicate(timeout=600)[0]
    finally:
        process.kill()

    assert process.returncode == 0, output
    rows = json.loads((out / 'results.json').read_text())
    assert [row['row'] for row in rows] == [*range(len(NAMES))]

    cfg = Config.fromfile(REPO / 'configs' / 'hiper' / 'folder.py')
    cfg.merge_from_dict({**values, 'photos': str(table)})
    personalise(photos_of(cfg), cfg, tmp_path / 'plain')
    for name in NAMES:
        one, other = (
            read_export(folder / name / 'embedding.safetensors')[0]
            for folder in (out, tmp_path / 'plain')
        )
        assert torch.equal(one['embedding.tail'], other['embedding.tail'])
