"""The commands of the README, from the command line to the files."""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageChops
from runs import DOG, REPO, draw_image, options
from safetensors.torch import save_file
from tolerances import GREY_LEVEL

from mmhiper.io import read_picture_record

TOOLS = REPO / 'tools'


def call(monkeypatch, tool: str, *words: object) -> None:
    """Runs a tool in this process, as the shell would."""
    argv = [str(TOOLS / tool), *map(str, words)]
    monkeypatch.setattr(sys, 'argv', argv)
    try:
        runpy.run_path(argv[0], run_name='__main__')
    except SystemExit as exit_:
        if exit_.code:
            raise


def shell(*words: object, **others: object) -> subprocess.CompletedProcess:
    """Runs a command on the CPU and captures what a user sees."""
    return subprocess.run(
        [str(word) for word in words],
        env={
            **os.environ,
            'PYTHON': sys.executable,
            'CUDA_VISIBLE_DEVICES': '',
            'OMP_NUM_THREADS': '1',
            **{name: str(value) for name, value in others.items()},
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,  # of a machine that others use, too
    )


def cfg_options(values: dict) -> list[str]:
    """Values of a config on a command line."""
    return ['--cfg-options', *(f'{k}={v}' for k, v in values.items())]


@pytest.fixture(scope='module')
def trained(tiny_sd1, tmp_path_factory):
    """A run of dist_train.sh: its folder and what it printed."""
    folder = tmp_path_factory.mktemp('trained')
    values = options(folder, tiny_sd1, iters=2)
    work_dir = values.pop('work_dir')
    result = shell(
        'bash',
        TOOLS / 'dist_train.sh',
        DOG,
        1,
        '--work-dir',
        work_dir,
        '--seed',
        7,
        *cfg_options(values),
    )
    assert result.returncode == 0, result.stdout
    return Path(work_dir), result.stdout


def test_training_is_quiet_and_ends_with_what_to_do_next(trained):
    folder, output = trained
    lines = output.splitlines()

    # iteration 1, whether it has learned, and the closing words
    assert len(lines) == 9, output
    assert 'Iter(train) [1/2]' in lines[0] and 'loss: ' in lines[0]
    assert 'times its own noise' in lines.pop(1)
    assert 'Done: 2 iterations' in lines[1]
    assert lines[2].split() == ['checkpoint', f'{folder}/iter_2.pth']
    assert lines[3].split() == [
        'picture',
        f'{folder}/previews/iter_000002.png',
    ]
    assert lines[4].split() == ['loss', f'{folder}/loss.png']
    assert lines[5].split() == ['page', f'{folder}/README.md']
    assert 'mmhiper infer' in lines[7] and "'a sitting dog'" in lines[7]
    assert sorted(path.name for path in folder.glob('iter_*')) == [
        'iter_2.pth',
        'iter_2.safetensors',
    ]


def test_seed_option(trained):
    folder, _ = trained
    assert torch.load(folder / 'iter_2.pth')['meta']['seed'] == 7


@pytest.fixture
def every_bar(monkeypatch):
    """Bars that are done within a moment are seen in a file, too."""
    monkeypatch.setattr('mmhiper.utils.progress.SECONDS', 0)


@pytest.mark.usefixtures('every_bar')
def test_infer_draws_files_that_sort_and_a_grid(
    trained, tmp_path, monkeypatch, capsys
):
    folder, _ = trained
    words = ['infer.py', folder / 'dog.py', folder / 'iter_2.pth']
    words += ['--prompt', 'a sitting dog', 'a cat', '--num-images', 2]
    call(monkeypatch, *words, '--out-dir', tmp_path / 'a')

    names = ['000.png', '001.png', '002.png', '003.png', 'grid.png']
    assert sorted(os.listdir(tmp_path / 'a')) == [*names, 'pictures.json']
    record = read_picture_record(tmp_path / 'a' / '002.png')
    assert (record['prompt'], record['seed']) == ('a cat', 111111)
    assert record['checkpoint']['file'] == 'iter_2.pth'
    printed = capsys.readouterr()
    assert str(tmp_path / 'a') in printed.out
    assert 'drawing' in printed.err  # the progress bar

    # Number 1 is the same picture when it is drawn alone, from the export,
    # with its own seed; and another one at another strength.
    words = ['infer.py', folder, folder / 'iter_2.safetensors']
    words += ['--prompt', 'a sitting dog', '--num-images', 1]
    call(monkeypatch, *words, '--seed', 111112, '--out-dir', tmp_path / 'b')
    words += ['--seed', 111112, '--strength', 0]
    call(monkeypatch, *words, '--out-dir', tmp_path / 'c')
    words[-1:] = [0.2, 1]  # one after another
    call(monkeypatch, *words, '--out-dir', tmp_path / 'e')
    staged = read_picture_record(tmp_path / 'e' / '000.png')
    assert staged['options']['strength'] == [0.2, 1.0]

    # the work_dir alone has all that is needed
    words = ['infer.py', folder, '--prompt', 'a sitting dog']
    words += ['--num-images', 2, '--batch-size', 2]
    call(monkeypatch, *words, '--out-dir', tmp_path / 'd')

    def pixels(name: str) -> bytes:
        return Image.open(tmp_path / name).tobytes()

    assert pixels('a/001.png') == pixels('b/000.png')
    assert pixels('c/000.png') != pixels('b/000.png')
    difference = ImageChops.difference(
        *(Image.open(tmp_path / name) for name in ('a/001.png', 'd/001.png'))
    )
    assert max(high for _, high in difference.getextrema()) <= GREY_LEVEL


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (['--prompt', ' '], 'prompt'),
        (['--prompt', 'a dog', '--num-images', '0'], 'at least 1, but got 0'),
    ],
)
def test_infer_refuses(trained, monkeypatch, capsys, words, message):
    folder, _ = trained
    with pytest.raises(SystemExit) as exit_:
        call(monkeypatch, 'infer.py', folder, folder / 'iter_2.pth', *words)

    assert exit_.value.code == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith('error: ') and message in error


