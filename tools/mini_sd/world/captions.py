"""What is said of a scene: a random part of what is drawn."""

from __future__ import annotations

import re

import numpy as np

from .scene import EYES, Scene

NAME = '*'  # stands where a proper name would: the word of one individual
PLACE_WORDS = {
    'grass': ('on the grass', 'on grass'),
    'beach': ('on the beach', 'on a beach'),
    'snow': ('in the snow', 'in snow'),
    'room': ('in a room', 'in the room'),
    'night': ('at night',),
}
ACCESSORY_WORDS = {
    'hat': ('wearing a {} hat', 'with a {} hat'),
    'scarf': ('wearing a {} scarf', 'with a {} scarf'),
    'ball': ('with a {} ball',),
}
# The words around the subject that templates of Textual Inversion use. They
# say nothing here, and so the model learns that they change nothing.
DETERMINERS = ('a', 'a', 'a', 'a', 'a', 'the', 'the', 'my', 'one')
MEDIA = (
    *('photo', 'photo', 'photo', 'photo', 'picture', 'picture', 'painting'),
    *('rendering', 'rendition', 'depiction', 'illustration', 'drawing'),
)
QUALITIES = ('good', 'nice', 'cool', 'weird', 'clean', 'dirty')
FRAMINGS = ('cropped', 'close-up', 'small', 'large')
SHADES = {-1: 'dark', 0: '', 1: 'light'}
EYE_WORDS = dict(zip(EYES['cat'], ('green', 'yellow', 'blue'), strict=True))


def _join(words: list[str]) -> str:
    if len(words) < 2:
        return ''.join(words)
    return ', '.join(words[:-1]) + ' and ' + words[-1]


def _size(value: float, small: float, big: float) -> str:
    """A word for what differs from the usual."""
    return 'small ' if value < small else 'big ' if value > big else ''


def _details(
    scene: Scene, rng: np.random.Generator, share: float
) -> list[str]:
    """Statements about the individual, each with probability ``share``."""
    who = scene.individual
    robot = who.species == 'robot'
    mark = '' if scene.style == 'sketch' else who.mark_name + ' '
    said = []
    if who.pattern == 'spotted':
        size = _size(max(r for _, _, r in who.spots), 0.25, 0.25)
        said.append(f'{size if rng.random() < 0.5 else ""}{mark}spots')
    if not robot:
        if who.pattern == 'striped':
            said.append(f'{mark}stripes')
        if who.eye_patch:
            said.append(f'a {mark}eye patch')
        if who.blaze:
            said.append(f'a {mark}blaze')
        if who.chest:
            said.append(f'a {mark}chest')
        if who.socks:
            said.append(f'{mark}paws')
        said.append(_ears(scene, rng, mark))
        if rng.random() < 0.5:
            said.append(f'a {who.tail} tail')
        if who.eye in EYE_WORDS and scene.style != 'sketch':
            said.append(f'{EYE_WORDS[who.eye]} eyes')
        if who.collar_name and scene.accessory != 'scarf':
            colour = '' if scene.style == 'sketch' else who.collar_name + ' '
            said.append(f'a {colour}collar')
    else:
        said.append(f'{mark}hands')
        if who.eye_patch:
            said.append(f'a {mark}face')
    said = [words for words in said if words and rng.random() < share]
    return [said[i] for i in rng.permutation(len(said))]


def _ears(scene: Scene, rng: np.random.Generator, mark: str) -> str:
    """What is said of an animal's ears, empty where they are as usual."""
    who = scene.individual
    size = _size(who.ear_size, 0.98, 1.12) if rng.random() < 0.5 else ''
    if who.marked_ears:
        return f'{size}{mark}ears'
    if who.species == 'dog':
        return f'{size}{"pointy" if who.pointy_ears else "floppy"} ears'
    return f'{size}ears' if size else ''


