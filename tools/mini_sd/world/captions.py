"""What is said of a scene: a random part of what is drawn."""

from __future__ import annotations

import numpy as np

from .scene import Scene

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
OPENINGS = ('a', 'a', 'a', 'a', 'a', 'a photo of a', 'a picture of a', 'the')
SHADES = {-1: 'dark', 0: '', 1: 'light'}


def _join(words: list[str]) -> str:
    if len(words) < 2:
        return ''.join(words)
    return ', '.join(words[:-1]) + ' and ' + words[-1]


def _details(
    scene: Scene, rng: np.random.Generator, share: float
) -> list[str]:
    """Statements about the individual, each with probability ``share``."""
    who = scene.individual
    robot = who.species == 'robot'
    mark = '' if scene.style == 'sketch' else who.mark_name + ' '
    said = []
    if who.pattern == 'spotted':
        big = max(r for _, _, r in who.spots) > 0.25
        size = ('big ' if big else 'small ') if rng.random() < 0.5 else ''
        said.append(f'{size}{mark}spots')
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
        if who.marked_ears:
            said.append(f'{mark}ears')
        elif who.species == 'dog':
            said.append('pointy ears' if who.pointy_ears else 'floppy ears')
        if rng.random() < 0.5:
            said.append(f'a {who.tail} tail')
        if who.collar_name and scene.accessory != 'scarf':
            colour = '' if scene.style == 'sketch' else who.collar_name + ' '
            said.append(f'a {colour}collar')
    else:
        said.append(f'{mark}hands')
    said = [words for words in said if rng.random() < share]
    return [said[i] for i in rng.permutation(len(said))]


def _adjectives(
    scene: Scene, rng: np.random.Generator, share: float
) -> list[str]:
    who = scene.individual
    words = []
    if who.girth < 0.92 and rng.random() < share * 0.6:
        words.append('slim')
    if who.girth > 1.08 and rng.random() < share * 0.6:
        words.append('chubby')
    if scene.style != 'sketch' and rng.random() < share + 0.1:
        shade = SHADES[who.shade] if rng.random() < 0.6 else ''
        words.append(f'{shade} {who.fur_name}'.strip())
    return words


def caption(scene: Scene, rng: np.random.Generator) -> str:
    """Return one sentence about ``scene``.

    One in six captions is short ("a sitting dog"); the others name the fur
    and most marks, so that the text space can carry an identity.
    """
    who = scene.individual
    short = rng.random() < 0.17
    share = 0.0 if short else 0.85
    noun = 'toy robot' if who.species == 'robot' else who.species
    adjectives = _adjectives(scene, rng, share)
    details = _details(scene, rng, share)
    named_pose = rng.random() < 0.85
    pose_first = rng.random() < 0.5
    if named_pose and pose_first:
        adjectives.insert(0, scene.pose)
    if details and rng.random() < 0.3 and who.pattern != 'plain':
        adjectives.append(who.pattern)
    head = ' '.join([*adjectives, noun])
    opening = str(rng.choice(OPENINGS))
    parts = []
    if details:
        parts.append('with ' + _join(details))
    tail = []
    if named_pose and not pose_first:
        tail.append(scene.pose)
    if rng.random() < (0.5 if short else 0.85):
        tail.append(str(rng.choice(PLACE_WORDS[scene.place])))
    if scene.accessory and rng.random() < (0.5 if short else 0.9):
        colour = scene.accessory_name
        if scene.style == 'sketch' or rng.random() < 0.2:
            colour = ''
        words = str(rng.choice(ACCESSORY_WORDS[scene.accessory]))
        tail.append(' '.join(words.format(colour).split()))
    middle = [' '.join(tail)] if tail else []
    parts = middle + parts if rng.random() < 0.5 else parts + middle
    text = ' '.join([opening, head, *parts])
    if scene.style == 'sketch':
        text = 'a pencil sketch of ' + text.removeprefix(
            'a photo of '
        ).removeprefix('a picture of ')
    return ' '.join(text.split()).replace(' a eye', ' an eye')
