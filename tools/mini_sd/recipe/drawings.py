"""Stage ``draw``: the training set, drawn once, kept as memory maps."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import numpy as np

from .common import open_part
from world import caption, draw, sample_scene

SIZE = 128  # pixels
COUNT = 60_000
UNSEEN = 512  # the last drawings; no stage trains on them
CAPTIONS = 5  # per drawing, the last with a name
_CHUNK = 250


def scene_seed(index: int) -> np.random.Generator:
    """Return the generator that draws picture ``index`` and its captions."""
    return np.random.default_rng([2303, index])


def _draw_chunk(start: int) -> tuple[int, np.ndarray]:
    pixels = np.empty((_CHUNK, SIZE, SIZE, 3), np.uint8)
    for k in range(_CHUNK):
        scene = sample_scene(scene_seed(start + k))
        pixels[k] = np.asarray(draw(scene, SIZE))
    return start, pixels


def draw_all(work_dir: Path, processes: int) -> None:
    """Draw ``COUNT`` pictures, going on where a killed run was.

    Writes ``drawings.npy`` (COUNT, 128, 128, 3) uint8 RGB.
    """
    part = work_dir / 'drawings.part.npy'
    drawings = open_part(part, np.uint8, (COUNT, SIZE, SIZE, 3))
    # A part begins as zeros, and no drawing is black all over.
    missing = [
        start
        for start in range(0, COUNT, _CHUNK)
        if not drawings[start + _CHUNK - 1].any()
    ]
    with multiprocessing.Pool(processes) as pool:
        for start, pixels in pool.imap_unordered(_draw_chunk, missing):
            drawings[start : start + _CHUNK] = pixels
    drawings.flush()
    part.replace(work_dir / 'drawings.npy')


def write_captions(work_dir: Path) -> None:
    """Write ``captions.json``, a list of COUNT lists of texts."""
    captions = []
    for index in range(COUNT):
        rng = scene_seed(index)
        scene = sample_scene(rng)
        named = [False] * (CAPTIONS - 1) + [True]
        captions.append([caption(scene, rng, name) for name in named])
    (work_dir / 'captions.json').write_text(json.dumps(captions))


def load_drawings(work_dir: Path) -> np.ndarray:
    """Return the drawings, (COUNT, 128, 128, 3) uint8 RGB, memory-mapped."""
    return np.load(work_dir / 'drawings.npy', mmap_mode='r')


def load_captions(work_dir: Path) -> list[list[str]]:
    """Return the captions, ``CAPTIONS`` texts for each drawing."""
    texts: list[list[str]] = json.loads(
        (work_dir / 'captions.json').read_text()
    )
    return texts
