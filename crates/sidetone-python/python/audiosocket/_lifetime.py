"""What servers do not outlive: they end with the interpreter, and are no good in a forked child or a sub-interpreter."""

from __future__ import annotations

import atexit
import importlib
import os
import weakref
from typing import Protocol, TypeVar


def _check_interpreter() -> None:
    for name in ("_interpreters", "_xxsubinterpreters"):
        try:
            interpreters = importlib.import_module(name)
        except ImportError:
            continue
        if interpreters.get_current() != interpreters.get_main():
            raise ImportError(
                "audiosocket works in the main interpreter only, not in a sub-interpreter: "
                "import it there, or use processes"
            )
        return


# One that loaded the extension module would keep the main interpreter from it.
_check_interpreter()

from . import _core  # noqa: E402


class _Server(Protocol):
    def _shut_down(self) -> None: ...


_running: weakref.WeakSet[_Server] = weakref.WeakSet()
_generation = 0


class Origin:
    """The process in which something was made."""

    def __init__(self) -> None:
        self._generation = _generation

    def is_here(self) -> bool:
        """Whether this still is that process, and not a child that was forked off it."""
        return self._generation == _generation

    def check(self) -> None:
        """Raise :exc:`RuntimeError` in a forked child."""
        if not self.is_here():
            raise RuntimeError(
                "this server is the parent process's and does nothing in a forked child: "
                'start servers after the fork, or use multiprocessing with "spawn"'
            )


def register(server: _Server) -> None:
    """Shut `server` down when the interpreter ends, so that Asterisk is told of the end of its calls."""
    _running.add(server)


_T = TypeVar("_T")


def reference(server: _T) -> weakref.ref[_T]:
    """A reference that does not keep `server` alive."""
    return weakref.ref(server)


@atexit.register
def _shut_down() -> None:
    for server in list(_running):
        server._shut_down()


def _begin_forked_child() -> None:
    global _generation
    _generation += 1
    _running.clear()
    _core.begin_forked_child()


os.register_at_fork(after_in_child=_begin_forked_child)