@pytest.mark.usefixtures('every_bar')
def test_edit_in_one_command(tiny_sd1, tmp_path, monkeypatch, capsys):
    photo = draw_image(tmp_path / 'photo.png', size=200)
    words = [photo, '--source', 'a standing dog']
    words += ['--target', 'a sitting dog', '--target', 'a dog on the beach']
    words += ['--iters', 3, '--n-hiper', 2, '--strength', 0.9, '--seed', 3]
    words += ['--pretrained', tiny_sd1, '--out-dir', tmp_path / 'out']
    words += ['--guidance-rescale', 0.5, '--guidance-interval', 0.3, 5]

    call(monkeypatch, 'edit.py', *words)

    out = tmp_path / 'out'
    pictures = [path.name for path in sorted(out.glob('0*.png'))]
    assert pictures == ['000.png', '001.png', '002.png', '003.png']
    with Image.open(out / 'sheet.png') as sheet:
        assert sheet.width > 4 * 256
    # the source is what the model saw, as large as what it draws
    sizes = {Image.open(out / name).size for name in pictures}
    assert sizes == {(64, 64)}
    checkpoint = torch.load(out / 'iter_3.pth')
    assert checkpoint['state_dict']['embedding.tail'].shape == (1, 2, 32)
    made = checkpoint['meta']['embedding']['arguments']
    assert made['strength'] == 0.9
    record = read_picture_record(out / '001.png')
    assert record['prompt'] == 'a standing dog' and record['seed'] == 3
    assert record['options']['strength'] == 1
    assert record['checkpoint']['file'] == 'iter_3.pth'
    assert read_picture_record(out / '003.png')['learned']['strength'] == 0.9
    guidance = dict(
        guidance_scale=7.5,  # not asked for, and told
        guidance_rescale=0.5,
        guidance_interval=[0.3, 5.0],
    )
    assert record['options'].items() >= guidance.items()
    sheet_record = read_picture_record(out / 'sheet.png')
    assert sheet_record.items() >= guidance.items()
    assert sheet_record['targets'] == ['a sitting dog', 'a dog on the beach']
    printed = capsys.readouterr()
    assert 'sheet.png' in printed.out and ' KB)' in printed.out
    assert 'personalising' in printed.err and 'Iter(train)' not in printed.out


