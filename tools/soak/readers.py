"""All readers of the package, each with sound files to damage."""

from __future__ import annotations

import functools
import io
import json
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch
import yaml
from PIL import Image, PngImagePlugin
from safetensors.torch import save

from mmhiper.cli.info import facts_of
from mmhiper.datasets import (
    LoadUprightImage,
    PackSourceImage,
    SquareCrop,
    TextualInversionDataset,
    load_mask,
    load_upright_image,
)
from mmhiper.datasets.templates import find_caption
from mmhiper.evaluation.benches import read_bench
from mmhiper.io import (
    TokenFile,
    check_resumable,
    read_learned,
    read_picture_record,
    read_token_file,
    write_picture,
)
from mmhiper.io.case_table import COLUMNS, read_cases
from mmhiper.models.backbones import StableDiffusion
from mmhiper.models.guidance import read_scale
from mmhiper.models.image_encoder import ImageEncoder
from mmhiper.models.loading import (
    BUNDLED,
    SCHEDULER,
    PartKind,
    find_source,
    load_part,
    quiet,
)
from mmhiper.utils.config_file import read_config
from mmhiper.utils.errors import UserError
from mmhiper.utils.sheet import draw_sheet, read_panels, save_sheet
from mmhiper.utils.work_dir import find_checkpoint

from mutations import mutate, odd_plain, odd_torch, replaced, saved

SIZE = 12  # pixels of a picture's side
Tree = tuple[Any, Callable[[Random], Any], Callable[[Any], bytes]]


@dataclass
class Reader:
    """A reader, and what it reads.

    Attributes:
        name: For the report.
        file: What a damaged file is called, from its own folder.
        read: Takes the file, and gives what it has read.
        sound: Whether that is of the right form.
        seeds: Sound files.
        trees: Values, what makes odd ones, what writes them.
    """

    name: str
    file: str
    read: Callable[[Path], Any]
    sound: Callable[[Any], bool]
    seeds: list[bytes]
    trees: Sequence[Tree] = ()

    def damaged(self, random: Random) -> bytes:
        """A damaged file.

        Args:
            random: Decides everything.

        Returns:
            The file.
        """
        if self.trees and random.randint(0, 1):
            tree, odd, write = random.choice(self.trees)
            for _ in range(random.randint(1, 2)):
                changed = replaced(random, tree, odd)
                tree = changed if isinstance(changed, dict) else tree
            return write(changed)
        return mutate(random, self.seeds)

    def outcome(self, path: Path, content: bytes) -> str:
        """Reads a file.

        Args:
            path: Where to put it.

        Returns:
            'read' or 'refused'.

        Raises:
            Exception: Whatever the reader raises that is no user's mistake;
                an AssertionError if it gives what is of no right form.
        """
        path.write_bytes(content)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter('ignore')
                value = self.read(path)
        except UserError as error:
            lines = str(error).splitlines()
            assert len(lines) == 1 and len(lines[0]) < 3000, lines
            return 'refused'
        assert self.sound(value), f'{self.name} gave {value!r}'[:300]
        return 'read'


# ------------------------------------------------------------------- pictures
def _noise(mode: str = 'RGB') -> Image.Image:
    """A small picture of every colour."""
    numbers = bytes(Random(0).randrange(256) for _ in range(3 * SIZE * SIZE))
    image = Image.frombytes('RGB', (SIZE, SIZE), numbers).convert(mode)
    return image.point(lambda x: x * (1 / 255)) if mode == 'F' else image


