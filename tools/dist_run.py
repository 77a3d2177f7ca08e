"""``torch.distributed.run`` that lets train.py's own words stand alone.

Its report of a failed process, a traceback and two tables, is the only word
on a process that was killed, but buries the one line by which train.py
reports a user's mistake. Called by dist_train.sh.
"""

from __future__ import annotations

import logging
import sys

from torch.distributed import run
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

# exit codes of what has said itself what happened: a mistake or a crash of
# Python, a wrong command line, Ctrl-C
TOLD = (1, 2, 130)


def main() -> None:
    """Run, and report processes that were killed."""
    # Says at once what the report says at the end.
    logging.getLogger(
        'torch.distributed.elastic.multiprocessing.api'
    ).setLevel(logging.CRITICAL)
    try:
        run.main()
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        if failure.exitcode not in TOLD:
            raise
        sys.exit(failure.exitcode)


if __name__ == '__main__':
    main()