def test_edit_learns_the_subject_of_a_mask(tiny_sd1, tmp_path, monkeypatch):
    photo = draw_image(tmp_path / 'photo.png')
    with Image.open(photo) as image:
        wide = image.resize((96, 64))
    wide.save(photo)
    mask = Image.new('L', wide.size)
    mask.paste(255, (40, 20, 60, 50))
    mask.save(tmp_path / 'mask.png')
    words = ['--source', 'a dog', '--target', 'a cat', '--iters', 1]
    words += ['--mask', tmp_path / 'mask.png', '--crop', 'none']
    words += ['--pretrained', tiny_sd1, '--out-dir', tmp_path / 'out']

    call(monkeypatch, 'edit.py', photo, *words)

    source = Image.open(tmp_path / 'out' / '000.png')
    assert source.size == (64, 64)  # as the model saw it
    # the subject is as it was, padding and the rest are faded
    square = Image.new('RGB', (96, 96))
    square.paste(wide, (0, 16))
    whole = square.resize(source.size, Image.Resampling.BICUBIC)
    inside = (30, 28, 37, 40)  # 1.5 pixels of the photo each
    difference = ImageChops.difference(source.crop(inside), whole.crop(inside))
    # Pillow rounds after each direction
    assert max(high for _, high in difference.getextrema()) <= 2
    for low, high in source.crop((0, 0, 64, 22)).getextrema():
        assert low >= 102 and high <= 153


def test_edit_refuses_other_crops(tmp_path, monkeypatch, capsys):
    photo = draw_image(tmp_path / 'photo.png')
    words = [photo, '--source', 'a dog', '--target', 'a cat', '--crop']
    for crop, message in [
        ('middle', "four numbers x0,y0,x1,y1, but got 'middle'"),
        ('1,2,3', 'must be one of'),
        ('0,0,65,10', 'has 64 x 64 pixels'),
        ('subject', 'has no mask'),
    ]:
        with pytest.raises(SystemExit) as exit_:
            call(monkeypatch, 'edit.py', *words, crop)
        assert exit_.value.code in (1, 2)
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ('values', 'message'),
    [
        ({'train_dataloader.dataset.img': 'none.png'}, 'none.png'),
        ({'model.n_hiper': 0}, '[1, 76], but got 0'),
        ({'model.source_text': '""'}, 'source_text'),
        ({'model.n_hipr': 5}, 'n_hipr'),
        ({'model.sd.pretrained': '/none'}, '/none'),
        ({'work_dir': '/dev/null/run'}, 'Cannot write'),
    ],
)
def test_mistakes_are_one_line(
    tiny_sd1, tmp_path, monkeypatch, capsys, values, message
):
    values = {**options(tmp_path, tiny_sd1), **values}
    with pytest.raises(SystemExit) as exit_:
        call(monkeypatch, 'train.py', DOG, *cfg_options(values))

    assert exit_.value.code == 1
    error = capsys.readouterr().err.strip()
    assert error.startswith('error: ') and message in error
    assert 'Traceback' not in error


def test_config_that_does_not_exist(monkeypatch, capsys):
    with pytest.raises(SystemExit):
        call(monkeypatch, 'train.py', 'configs/hiper/dgo.py')

    error = capsys.readouterr().err
    assert error.startswith("error: There is no config file 'configs/hiper/dg")
    assert 'hiper/dog' in error


def test_mixed_precision_needs_cuda(monkeypatch, capsys):
    monkeypatch.setattr('torch.cuda.is_available', lambda: False)
    with pytest.raises(SystemExit):
        call(monkeypatch, 'train.py', DOG, '--amp')

    assert 'CUDA' in capsys.readouterr().err


def test_mistake_from_two_processes_is_one_line(tmp_path, tiny_sd1):
    values = {**options(tmp_path, tiny_sd1), 'model.n_hiper': 99}
    result = shell(
        'bash', TOOLS / 'dist_train.sh', DOG, 2, *cfg_options(values)
    )

    assert result.returncode == 1
    assert (
        result.stdout == 'error: `n_hiper` must be in [1, 76], but got 99.\n'
    )


# --------------------------------------------------------- learned words
TOY = REPO / 'configs' / 'textual_inversion' / 'textual_inversion.py'


