"""``torch.distributed.run`` that lets train.py's own words stand alone.

Its report of a failed process, a traceback and two tables, is the only word
on a process that was killed, but buries the one line by which train.py
reports a user's mistake. Called by dist_train.sh.
"""

from __future__ import annotations

import logging
import signal
import sys

from mmhiper.interruption import STOP
from mmhiper.threads import bound_spin

# exit codes of what has said itself what happened: a mistake or a crash of
# Python, a wrong command line, a signal that ends a training
TOLD = (1, 2, 129, 130, 143)


def main() -> None:
    """Run, and report processes that were killed."""
    bound_spin()
    with STOP.handled():
        STOP.importing = True  # until the launcher has handlers of its own
        _main()


def _main() -> None:
    """See :func:`main`."""
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import (
        ChildFailedError,
    )

    # The launcher would answer what `nohup` has its processes ignore.
    if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])
    # Says at once what the report says at the end, and which process it
    # passes a signal on to.
    for module in ('multiprocessing.api', 'agent.server.api'):
        logging.getLogger(f'torch.distributed.elastic.{module}').setLevel(
            logging.CRITICAL
        )
    try:
        run.main()
    except SignalException as error:
        # the processes have got it too, and the first has said what is saved
        sys.exit(128 + int(error.sigval))
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        if failure.exitcode not in TOLD:
            raise
        sys.exit(failure.exitcode)


if __name__ == '__main__':
    main()
