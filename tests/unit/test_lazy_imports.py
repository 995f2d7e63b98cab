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


def test_a_dropped_module_is_released_and_can_be_imported_again() -> None:
    program = ("import sys, weakref, wave; from dockerd_guard.lazy_imports import drop\n"
               "kept = weakref.ref(wave); del wave; drop('wave', 'no_such_module')\n"
               "print('wave' in sys.modules, kept()); import wave; print(wave.Error.__name__)")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False None\nError\n"


def test_nothing_keeps_the_parser_of_the_command_line_in_the_agent() -> None:
    program = ("import sys, weakref; from dockerd_guard import cli\n"
               "from dockerd_guard.commands import run\n"
               "import argparse; kept = weakref.ref(argparse); del argparse\n"
               "drop = run.drop\n"
               "def check(*names):\n    drop(*names)\n    print(kept())\n    raise run.Unanswerable('')\n"
               "run.drop = check\n"
               "run.LIBRARIES = ()\n"
               "cli.main(['run'])")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "None\n"


@pytest.mark.libraries
def test_the_agent_loads_no_large_module_that_it_can_do_without() -> None:
    program = ("import sys; from dockerd_guard import cli\n"
               "from dockerd_guard.commands import run\n"
               "drop = run.drop\n"
               "def without_loop(*names):\n"
               "    drop(*names)\n"
               "    from dockerd_guard.agent import loop\n"
               "    from dockerd_guard.observe import engine\n"
               "    from dockerd_guard.report.journal import Journal\n"
               "    loop.run = lambda *_: Journal('json') and engine._parsed(b'HTTP/1.0 200 OK\\r\\n\\r\\n') and 0\n"
               "run.drop = without_loop\n"
               "run.LIBRARIES = ('structlog', 'watchdog')\n"
               "code = cli.main(['run'])\n"
               "print(code, [name for name in ('argparse', 'asyncio.base_events', 'email', 'http.client', 'difflib',\n"
               "                               'unittest', 'xml', 'dockerd_guard.observe.templates', 'pickle',\n"
               "                               'hmac', 'pprint', 'structlog.stdlib', 'structlog.threadlocal',\n"
               "                               'structlog.twisted')\n"
               # The placeholder of a deferred module has no file.
               "             if '__file__' in vars(sys.modules.get(name, object))])")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "0 []\n"
