"""What all windows of a page share."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmhiper.studio import requests
from mmhiper.studio.jobs import DONE, LEARNING, Jobs
from mmhiper.studio.runs import Progress, Run, find_run, list_runs
from mmhiper.studio.studio import Studio
from mmhiper.utils.units import plain_time

_AGAIN = 15.0  # seconds


@dataclass
class Sight:
    """What there is to see of the runs of a kind, and of one of them.

    Two are equal if there is nothing new but words.

    Attributes:
        names: Of the runs, the newest first.
        name: Of the one.
        lines: How far it is, and what it has learned, in plain text.
        share: What is done of it, in [0, 1].
        curve: Iterations and the loss on noise that stays the same.
        sheets: What came of it side by side, or its newest preview: two at
            most.
        results: The pictures that came of it.
        done: Whether something was learned that can be fetched.
    """

    names: list[str]
    name: str
    lines: list[str] = field(compare=False)
    share: float = field(compare=False)
    curve: dict[int, float]
    sheets: list[Path]
    results: list[Path]
    done: bool


@dataclass
class Site:
    """The work dirs below a folder, who trains in them, and what draws.

    Attributes:
        root: The folder.
        uploads: Where files lie that come from windows and go to them.
        pretrained: The backbone of what is learned; of the configs if None.
        iterations: Of a training, set at first.
        steps: Of a picture, likewise.
    """

    root: Path
    uploads: Path
    pretrained: str | None = None
    iterations: int = 1200
    steps: int = 50

    def __post_init__(self) -> None:
        self.studio = Studio(self.pretrained)
        self.jobs = Jobs(self.studio.finish)

    def run(self, name: Any) -> Run:
        """The run of a name, see :func:`find_run`."""
        return find_run(self.root, name)

    def begin(self, kind: str, *values: Any) -> Run:
        """Makes a run of what was asked for, and puts it in the line.

        Args:
            kind: One of `requests.REQUESTS`.
            *values: What its request is made of.
        """
        if kind == requests.WORD:
            self.studio.check_word(*values[1:3])
        request = requests.REQUESTS[kind]
        run = request(self.root, *values, pretrained=self.pretrained)
        self.jobs.add(run)
        return run

    def look(self, kind: str, name: str | None) -> Sight | None:
        """What there is to see of a kind; None if there are no runs.

        Args:
            kind: Its name.
            name: Of the run that was chosen; if there is none, the one at
                work is shown, or else the newest.
        """
        runs = list_runs(self.root, kind)
        if not runs:
            return None
        wanted = [name, *(run.name for run in self.jobs.line()[:1])]
        found = [run for each in wanted for run in runs if run.name == each]
        run = [*found, *runs][0]
        state, progress = self.jobs.state(run), run.progress()
        sheets = run.sheets() if state == DONE else []
        made = run.pictures() if state == DONE else []
        preview = run.preview()
        return Sight(
            names=[each.name for each in runs],
            name=run.name,
            lines=_say_run(run, state, progress),
            share=progress.share,
            curve=progress.curve,
            sheets=sheets or ([preview] if preview else []),
            results=made[len(sheets) :],
            done=state == DONE,
        )

    def overview(self) -> list[tuple[Path, str]]:
        """The last picture and the name of each run that has one."""
        seen = [
            (next(iter(run.pictures()), run.preview()), run.name)
            for run in list_runs(self.root)
        ]
        return [(file, name) for file, name in seen if file is not None]

    def draw(
        self,
        name: str,
        texts: str,
        *,
        seed: float,
        num_inference_steps: float,
        iteration: float | None = None,
        words: Sequence[str] | None = None,
        guidance_scale: float = 0.0,
        **options: float,
    ) -> tuple[Run, list[Path]]:
        """Draws the texts of a box, see :meth:`Studio.draw`.

        Args:
            name: Of the run.
            texts: One a line.
            seed: A whole number, as those that follow.
            num_inference_steps: Of a picture.
            iteration: The snapshot nearest to it; the newest if None.
            words: Names of runs whose words are in the texts too.
            guidance_scale: 0 for the backbone's own.
            **options: Of `infer`.
        """
        options['seed'] = int(seed)
        options['num_inference_steps'] = int(num_inference_steps)
        if guidance_scale:
            options['guidance_scale'] = guidance_scale
        run, more = self.run(name), [self.run(each) for each in words or ()]
        prompts = requests.lines_of(texts)
        return run, self.studio.draw(run, prompts, iteration, more, **options)

    def now(self) -> tuple[str, str]:
        """Who is at work, in words; and a text that changes if anything does.

        It costs little, so every window asks for it every other second. It
        changes now and then without a reason too: what a window has missed,
        it sees then.
        """
        line = self.jobs.line()
        state = self.jobs.state(line[0]) if line else ''
        mark = [self.root.stat().st_mtime_ns] if self.root.is_dir() else []
        mark += [run.changed() for run in line[:1]]
        mark += [int(time.monotonic() / _AGAIN)]
        return _say_line(line, state), f'{mark} {state} {line}'


def _say_line(line: list[Run], state: str) -> str:
    if not line:
        return 'Nothing is being learned.'
    waiting = ', '.join(run.name for run in line[1:])
    return f'{line[0].name} is {state}; waiting: {waiting or "nobody"}'


def _say_run(run: Run, state: str, progress: Progress) -> list[str]:
    words = f'{run.name}: {state}'
    if progress.done:
        of = f' of {progress.total}' if progress.total else ''
        words += f', {progress.done}{of} steps'
    if state == LEARNING and progress.left is not None:
        words += f', about {plain_time(progress.left)} left'
    learned = run.said('Learned: ') or run.said('Nothing measurable')
    remark = str(run.asked().get('remark', ''))
    lines = [words, learned, *run.report(), remark]
    return [each for each in lines if each]
