"""Compiled modules that stand beside fixer and are no part of it, built against the fixer that is installed."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType


def compiled(package: ModuleType, names: Sequence[str], build: Path) -> ModuleType:
    """The last of these modules of ``package``; all are compiled below ``build``, and may cimport each other."""
    from Cython.Build import cythonize
    from setuptools import Distribution, Extension

    here = Path(package.__path__[0])
    extensions = [
        Extension(f"{package.__name__}.{name}", [str(here / f"{name}.pyx")], extra_compile_args=["-O3", "-g0", "-w"])
        for name in names
    ]
    modules = cythonize(extensions, build_dir=str(build), quiet=True)  # type: ignore[no-untyped-call]
    made = Distribution({"ext_modules": modules})
    command = made.get_command_obj("build_ext")
    command.build_lib, command.build_temp = str(build), str(build)
    command.ensure_finalized()
    command.run()
    package.__path__.append(str(build / package.__name__))
    return importlib.import_module(f"{package.__name__}.{names[-1]}")
