"""PyTorch files that would take more memory than they have bytes."""

import io
import resource
import struct
import sys
import threading
import zipfile
from collections import OrderedDict

import pytest
import torch
from torch.serialization import get_safe_globals

from mmhiper.io import read_checkpoint, read_token_file
from mmhiper.io.file_content import read_content
from mmhiper.utils.errors import FileError

GB = 1 << 30


@pytest.fixture
def little_memory():
    """Fails if a test makes the process much larger."""
    unit = 1 if sys.platform == 'darwin' else 1024

    def peak() -> int:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit

    before = peak()
    yield
    assert peak() - before < GB / 4


@pytest.mark.parametrize('zipped', [True, False])
@pytest.mark.parametrize('width', [8 * GB, 2**44])
def test_a_tensor_that_repeats_one_number(
    tmp_path, little_memory, zipped, width
):
    path = tmp_path / 'a.bin'
    rows = torch.zeros(1).expand(1, width)
    torch.save({'<a>': rows}, path, _use_new_zipfile_serialization=zipped)

    assert path.stat().st_size < 2000
    with pytest.raises(FileError, match=r'TB|GB') as error:
        read_token_file(path)
    assert 'limit is 4 times' in str(error.value)
    assert '.clone()' in str(error.value)


def test_many_tensors_that_show_the_same_numbers(tmp_path, little_memory):
    rows = torch.zeros(75, 768)
    torch.save({f'<{k}>': rows for k in range(9000)}, tmp_path / 'a.bin')

    with pytest.raises(FileError, match='limit is 4 times'):
        read_token_file(tmp_path / 'a.bin')


def test_tied_weights_are_read(tmp_path):
    rows = torch.ones(2, 768)
    torch.save({'<a>': rows, '<b>': rows}, tmp_path / 'a.bin')

    assert read_token_file(tmp_path / 'a.bin').placeholders == ['<a>', '<b>']


def test_a_packed_file(tmp_path, little_memory):
    whole = io.BytesIO()
    torch.save({'<a>': torch.zeros(75, 10**5)}, whole)
    path = tmp_path / 'a.pt'
    with (
        zipfile.ZipFile(whole) as source,
        zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in source.namelist():
            packed.writestr(name, source.read(name))

    assert path.stat().st_size < 10**5
    with pytest.raises(FileError, match=r'packed zip file.*limit'):
        read_token_file(path)


class Calls:
    """An object that is unpickled by a call."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize('zipped', [True, False])
@pytest.mark.parametrize(
    'maker',
    [
        Calls(bytearray, 8 * GB),
        Calls(torch.FloatTensor, 8 * GB),
        Calls(torch.UntypedStorage, 8 * GB),
    ],
)
def test_memory_made_of_a_number(tmp_path, little_memory, maker, zipped):
    path = tmp_path / 'a.pt'
    torch.save({'a': maker}, path, _use_new_zipfile_serialization=zipped)

    with pytest.raises(FileError, match='needs more than tensors'):
        read_content(path)


def test_bytes_that_double(tmp_path, little_memory):
    import _codecs

    value = b'a' * 1000
    for _ in range(30):
        value = Calls(_codecs.encode, value, 'hex')
    torch.save({'a': value}, tmp_path / 'a.pt')

    with pytest.raises(FileError, match=r'_codecs\.encode'):
        read_content(tmp_path / 'a.pt')


def test_a_length_that_is_none(tmp_path, little_memory):
    # a text of 4 GB, in a file of a few bytes
    (tmp_path / 'a.pt').write_bytes(b'\x80\x02X\xff\xff\xff\xffabc.')

    with pytest.raises(FileError, match='neither a safetensors nor'):
        read_content(tmp_path / 'a.pt')


def test_a_zip_file_of_several_disks(tmp_path):
    path = tmp_path / 'a.pt'
    torch.save({'<a>': torch.ones(1, 4)}, path)
    whole = path.read_bytes()
    end = whole.rindex(b'PK\5\6')
    # says that it is the first of five
    locator = b'PK\6\7' + struct.pack('<LQL', 0, 0, 5)
    path.write_bytes(whole[:end] + locator + whole[end:])

    with pytest.raises(FileError, match='neither a safetensors nor'):
        read_token_file(path)


def test_a_state_dict_with_methods_of_its_own(tmp_path):
    state = OrderedDict(a=torch.zeros(1))
    state.other = 3
    torch.save(dict(state_dict=state), tmp_path / 'a.pth')

    with pytest.raises(FileError, match='not a complete checkpoint'):
        read_checkpoint(tmp_path / 'a.pth')


def test_stand_ins_are_there_for_one_file_only(tmp_path):
    path = tmp_path / 'a.pt'
    torch.save({'string_to_param': torch.nn.ParameterDict()}, path)
    broken = tmp_path / 'b.pt'
    broken.write_bytes(path.read_bytes()[:-300])
    before = set(get_safe_globals())
    read_content(path)

    with pytest.raises(FileError):
        read_content(broken)
    assert set(get_safe_globals()) == before


def test_files_are_read_in_several_threads(tmp_path):
    path = tmp_path / 'a.pt'
    param = torch.nn.ParameterDict({'*': torch.nn.Parameter(torch.ones(2, 4))})
    torch.save({'string_to_param': param}, path)
    read = []

    def work() -> None:
        for _ in range(20):
            read.append(read_token_file(path).placeholders)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert read == [['*']] * 80
