"""Merge embedding files into one: ``mmhiper merge``."""

import sys

from mmhiper.cli import main

if __name__ == '__main__':
    sys.exit(main(['merge', *sys.argv[1:]]))
