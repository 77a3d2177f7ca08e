"""The one build step that pyproject.toml cannot say: the folder of `mim`.

OpenMMLab's tools look for an installed project's configs and scripts in
``<package>/.mim``. The metadata of this project is in pyproject.toml.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

SHIPPED = ('configs', 'data', 'tools', 'model-index.yml')


class BuildWithMim(build_py):
    """Copies what is beside the package into it, for wheels."""

    def run(self) -> None:
        """Build, then add ``mmhiper/.mim``."""
        super().run()
        if self.editable_mode:  # a checkout has them beside the package
            return
        mim = Path(self.build_lib, 'mmhiper', '.mim')
        shutil.rmtree(mim, ignore_errors=True)  # left by an earlier build
        mim.mkdir(parents=True)
        for name in SHIPPED:
            if Path(name).is_dir():
                ignore = shutil.ignore_patterns('__pycache__')
                shutil.copytree(name, mim / name, ignore=ignore)
            else:
                shutil.copy2(name, mim)


setup(cmdclass={'build_py': BuildWithMim})
