"""A page about what a run has learned, as model hubs show it."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml

from mmhiper.io.export import document_of
from mmhiper.io.file_content import read_safetensors
from mmhiper.io.modelspec import (
    fields_in,
    is_hub_id,
    kind_of,
    public_name,
    words_of,
)
from mmhiper.io.record import Record, read_record, to_json
from mmhiper.utils.atomic import atomic_path
from mmhiper.utils.reading import printable
from mmhiper.utils.work_dir import find_checkpoint, read_found

CARD = 'README.md'
# Without this line a card is its reader's own, and stays as it is.
MARK = '<!-- mmhiper writes this page anew; delete this line to keep it -->'
_PAPERS = {
    'HiPer': 'HiPer (arXiv 2303.08767): positions of the text embedding that '
    'hold one picture',
    'TextualInversion': 'Textual Inversion (arXiv 2208.01618): a word for '
    'what a few pictures show',
    'ExtendedTextualInversion': 'P+ (arXiv 2303.09522): a word with vectors '
    'for each layer',
    'ProSpect': 'ProSpect (arXiv 2305.16225): a word with vectors for each '
    'stage of the noise',
    'StyleDiffusion': 'StyleDiffusion (arXiv 2303.15649): the value input of '
    'cross-attention for one picture',
    'NullTextInversion': 'Null-text inversion (arXiv 2211.09794) of one '
    'picture',
    'NegativePromptInversion': 'Negative-prompt inversion (arXiv 2305.16807) '
    'of one picture',
    'DirectInversion': 'Direct inversion (arXiv 2310.01506) of one picture',
}
# What the hub knows by these names; any other is "other" there.
_LICENSES = re.compile(
    r'apache-2\.0|mit|bsd(-[23]-clause)?|(a|l)?gpl-3\.0|openrail(\+\+)?|'
    r'creativeml-openrail-m|cc0-1\.0|cc-by(-nc)?(-sa|-nd)?-[234]\.0|'
    r'unlicense|wtfpl'
)
# Families of which other programs know words.
_WORDS = re.compile(r'stable-diffusion-(v1|v2-512|v2-768-v|xl-v1-base)/')
_LONGEST = 1_000_000  # characters of a card that are looked at
_LOSSES, _TIMELINE, _SHEET = 'loss.png', 'timeline.png', 'sheet.png'


@dataclass(frozen=True)
class Learned:
    """What a card is about.

    Attributes:
        file: The export, by the name that it has beside the card.
        record: What its tensors belong to.
        fields: Its fields of :mod:`mmhiper.io.modelspec`.
        settings: Of the training, by dotted names.
    """

    file: str
    record: Record
    fields: Mapping[str, str]
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def editor(self) -> str:
        """Its type."""
        return self.record.editor or 'embedding'

    @property
    def arguments(self) -> dict[str, Any]:
        """Of the editor's constructor."""
        return self.record.arguments or {}

    @property
    def words(self) -> list[str]:
        """Those that were learned."""
        return words_of(self.arguments)

    @property
    def model(self) -> str:
        """The frozen model, without the folders of a machine."""
        return public_name(self.record.backbone or '')

    @property
    def prompt(self) -> str:
        """One to try."""
        found = self.arguments.get('target_text')
        found = found or self.arguments.get('val_prompts')
        found = found[0] if isinstance(found, list) and found else found
        if isinstance(found, str):
            return printable(found)
        return f'a photo of {self.words[0]}' if self.words else 'YOUR TEXT'


def read_learned_of(checkpoint: Path, work_dir: Path) -> Learned | None:
    """What a card says of a checkpoint; None without an export beside it."""
    export = checkpoint.with_suffix('.safetensors')
    if not export.is_file():
        return None
    metadata = read_safetensors(export)[1]
    record = read_record(document_of(metadata, export), export)
    found = read_found(checkpoint)
    settings = found.run.get('settings') if found else None
    if not isinstance(settings, Mapping):
        settings = {}
    file = os.path.relpath(export, work_dir)
    return Learned(file, record, fields_in(metadata), settings)


