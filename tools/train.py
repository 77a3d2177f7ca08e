"""Run the training that a config describes: ``mmhiper train``."""

import sys

from mmhiper.cli import main

if __name__ == '__main__':
    sys.exit(main(['train', *sys.argv[1:]]))
