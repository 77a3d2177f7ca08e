"""``python -m mmhiper``, the same as ``mmhiper``."""

import sys

from mmhiper.cli import main

if __name__ == '__main__':
    sys.exit(main())
