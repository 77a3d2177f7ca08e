"""What all windows share, and what is said of a run."""

from __future__ import annotations

import os

from mmhiper.studio.runs import list_runs
from mmhiper.studio.site import Site

EDITS = ('a dog', 'a cat', 'center', 2, 2)


def test_a_damaged_folder_is_shown_all_the_same(tmp_path):
    folder = tmp_path / 'run'
    (folder / '2026' / 'vis_data').mkdir(parents=True)
    (folder / 'request.json').write_text('{"kind": 5, "remark": 7}')
    (folder / 'asked.json').write_text('[]')
    (folder / 'test').mkdir()
    (folder / 'test' / 'report.json').write_text('{"learned": {"x": 1}}')
    (folder / '2026' / 'vis_data' / 'scalars.json').write_text(
        '{"fixed_loss": 0.5, "step": 0}\n{"fixed_lo\n7\n[]\n{"iter": "x"}\n'
    )
    (run,) = list_runs(tmp_path)
    progress = run.progress()
    assert progress.curve == {0: 0.5} and progress.done == 0
    assert progress.share == 0.0
    site = Site(tmp_path, tmp_path)
    try:
        seen = site.look('', None)
        assert seen is not None
        assert seen.lines == ['run: stopped', '7'] and seen.curve == {0: 0.5}
        assert not seen.sheets and not seen.done and not site.overview()
    finally:
        site.jobs.close()
    assert run.changed()
    assert not run.pictures() and not run.snapshots() and not run.preview()


def test_a_window_shows_the_chosen_run_or_the_newest(tmp_path, ask):
    site = Site(tmp_path / 'runs', tmp_path)
    try:
        assert site.look('personalised', None) is None
        ask(site.root)
        ask(site.root, 'a fox', *EDITS[1:])
        os.utime(site.root / 'a dog', (1, 1))
        for name, shown in (
            (None, 'a fox'),
            ('gone', 'a fox'),
            ('a dog', 'a dog'),
        ):
            seen = site.look('personalised', name)
            assert seen is not None and seen.name == shown
            assert seen.names == ['a fox', 'a dog']
        assert site.look('word', 'a dog') is None
        words, mark = site.now()
        assert words == 'Nothing is being learned.'
        ask(site.root)
        assert site.now()[1] != mark
    finally:
        site.jobs.close()
