"""What is shown of a run."""

from mmhiper.studio.runs import list_runs
from mmhiper.web import look


def test_a_damaged_folder_is_shown_all_the_same(tmp_path):
    folder = tmp_path / 'run'
    (folder / '2026' / 'vis_data').mkdir(parents=True)
    (folder / 'request.json').write_text('{"kind": 5, "remark": 7}')
    (folder / 'asked.json').write_text('[]')
    (folder / '2026' / 'vis_data' / 'scalars.json').write_text(
        '{"fixed_loss": 0.5, "step": 0}\n{"fixed_lo\n7\n[]\n{"iter": "x"}\n'
    )
    (run,) = list_runs(tmp_path)
    progress = run.progress()
    assert progress.curve == {0: 0.5} and progress.done == 0
    assert '>7<' in look.show_run(run, '<b>', progress)
    assert '&lt;b&gt;' in look.show_run(run, '<b>', progress)
    assert run.changed()
    assert not run.pictures() and not run.snapshots() and not run.preview()
