"""What outlives nothing: servers end with the interpreter, and are no good in a forked child."""

from __future__ import annotations

import atexit
import weakref
from typing import Protocol, TypeVar


class _Server(Protocol):
    def _shut_down(self) -> None: ...


_running: weakref.WeakSet[_Server] = weakref.WeakSet()


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