def pictures_in(work_dir: Path) -> list[str]:
    """The pictures of a run that a card shows, by their paths in it."""
    previews = sorted(work_dir.glob('previews/iter_*.png'))[-1:]
    names = [f'previews/{file.name}' for file in previews]
    names += [_SHEET, _TIMELINE, _LOSSES]
    return [name for name in names if (work_dir / name).is_file()]


def is_ours(card: Path) -> bool:
    """Whether a card may be written anew, or for the first time."""
    if not card.is_file():
        return not card.exists()
    with card.open(encoding='utf-8', errors='replace') as file:
        return MARK in file.read(_LONGEST)


def write_card(
    work_dir: str | Path, checkpoint: str | Path | None = None
) -> Path | None:
    """Writes the page of a run into its folder.

    Args:
        work_dir: With a checkpoint.
        checkpoint: Which; by default the newest.

    Returns:
        The page; None if there is one that somebody else wrote, or no export
        beside the checkpoint.
    """
    work_dir = Path(work_dir)
    card = work_dir / CARD
    if not is_ours(card):
        return None
    last = Path(checkpoint) if checkpoint else find_checkpoint(work_dir)
    learned = read_learned_of(last, work_dir)
    if learned is None:
        return None
    text = card_of(learned, pictures_in(work_dir))
    with atomic_path(card) as temporary:
        temporary.write_text(text, encoding='utf-8')
    return card


def card_of(learned: Learned, pictures: Sequence[str]) -> str:
    """The page.

    Args:
        learned: What it is about.
        pictures: Paths from the page.

    Returns:
        Markdown behind YAML, as hubs take it.
    """
    title = learned.fields.get('title') or learned.editor
    said = learned.fields.get('license')
    parts = [
        f'---\n{_front(learned)}---\n\n# {_plain(title)}\n\n{MARK}',
        _plain(learned.fields.get('description', '')),
        *(f'![{_plain(Path(name).stem)}]({quote(name)})' for name in pictures),
        '## Settings',
        _table(learned),
        '## With mmhiper',
        _with_mmhiper(learned),
        '## With diffusers',
        _with_diffusers(learned),
        '## In the A1111 web UI and ComfyUI',
        _with_others(learned),
        '## License',
        _plain(said) if said else 'None is given by who trained it.',
    ]
    return '\n\n'.join(part for part in parts if part) + '\n'


def _front(learned: Learned) -> str:
    """What hubs sort by."""
    plain = learned.editor == 'TextualInversion'
    own = learned.fields.get('tags', '').split(',')
    own += ['mmhiper', kind_of(learned.editor), 'text-to-image']
    if plain:
        own.append('textual_inversion')  # as the hub has it
    front: dict[str, Any] = dict(
        library_name='diffusers' if plain else 'mmhiper',
        pipeline_tag='text-to-image',
        tags=list(dict.fromkeys(t.strip() for t in own if t.strip())),
    )
    if is_hub_id(learned.record.backbone or ''):
        front['base_model'] = learned.record.backbone
    if learned.words:
        front['instance_prompt'] = learned.words[0]
    said = learned.fields.get('license')
    if said and _LICENSES.fullmatch(said.lower()):
        front['license'] = said.lower()
    elif said:
        name = re.sub(r'[^a-z0-9.]+', '-', said.lower()).strip('-')
        front |= dict(license='other', license_name=name[:80] or 'own')
    return yaml.safe_dump(front, allow_unicode=True, sort_keys=False)


def _table(learned: Learned) -> str:
    """What was learned how."""
    keys = ('optimizer.type', 'optimizer.lr')
    used = {key: learned.settings.get(f'optim_wrapper.{key}') for key in keys}
    used['batch_size'] = learned.settings.get('batch_size')
    facts = {
        'editor': _PAPERS.get(learned.editor, learned.editor),
        'frozen model': learned.model,
        'iterations': learned.record.step,
        'seed': learned.record.seed,
        **used,
        **learned.arguments,
    }
    rows = [
        f'| {_plain(name)} | {_plain(_text(value))} |'
        for name, value in facts.items()
        if value is not None
    ]
    return '\n'.join(['| | |', '| --- | --- |', *rows])