@pytest.fixture(scope='module')
def word(tmp_path_factory):
    """A run of two iterations on the bundled model."""
    folder = tmp_path_factory.mktemp('word')
    values = {
        'train_cfg.max_iters': 2,
        'train_dataloader.dataset.data_root': REPO / 'data',
        'train_dataloader.dataset.template': REPO
        / 'data'
        / 'imagenet_templates_small.txt',
        'model.sd.pretrained': 'mini-sd',
    }
    result = shell(
        'bash', TOOLS / 'dist_train.sh', TOY, 1, '--work-dir', folder,
        *cfg_options(values),
    )  # fmt: skip
    assert result.returncode == 0, result.stdout
    return folder, result.stdout


def test_a_word_is_trained_and_its_closing_words_use_it(word):
    folder, output = word
    assert "--prompt 'a <cat-toy> on the beach'" in output.splitlines()[-1]
    assert (folder / 'previews' / 'iter_000002.png').is_file()
    learned = torch.load(folder / 'iter_2.pth')['state_dict']
    assert learned['embedding.rows'].shape == (1, 128)


def test_infer_takes_words_learned_elsewhere(
    word, tmp_path, monkeypatch, capsys
):
    folder, _ = word
    rows = torch.randn(2, 128, generator=torch.Generator().manual_seed(0))
    save_file({'<sketchy>': rows}, tmp_path / 'sketchy.safetensors')
    words = ['infer.py', folder / TOY.name, folder / 'iter_2.pth']
    words += ['--prompt', 'a <cat-toy> in the style of <sketchy>']
    words += ['--num-images', 1, '--out-dir', tmp_path / 'out']
    call(monkeypatch, *words, '--embedding', tmp_path / 'sketchy.safetensors')

    assert 'Words: <sketchy>' in capsys.readouterr().out
    assert (tmp_path / 'out' / '000.png').is_file()


def test_infer_refuses_words_for_an_editor_without(
    trained, monkeypatch, capsys
):
    folder, _ = trained
    words = ['infer.py', folder / 'dog.py', folder / 'iter_2.pth']
    with pytest.raises(SystemExit):
        call(monkeypatch, *words, '--prompt', 'a', '--embedding', 'x.pt')
    assert 'need an editor whose texts' in capsys.readouterr().err


def test_the_gate_reports_both_sides(word, tmp_path):
    """In a process of its own, where nothing has set a default scope."""
    folder, _ = word
    judged = tmp_path / 'judged.py'
    bases = [folder / TOY.name, REPO / 'configs/_base_/mini_world_judge.py']
    judged.write_text(f'_base_ = {[str(base) for base in bases]}')
    words = [TOOLS / 'test.py', judged, folder / 'iter_2.pth']
    words += ['--num-images', 1, '--out-dir', tmp_path]
    words += ['--guidance-scale', 3]
    result = shell(sys.executable, *words)
    assert result.returncode == 1
    assert 'PYTHONPATH' in result.stdout.splitlines()[-1]

    result = shell(sys.executable, *words, PYTHONPATH=TOOLS / 'mini_sd')
    assert result.returncode == 0, result.stdout

    report = json.loads((tmp_path / 'report.json').read_text())
    assert report.pop('guidance_scale') == 3
    trust = 'judge on unseen drawings'
    assert set(report) == {'learned', 'plain', trust}
    names = {'image_similarity', 'text_similarity', 'prompt_followed'}
    for side in ('learned', 'plain'):
        assert set(report[side]) == names | {'identity', 'place'}
        assert all(-1 <= value <= 1 for value in report[side].values())
    assert 'image_similarity' in result.stdout
    assert 'guidance_scale 3.0' in result.stdout
    sheet = read_picture_record(tmp_path / 'sheet.png')
    assert sheet == dict(guidance_scale=3.0)
    # how good the judge is stands beside what it says
    assert f'{trust}:' in result.stdout
    for name, share in report[trust].items():
        assert f'{name:22s}{share:10.3f}' in result.stdout.splitlines()
    # of four panels in a row, the pictures of the concept no larger
    with Image.open(tmp_path / 'sheet.png') as sheet:
        assert sheet.width < 4 * 300


def test_the_gate_needs_an_image_encoder(trained, monkeypatch, capsys):
    folder, _ = trained
    with pytest.raises(SystemExit):
        call(monkeypatch, 'test.py', folder / 'dog.py', folder / 'iter_2.pth')
    assert 'Name a CLIP model' in capsys.readouterr().err
