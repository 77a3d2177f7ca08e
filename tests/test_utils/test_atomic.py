"""Files that are either complete or not there."""

import errno
import os
import subprocess
import sys

import pytest

from mmhiper.utils.atomic import (
    WriteError,
    atomic_path,
    check_writable,
    remove_leftovers,
)


def test_interrupted_writing_keeps_the_old_file(tmp_path):
    path = tmp_path / 'file'
    path.write_text('old')

    with pytest.raises(KeyboardInterrupt), atomic_path(path) as temporary:
        temporary.write_text('half of the n')
        raise KeyboardInterrupt

    assert path.read_text() == 'old'
    assert os.listdir(tmp_path) == ['file']


def test_what_killed_processes_left_is_removed(tmp_path):
    """Not what a process that lives is writing, nor what others named so."""
    process = subprocess.Popen([sys.executable, '-c', ''])
    process.wait()  # reaped: no process has this number
    dead = tmp_path / f'.iter_2.pth.{process.pid}.tmp'
    own = tmp_path / f'.iter_3.pth.{os.getpid()}.tmp'
    kept = ['.iter_4.pth.1.tmp', '.mine.tmp', 'iter_1.pth.9.tmp']
    for path in (dead, own, *(tmp_path / name for name in kept)):
        path.touch()

    remove_leftovers(tmp_path)
    remove_leftovers(tmp_path / 'none')

    assert sorted(os.listdir(tmp_path)) == sorted(kept)


def test_a_refusal_names_the_file(tmp_path):
    """Whatever the operating system names: a temporary file, or nothing."""
    path = tmp_path / 'gone' / 'file'
    gone = pytest.raises(WriteError, match=f"'{path}'.*gone' is gone")
    with gone, atomic_path(path) as temporary:
        temporary.write_text('')
    path = tmp_path / 'file'
    full = OSError(errno.ENOSPC, 'No space left on device')
    refused = pytest.raises(WriteError, match=f"'{path}': No space left")
    with refused, atomic_path(path):
        raise full
    assert not list(tmp_path.iterdir())


def test_another_files_error_stays_what_it_is(tmp_path):
    missing = pytest.raises(FileNotFoundError, match='other')
    with missing as error, atomic_path(tmp_path / 'file'):
        open(tmp_path / 'other').close()
    assert not isinstance(error.value, WriteError)


def test_the_disk_has_it_before_it_has_its_name(tmp_path, monkeypatch):
    """Content, name, and the folder that holds the name, in this order."""
    done = []
    flush, replace = os.fsync, os.replace

    def note_flush(handle):
        done.append(os.path.realpath(f'/proc/self/fd/{handle}'))
        flush(handle)

    def note_replace(old, new):
        done.append('replace')
        replace(old, new)

    monkeypatch.setattr(os, 'fsync', note_flush)
    monkeypatch.setattr(os, 'replace', note_replace)
    with atomic_path(tmp_path / 'file') as temporary:
        temporary.write_text('content')

    assert done == [str(temporary), 'replace', str(tmp_path)]


def test_unwritable_folder(tmp_path):
    (tmp_path / 'file').touch()

    with pytest.raises(ValueError, match='Cannot write to the folder'):
        check_writable(tmp_path / 'file' / 'run')
    check_writable(tmp_path / 'new' / 'run')
    assert (tmp_path / 'new' / 'run').is_dir()
