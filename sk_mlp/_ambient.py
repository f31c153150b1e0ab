"""The environment of a call: settings of the thread or the process that a `with` block may change.

Calls that run alternately in one thread have one environment each: a `with` block of one call does not affect the
others.
"""

from __future__ import annotations

import os
import sys
import warnings
from asyncio import AbstractEventLoop
from asyncio.events import _get_running_loop, _set_running_loop
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, NamedTuple

import joblib
import torch
from sklearn import get_config, set_config
from threadpoolctl import LibController, ThreadpoolController

from sk_mlp._compute.modes import Modes
from sk_mlp._compute.torch_private import function_modes, replace_function_modes

# The names that `warnings.catch_warnings` changes, and restores at its end.
_WARNING_STATE = ("filters", "showwarning", "_showwarnmsg_impl")


class Ambient(NamedTuple):
    """scikit-learn's and joblib's configuration, warnings, output, directory, event loop, threads, PyTorch's modes."""

    sklearn: Mapping[str, Any]
    joblib: Mapping[str, Any]
    warnings: Mapping[str, Any]
    output: tuple[Any, Any]
    folder: str | None
    loop: AbstractEventLoop | None
    n_threads: tuple[int, ...]  # of each library that has threads
    dtype: torch.dtype  # PyTorch's default dtype
    functions: tuple[Any, ...]  # PyTorch's function modes, for example a default device
    modes: Modes

    @classmethod
    def now(cls) -> Ambient:
        """Return the current environment."""
        return cls(
            get_config(),
            dict(vars(joblib.parallel._backend)),
            {name: getattr(warnings, name) for name in _WARNING_STATE if hasattr(warnings, name)},
            (sys.stdout, sys.stderr),
            _working_directory(),
            _get_running_loop(),
            tuple(library.num_threads for library in _libraries()),
            torch.get_default_dtype(),
            function_modes(),
            Modes.now(),
        )

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Set this environment; restore the current one at the end."""
        before = Ambient.now()
        try:
            with self.modes.installed():
                self._install(before)
                yield
        finally:
            before._install(Ambient.now())

    def _install(self, now: Ambient) -> None:
        """Set everything except the modes, if it differs from `now`."""
        if self.sklearn != now.sklearn:
            set_config(**self.sklearn)
        if self.joblib != now.joblib:
            vars(joblib.parallel._backend).clear()
            vars(joblib.parallel._backend).update(self.joblib)
        if any(value is not now.warnings[name] for name, value in self.warnings.items()):
            vars(warnings).update(self.warnings)
            with warnings.catch_warnings():
                pass  # its end tells the warnings module that the filters have changed
        sys.stdout, sys.stderr = self.output
        if self.folder != now.folder and self.folder is not None:
            os.chdir(self.folder)
        if self.loop is not now.loop:
            _set_running_loop(self.loop)
        for library, n, n_now in zip(_libraries(), self.n_threads, now.n_threads, strict=True):
            if n != n_now:
                library.set_num_threads(n)
        if self.dtype != now.dtype:
            torch.set_default_dtype(self.dtype)
        if self.functions != now.functions:
            replace_function_modes(now.functions, self.functions)


def _working_directory() -> str | None:
    """Return the working directory; None if it has been removed."""
    try:
        return os.getcwd()
    except FileNotFoundError:
        return None


@lru_cache(maxsize=1)
def _libraries() -> tuple[LibController, ...]:
    """Return the libraries with threads that are loaded at the first call; finding them takes milliseconds."""
    return tuple(ThreadpoolController().lib_controllers)