def _pictures() -> list[bytes]:
    """Small pictures in the formats that people have."""
    exif = Image.Exif()
    exif[0x0112] = 6
    chunks = PngImagePlugin.PngInfo()
    chunks.add_text('Title', 'x' * 50, zip=True)
    chunks.add_itxt('Comment', 'y' * 50, zip=True)
    kinds: list[tuple[str, str, dict[str, Any]]] = [
        ('RGB', 'PNG', dict(pnginfo=chunks, exif=exif)),
        ('P', 'PNG', dict(transparency=3)),
        ('I;16', 'PNG', {}),
        ('RGBA', 'PNG', {}),
        ('RGB', 'JPEG', dict(exif=exif)),
        ('CMYK', 'JPEG', {}),
        ('RGB', 'WEBP', dict(exif=exif)),
        ('RGB', 'TIFF', dict(compression='tiff_lzw')),
        ('F', 'TIFF', {}),
        ('P', 'GIF', {}),
        ('RGB', 'BMP', {}),
        ('RGB', 'PPM', {}),
        ('RGB', 'TGA', {}),
    ]
    return [_encoded(_noise(mode), kind, **more) for mode, kind, more in kinds]


def _encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _is_rgb(image: Any) -> bool:
    return isinstance(image, Image.Image) and image.mode == 'RGB'


def _read_concept(path: Path) -> Any:
    """A folder of pictures of a concept, one of them damaged."""
    return _concept(path.parent, ['a {}'])[0]


def _read_templates(path: Path) -> Any:
    """A list of templates of a concept."""
    folder = path.parent / 'concept'
    if not folder.exists():
        folder.mkdir()
        _noise().save(folder / 'whole.png')
    return _concept(folder, str(path)).prompts[0]  # of the one picture


def _concept(folder: Path, template: Any) -> TextualInversionDataset:
    return TextualInversionDataset(
        data_root=str(folder),
        concept_dir='.',
        placeholder='<toy>',
        template=template,
        pipeline=[LoadUprightImage(), SquareCrop(), PackSourceImage()],
    )


def _records(folder: Path) -> list[bytes]:
    """Pictures that say what made them."""
    record = dict(prompt='ein Hündchen', seed=3, options=dict(eta=0.5))
    write_picture(folder / 'seed.png', _noise(), record)
    return [(folder / 'seed.png').read_bytes()]


def _with_record(tree: Any) -> bytes:
    chunks = PngImagePlugin.PngInfo()
    chunks.add_text('mmhiper', json.dumps(tree))
    return _encoded(_noise(), 'PNG', pnginfo=chunks)


def _with_panels(tree: Any) -> bytes:
    chunks = PngImagePlugin.PngInfo()
    chunks.add_text('panels', json.dumps(tree))
    return _encoded(_noise(), 'PNG', pnginfo=chunks)


def _sheets(folder: Path) -> list[bytes]:
    sheet = draw_sheet([[('a dog', _noise()), ('', _noise())]])
    save_sheet(sheet, folder / 'seed.png')
    return [(folder / 'seed.png').read_bytes()]


