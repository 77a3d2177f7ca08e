"""What of a run a stranger needs, for a model hub or a folder."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import unquote

from mmhiper.engine.model_card import (
    CARD,
    MARK,
    Learned,
    card_of,
    is_ours,
    read_learned_of,
)
from mmhiper.io.file_content import pack, read_safetensors
from mmhiper.io.modelspec import fields_in, is_hub_id, public_name, with_fields
from mmhiper.io.picture_records import read_picture_record
from mmhiper.io.record import KEY, read_record, to_json
from mmhiper.utils.atomic import atomic_path, check_writable
from mmhiper.utils.errors import FileError, MissingFileError, UserError
from mmhiper.utils.picture_files import open_picture
from mmhiper.utils.pixels import without_sources
from mmhiper.utils.reading import reason_of
from mmhiper.utils.sheet import draw_sheet, read_panels
from mmhiper.utils.work_dir import find_checkpoint, read_mark
from mmhiper.version import __version__

_MOST_PICTURES = 8
_ROW = 4  # panels
_CONFIGS = ('.py', '.json', '.yaml', '.yml')
_PATH = r'(?:/|~[/\\]|\.\.?[/\\]|[A-Za-z]:[\\/]|\\\\)'
# Texts of a config that begin as paths do: in quotes, or bare as in YAML.
_QUOTED = re.compile(rf"""(['"])({_PATH}(?:\\.|(?!\1)[^\\\n])*)\1""")
_BARE = re.compile(rf'^(\s*(?:- |[\w.-]+: ))({_PATH}[^\n]*)$', re.M)
_HOMES = r'/home/[^/\s]+|/Users/[^/\s]+|[A-Za-z]:[\\/]+Users\b'


def files_to_publish(
    work_dir: str | Path,
    given: Mapping[str, str] | None = None,
    with_photo: bool = False,
) -> dict[str, bytes]:
    """Chooses what a stranger needs, without paths of this machine.

    That is the card, the last export, the config, and pictures that were
    drawn; no state of an optimizer, no log, and no picture that was learned
    from.

    Args:
        work_dir: Of a run.
        given: What the user says of it, see
            :data:`mmhiper.io.modelspec.GIVEN`.
        with_photo: Whether pictures may show what was learned from.

    Returns:
        Contents by path.

    Raises:
        FileNotFoundError: If there is no such folder, or nothing learned in
            it.
        ValueError: If a page of the user's names a folder of this machine.
    """
    work_dir = Path(work_dir)
    if not work_dir.is_dir():
        raise MissingFileError(
            f'There is no work_dir {str(work_dir)!r}. Name the folder of a '
            'run.'
        )
    checkpoint = find_checkpoint(work_dir)
    learned = read_learned_of(checkpoint, work_dir)
    if learned is None:
        raise MissingFileError(
            f'There is no export beside {str(checkpoint)!r}: train with '
            'ExportHook.'
        )
    export = checkpoint.with_suffix('.safetensors')
    learned, content = _mended_export(export, learned, given or {})
    files = _pictures(work_dir, with_photo)
    texts = _config(work_dir)
    own = _own(work_dir, CARD)
    if own and not is_ours(own[0]):
        texts[CARD] = own[0].read_text('utf-8', 'replace')
    else:
        texts[CARD] = card_of(learned, [*files])
    _check_private(texts | {export.name: str(learned)}, work_dir)
    files = {export.name: content, **files}
    return {name: text.encode() for name, text in texts.items()} | files


def _mended_export(
    path: Path, learned: Learned, given: Mapping[str, str]
) -> tuple[Learned, bytes]:
    """The last export, with what the user says and no path in it."""
    tensors, metadata = read_safetensors(path)
    record = learned.record
    document = without_paths(
        dict(
            version=1,
            editor=record.editor,
            backbone=public_name(record.backbone or ''),
            sd=record.sd or {},
            arguments=record.arguments or {},
            step=record.step,
            seed=record.seed,
        )
    )
    metadata = with_fields(metadata, {**learned.fields, **given})
    metadata[KEY] = to_json(document)
    mended = replace(
        learned,
        file=path.name,
        record=read_record(document, Path(path.name)),
        fields=fields_in(metadata),
        settings=without_paths(dict(learned.settings)),
    )
    return mended, pack(tensors, metadata)


def without_paths(value: Any) -> Any:
    """Plain data in which of each path only its last name is left."""
    if isinstance(value, dict):
        return {key: without_paths(each) for key, each in value.items()}
    if isinstance(value, list):
        return [without_paths(each) for each in value]
    if isinstance(value, str) and re.match(_PATH, value):
        return public_name(value)
    return value


def _config(work_dir: Path) -> dict[str, str]:
    """The config of a run, as text; it is not run."""
    mark = read_mark(work_dir)
    name = Path(mark.config if mark else '').name
    found = [path for path in _own(work_dir, '*.*') if path.name == name]
    if not found or found[0].suffix not in _CONFIGS:
        return {}
    text = found[0].read_text('utf-8', 'replace')
    text = _QUOTED.sub(lambda m: f'{m[1]}{_last(m[2])}{m[1]}', text)
    return {name: _BARE.sub(lambda m: f'{m[1]}{_last(m[2])}', text)}


def _last(path: str) -> str:
    """The last name of a path, in which a quote may be escaped."""
    parts = re.split(r'/|\\\\|\\(?![\'"])', path.rstrip('/\\'))
    return parts[-1] or path


def _pictures(work_dir: Path, with_photo: bool) -> dict[str, bytes]:
    """What was drawn, and the curve of the loss."""
    files: dict[str, bytes] = {}
    for path in _own(work_dir, 'previews/iter_*.png')[-1:]:
        name = f'previews/{path.name}'
        if with_photo:
            files[name] = path.read_bytes()
        elif panels := without_sources(read_panels(path)):
            rows = range(0, len(panels), _ROW)
            sheet = draw_sheet([panels[at : at + _ROW] for at in rows])
            files[name] = _png(sheet)
    numbered = filter(_was_drawn, _own(work_dir, '[0-9][0-9][0-9].png'))
    for path in islice(numbered, _MOST_PICTURES):
        with open_picture(path) as picture:
            files[path.name] = _png(picture)  # its record may have paths
    plain = ['loss.png', *(['sheet.png', 'timeline.png'] * with_photo)]
    for path in (path for name in plain for path in _own(work_dir, name)):
        files[path.name] = path.read_bytes()
    return files


def _own(work_dir: Path, pattern: str) -> list[Path]:
    """Files of a folder; no links, which may lead out of it."""
    found = sorted(work_dir.glob(pattern))
    return [p for p in found if p.is_file() and not p.is_symlink()]


def _was_drawn(path: Path) -> bool:
    """Whether a picture was made from a text."""
    try:
        return 'prompt' in read_picture_record(path)
    except UserError:
        return False


def _png(picture: Any) -> bytes:
    """A picture as a file, with nothing beside its pixels."""
    buffer = io.BytesIO()
    picture.convert('RGB').save(buffer, 'PNG')
    return buffer.getvalue()


def _check_private(texts: Mapping[str, str], work_dir: Path) -> None:
    """Refuses texts that name a folder of this machine."""
    own = {str(work_dir.absolute()), str(Path.home())} - {'/'}
    here = [rf'{re.escape(each)}\b' for each in own]
    private = re.compile('|'.join([_HOMES, *here]))
    for name, text in texts.items():
        if found := private.search(text):
            raise UserError(
                f'{name!r} would tell strangers of a folder of this machine, '
                f'{found[0]!r}. Take it out of the file in the work_dir.'
            )


def folder_of(target: str) -> Path | None:
    """The folder that a target names; None if it is a repository.

    Args:
        target: ``file://...``, a path that begins as paths do or has more
            than one slash; or OWNER/NAME.

    Raises:
        ValueError: If it is neither.
    """
    if target.startswith('file://'):
        return Path(unquote(target.removeprefix('file://')))
    several = target.count('/') > 1
    if several or target in ('.', '..') or re.match(_PATH, target):
        return Path(target).expanduser()
    if is_hub_id(target) and len(target) <= 96 and not target.endswith('.git'):
        return None
    raise UserError(
        f'Wanted a repository, OWNER/NAME, or a folder that begins with ./ or '
        f'/, but got {target!r:.120}.'
    )


def to_folder(
    files: Mapping[str, bytes], folder: Path, work_dir: str | Path
) -> None:
    """Writes files to a folder.

    Args:
        files: Of :func:`files_to_publish`.
        folder: Made if need be.
        work_dir: Of the run, which it must not be.

    Raises:
        ValueError: If it is, cannot be written, or has a page of the user's.
    """
    if folder.resolve() == Path(work_dir).resolve():
        raise UserError(
            f'{str(folder)!r} is the work_dir itself. Choose another folder.'
        )
    if not is_ours(folder / CARD):
        raise FileError(
            f'{str(folder / CARD)!r} is a page of yours, and stays. Choose '
            'another folder, or move it away.'
        )
    for name, content in files.items():
        path = folder / name
        check_writable(path.parent)
        with atomic_path(path) as temporary:
            temporary.write_bytes(content)


def to_hub(
    files: Mapping[str, bytes],
    repo_id: str,
    private: bool = True,
    revision: str | None = None,
    message: str = 'What mmhiper learned',
) -> str:
    """Commits files to a model repository, which is made if need be.

    Args:
        files: Of :func:`files_to_publish`.
        repo_id: OWNER/NAME.
        private: Of a new repository.
        revision: A branch, made if need be; by default the main one.
        message: Of the commit.

    Returns:
        The address of the commit.

    Raises:
        ValueError: If nobody is logged in, the hub refuses or is not reached,
            or the repository has a page that somebody wrote there.
    """
    import huggingface_hub as hub

    if hub.get_token() is None:
        raise UserError(
            'Nobody is logged in to the hub: run "hf auth login", or set '
            'HF_TOKEN to a token that may write.'
        )
    operations = [
        hub.CommitOperationAdd(path_in_repo=name, path_or_fileobj=content)
        for name, content in files.items()
    ]
    api = hub.HfApi(library_name='mmhiper', library_version=__version__)
    with _told(repo_id):
        api.create_repo(repo_id, private=private, exist_ok=True)
        if revision:
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        stays = MARK in files[CARD].decode() and not _has_our_card(
            api, repo_id, revision
        )
    if stays:
        raise UserError(
            f'{repo_id!r} has a {CARD} that somebody wrote, or made theirs; '
            f'it stays. Put it into the work_dir as {CARD}: a page of yours '
            'is sent as it is.'
        )
    with _told(repo_id):
        done = api.create_commit(
            repo_id, operations, commit_message=message, revision=revision
        )
    return str(done.commit_url)


def _has_our_card(api: Any, repo_id: str, revision: str | None) -> bool:
    """Whether the page of a repository may be written anew."""
    from huggingface_hub.errors import (
        EntryNotFoundError,
        LocalEntryNotFoundError,
    )

    with TemporaryDirectory() as folder:
        try:
            card = api.hf_hub_download(
                repo_id, CARD, revision=revision, local_dir=folder
            )
        except LocalEntryNotFoundError:  # is one too: nobody answers
            raise
        except EntryNotFoundError:
            return True
        return is_ours(Path(card))


@contextmanager
def _told(repo_id: str) -> Iterator[None]:
    """Tells in one line what the library of the hub raises."""
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    try:
        yield
    except HfHubHTTPError as error:
        code = getattr(error.response, 'status_code', None)
        hint = 'Try again later.'
        if code in (401, 403, 404):
            hint = 'Is it yours, and may the token write ("hf auth login")?'
        raise UserError(
            f'The hub refuses {repo_id!r}: {reason_of(error)}. {hint}'
        ) from error
    except Exception as error:
        kinds = {kind.__name__ for kind in type(error).__mro__}
        if isinstance(error, OfflineModeIsEnabled) or kinds & {
            'LocalEntryNotFoundError',
            'TransportError',  # of httpx
            'RequestException',  # of requests
        }:
            raise UserError(
                f'The hub is not reached: {reason_of(error)}. Is there a '
                'network?'
            ) from error
        if isinstance(error, ValueError):  # it reads the front of the card
            raise UserError(
                f'The hub refuses {CARD}: {" ".join(str(error).split())}'
            ) from error
        raise
