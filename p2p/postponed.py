"""Imports that wait until somebody needs them: what the library loads of itself, and a node never uses.

`import libp2p` loads QUIC, TLS, WebSockets, relays, mDNS and an ACME client (17 MB), since its packages import all that
they hold. Nothing is replaced here: a postponed package is the library's own, whose `__init__` runs when a name of it
is first asked for. Its submodules are loaded as ever. (`importlib.util.LazyLoader` is not enough: looking for a
submodule, or for the file of a traceback's line, already wakes its modules.)
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from threading import RLock
from types import ModuleType
from typing import Any

_executing = RLock()


class _Package(ModuleType):
    """A package whose `__init__` has not run yet."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        with _executing:
            if type(self) is _Package:
                self.__class__ = ModuleType  # type: ignore[assignment]  # its __init__ may import itself
                assert self.__spec__ is not None and isinstance(self.__spec__.loader, _PackageLoader)
                self.__spec__.loader.plain.exec_module(self)
        return getattr(self, name)


class _PackageLoader(Loader):
    def __init__(self, plain: Loader) -> None:
        self.plain = plain

    def create_module(self, spec: ModuleSpec) -> None:
        """The import system makes the module."""

    def exec_module(self, module: ModuleType) -> None:
        """Leave that for later."""
        module.__class__ = _Package


class _Finder(MetaPathFinder):
    def __init__(self, packages: Collection[str]) -> None:
        self._packages = packages

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Where a postponed package is; None for all others."""
        spec = PathFinder.find_spec(fullname, path) if fullname in self._packages else None
        if spec is not None and spec.loader is not None:
            spec.loader = _PackageLoader(spec.loader)
        return spec


@contextmanager
def postponed(packages: Collection[str]) -> Iterator[None]:
    """What is imported while the context is open postpones these; what is loaded already stays so."""
    finder = _Finder(packages)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


def is_loaded(name: str) -> bool:
    """Whether a module is there and its code has run."""
    return name in sys.modules and type(sys.modules[name]) is not _Package
