"""From what was asked for on the page to a work dir that can be trained."""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config
from PIL import Image

from mmhiper.cli.edit import make_config
from mmhiper.models.image_encoder import SUBFOLDER
from mmhiper.models.loading import BUNDLED
from mmhiper.studio.runs import CONFIG, Run
from mmhiper.utils.atomic import atomic_path
from mmhiper.utils.config_file import read_config
from mmhiper.utils.errors import UserError
from mmhiper.utils.names import safe_name
from mmhiper.utils.shipped import shipped

PERSONALISED, WORD, WORDS = 'personalised', 'word', 'edited by words'
PHOTO, MASK, PHOTOS = 'photo.png', 'mask.png', 'photos'
# Those besides StyleDiffusion that edit the words of a picture.
BASELINES = (
    'NullTextInversion',
    'NegativePromptInversion',
    'DirectInversion',
    'DDIMInversion',
)
# What is learned of a photo, in words and as `crop` of `mmhiper edit`.
CROPS = {
    'the square in the middle': 'center',
    'what is painted': 'subject',
    'all of it': 'none',
}
# A photo of the project, and texts to try it with.
EXAMPLE = (
    'data/dog.png',
    'a standing dog on the grass',
    'a sitting dog on the grass\na standing dog in the snow',
)
UNTRAINED = 'inversion.json'  # the config of one that learns nothing
_WORD = shipped('configs/textual_inversion/textual_inversion.py')
_STYLE = shipped('configs/textual_inversion/style.py')
_WORDS = shipped('configs/style_diffusion/dog.py')
_NULL_TEXT = shipped('configs/style_diffusion/dog_null_text.py')
_SHOWN = 8  # points of the curve, and snapshots
_PREVIEWS = 4
_LONGEST = 2000  # letters of a text


def lines_of(text: str) -> list[str]:
    """The texts of a box, one a line."""
    lines = [' '.join(line.split()) for line in (text or '').splitlines()]
    lines = [line for line in lines if line]
    if not lines:
        raise UserError('Say it in words: a box for a text is empty.')
    if any(len(line) > _LONGEST for line in lines):
        raise UserError(f'A text has at most {_LONGEST} letters.')
    return lines


def personalise(
    root: Path,
    picture: Image.Image,
    mask: Image.Image | None,
    source: str,
    targets: str,
    crop: str,
    iterations: int,
    steps: int,
    *,
    pretrained: str | None,
) -> Run:
    """A run that learns one photo by HiPer, and edits it."""
    (shown, *_), edits = lines_of(source), lines_of(targets)
    if crop == 'subject' and mask is None:
        raise UserError('Paint over the subject first, or learn the middle.')
    run = _new_run(root, shown)
    picture.save(run.folder / PHOTO)
    if mask is not None:
        mask.save(run.folder / MASK)
    options = argparse.Namespace(
        mask=str(run.folder / MASK) if mask else None,
        iters=int(iterations),
        pretrained=pretrained,
        crop=crop,
        n_hiper=None,
        strength=None,
        seed=None,
    )
    cfg = make_config(options, run.folder)
    whole = read_config(shipped('configs/hiper/dog.py'))
    cfg.custom_hooks = whole.custom_hooks
    cfg.default_hooks.logger = whole.default_hooks.logger
    cfg.train_dataloader.dataset.img = str(run.folder / PHOTO)
    cfg.model.source_text, cfg.model.target_text = shown, edits[0]
    run.note(kind=PERSONALISED, source=shown, targets=edits, steps=int(steps))
    return _written(run, cfg)


def learn_word(
    root: Path,
    pictures: Sequence[Image.Image],
    word: str,
    initialiser: str,
    is_style: bool,
    iterations: int,
    *,
    pretrained: str | None,
) -> Run:
    """A run that learns a word by Textual Inversion; see `personalise`."""
    (name, *_), (start, *_) = lines_of(word), lines_of(initialiser)
    run = _new_run(root, name.strip('<>'))
    folder = run.folder / PHOTOS
    folder.mkdir()
    for number, picture in enumerate(pictures):
        picture.save(folder / f'{number:02d}.png')
    cfg = read_config(_STYLE if is_style else _WORD)
    as_what = 'a picture of a cat in the style of' if is_style else 'a'
    texts = [f'{as_what} {name}']
    if not is_style:
        texts = [f'a {name} on the beach', f'a {name} at night']
    values = {
        'model.placeholder_token': name,
        'model.initialize_token': start,
        'model.val_prompts': texts,
        'train_dataloader.dataset.data_root': str(run.folder),
        'train_dataloader.dataset.concept_dir': PHOTOS,
        'train_dataloader.dataset.placeholder': name,
        'train_cfg.max_iters': int(iterations),
    }
    cfg.merge_from_dict(values)
    # of the project's own, wherever the page was started
    templates = cfg.train_dataloader.dataset.template
    for model, file in dict(templates).items():
        templates[model] = str(shipped(file))
    _take(cfg, pretrained)
    run.note(kind=WORD, source=start, targets=texts)
    return _written(run, cfg)


