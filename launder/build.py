"""The compiled modules of this directory, built below ``build`` against the fixer that is installed."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import launder

HERE = Path(__file__).parent
MODULES = ("world", "receiver", "damage", "judge", "trial")  # each may cimport those before it


def compiled(build: Path) -> Any:
    """The module ``trial``."""
    from Cython.Build import cythonize
    from setuptools import Distribution, Extension

    extensions = [
        Extension(f"launder.{name}", [str(HERE / f"{name}.pyx")], extra_compile_args=["-O3", "-g0", "-w"])
        for name in MODULES
    ]
    modules = cythonize(extensions, build_dir=str(build), quiet=True)  # type: ignore[no-untyped-call]
    made = Distribution({"ext_modules": modules})
    command = made.get_command_obj("build_ext")
    command.build_lib, command.build_temp = str(build), str(build)
    command.ensure_finalized()
    command.run()
    launder.__path__.append(str(build / "launder"))
    return importlib.import_module("launder.trial")