def _adjectives(
    scene: Scene, rng: np.random.Generator, share: float
) -> list[str]:
    who = scene.individual
    words = []
    if who.girth < 0.92 and rng.random() < share * 0.6:
        words.append('slim')
    if who.girth > 1.08 and rng.random() < share * 0.6:
        words.append('chubby')
    if who.leg > 1.05 and rng.random() < share * 0.4:
        words.append('tall')
    if scene.style != 'sketch' and rng.random() < share + 0.1:
        shade = SHADES[who.shade] if rng.random() < 0.6 else ''
        words.append(f'{shade} {who.fur_name}'.strip())
    return words


def _opening(scene: Scene, rng: np.random.Generator) -> tuple[str, str]:
    """What comes before the subject, and what may come after everything."""
    sketch = scene.style == 'sketch'
    determiner = str(rng.choice(DETERMINERS))
    if rng.random() < 0.55 and not sketch:
        return determiner, ''
    medium, ending = str(rng.choice(MEDIA)), ''
    if sketch and rng.random() < 0.7:
        medium = 'pencil sketch'
    elif sketch:
        ending = 'in the style of a pencil sketch'
    quality = ''
    if rng.random() < 0.5:
        light = 'dark' if scene.place == 'night' else 'bright'
        neutral = rng.random() < 0.8 or sketch
        words = (*QUALITIES, *FRAMINGS) if neutral else (light,)
        quality = str(rng.choice(words))
    first = str(rng.choice(('a', 'a', 'a', 'the')))
    return f'{first} {quality} {medium} of {determiner}', ending


def _opinion(scene: Scene, rng: np.random.Generator) -> list[str]:
    """Seldom a word about the subject that leaves open how it looks."""
    if rng.random() > 0.08:
        return []
    girth = scene.individual.girth
    sizes = ('large',) if girth > 1.08 else ('small',) if girth < 0.92 else ()
    return [str(rng.choice((*QUALITIES, *sizes)))]


def _around(
    scene: Scene, rng: np.random.Generator, pose: bool, share: float
) -> str:
    """Statements about what the individual does, where and with what."""
    words = [scene.pose] if pose else []
    if rng.random() < share:
        words.append(str(rng.choice(PLACE_WORDS[scene.place])))
    if scene.accessory and rng.random() < share + 0.05:
        colour = scene.accessory_name
        if scene.style == 'sketch' or rng.random() < 0.2:
            colour = ''
        said = str(rng.choice(ACCESSORY_WORDS[scene.accessory]))
        words.append(said.format(colour))
    return ' '.join(words)


def caption(
    scene: Scene, rng: np.random.Generator, named: bool = False
) -> str:
    """Return one sentence about ``scene``.

    One in six captions is short ("a sitting dog"), one in six names the fur
    and few marks, as people write; the others name the fur and most marks, so
    that the text space can carry an identity.

    Args:
        scene: What is drawn.
        rng: Decides what is said.
        named: Say who it is with a name, ``NAME``, and nothing else of how the
            individual looks.
    """
    who = scene.individual
    kind = rng.random()
    short = named or kind < 0.17
    share = 0.0 if short else 0.2 if kind < 0.35 else 0.85
    details = _details(scene, rng, share)
    noun = 'toy robot' if who.species == 'robot' else who.species
    adjectives = _opinion(scene, rng)
    if named:
        noun = NAME
    else:
        adjectives += _adjectives(scene, rng, 0.0 if short else 0.85)
    named_pose = rng.random() < (0.6 if named else 0.85)
    pose_first = rng.random() < 0.5
    if named_pose and pose_first:
        adjectives.insert(0, scene.pose)
    if details and rng.random() < 0.3 and who.pattern != 'plain':
        adjectives.append(who.pattern)
    opening, ending = _opening(scene, rng)
    around = _around(
        scene, rng, named_pose and not pose_first, 0.5 if short else 0.85
    )
    parts = [around, 'with ' + _join(details) if details else '']
    if rng.random() < 0.5:
        parts.reverse()
    text = ' '.join([opening, *adjectives, noun, *parts, ending])
    return re.sub(r'\ba (?=[aeiou])', 'an ', ' '.join(text.split()))
