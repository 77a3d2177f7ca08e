"""The benchmarks run to their end; what they say is not looked at."""

from __future__ import annotations

import json

import solvers


def test_solvers_are_compared_and_a_stopped_run_goes_on(tiny_sd1, tmp_path):
    words = ['--pretrained', str(tiny_sd1), '--individuals', '2']
    words += ['--iters', '1', '--steps', '1', '2', '--out-dir', str(tmp_path)]
    solvers.main(words)
    (path,) = tmp_path.glob('*/cases.jsonl')
    whole = path.read_text()
    rows = [json.loads(line) for line in whole.splitlines()]

    assert len(rows) == 2 * 2 * 3
    assert all(row['to_most_steps_db'] > 70 for row in rows[::2])  # itself
    table = path.with_name('table.md').read_text().splitlines()
    assert len(table) == 2 + 2 * 3
    assert table[2].startswith('| DDIM | 2 | 4 |')

    # a killed run: its last line is half written
    path.write_text(whole[:-20])
    solvers.main(words)
    again = [json.loads(line) for line in path.read_text().splitlines()]
    assert again == rows
