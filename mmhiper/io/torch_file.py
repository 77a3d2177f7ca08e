"""PyTorch files, of which only tensors and plain values are taken.

Before PyTorch unpickles a file, its instructions are listed, without being
followed: only names that build tensors and containers may be among them.
PyTorch's own list for weights-only loading is longer, and has constructors
that make memory of any size of a number.
"""

from __future__ import annotations

import codecs
import io
import pickletools
import re
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import torch
from torch import Tensor
from torch.serialization import safe_globals

from mmhiper.utils.errors import FileError
from mmhiper.utils.file_kinds import wrong_kind
from mmhiper.utils.reading import printable, reading
from mmhiper.utils.units import plain_size

# What tensors, parameters and state dicts are built by.
_BUILDERS = re.compile(
    r'torch\._utils\._rebuild_(tensor(_v2)?|parameter)'
    r'|torch\.((cuda\.)?\w+Storage|Size|device)'
    r'|torch\.(b?float|u?int|complex|bool)\w*'
    r'|collections\.OrderedDict|_codecs\.encode|builtins\.(set|complex)'
)
# Codecs that make bytes of bytes: applied again and again they make gigabytes.
_GROWING = ('base64', 'bz2', 'hex', 'quopri', 'uu', 'zlib')
_PICKLES_OF_OLD = 5  # in a file of PyTorch before 1.6
# How often a file may show its numbers: tied weights have two names.
_REPEATS = 4


class _Skipped:
    """Stands for an object that has nothing to do with the weights."""

    def __init__(self, *args: Any) -> None:
        """Forgets what it would have been made of."""

    def __setstate__(self, state: Any) -> None:
        """Forgets what it would have held."""


class _Parameters(dict[str, Tensor]):
    """Stands for a ``ParameterDict``: the tensors by name, nothing else."""

    def __setstate__(self, state: Any) -> None:
        self.update(state['_parameters'])


# What trainers of the field leave in their files beside tensors and plain
# values. MMEngine writes the history of its logs into each checkpoint, as
# objects of NumPy; the original Textual Inversion keeps its rows in a module.
# None of them is loaded: the stand-ins above take their places.
_STAND_INS: dict[str, type] = {
    'builtins.getattr': _Skipped,
    'mmengine.logging.history_buffer.HistoryBuffer': _Skipped,
    'numpy._core.multiarray._reconstruct': _Skipped,
    'numpy._core.multiarray.scalar': _Skipped,
    'numpy.core.multiarray._reconstruct': _Skipped,
    'numpy.core.multiarray.scalar': _Skipped,
    'numpy.dtype': _Skipped,
    'numpy.ndarray': _Skipped,
    'torch.nn.modules.container.ParameterDict': _Parameters,
}
# As PyTorch takes them: it hands out the stand-in where it meets the name.
_NAMED: list[Any] = [(kind, name) for name, kind in _STAND_INS.items()]
# PyTorch keeps them in one list for all threads.
_loading = threading.Lock()

_VERDICT = (
    'is neither a safetensors nor a PyTorch file, or an incomplete one (an '
    'interrupted download, or a web page in its place?)'
)
_REMEDY = 'Get it again.'


def read_torch_file(path: Path) -> Any:
    """Loads a PyTorch file, weights-only.

    Args:
        path: The file, which exists.

    Returns:
        Tensors and plain values, and stand-ins for what is known to be
        harmless to skip.

    Raises:
        ValueError: If the file needs more, claims more memory than it has
            bytes, is damaged, or of another kind.
    """
    zipped = check_torch_file(path)
    # A checkpoint of gigabytes may hold rows of kilobytes: mapped, only these
    # are read. Files of old PyTorch cannot be mapped, and a wrong suffix
    # would mislead PyTorch.
    mapped = zipped and path.suffix != '.safetensors'
    source = path if mapped else io.BytesIO(path.read_bytes())
    with (
        reading(path, _VERDICT, _REMEDY),
        _loading,
        safe_globals(_NAMED),
    ):
        content = torch.load(
            source, map_location='cpu', weights_only=True, mmap=mapped
        )
    _check_claims(path, content)
    return content