def _text(value: Any) -> str:
    """A value for people; of a path no more than its name."""
    if isinstance(value, str):
        return public_name(value) if value.startswith(('/', '~')) else value
    return to_json(value)


def _plain(text: str) -> str:
    """A text in which nothing is markup."""
    return re.sub(r'([\\`*_{}\[\]<>#|!])', r'\\\1', printable(text))


def _with_mmhiper(learned: Learned) -> str:
    command = ['mmhiper', 'infer', learned.file, '--prompt', learned.prompt]
    parts = [
        _block('bash', shlex.join(command)),
        _block(
            'python',
            'from mmhiper.apis import load_editor\n',
            f'editor = load_editor({learned.file!r})',
            f"image = editor.infer({learned.prompt!r})['samples'][0]",
        ),
    ]
    model = learned.record.backbone or ''
    if model != 'mini-sd' and not is_hub_id(model):
        parts.append(
            f'It was learned on {_plain(learned.model)}, a model of a folder: '
            'elsewhere name it by `backbone=`, or `--backbone`.'
        )
    return '\n\n'.join(parts)


def _with_diffusers(learned: Learned) -> str:
    """A snippet that draws, or that there is none."""
    file, prompt = repr(learned.file), repr(learned.prompt)
    family = learned.fields.get('architecture', '')
    load = ['import mmhiper', 'from mmhiper.apis import load_editor\n']
    if learned.editor == 'HiPer':
        more = ''
        if isinstance(learned.arguments.get('strength'), list):
            more = ', strength=0.8'  # a pipeline reads one text in all steps
        return _block(
            'python',
            *load,
            f'editor = load_editor({file})',
            'hiper = mmhiper.to_diffusers(editor)',
            'image = hiper.pipeline(',
            f'    **hiper.embeds({prompt}{more}),',
            '    guidance_scale=editor.default_guidance,',
            ').images[0]',
        )
    if learned.editor != 'TextualInversion' or 'diffusion-3/' in family:
        return (
            f'No pipeline of diffusers does what {_plain(learned.editor)} '
            'does on this model: draw with mmhiper.'
        )
    if any(len(word) == 1 for word in learned.words):
        return (
            'diffusers takes no word of a single sign: call it something else '
            'by `mmhiper convert --placeholder`.'
        )
    one = len(learned.words) == 1 and 'xl-' not in family
    if one and is_hub_id(learned.record.backbone or ''):
        return _block(
            'python',
            'from diffusers import DiffusionPipeline\n',
            'pipeline = DiffusionPipeline.from_pretrained('
            f'{learned.record.backbone!r})',
            f'pipeline.load_textual_inversion({file})',
            f'image = pipeline({prompt}).images[0]',
        )
    return _block(
        'python',
        *load,
        f'pipeline = mmhiper.to_diffusers(load_editor({file}))',
        f'image = pipeline({prompt}).images[0]',
    )


def _with_others(learned: Learned) -> str:
    """How a word gets there, or that nothing does."""
    if learned.editor != 'TextualInversion':
        return (
            f'Neither takes what {_plain(learned.editor)} learned, which is '
            'no word of the vocabulary.'
        )
    if not _WORDS.match(learned.fields.get('architecture', '')):
        return (
            f'Neither draws with {_plain(learned.model)}: the word is of this '
            'model alone.'
        )
    name = re.sub(r'[^\w-]', '', learned.words[0]) or 'word'
    first = ''
    if len(learned.words) > 1:
        command = ['mmhiper', 'convert', learned.file, f'{name}.safetensors']
        command += ['--only', learned.words[0]]
        first = 'They take a word a file: ' + _block(
            'bash', shlex.join(command)
        ).join(['\n\n', '\n\n'])
    copy = f'{name}.safetensors' if first else learned.file
    return (
        f'{first}Copy `{copy}` as `{name}.safetensors` to the folder '
        '`embeddings` of the web UI, or `models/embeddings` of ComfyUI. There '
        f'the word is called as the file: `{name}` in the web UI, '
        f'`embedding:{name}` in ComfyUI.'
    )


def _block(language: str, *lines: str) -> str:
    """Code, whose end no text can say: none has ends of lines in it."""
    return '\n'.join([f'```{language}', *lines, '```'])
