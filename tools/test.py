"""Report whether an editor has learned and listens: ``mmhiper test``."""

import sys

from mmhiper.cli import main

if __name__ == '__main__':
    sys.exit(main(['test', *sys.argv[1:]]))
