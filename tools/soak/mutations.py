"""Damages sound files: what the fuzzer and the property tests have in common.

Bytes are cut, flipped, doubled and exchanged, in the file as it is or in a
part of it (an entry of a zip file, a chunk of a PNG file, the header of a
safetensors file) whose checksums and lengths are then made right again, so
that the damage reaches the readers behind them. What is a tree of values gets
odd values in odd places.
"""

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from copy import deepcopy
from random import Random
from typing import Any

import torch

PNG = b'\x89PNG\r\n\x1a\n'
# What parsers stumble over.
TOKENS = [
    b'\0',
    b'"',
    b'\n',
    b',',
    b'{}',
    b'[' * 3000,
    b'\xff' * 8,
    b'\x7f\xff\xff\xff',
    b'\xed\xb2\x80',  # half a character, as UTF-8
    b'\xff\xfe',
    b'null',
    b'-1',
    b'1e999',
    b'9' * 30,
    b'../',
    b'storage',
    b'cposix\nsystem\n',
]


def mutate(random: Random, seeds: Sequence[bytes]) -> bytes:
    """Damages one of several sound files.

    Args:
        random: Decides what and where.
        seeds: The files.

    Returns:
        One to three mutations away from one of them.
    """
    data = random.choice(seeds)
    for _ in range(random.randint(1, 3)):
        split = random.choice((None, _in_zip, _in_png, _in_safetensors))
        other = random.choice(seeds)
        changed = split and split(random, data, other)
        data = changed or _in_bytes(random, data, other)
    return data


def _in_bytes(random: Random, data: bytes, other: bytes) -> bytes:
    """One mutation of plain bytes."""
    at = random.randint(0, len(data))
    end = min(len(data), at + random.randint(1, 64))
    how = random.randint(0, 7)
    if how == 0:
        return data[:at]
    if how == 1 and at < len(data):
        return (
            data[:at]
            + bytes([data[at] ^ 1 << random.randint(0, 7)])
            + (data[at + 1 :])
        )
    if how == 2:
        return data[:at] + random.choice(TOKENS) + data[at:]
    if how == 3:
        return data[:at] + random.choice(TOKENS) + data[end:]
    if how == 4:
        return data[:at] + data[end:]
    if how == 5:
        return data[:end] + data[at:]
    if how == 6:
        return data[:at] + other[random.randint(0, len(other)) :]
    noise = bytes(random.randint(0, 255) for _ in range(end - at))
    return data[:at] + noise + data[end:]


