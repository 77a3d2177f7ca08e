"""The editors of a bench: their configs, and how each edits a case."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from PIL import Image

from mmhiper.engine.learnable import check_learnable
from mmhiper.engine.together import batches_of, learn
from mmhiper.evaluation.benches import BenchCase
from mmhiper.models.drawing import draw
from mmhiper.models.guidance import Guidance
from mmhiper.registry import DATASETS, MODELS
from mmhiper.utils.atomic import check_writable
from mmhiper.utils.config_file import read_config
from mmhiper.utils.devices import best_device
from mmhiper.utils.errors import UserError
from mmhiper.utils.pixels import to_pil


@dataclass(frozen=True)
class Method:
    """An editor, and the config that comes with the project for it.

    Attributes:
        editor: Its type; empty draws the target text without any picture.
        config: See :func:`read_config`.
    """

    editor: str
    config: str


METHODS = dict(
    style_diffusion=Method('StyleDiffusion', 'style_diffusion/dog'),
    null_text=Method('NullTextInversion', 'style_diffusion/dog_null_text'),
    negative_prompt=Method('NegativePromptInversion', 'style_diffusion/dog'),
    direct=Method('DirectInversion', 'style_diffusion/dog'),
    ddim_p2p=Method('DDIMInversion', 'style_diffusion/dog'),
    hiper=Method('HiPer', 'hiper/dog'),
    textual_inversion=Method(
        'TextualInversion', 'textual_inversion/textual_inversion'
    ),
    plain=Method('', 'hiper/dog'),
)
PLAIN = 'plain'
WORD = '<it>'  # of Textual Inversion
# Of which an editor has as many as its own paper says.
_OF_ITS_PAPER = ('num_steps', 'num_inner_steps', 'inner_steps')
OF_STYLE_DIFFUSION = ('image_encoder', 'attention_weight')
# Words that are no subject.
_SMALL = frozenset(
    re.split(
        ' ',
        'a an the of in on at with and or to by for from is are its his her '
        'photo picture image painting drawing illustration sketch',
    )
)


@dataclass(frozen=True)
class Drawing:
    """What pictures are drawn with.

    Attributes:
        num_inference_steps: Of editors that draw from noise; those that invert
            a picture have as many as their config says.
        seed: Of the noise.
        guidance: Options of ``infer``, of all editors.
    """

    num_inference_steps: int = 50
    seed: int = 1
    guidance: Mapping[str, Any] = field(default_factory=dict)


def method_config(name: str, path: str | None = None) -> Config:
    """The config of a method.

    Args:
        name: Of ``METHODS``.
        path: A config in place of that of the project.

    Returns:
        Of any picture and text.

    Raises:
        ValueError: If there is no such method.
    """
    if name not in METHODS:
        raise UserError(
            f'There is no method {name!r}; those are {", ".join(METHODS)}.'
        )
    method = METHODS[name]
    cfg = read_config(path or method.config)
    if path is None and method.editor not in ('', cfg.model.type):
        change_editor(cfg, method.editor)
        for option in OF_STYLE_DIFFUSION:
            cfg.model.pop(option, None)
    return cfg


def change_editor(cfg: Config, editor: str) -> None:
    """Makes the config of an inversion one of another editor.

    Args:
        cfg: Changed in place.
        editor: A type, which gets as many steps as its own paper takes.
    """
    cfg.model.type = editor
    for option in _OF_ITS_PAPER:
        cfg.model.pop(option, None)


def learned_from(name: str, case: BenchCase) -> tuple[str, ...]:
    """What a method learns from: cases with the same share it.

    Args:
        name: Of the method.
        case: A case.
    """
    if name == PLAIN:
        return ()
    found = (*(case.pictures or (case.image,)), case.source)
    if METHODS[name].editor == 'TextualInversion':
        return (*found, subject_of(case))
    return found


def check_texts(name: str, case: BenchCase) -> None:
    """Refuses a case whose picture nobody describes.

    Raises:
        ValueError: If the method needs to know what it shows.
    """
    if not case.source and METHODS[name].editor not in (
        '',
        'TextualInversion',
    ):
        raise UserError(
            f'{name} needs to know what {case.image!r} shows, which the bench '
            'does not say. Write it into a text file beside the picture, with '
            'its name.'
        )


def build(
    name: str, cfg: Config, sd: Any, case: BenchCase, folder: Path
) -> tuple[Any, Any]:
    """An editor of a case, untrained, and its dataset.

    Args:
        name: Of the method.
        cfg: Its config.
        sd: The frozen model.
        case: Its picture and source text count.
        folder: Where a picture may be put that has to be alone.

    Returns:
        On the device.

    Raises:
        FileNotFoundError: If the picture is not there.
        ValueError: If it cannot be learned from.
    """
    check_texts(name, case)
    model = dict(cfg.model, sd=sd)
    data = dict(cfg.train_dataloader.dataset)
    if 'placeholder' in data:  # learns a word
        model.pop('val_prompts', None)
        model.update(
            placeholder_token=WORD,
            initialize_token=_initializer(sd, subject_of(case)),
        )
        data.update(
            data_root='',
            concept_dir=_concept(case, folder),
            placeholder=WORD,
        )
    else:
        model.update(source_text=case.source, target_text=None)
        data['img'] = case.image
    dataset = DATASETS.build(data)
    editor = MODELS.build(model).to(best_device())
    check_learnable(cfg, dataset, editor)
    return editor, dataset


def learn_alone(editor: Any, dataset: Any, cfg: Config) -> None:
    """Trains an editor, or inverts its picture if that is all there is.

    Args:
        editor: Changed in place.
        dataset: Of its picture.
        cfg: Of the method.
    """
    if hasattr(editor, 'invert') and not hasattr(editor, 'max_iters'):
        editor.invert(**editor.data_preprocessor(pseudo_collate([dataset[0]])))
        editor.eval()
    else:
        learn(editor, batches_of(dataset, cfg), cfg)
    editor.check_learned()


def draw_edit(
    editor: Any, sd: Any, case: BenchCase, drawing: Drawing
) -> dict[str, Image.Image]:
    """Draws the edit of a case.

    Args:
        editor: With what was learned; None for the text alone.
        sd: The frozen model.
        case: Its target text counts.
        drawing: See there.

    Returns:
        'edit', and where the editor inverts the picture 'reconstruction'.
    """
    guidance = drawing.guidance
    if editor is None:
        asked = dict(guidance)
        asked.setdefault('guidance_scale', sd.guidance_scale)
        pixels = draw(
            sd,
            sd.encode_text([case.target]),
            Guidance(
                asked['guidance_scale'],
                asked.get('guidance_rescale', 0.0),
                asked.get('guidance_interval'),
            ),
            num_inference_steps=drawing.num_inference_steps,
            seed=drawing.seed,
        )
        return dict(edit=to_pil(pixels[0]))
    if hasattr(editor, 'invert'):
        drawn = editor.infer(
            case.target,
            return_reconstruction=True,
            show_progress=False,
            **case.options,
            **guidance,
        )
        return dict(
            edit=drawn['samples'][0],
            reconstruction=drawn['reconstructions'][0],
        )
    text = case.target
    if hasattr(editor, 'placeholders'):
        text = with_word(case)
    drawn = editor.infer(
        text,
        num_inference_steps=drawing.num_inference_steps,
        seed=drawing.seed,
        show_progress=False,
        **guidance,
    )
    return dict(edit=drawn['samples'][0])


# ------------------------------------------------------------------- a word
def subject_of(case: BenchCase) -> str:
    """What a word is learned for, in words of the texts.

    Args:
        case: A case.

    Returns:
        What the bench says; else the word of the source text that the edit is
        about; else the first word of the source text that the target text has
        as well, or the first of all.
    """
    if case.subject:
        return case.subject
    if case.blend is not None:
        return case.blend[0][0]
    words = [
        word
        for word in re.findall(r'[^\W\d_]+', case.source or case.target)
        if word.lower() not in _SMALL
    ]
    shared = [word for word in words if _find(word, case.target)]
    return next(iter(shared or words), '')


def with_word(case: BenchCase) -> str:
    """The target text with the learned word in it.

    Args:
        case: A case.

    Returns:
        In place of the subject; where the edit makes another thing of it,
        before that; else at the end.
    """
    target, subject = case.target, subject_of(case)
    if found := subject and _find(subject, target):
        return f'{target[: found.start()]}{WORD}{target[found.end() :]}'
    for word in case.blend[1] if case.blend else ():
        if found := _find(word, target):
            return f'{target[: found.start()]}{WORD} {target[found.start() :]}'
    return f'{target} {WORD}'


def _find(words: str, text: str) -> re.Match[str] | None:
    """Where whole words stand in a text, whatever their capitals."""
    return re.search(rf'(?<!\w){re.escape(words)}(?!\w)', text, re.IGNORECASE)


def _initializer(sd: Any, subject: str) -> str | None:
    """The last word of a subject, if it is one token; None at random."""
    word = subject.split()[-1] if subject else ''
    try:
        sd.row_of(word)
    except UserError:
        return None
    return word


def _concept(case: BenchCase, folder: Path) -> str:
    """A folder with the pictures of a case and nothing else."""
    if case.pictures:
        return str(Path(case.image).parent)
    check_writable(folder)
    shutil.copyfile(case.image, folder / Path(case.image).name)
    return str(folder)