def check_torch_file(path: Path) -> bool:
    """Refuses a PyTorch file that does more than to give tensors.

    The instructions in it are read, but not followed.

    Args:
        path: The file, which exists.

    Returns:
        Whether it is a zip file, as since PyTorch 1.6.

    Raises:
        ValueError: If it names what is no tensor or container, is packed, is
            damaged, or of another kind.
    """
    with path.open('rb') as file:
        head = file.read(4)
        if head == b'PK\x03\x04':  # what PyTorch goes by
            _check_instructions(path, _zipped_pickle(path, file))
            return True
        if head[:1] != b'\x80':  # the first byte of every pickle
            kind = wrong_kind(path, 'a safetensors or PyTorch file')
            raise FileError(kind or f'{str(path)!r} {_VERDICT}. {_REMEDY}')
        file.seek(0)
        # not from the file itself: a length in it may be any number
        pickles = io.BytesIO(file.read())
    for _ in range(_PICKLES_OF_OLD):
        _check_instructions(path, pickles)
    return False


def _zipped_pickle(path: Path, file: BinaryIO) -> BinaryIO:
    """The instructions in a zip file, which must not be packed."""
    with reading(path, _VERDICT, _REMEDY):
        archive = zipfile.ZipFile(file)
        entries = archive.infolist()
    found = [
        each
        for each in entries
        if each.filename.lower().split('/')[-1] == 'data.pkl'
    ]
    if not found:
        raise FileError(
            f'{str(path)!r} is a ZIP archive, but not one of PyTorch: it '
            f'holds {_listed(entries)}. Unpack it, and name a file in it.'
        )
    if any(each.compress_type or each.flag_bits & 1 for each in entries):
        raise FileError(
            f'{str(path)!r} is a packed zip file, which could take any '
            'amount of memory; the limit is its own size. PyTorch does not '
            'pack its files: have it saved again by torch.save.'
        )
    with reading(path, _VERDICT, _REMEDY):
        (only,) = found
        return io.BytesIO(archive.read(only))


def _listed(entries: list[zipfile.ZipInfo]) -> str:
    """The names of the first files in an archive."""
    names = [printable(each.filename)[:40] for each in entries[:3]]
    return ', '.join(names) + ', ...' * (len(entries) > 3) or 'nothing'


def _check_instructions(path: Path, pickled: BinaryIO) -> None:
    """Refuses a pickle by what it names; nothing is built of it."""
    names, words = set(), set()
    with reading(path, _VERDICT, _REMEDY):
        for code, value, _ in pickletools.genops(pickled):
            if code.name == 'GLOBAL':
                # 'module name', and as Python 2 called it
                full = str(value).replace(' ', '.')
                names.add(full.replace('__builtin__.', 'builtins.'))
            elif isinstance(value, str):
                words.add(value[:20])
    for name in sorted(names):
        if not _BUILDERS.fullmatch(name) and name not in _STAND_INS:
            _refuse(path, name)
    if '_codecs.encode' in names and any(map(_grows, words)):
        _refuse(path, '_codecs.encode')


def _grows(word: str) -> bool:
    """Whether it names a codec that makes bytes of bytes."""
    try:
        return codecs.lookup(word).name in _GROWING
    except (LookupError, ValueError):
        return False


def _refuse(path: Path, name: str) -> NoReturn:
    raise FileError(
        f'{str(path)!r} needs more than tensors and plain values: to load it '
        f'would run {name[:80]!r}. Files like this can do anything to your '
        'machine and are not loaded. If you trust who made it, have it saved '
        'again where it was made, with the rows alone: '
        "torch.save({'<word>': rows}, 'word.bin')."
    )


def _check_claims(path: Path, content: Any) -> None:
    """Refuses tensors that would become larger than what the file holds."""
    # A view may show one number billions of times: it costs nothing until it
    # is copied.
    size, claimed = path.stat().st_size, 0
    for tensor in _tensors_in(path, content):
        claimed += tensor.numel() * tensor.element_size()
    if claimed > _REPEATS * size:
        raise FileError(
            f'{str(path)!r} has tensors of {plain_size(claimed)} in a file '
            f'of {plain_size(size)}: they show the same numbers again and '
            f'again. The limit is {_REPEATS} times the size of the file; '
            'have it saved again with `tensor.clone()` of each.'
        )


def _tensors_in(path: Path, content: Any) -> Iterator[Tensor]:
    """All tensors of a file, however deep, in containers that are sound."""
    seen, left = set(), [content]
    while left:
        value = left.pop()
        if isinstance(value, Tensor):
            yield value  # each time: who takes two names of one, copies twice
            continue
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, dict):
            # a file can give an OrderedDict any attributes, methods too
            if set(getattr(value, '__dict__', ())) - {'_metadata'}:
                raise FileError(f'{str(path)!r} {_VERDICT}. {_REMEDY}')
            left += value.values()
        elif isinstance(value, list | tuple | set):
            left += value
