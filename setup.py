"""Map tools/, configs/ and datasets/ of the repository into the package of a wheel; all else is in pyproject.toml."""

from setuptools import find_packages, setup

MAPPED = {f"vidtl.{folder}": folder for folder in ("tools", "configs", "datasets")}

setup(packages=[*find_packages(include=["vidtl*"]), *MAPPED], package_dir=MAPPED)
