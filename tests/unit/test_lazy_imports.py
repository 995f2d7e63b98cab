"""Deferred modules are loaded on first use. Each test runs in its own process, since imports are permanent."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(("statement", "loaded"), [
    ("import wave", False),
    ("import wave; wave.open", True),
    ("import wave; isinstance(wave.Error('x'), wave.Error)", True),
    ("from wave import open", True),
    ("import xml.dom", False),
    ("from xml import dom", False),
    ("import xml.dom.minidom", True),
    ("import wave; hasattr(wave, 'no such')", True),
])
def test_deferred_module_loads_on_first_use(statement: str, loaded: bool) -> None:
    name = "wave" if "wave" in statement else "xml.dom"
    program = ("import sys; from dockerd_guard.lazy_imports import defer; defer('wave', 'xml.dom')\n"
               f"{statement}\n"
               # Accessing an attribute of the module would load it.
               f"print('__file__' in vars(sys.modules['{name}']))")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == f"{loaded}\n"


def test_missing_module_has_no_attributes() -> None:
    """Code that walks sys.modules, such as inspect.getmodule, reads `__file__` of each module."""
    program = ("import inspect, sys; from dockerd_guard.lazy_imports import defer; defer('no_such_module')\n"
               "print(inspect.getmodule(compile('', 'nowhere', 'exec')))")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "None\n"


@pytest.mark.parametrize("before", ["", "defer('wave'); ", "defer('wave'); import wave; "])
def test_a_disabled_module_cannot_be_imported(before: str) -> None:
    program = (f"from dockerd_guard.lazy_imports import defer, disable; {before}disable('wave')\n"
               "try:\n    import wave\nexcept ImportError:\n    print('refused')")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "refused\n"
