"""What `import mmhiper` adds to `import torch, mmengine`.

python tools/benchmarks/import_time.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys

CODE = """
import time, torch, mmengine
start = time.perf_counter()
import mmhiper
print(time.perf_counter() - start)
"""


def main() -> None:
    """Time the import in nine fresh processes; print the median."""
    seconds = [
        float(subprocess.check_output([sys.executable, '-c', CODE]))
        for _ in range(9)
    ]
    print(f'import mmhiper adds {statistics.median(seconds):.3f} s (median)')


if __name__ == '__main__':
    main()
