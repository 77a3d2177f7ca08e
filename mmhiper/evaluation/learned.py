"""Whether an editor has learned something, and still follows its text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from mmhiper.evaluation.clip_features import ClipFeatures
from mmhiper.models.drawing import draw
from mmhiper.models.editors import Editor
from mmhiper.utils.pixels import to_pil
from mmhiper.utils.progress import progress_bar

NUM_STEPS = 50  # of DDIM
# a prompt in plain words, pictures with what was learned, and without
Drawn = tuple[str, list[Image.Image], list[Image.Image]]


def draw_comparison(
    editor: Editor, num_images: int, seed: int, **guidance: Any
) -> list[Drawn]:
    """Draws each test prompt with what was learned and without.

    Both start from the same noise.

    Args:
        editor: A trained one.
        num_images: Pictures per prompt.
        seed: Of the first picture, the next ones count on.
        **guidance: ``guidance_scale``, ``guidance_rescale`` and
            ``guidance_interval``, see the editor's ``infer``.

    Returns:
        One per prompt.
    """
    drawn = []
    comparisons = editor.comparisons()
    used = editor.guidance_of(**guidance)
    steps = 2 * NUM_STEPS * len(comparisons)
    with progress_bar(total=steps, desc='drawing', unit='step') as bar:
        for text, learned, plain in comparisons:
            both = []
            for conditioning in (learned, plain):
                pixels = draw(
                    editor.sd,
                    conditioning.repeat_interleave(num_images),
                    used,
                    num_inference_steps=NUM_STEPS,
                    seed=seed,
                    callback=lambda *_: bar.update(),
                )
                both.append([to_pil(picture) for picture in pixels])
            drawn.append((text, both[0], both[1]))
    return drawn


def compare_with_plain(
    features: ClipFeatures,
    sources: list[Image.Image],
    drawn: list[Drawn],
    about: Sequence[Sequence[int]] | None = None,
) -> dict[str, dict[str, float]]:
    """Measures pictures with what was learned and without.

    Args:
        features: The measure.
        sources: The pictures it was learned from.
        drawn: See :func:`draw_comparison`.
        about: Which of the sources each prompt is about, at least one.
            Defaults to all.

    Returns:
        'learned' and 'plain', each with ``image_similarity``, the mean cosine
        to the sources that a prompt is about (CLIP-I of arXiv 2208.12242), and
        ``text_similarity``, to the prompt in plain words (CLIP-T); and, where
        there are several prompts, ``prompt_followed``, the share of pictures
        whose own prompt is the nearest one.
    """
    texts = features.texts([text for text, _, _ in drawn])
    known = features.images(sources)
    wanted = [
        known[list(about[k])] if about else known for k in range(len(drawn))
    ]
    result = {}
    sides = dict(
        learned=[pictures for _, pictures, _ in drawn],
        plain=[pictures for _, _, pictures in drawn],
    )
    for name, side in sides.items():
        pictures = [features.images(each) for each in side]
        result[name] = _measures(pictures, wanted, texts)
    return result


def _measures(
    pictures: list[Tensor], sources: list[Tensor], texts: Tensor
) -> dict[str, float]:
    """The measures of one side."""
    # pictures: (B, P) per prompt, sources: (K, P) likewise, of length one;
    # texts: (T, P)
    every = torch.cat(pictures)
    own = torch.arange(len(texts)).repeat_interleave(len(pictures[0]))
    to_texts = every @ texts.T  # (T * B, T)
    to_sources = [
        (drawn @ wanted.T).mean()
        for drawn, wanted in zip(pictures, sources, strict=True)
    ]
    measures = dict(
        image_similarity=float(torch.stack(to_sources).mean()),
        text_similarity=float(to_texts[torch.arange(len(own)), own].mean()),
    )
    if len(texts) > 1:
        followed = (to_texts.argmax(1) == own).float().mean()
        measures['prompt_followed'] = float(followed)
    return measures
