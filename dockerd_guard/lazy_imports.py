"""What libraries import and is hardly ever used: loaded when something in it is wanted, or not at all.

It is a third of the memory of a process that writes a line a day, and of a cold start.
importlib.util.LazyLoader is of no help: the import statement itself looks into the module, which loads it.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

DEFERRED = (
    "asyncio",  # structlog's coroutines; brings OpenSSL
    "lxml.etree",  # pystemd's introspection
    "shutil",  # argparse's width of the help, watchdog's search for the C library; brings four compressors
    "ssl",  # http.client's HTTPS
)

DISABLED = (
    "better_exceptions",  # structlog.dev formats tracebacks with these if they are installed; the agent logs none
    "rich",
    "_hashlib",  # OpenSSL's digests: hashlib has an MD5 of its own, which is all that is wanted of it
)


class _LazyModule(ModuleType):
    """Stands for a module until the first look into it."""

    def __getattr__(self, name: str) -> Any:
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        try:
            return getattr(import_module(self.__name__), name)
        except ImportError as error:
            # Not installed: who walks through sys.modules (inspect.getmodule) wants no more than hasattr to say so.
            raise AttributeError(str(error)) from error


def defer(*names: str) -> None:
    """Let the import of these modules wait until they are used, where it has not happened yet.

    A module of a package is found by `from package import module`, not by `package.module`.
    """
    for name in names:
        sys.modules.setdefault(name, _LazyModule(name))


def disable(*names: str) -> None:
    """Make the import of these modules fail, for which those who import them are prepared."""
    for name in names:
        if isinstance(sys.modules.get(name), _LazyModule):
            del sys.modules[name]
        # None stands for what cannot be imported (Python's reference, 5.3.1, The module cache).
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]
