"""Going through a bench: what is done is skipped, what fails is listed.

Results lie in one folder:

    cases.jsonl             a line for each case of each method
    table.md, table.csv     per method and sort of edit, with intervals
    index.html              a page with all pictures
    sources/, goals/        the pictures as the model sees them
    METHOD/CASE/            edit.png, case.json (its line) or error.txt
"""

from __future__ import annotations

import json
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.config import Config
from PIL import Image

from mmhiper.bench.methods import (
    PLAIN,
    Drawing,
    build,
    draw_edit,
    learn_alone,
    learned_from,
    subject_of,
)
from mmhiper.bench.metrics import MetricChoice
from mmhiper.bench.report import write_report
from mmhiper.datasets.source_image import SourceImageDataset
from mmhiper.engine.run_lock import run_lock
from mmhiper.engine.share import Share, wait_for_others
from mmhiper.engine.sources import sources_of
from mmhiper.engine.together import check_together, learn_each
from mmhiper.evaluation import Edited, EditMetric
from mmhiper.evaluation.benches import BenchCase, decode_mask
from mmhiper.interruption import STOP
from mmhiper.io import write_picture
from mmhiper.models.data_preprocessor import ImagePreprocessor
from mmhiper.registry import MODELS, SCOPE
from mmhiper.utils import register_all_modules
from mmhiper.utils.atomic import (
    WriteError,
    atomic_path,
    check_writable,
    remove_leftovers,
)
from mmhiper.utils.devices import best_device
from mmhiper.utils.errors import UserError
from mmhiper.utils.picture_files import open_picture
from mmhiper.utils.pixels import to_pil
from mmhiper.utils.reading import sha256

LINE, ERROR, EDIT = 'case.json', 'error.txt', 'edit.png'
_LEARNED = 'learned'  # a folder beside those of the cases
_NO_LINE: dict[str, Any] = {}


@dataclass(frozen=True, eq=False)
class Job:
    """Cases of one method that share what is learned.

    Attributes:
        method: Its name.
        cases: At least one.
    """

    method: str
    cases: tuple[BenchCase, ...]