def edit_words(
    root: Path,
    picture: Image.Image,
    source: str,
    targets: str,
    baselines: Sequence[str],
    inner_steps: int,
    *,
    pretrained: str | None,
) -> Run:
    """A run that inverts a picture by StyleDiffusion; see `personalise`."""
    (shown, *_), edits = lines_of(source), lines_of(targets)
    run = _new_run(root, shown)
    picture.save(run.folder / PHOTO)
    known = [name for name in BASELINES if name in baselines]
    run.note(kind=WORDS, source=shown, targets=edits, baselines=known)
    for name in ('', *known):
        cfg = read_config(_NULL_TEXT if name == BASELINES[0] else _WORDS)
        if 'num_inner_steps' in cfg.model:
            cfg.model.num_inner_steps = int(inner_steps)
        cfg.model.source_text, cfg.model.target_text = shown, edits[0]
        cfg.train_dataloader.dataset.img = str(run.folder / PHOTO)
        _take(cfg, pretrained)
        if name in BASELINES[1:]:  # they learn nothing
            keep = ('sd', 'source_text', 'target_text')
            kept = {key: cfg.model[key] for key in keep}
            cfg.model = dict(kept, type=name)
        folder = run.folder / name
        folder.mkdir(exist_ok=True)
        file = UNTRAINED if name in BASELINES[1:] else CONFIG
        _written(Run(folder), cfg, file)
    return run


# What is asked for, by kinds; each takes a folder and the values of a form.
REQUESTS: dict[str, Callable[..., Run]] = {
    PERSONALISED: personalise,
    WORD: learn_word,
    WORDS: edit_words,
}


def backbone(pretrained: str | None) -> Any:
    """The config of the frozen model that words are learned on."""
    cfg = read_config(_WORD)
    _take(cfg, pretrained)
    return cfg.model.sd


def _take(cfg: Config, pretrained: str | None) -> None:
    """Puts a backbone into a config, and its image encoder if it has one."""
    if not pretrained:
        return
    cfg.model.sd.update(pretrained=pretrained, without_cuda=None)
    if (Path(BUNDLED.get(pretrained, pretrained)) / SUBFOLDER).is_dir():
        cfg.model.pop('image_encoder', None)  # it takes its own
    elif 'image_encoder' in cfg.model:
        cfg.model.image_encoder.without_cuda = None


def _new_run(root: Path, text: str) -> Run:
    """An empty work dir with a name of its own."""
    root.mkdir(parents=True, exist_ok=True)
    start = safe_name(text)[:40].strip('. ')
    for number in range(1, 10_000):
        folder = root / (start if number == 1 else f'{start} {number}')
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        return Run(folder)
    raise UserError(f'There are too many runs called {start!r}.')


def _written(run: Run, cfg: Config, file: str = CONFIG) -> Run:
    """Writes a config as data, with as many looks as a page wants."""
    cfg.work_dir = str(run.folder)
    most = cfg.train_cfg.get('max_iters', 0)
    looks = max(1, most // _SHOWN)
    for hook in cfg.custom_hooks:
        if hook.type == 'LossCurveHook' and most:
            hook.interval = looks
        elif hook.type == 'PreviewHook' and most:
            hook.interval = max(1, most // _PREVIEWS)  # they cost time
    cfg.default_hooks.checkpoint.interval = looks if most else 50
    cfg.default_hooks.logger.interval = max(1, most // 100) if most else 5
    with atomic_path(run.folder / file) as path:
        path.write_text(json.dumps(cfg.to_dict(), indent=1), 'utf-8')
    try:
        read_config(run.folder / file)
    except UserError:
        shutil.rmtree(run.folder)
        raise
    return run