def picture_readers(folder: Path) -> list[Reader]:
    """The readers of pictures.

    Args:
        folder: For files that the seeds are made of.

    Returns:
        They.
    """
    pictures, records = _pictures(), _records(folder)
    masks = [_encoded(_noise('L'), kind) for kind in ('PNG', 'JPEG')]
    record = dict(prompt='x', seed=3, options=dict(eta=0.5))
    box = [0, 0, SIZE // 2, SIZE]
    return [
        Reader('picture', 'a.png', load_upright_image, _is_rgb, pictures),
        Reader(
            'mask',
            'a.png',
            lambda path: load_mask(path, (SIZE, SIZE)),
            lambda mask: mask.shape == (SIZE, SIZE),
            masks,
        ),
        Reader(
            'concept folder',
            'a.png',
            _read_concept,
            lambda item: item['inputs'].dtype == torch.uint8,
            pictures,
        ),
        Reader(
            'picture record',
            'a.png',
            read_picture_record,
            lambda facts: isinstance(facts, dict),
            records,
            [(record, odd_plain, _with_record)],
        ),
        Reader(
            'preview sheet',
            'a.png',
            read_panels,
            lambda panels: all(_is_rgb(image) for _, image in panels),
            _sheets(folder),
            [([['a', box], ['b', box]], odd_plain, _with_panels)],
        ),
    ]


# ---------------------------------------------------------------------- texts
_TABLE = (
    ','.join(COLUMNS)
    + '\none,a.png,a dog,a cat,,,0.5,"(0, 0.4)",,,dog > cat,,,,big=2; #3=3,\n'
    + 'two,b.png,"a dog, old","a ""cat""",refinement,official,"[0.2, 0.5]"'
    + ',,,,#1,#0,"(0.3, 0.2)",0.1,,hat=0.5\n'
)


_CONFIG = dict(
    _base_=[],  # one in Python would take most of the time
    model=dict(type='HiPer', n_hiper=3, source_text='a dog'),
    optim_wrapper=dict(optimizer=dict(type='Adam', lr=0.005)),
)


def text_readers() -> list[Reader]:
    """The readers of what people write.

    Returns:
        They.
    """
    tables = [_TABLE.encode(), _TABLE.replace('\n', '\r\n').encode()]
    tables += [_TABLE.encode('utf-16'), _TABLE.encode('utf-8-sig')]
    return [
        Reader(
            'table of cases',
            'a.csv',
            read_cases,
            lambda cases: len({case.name.lower() for case in cases}) > 0,
            tables,
        ),
        Reader(
            'templates',
            'a.txt',
            _read_templates,
            lambda prompts: all('<toy>' in each for each in prompts),
            [b'a {}\nmy {}\n', 'ein {} am See, groß\n'.encode()],
        ),
        Reader(
            'caption',
            'a.txt',
            lambda path: find_caption(str(path.with_suffix('.png'))),
            lambda found: bool(found[0]) and '\n' not in found[0],
            ['a dog\n'.encode('utf-16'), 'ein Hund\nam See, groß'.encode()],
        ),
        Reader(
            'config in YAML',
            'a.yaml',
            read_config,
            lambda config: isinstance(config.model, dict),
            [yaml.safe_dump(_CONFIG).encode()],
            [(_CONFIG, odd_plain, _as_json)],  # JSON is YAML
        ),
        Reader(
            'last_checkpoint',
            'last_checkpoint',
            _find_checkpoint,
            lambda path: path.is_file(),
            [b'/run/iter_1.pth', b'iter_2.pth\n'],
        ),
    ]


@functools.cache
def _whole_checkpoint() -> bytes:
    """The least that counts as a complete one."""
    buffer = io.BytesIO()
    torch.save(dict(state_dict={}, meta={}), buffer)
    return buffer.getvalue()


def _find_checkpoint(path: Path) -> Path:
    for step in (1, 2):
        (path.parent / f'iter_{step}.pth').write_bytes(_whole_checkpoint())
    return find_checkpoint(path.parent)


# --------------------------------------------------------------------- benches
_PIE_ROW = dict(
    image_path='a.png',
    original_prompt='a [dog] in the snow',
    editing_prompt='a [cat] in the snow',
    editing_instruction='',
    editing_type_id='1',
    blended_word='dog cat',
    mask=[0, 20, 600, 4],
    edit_options=dict(tau_c=0.3),
    asked=dict(species='cat'),
    subject='dog',
)
_TED_ROW = dict(img_name='a.png', target_text='A lying dog.', source_text='x')
_DREAMBENCH = """subject_name,class
own,cat

Object Prompts
prompt_list = [
'a {0} {1} in the snow'.format(unique_token, class_token),
]
Live Subject Prompts
prompt_list = [
'a {0} {1} in the jungle'.format(unique_token, class_token)
]
"""


def _read_bench(path: Path, pictures: str) -> Any:
    """A list of cases, with the one picture that they have."""
    folder = path.parent / pictures
    if not folder.exists():
        folder.mkdir()
        _noise().save(folder / 'a.png')
    return read_bench(path.parent, path.parent)


def bench_readers() -> list[Reader]:
    """The readers of lists of cases.

    Returns:
        They.
    """
    readers = []
    for name, file, pictures, tree in (
        ('PIE-Bench', 'mapping_file.json', 'annotation_images',
         {'0': _PIE_ROW, '1': dict(_PIE_ROW, editing_type_id=3)}),
        ('TEdBench', 'input_list.json', 'originals', [_TED_ROW] * 2),
        ('DreamBench', 'prompts_and_classes.txt', 'own', None),
    ):  # fmt: skip
        content = _as_json(tree) if tree else _DREAMBENCH.encode()
        readers.append(
            Reader(
                name,
                file,
                functools.partial(_read_bench, pictures=pictures),
                lambda cases: all(case.target for case in cases) and cases,
                [content],
                [(tree, odd_plain, _as_json)] if tree else [],
            )
        )
    return readers


# ----------------------------------------------------------------- embeddings
def _rows(count: int = 2, width: int = 4) -> torch.Tensor:
    return torch.arange(count * width).reshape(count, width) / 7


def _contents() -> dict[str, dict[str, Any]]:
    """What the files of the field hold, by their formats."""
    table = 'text_encoder.model.text_model.embeddings.token_embedding'
    param = {'*': torch.nn.Parameter(_rows())}
    token = {'*': torch.tensor(265)}
    return {
        'diffusers': {'<cat>': _rows(), '<dog>': _rows(1)},
        'a1111': dict(
            string_to_token={'*': 265},
            string_to_param={'*': _rows()},
            name='cat',
            step=3,
        ),
        'kohya': dict(clip_l=_rows(), clip_g=_rows(2, 6)),
        'original': dict(string_to_token=token, string_to_param=param),
        'mmagic': dict(
            state_dict={f'{table}.trainable_embeddings.<cat>': _rows()},
            meta=dict(iter=3),
        ),
    }


def _checkpoint() -> dict[str, Any]:
    """A training checkpoint, in small."""
    record = dict(editor='HiPer', backbone='mini-sd', step='3')
    state = OrderedDict({'embedding.tail': _rows()})
    state._metadata = {'': record}  # type: ignore[attr-defined]
    moments = dict(step=torch.tensor(3.0), exp_avg=_rows(), exp_avg_sq=_rows())
    return dict(
        meta=dict(iter=3, epoch=0, seed=1, embedding=record),
        state_dict=state,
        message_hub=dict(log_scalars={}, runtime_info={}),
        optimizer=dict(
            state={0: moments}, param_groups=[dict(lr=0.1, params=[0])]
        ),
        param_schedulers=[],
    )


def _legacy(tree: Any) -> bytes:
    return saved(tree, zipped=False)


def _describe(path: Path) -> Any:
    tokens = read_token_file(path)
    assert tokens.describe().isascii() or tokens.describe().encode()
    return tokens


def _learned(path: Path) -> Any:
    return read_learned(path)[0]


def _are_tensors(state: Any) -> bool:
    return all(isinstance(each, torch.Tensor) for each in state.values())


def embedding_readers(folder: Path) -> list[Reader]:
    """The readers of what was learned.

    Args:
        folder: For files that the seeds are made of.

    Returns:
        They.
    """
    checkpoint = _checkpoint()
    readers = []
    for name, content in _contents().items():
        seeds = [saved(content), _legacy(content)]
        if all(isinstance(each, torch.Tensor) for each in content.values()):
            seeds.append(save(content, {'ss_step': '3'}))
        trees = [(content, odd_torch, saved), (content, odd_torch, _legacy)]
        readers.append(
            Reader(
                f'embedding, {name}',
                'a.bin',
                _describe,
                lambda tokens: isinstance(tokens, TokenFile),
                seeds,
                trees,
            )
        )
    record = dict(format='mmhiper', editor='TextualInversion', step='3')
    exports = [save({'<cat>': _rows()}, record)]
    exports += [
        save({'embedding.tail': _rows()}, record | {'editor': 'HiPer'})
    ]
    both = [(checkpoint, odd_torch, saved), (checkpoint, odd_torch, _legacy)]
    zipped = [saved(checkpoint), _legacy(checkpoint)]
    return readers + [
        Reader(
            'embedding, export',
            'a.bin',
            _describe,
            lambda tokens: isinstance(tokens, TokenFile),
            exports,
        ),
        Reader('export', 'a.safetensors', _learned, _are_tensors, exports),
        Reader('checkpoint', 'a.pth', _learned, _are_tensors, zipped, both),
        Reader(
            'checkpoint to resume',
            'a.pth',
            check_resumable,
            lambda nothing: nothing is None,
            zipped,
            both,
        ),
        Reader(
            'mmhiper info',
            'a.pth',
            lambda path: dict(facts_of(path)),
            lambda facts: bool(facts),
            zipped + _pictures()[:1] + _records(folder),
            both,
        ),
    ]


# ------------------------------------------------------------------ backbones
def _copied(path: Path, part: str) -> Path:
    """A folder with a part of mini-sd, where it is not there yet."""
    folder = path.parent
    for source in (BUNDLED['mini-sd'] / part).iterdir():
        target = folder / source.name
        if source.suffix in ('.json', '.txt') and not target.exists():
            target.write_bytes(source.read_bytes())
    return folder


def _tokenizer(path: Path) -> Any:
    folder = _copied(path, 'tokenizer')
    override = dict(pretrained=str(folder), subfolder='')
    with quiet():
        return load_part(
            StableDiffusion.kinds['tokenizer'], '', torch.float32, override
        )


def _scheduler(path: Path) -> Any:
    override = dict(pretrained=str(path.parent), subfolder='')
    with quiet():
        return load_part(PartKind(SCHEDULER, ''), '', torch.float32, override)


def backbone_readers() -> list[Reader]:
    """The readers of a backbone's small files.

    Returns:
        They.
    """
    folder = BUNDLED['mini-sd']

    def reader(
        name: str, file: str, read: Callable[[Path], Any], sound: Any
    ) -> Reader:
        content = (folder / file).read_bytes()
        trees: list[Tree] = []
        if file.endswith('.json') and len(content) < 10**4:
            trees = [(json.loads(content), odd_plain, _as_json)]
        return Reader(name, Path(file).name, read, sound, [content], trees)

    def is_dict(config: Any) -> bool:
        return isinstance(config, dict)

    def is_tokenizer(tokenizer: Any) -> bool:
        return len(tokenizer) >= 0

    return [
        reader(
            'backbone index',
            'model_index.json',
            lambda path: StableDiffusion.family_of(
                find_source(str(path.parent))
            ),
            lambda family: issubclass(family, StableDiffusion),
        ),
        reader(
            'backbone scheduler',
            'scheduler/scheduler_config.json',
            _scheduler,
            is_dict,
        ),
        reader(
            'backbone tokenizer',
            'tokenizer/tokenizer_config.json',
            _tokenizer,
            is_tokenizer,
        ),
        reader(
            'guidance',
            'guidance.json',
            read_scale,
            lambda scale: 1 <= scale <= 100,
        ),
        reader(
            'image encoder config',
            'image_encoder/config.json',
            lambda path: ImageEncoder(str(path.parent)).num_tokens,
            lambda number: isinstance(number, int),
        ),
    ]


def _as_json(tree: Any) -> bytes:
    return json.dumps(tree).encode()


def all_readers(folder: Path) -> Iterator[Reader]:
    """Every reader.

    Args:
        folder: For files that the seeds are made of.

    Yields:
        One after another.
    """
    yield from picture_readers(folder)
    yield from text_readers()
    yield from bench_readers()
    yield from embedding_readers(folder)
    yield from backbone_readers()
