"""Convert an embedding file between formats: ``mmhiper convert``."""

import sys

from mmhiper.cli import main

if __name__ == '__main__':
    sys.exit(main(['convert', *sys.argv[1:]]))
