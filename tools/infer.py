"""Draw pictures from texts with a trained editor: ``mmhiper infer``."""

import sys

from mmhiper.cli import main

if __name__ == '__main__':
    sys.exit(main(['infer', *sys.argv[1:]]))