def _in_zip(random: Random, data: bytes, other: bytes) -> bytes | None:
    """One mutation in an entry of a zip file, whose checksum is renewed."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = [(e.filename, archive.read(e)) for e in archive.filelist]
    except Exception:  # damaged before: not one any more
        return None
    if not entries:
        return None
    chosen = random.randrange(len(entries))
    packed = random.choice((zipfile.ZIP_STORED,) * 7 + (zipfile.ZIP_DEFLATED,))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w', packed) as archive:
        for number, (name, content) in enumerate(entries):
            if number == chosen:
                content = _in_bytes(random, content, other)
            archive.writestr(name, content)
    return buffer.getvalue()


def _in_png(random: Random, data: bytes, other: bytes) -> bytes | None:
    """One mutation in a chunk of a PNG file, whose checksum is renewed."""
    if not data.startswith(PNG):
        return None
    chunks, at = [], len(PNG)
    while at + 12 <= len(data):
        (length,) = struct.unpack('>I', data[at : at + 4])
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    if not chunks:
        return None
    chosen = random.randrange(len(chunks))
    name, content = chunks[chosen]
    if name in (b'zTXt', b'IDAT', b'iCCP') and random.randint(0, 3) == 0:
        content = content[:2] + zlib.compress(bytes(random.randint(1, 10**6)))
    else:
        content = _in_bytes(random, content, other)
    chunks[chosen] = name, content
    if random.randint(0, 3) == 0:  # another order, or again
        chunks.insert(random.randrange(len(chunks)), chunks[chosen])
    return PNG + b''.join(
        struct.pack('>I', len(content))
        + name
        + content
        + struct.pack('>I', zlib.crc32(name + content))
        for name, content in chunks
    )


def _in_safetensors(random: Random, data: bytes, other: bytes) -> bytes | None:
    """One mutation in the header of a safetensors file."""
    if data[8:9] != b'{':
        return None
    (length,) = struct.unpack('<Q', data[:8])
    header, rest = data[8 : 8 + length], data[8 + length :]
    try:
        tree = json.loads(header)
    except (ValueError, RecursionError):  # changed before
        return None
    if random.randint(0, 1):
        header = json.dumps(replaced(random, tree, odd_plain)).encode()
    else:
        header = _in_bytes(random, header, other)
    return struct.pack('<Q', len(header)) + header + rest


def replaced(random: Random, tree: Any, odd: Callable[[Random], Any]) -> Any:
    """A copy of a tree with an odd value somewhere, or something missing.

    Args:
        random: Decides what and where.
        tree: Mappings and lists of values.
        odd: Makes a value.

    Returns:
        The copy.
    """
    tree = deepcopy(tree)
    places: list[tuple[Any, Any]] = []
    left = [tree]
    while left:
        inner = left.pop()
        keys = inner if isinstance(inner, dict) else range(len(inner))
        for key in keys:
            places.append((inner, key))
            if isinstance(inner[key], dict | list):
                left.append(inner[key])
    if not places or random.randint(0, 20) == 0:
        return odd(random)
    inner, key = random.choice(places)
    how = random.randint(0, 5)
    if how == 0:
        del inner[key]
    elif how == 1 and isinstance(inner, dict):
        inner[_odd_key(random)] = inner.pop(key)
    else:
        inner[key] = odd(random)
    return tree


def _odd_key(random: Random) -> Any:
    return random.choice(['', ' ', '\ud800', 'a\0b', 'x' * 10**5, '../x', '1'])


def odd_plain(random: Random) -> Any:
    """A value that JSON has, where none of its kind is wanted.

    Args:
        random: Decides which.
    """
    values: list[Any] = [None, True, 0, -1, 2**70, 1e999, '', ' ', '\ud800']
    values += [[], {}, [[]], [None] * 9, {'': 1}, 'x' * 10**5, '\x1b[2J']
    values += [['os', 'system'], float('nan'), '0', 'a\nb', {'type': 'eval'}]
    return random.choice(values)


def odd_torch(random: Random) -> Any:
    """A value that a PyTorch file may have, where it is not wanted.

    Args:
        random: Decides which.

    Returns:
        It, most often a tensor.
    """
    how = random.randint(0, 13)
    if how > 9:
        return odd_plain(random)
    nested: Any = ()
    for _ in range(8):
        nested = (nested, nested)
    state = OrderedDict(a=torch.zeros(2))
    state._metadata = random.choice([3, {'': 3}, None])  # type: ignore[attr-defined]
    hidden = OrderedDict(a=1)
    hidden.other = 3  # type: ignore[attr-defined]
    return [
        torch.zeros(1).expand(2**33),
        torch.zeros(()),
        torch.zeros(0, 4),
        torch.zeros(2, 3, dtype=torch.int64),
        torch.full((2, 4), float('nan')),
        torch.zeros(2, 4, dtype=torch.complex64),
        torch.zeros(2, 4, dtype=torch.float64).t(),
        nested,
        state,
        hidden,
    ][how]


def saved(tree: Any, zipped: bool = True) -> bytes:
    """A PyTorch file.

    Args:
        tree: Its content.
        zipped: Whether as since PyTorch 1.6.

    Returns:
        The file.
    """
    buffer = io.BytesIO()
    torch.save(tree, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()