class Bench:
    """Edits the cases of a bench by several methods, and measures them.

    Args:
        cases: Of a bench, see :func:`read_bench`.
        configs: By method, see :func:`method_config`; all have the same
            frozen model.
        out_dir: Folder of the results.
        drawing: What pictures are drawn with.
        choice: Which metrics are taken.
        among: K, of how many subjects the own one is to be found.
        images_per_step: How many cases HiPer learns at the same time.

    Raises:
        ValueError: If there are no methods, or the models differ.
    """

    def __init__(
        self,
        cases: Sequence[BenchCase],
        configs: Mapping[str, Config],
        out_dir: str | Path,
        drawing: Drawing | None = None,
        choice: MetricChoice | None = None,
        among: int = 20,
        images_per_step: int = 8,
    ) -> None:
        register_all_modules()
        self.cases, self.configs = list(cases), dict(configs)
        self.out_dir = Path(out_dir)
        self.drawing = drawing or Drawing()
        self.choice = choice or MetricChoice()
        self.among, self.images_per_step = among, images_per_step
        models = {
            json.dumps(cfg.model.sd, sort_keys=True, default=str)
            for cfg in self.configs.values()
        }
        if len(models) != 1:
            raise UserError(
                'All methods of a bench have one frozen model (`model.sd`), '
                f'but got {" and ".join(sorted(models)) or "no method"}.'
            )
        for name, cfg in self.configs.items():
            if self._many(name):
                check_together(cfg)
        for name, least in (('among', 2), ('images_per_step', 1)):
            if getattr(self, name) < least:
                raise UserError(
                    f'`{name}` must be at least {least}, but got '
                    f'{getattr(self, name)}.'
                )

    def _many(self, method: str) -> bool:
        """Whether its editor learns several pictures in one step."""
        kind = MODELS.get(self.configs[method].model.type)
        return method != PLAIN and hasattr(kind, 'learned_of')

    @cached_property
    def sd(self) -> Any:
        """The frozen model, which all methods share; loaded at first use."""
        cfg = next(iter(self.configs.values()))
        return MODELS.build({'_scope_': SCOPE, **cfg.model.sd}).to(
            best_device()
        )

    @cached_property
    def metrics(self) -> list[EditMetric]:
        """What is measured; the first use says what is not."""
        metrics, left_out = self.choice.build(self.sd)
        for line in left_out:
            print(line, flush=True)
        return metrics

    @cached_property
    def view(self) -> Any:
        """How the model sees a picture, by its path."""
        prepare = ImagePreprocessor(self.sd.image_size)
        pipeline = [
            dict(type=f'{SCOPE}.{name}')
            for name in ('LoadUprightImage', 'SquareCrop', 'PackSourceImage')
        ]

        @lru_cache(4 * self.among)
        def view(path: str) -> Image.Image:
            dataset = SourceImageDataset(img=path, pipeline=pipeline)
            return to_pil(sources_of(dataset, prepare).pixels[0])

        return view

    # ---------------------------------------------------------------- files
    def folder(self, method: str, case: BenchCase) -> Path:
        """Where the results of a case go."""
        return self.out_dir / method / case.name

    def line(self, method: str, case: BenchCase) -> dict[str, Any]:
        """What is known of a case that is done, and up to date.

        Returns:
            Empty if it is not.
        """
        path = self.folder(method, case) / LINE
        # what another program has damaged is none
        with suppress(OSError, ValueError, RecursionError, UserError):
            line = json.loads(path.read_bytes())
            if isinstance(line, dict) and (
                line.get('made') == self.made(method, case)
                and path.with_name(EDIT).is_file()
            ):
                return line
        return _NO_LINE

    def made(self, method: str, case: BenchCase) -> str:
        """A name of all that decides what the edit of a case looks like."""
        cfg = self.configs[method]
        model = dict(cfg.model)
        device = model['sd'].get('without_cuda') and best_device().type
        texts = ('source_text', 'target_text', 'val_prompts')
        learning: Any = None
        if method != PLAIN:
            learning = dict(
                model={k: v for k, v in model.items() if k not in texts},
                data={
                    key: value
                    for key, value in cfg.train_dataloader.dataset.items()
                    if key not in ('img', 'concept_dir', 'placeholder')
                },
                optim_wrapper=cfg.optim_wrapper,
                iterations=cfg.train_cfg.get('max_iters'),
                seed=cfg.randomness.seed,
                pictures=[
                    _sha256(path) for path in case.pictures or (case.image,)
                ],
                source=case.source,
                subject=subject_of(case),
                blend=case.blend,
                options=case.options,
            )
        facts = dict(
            learning=learning,
            sd=model['sd'],
            device=device,
            target=case.target,
            drawing=asdict(self.drawing),
        )
        text = json.dumps(facts, sort_keys=True, default=str)
        return blake2b(text.encode(), digest_size=16).hexdigest()

    def measures(self, case: BenchCase) -> list[str]:
        """All that decides what is measured of the edit of a case."""
        truth = [case.mask, _sha256(case.goal or ''), case.asked]
        known = blake2b(json.dumps(truth).encode(), digest_size=16)
        return [
            *(
                f'{type(each).__name__} {each.encoder}'.strip()
                for each in self.metrics
            ),
            f'among {self.among}',
            known.hexdigest(),
        ]

    def is_done(self, method: str, case: BenchCase) -> bool:
        """Whether a case is drawn and measured by these very settings."""
        line = self.line(method, case)
        return bool(line) and line.get('measured') == self.measures(case)

    # ----------------------------------------------------------------- work
    def jobs(self) -> list[Job]:
        """All that is to be learned, method by method."""
        found: dict[tuple[str, ...], list[BenchCase]] = {}
        for method in self.configs:
            for case in self.cases:
                key = (method, *learned_from(method, case))
                if method == PLAIN:  # nothing is shared
                    key = (method, case.name)
                found.setdefault(key, []).append(case)
        return [Job(key[0], tuple(cases)) for key, cases in found.items()]

    def run(self, share: Share | None = None) -> dict[str, str]:
        """Does what is not done yet, and reports all that is.

        Args:
            share: Which part of it, by default :meth:`Share.of` this process.

        Returns:
            Why those that failed did, by method and case; of several processes
            the first one knows.

        Raises:
            ValueError: If another process has this share.
            KeyboardInterrupt: At Ctrl-C; it says how many are done.
        """
        share = Share.of() if share is None else share
        check_writable(self.out_dir)
        self.metrics  # noqa: B018  a mistake should not cost a training
        with run_lock(self.out_dir, share.lock):
            mine = share.take(self.jobs())
            try:
                for group in self._groups(mine):
                    self._draw(group)
                    for job in group:
                        self._measure(job)
            except KeyboardInterrupt:
                done = sum(
                    self.is_done(job.method, case)
                    for job in mine
                    for case in job.cases
                )
                count = sum(len(job.cases) for job in mine)
                raise KeyboardInterrupt(
                    f'{done} of {count} edit(s) are done in {self.out_dir}; '
                    'the same command goes on.'
                ) from None
            if not wait_for_others():
                return {}
            return self.report()

    def _groups(self, jobs: Sequence[Job]) -> Iterator[list[Job]]:
        """Jobs that are learned at the same time, of HiPer."""
        waiting: list[Job] = []
        for job in jobs:
            # those that are done are measured anew at most
            if not self._many(job.method) or all(
                self.line(job.method, case) for case in job.cases
            ):
                yield [job]
                continue
            if waiting and waiting[0].method != job.method:
                yield waiting
                waiting = []
            waiting.append(job)
            if len(waiting) == self.images_per_step:
                yield waiting
                waiting = []
        if waiting:
            yield waiting

    def _draw(self, group: Sequence[Job]) -> None:
        """Learns and draws what is not done of some jobs."""
        left = {
            job: [
                case for case in job.cases if not self.line(job.method, case)
            ]
            for job in group
        }
        left = {job: cases for job, cases in left.items() if cases}
        for job, editor in self._learned(list(left)):
            for case in left[job]:
                print(
                    f'{job.method}  {case.name}: {case.source} -> '
                    f'{case.target}',
                    flush=True,
                )
                try:
                    self._draw_case(job.method, case, editor)
                except Exception as error:
                    self._fail(job.method, case, error)

    def _learned(self, jobs: list[Job]) -> Iterator[tuple[Job, Any]]:
        """Jobs with their editors; those that fail say so in their cases."""
        prepared = []
        for job in jobs:
            try:
                if job.method == PLAIN:
                    yield job, None
                    continue
                first = job.cases[0]
                place = self.out_dir / job.method / first.name / _LEARNED
                cfg = self.configs[job.method]
                editor, dataset = build(job.method, cfg, self.sd, first, place)
                if not self._many(job.method):
                    learn_alone(editor, dataset, cfg)
                    yield job, editor
                    continue
                prepared.append((job, editor, dataset))
            except Exception as error:
                self._fail_all(job, error)
        if not prepared:
            return
        try:
            states = self._learn_together(prepared)
        except Exception as error:
            for job, _, _ in prepared:
                self._fail_all(job, error)
            return
        for (job, editor, _), state in zip(prepared, states, strict=True):
            try:
                editor.load_state_dict(state)
                editor.eval().check_learned()
                yield job, editor
            except Exception as error:
                self._fail_all(job, error)

    def _learn_together(
        self, prepared: Sequence[tuple[Job, Any, Any]]
    ) -> list[dict[str, torch.Tensor]]:
        """Trains one editor of many pictures, and takes it apart."""
        cfg = self.configs[prepared[0][0].method]
        texts = [job.cases[0].source for job, _, _ in prepared]
        editor = MODELS.build(
            dict(cfg.model, sd=self.sd, source_text=texts, target_text=None)
        ).to(best_device())
        return learn_each(editor, [data[0] for _, _, data in prepared], cfg)

    def _draw_case(self, method: str, case: BenchCase, editor: Any) -> None:
        """Draws an edit, and keeps what it is to be compared with."""
        folder = self.folder(method, case)
        check_writable(folder)
        remove_leftovers(folder)
        (folder / LINE).unlink(missing_ok=True)
        pictures = draw_edit(editor, self.sd, case, self.drawing)
        record = dict(prompt=case.target, method=method, case=case.name)
        for name, picture in pictures.items():
            write_picture(folder / f'{name}.png', picture, record)
        for name, path in (('sources', case.image), ('goals', case.goal)):
            if path is not None:
                check_writable(self.out_dir / name)
                write_picture(
                    self.out_dir / name / f'{case.name}.png',
                    self.view(path),
                    dict(case=case.name),
                )
        self._write_line(method, case, {}, [])

    def _measure(self, job: Job) -> None:
        """Measures what was drawn, where it is not measured yet."""
        for case in job.cases:
            if not self.line(job.method, case) or self.is_done(
                job.method, case
            ):
                continue
            try:
                edited = self._edited(job.method, case)
                found: dict[str, list[Any]] = {}
                for metric in self.metrics:
                    for name, value in metric.measure(edited).items():
                        found[name] = [value, metric.encoder]
                full = edited.mask is not None and edited.background is None
                facts = dict(full_mask=full, among=len(edited.others) + 1)
                self._write_line(
                    job.method, case, found, self.measures(case), facts
                )
                (self.folder(job.method, case) / ERROR).unlink(missing_ok=True)
            except Exception as error:
                self._fail(job.method, case, error)

    def _edited(self, method: str, case: BenchCase) -> Edited:
        """An edit with all that is known of the right answer."""
        with open_picture(self.folder(method, case) / EDIT) as picture:
            edited = picture.convert('RGB')
        return Edited(
            source=self.view(case.image),
            edited=edited,
            source_text=case.source,
            target_text=case.target,
            mask=None if case.mask is None else self._mask(case),
            goal=None if case.goal is None else self.view(case.goal),
            references=[self.view(path) for path in case.pictures],
            others=self._others(case),
            asked=case.asked,
        )

    def _mask(self, case: BenchCase) -> np.ndarray:
        """The mask at the size of the model: all that it touches."""
        whole = torch.from_numpy(decode_mask(case.mask or ()))[None, None]
        size = self.sd.image_size
        small = F.adaptive_max_pool2d(whole.float(), (size, size))
        return (small[0, 0] > 0).numpy()

    def _others(self, case: BenchCase) -> list[Image.Image]:
        """Pictures of the K - 1 subjects that come next in the bench."""
        place = self.cases.index(case)
        seen = {case.image}
        found: list[Image.Image] = []
        for other in (*self.cases[place + 1 :], *self.cases[:place]):
            if len(found) == self.among - 1:
                break
            if other.image not in seen:
                seen.add(other.image)
                with suppress(UserError):  # which its own case tells
                    found.append(self.view(other.image))
        return found

    def _write_line(
        self,
        method: str,
        case: BenchCase,
        found: Mapping[str, Sequence[Any]],
        measured: Sequence[str],
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        """Writes what is known of a case, in one step."""
        line = dict(
            method=method,
            case=case.name,
            kind=case.kind,
            source=case.source,
            target=case.target,
            note=case.note,
            made=self.made(method, case),
            measured=list(measured),
            metrics={name: value for name, (value, _) in found.items()},
            encoders={name: whose for name, (_, whose) in found.items()},
            **(facts or {}),
        )
        text = json.dumps(line, ensure_ascii=False, default=str)
        with atomic_path(self.folder(method, case) / LINE) as path:
            path.write_text(text + '\n', encoding='utf-8')

    def _fail_all(self, job: Job, error: Exception) -> None:
        for case in job.cases:
            if not self.line(job.method, case):
                self._fail(job.method, case, error)

    def _fail(self, method: str, case: BenchCase, error: Exception) -> None:
        """Notes why a case has failed; the others go on."""
        if isinstance(error, WriteError):
            raise error
        if STOP.signum is not None:  # what a package made of a signal
            raise KeyboardInterrupt from error
        print(f'failed  {method}  {case.name}: {error}', flush=True)
        folder = self.folder(method, case)
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            text = f'{error}\n\n{"".join(traceback.format_exception(error))}'
            (folder / ERROR).write_text(text, 'utf-8', 'replace')

    # --------------------------------------------------------------- report
    def _lines(self) -> tuple[list[dict[str, Any]], dict[str, str]]:
        """What is known of all cases, and why others failed."""
        lines, failed = [], {}
        for method in self.configs:
            for case in self.cases:
                error = self.folder(method, case) / ERROR
                if self.is_done(method, case):
                    lines.append(self.line(method, case))
                elif error.is_file():
                    text = error.read_text('utf-8', 'replace')
                    failed[f'{method}/{case.name}'] = text.splitlines()[0]
        return lines, failed

    def report(self) -> dict[str, str]:
        """Writes lines, tables and page of what there is so far.

        Processes that have a share each may do so at the same time: the last
        one to write has seen all.

        Returns:
            Why those that failed did.
        """
        remove_leftovers(self.out_dir)
        while True:
            lines, failed = self._lines()
            write_report(self.out_dir, lines, failed, len(self.cases))
            if self._lines() == (lines, failed):
                return failed


def _sha256(path: str) -> str:
    """Of a picture; empty where there is none, which building it tells."""
    with suppress(OSError):
        return sha256(path)
    return ''
