"""Defer, disable or drop modules that libraries import and this program rarely, never or no longer uses.

This saves a third of the memory of the agent and of the start-up time of the command line.
importlib.util.LazyLoader does not help: the import statement reads attributes of the module, which loads it.
"""

from __future__ import annotations

import gc
import sys
from importlib import import_module
from types import ModuleType
from typing import Any

DEFERRED = (
    "asyncio",  # imported by structlog for its coroutines; imports OpenSSL
    "hmac",  # for the host's own identifier, which only a fleet and a splay need
    "locale",  # imported by subprocess (Python 3.14) for text of another encoding; has long tables of aliases
    "lxml.etree",  # imported by pystemd for introspection
    "pprint",  # imported by pystemd
    "random",  # imported by tempfile
    "shutil",  # imported by argparse for the terminal width, by watchdog to find libc; imports four compressors
    "ssl",  # imported by asyncio, and here to probe a port
    "structlog.stdlib",  # structlog imports all its modules
    "structlog.threadlocal",
    "structlog.twisted",
    "tempfile",  # imported by ctypes.util, which looks for libraries with a compiler
    "uuid",  # imported by structlog for its thread-local context
)

DISABLED = (
    "better_exceptions",  # structlog.dev formats tracebacks with these if they are installed; the agent logs none
    "rich",
    "_hashlib",  # OpenSSL's digests; only MD5 is used, which hashlib implements itself
)

ONLY_AT_IMPORT = ("pickle", "_compat_pickle", "_pickle")
"""structlog imports them for the name of an exception."""

ONLY_AT_START = ("argparse", "gettext", "locale")
"""The command line is parsed once; gettext and locale are imported by argparse."""


class _LazyModule(ModuleType):
    """Placeholder for a module until its first attribute access."""

    def __getattr__(self, name: str) -> Any:
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        try:
            return getattr(import_module(self.__name__), name)
        except ImportError as error:
            # Not installed. Code that walks sys.modules (inspect.getmodule) expects hasattr to return False.
            raise AttributeError(str(error)) from error


def defer(*names: str) -> None:
    """Import these modules on first use. Modules that are already imported are not affected.

    For a submodule `from package import module` works; `package.module` does not.
    """
    for name in names:
        sys.modules.setdefault(name, _LazyModule(name))


def disable(*names: str) -> None:
    """Make the import of these modules raise ImportError. Their importers must handle that."""
    for name in names:
        if isinstance(sys.modules.get(name), _LazyModule):
            del sys.modules[name]
        # None in sys.modules raises ModuleNotFoundError (Python reference, 5.3.1, The module cache).
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]


def drop(*names: str) -> None:
    """Release these modules, so that their memory serves others. They are loaded anew where they are imported again."""
    for name in names:
        sys.modules.pop(name, None)
    gc.collect()
