"""Draws all pictures of the documents, each by the command that makes it.

    python tools/draw_docs.py                        # hours of two CPU cores
    python tools/draw_docs.py --only dog_sheet.jpg   # minutes

Nothing is chosen by hand: what a command makes is what is shown. Everything is
drawn on the CPU, by the bundled model. A picture that this code and these
weights have drawn already is not drawn again, so a stopped run goes on where
it was; delete ``--work-dir`` to begin anew.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / 'docs' / 'images'
# What decides what a picture looks like.
DRAWN_BY = ('mmhiper', 'configs', 'data', 'docs', 'tools')
SUFFIXES = {'.py', '.csv', '.txt', '.json', '.png', '.safetensors'}


@dataclass(frozen=True)
class Picture:
    """What draws a picture.

    Args:
        command: As a user would type it in the root of the project.
        made: Which file it makes, in the folder of its results; a pattern,
            where its name tells of a setting.
        folder: The option that names this folder.
    """

    command: str
    made: str
    folder: str = '--out-dir'


EVALUATE = 'python tools/mini_sd/evaluate.py'
PAGE = 'python tests/browser.py --iters 150'
PICTURES = {
    'dog_sheet.jpg': Picture(
        'mmhiper edit data/dog.png --pretrained mini-sd '
        '--source "a standing dog on the grass" '
        '--target "a sitting dog on the grass" '
        '--target "a lying dog on the grass" '
        '--target "a jumping dog on the grass" '
        '--target "a standing dog on the beach" '
        '--target "a standing dog in the snow" '
        '--target "a standing dog at night"',
        'sheet.png',
    ),
    'mini_sd.jpg': Picture(f'{EVALUATE} --count 40', 'model.png'),
    'guidance.jpg': Picture(
        'python tools/mini_sd/sweep_guidance.py hiper --steps 25',
        'hiper-*/curve.png',
    ),
    'hiper_n5.jpg': Picture(
        f'{EVALUATE} --editor hiper --individuals 8',
        'hiper_n5_strength0.8.png',
    ),
    'textual_inversion.jpg': Picture(
        f'{EVALUATE} --editor textual_inversion --individuals 8',
        'textual_inversion_vectors1.png',
    ),
    'word_paper.jpg': Picture(
        'mmhiper train configs/textual_inversion/paper.py',
        'previews/iter_005000.png',
        '--work-dir',
    ),
    'word_style.jpg': Picture(
        'mmhiper train configs/textual_inversion/style.py',
        'previews/iter_001000.png',
        '--work-dir',
    ),
    'two_words.jpg': Picture(
        'mmhiper train configs/textual_inversion/two_concepts.py',
        'previews/iter_003000.png',
        '--work-dir',
    ),
    'style_diffusion.jpg': Picture(
        'python tools/mini_sd/evaluate_style_diffusion.py --individuals 2',
        'side_by_side.png',
    ),
    'from_a_picture.jpg': Picture(
        'python docs/draw_from_a_picture.py', 'from_a_picture.png'
    ),
    'alignment.jpg': Picture('python docs/draw_alignment.py', 'alignment.png'),
    'interpolation_dog.jpg': Picture(
        'mmhiper train docs/en/examples/interpolation_dog.py',
        'previews/iter_000500.png',
        '--work-dir',
    ),
    'method.svg': Picture('python docs/draw_method.py', 'method.svg'),
    # these want the extras `web` and `web_tests`, and a Chromium
    'web_personalise.jpg': Picture(PAGE, 'personalise.png'),
    'web_narrow_dark.jpg': Picture(PAGE, 'narrow_dark.png'),
    'web_gallery.jpg': Picture(PAGE, 'gallery.png'),
}


def hash_code() -> str:
    """A hash of all files that pictures depend on, but for this one."""
    digest = hashlib.sha256()
    for name in DRAWN_BY:
        for path in sorted((ROOT / name).rglob('*')):
            if path.suffix in SUFFIXES and path != Path(__file__):
                digest.update(path.relative_to(ROOT).as_posix().encode())
                digest.update(path.read_bytes())
    return digest.hexdigest()


def folder_of(picture: Picture, code: str) -> str:
    """A name for the results of a command, which may be several pictures."""
    command = f'{code} {picture.command}'
    key = hashlib.sha256(command.encode()).hexdigest()[:12]
    same = (n for n, p in PICTURES.items() if p.command == picture.command)
    return f'{Path(next(same)).stem}-{key}'


def run(picture: Picture, folder: Path) -> None:
    """Run the command of a picture, on the CPU."""
    program, *words = shlex.split(picture.command)
    module = ['-m', program] if program == 'mmhiper' else []
    subprocess.run(
        [sys.executable, *module, *words, picture.folder, str(folder)],
        check=True,
        cwd=ROOT,
        env={
            **os.environ,
            'CUDA_VISIBLE_DEVICES': '',
            'PYTHONPATH': str(ROOT / 'docs' / 'en' / 'examples'),
        },
    )


def find(picture: Picture, folder: Path) -> Path:
    """The file that the command of a picture has made."""
    found = sorted(folder.glob(picture.made))
    if len(found) != 1:
        raise FileNotFoundError(
            f'wanted one {picture.made} in {folder}, but found {len(found)}'
        )
    return found[0]


def keep(made: Path, path: Path) -> None:
    """Put a picture where the documents show it, as a JPEG unless drawn."""
    if path.suffix == '.svg':
        shutil.copyfile(made, path)
        return
    with Image.open(made) as image:
        image.convert('RGB').save(path, quality=90, optimize=True)


def main() -> int:
    """Draw what is asked for; 1 if a command failed."""
    parser = argparse.ArgumentParser(
        description='Draws the pictures of the documents.'
    )
    parser.add_argument(
        '--only', nargs='+', choices=PICTURES, metavar='NAME',
        help=f'of {", ".join(PICTURES)}',
    )  # fmt: skip
    parser.add_argument(
        '--work-dir', type=Path, default=ROOT / 'work_dirs' / 'docs'
    )
    args = parser.parse_args()
    code = hash_code()
    failed = []
    for name in args.only or PICTURES:
        picture = PICTURES[name]
        folder = (args.work_dir / folder_of(picture, code)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        done = folder / 'drawn'
        print(f'{name}: {picture.command}', flush=True)
        try:
            if not done.exists():
                run(picture, folder)
                find(picture, folder)
                done.touch()
            keep(find(picture, folder), IMAGES / name)
        except (subprocess.CalledProcessError, OSError) as error:
            failed.append(f'{name}: {error}')
    print('\n'.join(['Failed:', *failed] if failed else ['All drawn.']))
    return int(bool(failed))


if __name__ == '__main__':
    sys.exit(main())
