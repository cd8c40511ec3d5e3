"""Map tools/, configs/ and datasets/ of the repository into the package of a wheel; all else is in pyproject.toml.

An editable installation is the repository on the import path. With a mapping it would be a finder, which Python asks
only after the folders of the path: above a clone, `import vidtl` would find its folder, as a namespace.
"""

import sys

from setuptools import find_packages, setup

FOLDERS = () if "editable_wheel" in sys.argv else ("tools", "configs", "datasets")
MAPPED = {f"vidtl.{folder}": folder for folder in FOLDERS}

setup(packages=[*find_packages(include=["vidtl*"]), *MAPPED], package_dir=MAPPED or {"": "."})
