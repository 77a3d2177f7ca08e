"""Stage ``draw``: the training set, drawn once, kept as memory maps."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import numpy as np

from world import caption, draw, sample_scene

SIZE = 128  # pixels
COUNT = 40_000
UNSEEN = 512  # the last drawings; no stage trains on them
CAPTIONS = 4  # per drawing
_CHUNK = 250


def scene_seed(index: int) -> np.random.Generator:
    """Return the generator that draws picture ``index`` and its captions."""
    return np.random.default_rng([2303, index])


def _draw_chunk(start: int) -> tuple[int, np.ndarray, list[list[str]]]:
    pixels = np.empty((_CHUNK, SIZE, SIZE, 3), np.uint8)
    texts = []
    for k in range(_CHUNK):
        rng = scene_seed(start + k)
        scene = sample_scene(rng)
        pixels[k] = np.asarray(draw(scene, SIZE))
        texts.append([caption(scene, rng) for _ in range(CAPTIONS)])
    return start, pixels, texts


def draw_all(work_dir: Path) -> None:
    """Draw ``COUNT`` pictures, four captions each, into ``work_dir``.

    Writes ``drawings.npy`` (COUNT, 128, 128, 3) uint8 RGB and
    ``captions.json``, a list of COUNT lists of texts.
    """
    part = work_dir / 'drawings.part.npy'
    drawings = np.lib.format.open_memmap(
        part, 'w+', np.uint8, (COUNT, SIZE, SIZE, 3)
    )
    captions: list[list[str]] = [[] for _ in range(COUNT)]
    with multiprocessing.Pool() as pool:
        chunks = pool.imap_unordered(_draw_chunk, range(0, COUNT, _CHUNK))
        for start, pixels, texts in chunks:
            drawings[start : start + _CHUNK] = pixels
            captions[start : start + _CHUNK] = texts
    drawings.flush()
    (work_dir / 'captions.json').write_text(json.dumps(captions))
    part.replace(work_dir / 'drawings.npy')  # last: it says the stage is done


def load_drawings(work_dir: Path) -> np.ndarray:
    """Return the drawings, (COUNT, 128, 128, 3) uint8 RGB, memory-mapped."""
    return np.load(work_dir / 'drawings.npy', mmap_mode='r')


def load_captions(work_dir: Path) -> list[list[str]]:
    """Return the captions, ``CAPTIONS`` texts for each drawing."""
    texts: list[list[str]] = json.loads(
        (work_dir / 'captions.json').read_text()
    )
    return texts
