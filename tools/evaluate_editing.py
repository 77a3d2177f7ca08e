"""Edit a bench by several methods, and compare them: ``mmhiper bench``."""

import sys

from mmhiper.cli import main

if __name__ == '__main__':
    sys.exit(main(['bench', *sys.argv[1:]]))
