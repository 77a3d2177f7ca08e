"""Personalise a photo and edit it by texts: ``mmhiper edit``."""

import sys

from mmhiper.cli import main

if __name__ == '__main__':
    sys.exit(main(['edit', *sys.argv[1:]]))
