"""Two callbacks for all calls: the interface of the original module."""

from __future__ import annotations

import asyncio
import inspect
import socket
import sys
from collections.abc import Callable
from typing import Any, Union

from . import _lifetime  # isort: skip, for it says where the other can be imported
from . import _core

__all__ = ["HANGUP_CALL_MESSAGE", "CallbackServer", "start_server"]

HANGUP_CALL_MESSAGE = b""
"""What the audio callback returns to hang its call up. What it returned before is heard first."""

BytesLike = Union[bytes, bytearray, memoryview]

AudioCallback = Callable[[str, "tuple[Any, ...]", bytearray], Union[BytesLike, None]]
ExceptionCallback = Callable[[str, "tuple[Any, ...]", BaseException], object]

# Since this version `asyncio.Server.wait_closed` waits for connections, as it was meant to.
_WAITS_FOR_CALLS = sys.version_info >= (3, 12, 1)


async def start_server(
    on_audio_callback: AudioCallback,
    on_exception_callback: ExceptionCallback | None,
    host: str | list[str] | None = None,
    port: int | str | None = None,
    **kwargs: Any,
) -> CallbackServer:
    """Listen for AudioSocket connections and call back for everything that comes.

    ``host``, ``port`` and ``kwargs`` are those of :meth:`asyncio.loop.create_server`, but for TLS, which AudioSocket
    does not have. The server that is returned is used as an :class:`asyncio.Server`::

        server = await audiosocket.start_server(on_audio, on_exception, "127.0.0.1", 9092)
        await server.serve_forever()

    ``on_audio_callback(uuid, peer_name, audio)`` is called in the event loop for every message of audio:

    - ``uuid`` is the call's UUID, as 32 hexadecimal digits.
    - ``peer_name`` is the address of the other side, as :meth:`socket.socket.getpeername` gives it.
    - ``audio`` is a new ``bytearray`` with the message as it came: 8 kHz, 16-bit, mono, little-endian from
      ``AudioSocket()``, and whatever codec the call has from ``Dial(AudioSocket/...)``. It is empty when the call is
      over, whichever side ended it; nothing follows.

    What it returns is played: any bytes-like object, 8 kHz, 16-bit, mono, little-endian, of any length. Up to 80 ms at
    a time it is heard as soon as an echo can be. More is an announcement: it is heard whole, and what is returned next
    waits for its turn, up to ten minutes of it. ``None`` plays
    nothing, and :data:`HANGUP_CALL_MESSAGE` or anything else that is empty hangs up, once all that was returned has
    been heard. An exception ends its call; the event loop's exception handler gets it, and so does
    ``on_exception_callback``.

    ``on_exception_callback(uuid, peer_name, error)`` is called when something is wrong with a call, and, if that ended
    the call, after the last call of ``on_audio_callback``. ``None`` gives such errors to the event loop's exception
    handler.

    A connection that gives no UUID has the empty string for one, and only its end is told.
    """
    for name in ("ssl", "ssl_handshake_timeout", "ssl_shutdown_timeout"):
        if kwargs.get(name) is not None:
            raise ValueError(f"{name}: AudioSocket has no TLS; put a tunnel between Asterisk and the server")
    if not callable(on_audio_callback):
        raise TypeError(f"on_audio_callback must be a function, not {on_audio_callback!r}")
    _refuse_async("on_audio_callback", on_audio_callback)
    _refuse_async("on_exception_callback", on_exception_callback)
    start_serving = kwargs.pop("start_serving", True)
    backlog = kwargs.get("backlog", 100)
    loop = asyncio.get_running_loop()
    # It finds addresses, opens sockets and sets their options as for any other protocol, and is never started.
    create: Any = loop.create_server
    binding = await create(asyncio.Protocol, host, port, start_serving=False, **kwargs)
    server = CallbackServer(loop, binding, backlog, on_audio_callback, on_exception_callback)
    if start_serving:
        await server.start_serving()
    return server


def _refuse_async(name: str, callback: object) -> None:
    if inspect.iscoroutinefunction(callback):
        raise TypeError(
            f"{name} must not be async: let it be an ordinary function that returns at once, "
            "and start what takes time with asyncio.create_task()"
        )


class CallbackServer(asyncio.AbstractServer):
    """What :func:`start_server` returns: it is used as an :class:`asyncio.Server`."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        binding: asyncio.AbstractServer,
        backlog: int,
        on_audio: AudioCallback,
        on_exception: ExceptionCallback | None,
    ) -> None:
        self._origin = _lifetime.Origin()
        self._loop = loop
        self._binding: Any = binding
        self._backlog = backlog
        self._callbacks = (on_audio, on_exception)
        self._core: _core.CallbackServer | None = None
        self._is_closed = False
        self._waiters: list[asyncio.Future[None]] | None = []
        self._serving_forever: asyncio.Future[None] | None = None

    def __repr__(self) -> str:
        if not self._origin.is_here():
            return f"<{type(self).__module__}.{type(self).__name__} of the parent process>"
        state = "closed" if self._is_closed else "serving" if self._core else "not serving"
        return f"<{type(self).__module__}.{type(self).__name__} {state} sockets={self.sockets!r}>"

    @property
    def sockets(self) -> tuple[Any, ...]:
        """The listening sockets, none once it is closed."""
        self._origin.check()
        return () if self._is_closed else tuple(self._binding.sockets)

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """The event loop that the callbacks run in."""
        return self._loop

    def is_serving(self) -> bool:
        """Whether it accepts connections."""
        self._origin.check()
        return self._core is not None and not self._is_closed

    async def start_serving(self) -> None:
        """Begin to accept connections. Does nothing if it does already."""
        self._check_open()
        if self._core is not None:
            return
        for listening in self.sockets:
            listen(listening, self._backlog)
        self._core = _core.CallbackServer(list(self.sockets), *self._callbacks, self._loop)
        self._loop.add_reader(self._core.fileno(), self._poll)
        _lifetime.register(self)

    async def serve_forever(self) -> None:
        """Accept connections until cancelled; then close, and hang up the calls that run."""
        self._check_open()
        if self._serving_forever is not None:
            raise RuntimeError(f"serve_forever() of {self!r} is being awaited already")
        await self.start_serving()
        self._serving_forever = self._loop.create_future()
        try:
            await self._serving_forever
        except asyncio.CancelledError:
            try:
                self.close()
                self.close_clients()
                await self.wait_closed()
            finally:
                raise
        finally:
            self._serving_forever = None

    def close(self) -> None:
        """Accept no more connections. Calls that run go on."""
        self._origin.check()
        if self._is_closed:
            return
        self._is_closed = True
        if self._core is not None:
            self._core.stop_accepting()
        self._binding.close()
        if self._serving_forever is not None and not self._serving_forever.done():
            self._serving_forever.cancel()
        if self._core is None or not _WAITS_FOR_CALLS:
            self._wake_waiters()

    def close_clients(self) -> None:
        """Hang up all calls, politely: Asterisk goes on in the dialplan."""
        self._origin.check()
        if self._core is not None:
            self._core.hang_up_all()

    def abort_clients(self) -> None:
        """Hang up all calls. AudioSocket knows no ruder way than :meth:`close_clients`."""
        self.close_clients()

    async def wait_closed(self) -> None:
        """Wait until it is closed and, from Python 3.12.1 on, the last call is over, as :mod:`asyncio` does."""
        self._origin.check()
        if self._waiters is None or (self._is_closed and not _WAITS_FOR_CALLS):
            return
        waiter = self._loop.create_future()
        self._waiters.append(waiter)
        await waiter

    async def __aenter__(self) -> CallbackServer:
        return self

    async def __aexit__(self, *_: object) -> None:
        if not self._origin.is_here():
            # The child leaves its parent's block, most likely to end.
            return
        self.close()
        await self.wait_closed()

    def _check_open(self) -> None:
        self._origin.check()
        if self._is_closed:
            raise RuntimeError(f"server {self!r} is closed")

    def _poll(self) -> None:
        core = self._core
        # The loop of a forked child hears of its parent's calls.
        if core is None or not self._origin.is_here():
            return
        try:
            core.poll()
        finally:
            if self._is_closed and self._origin.is_here() and core.has_ended():
                self._release()

    def _release(self) -> None:
        """Let go of everything, once the last call is over or nobody is left to be told of it."""
        core, self._core = self._core, None
        if core is not None:
            if not self._loop.is_closed():
                self._loop.remove_reader(core.fileno())
            core.close()
        self._wake_waiters()

    def _shut_down(self) -> None:
        """Hang up all calls: the interpreter is about to end."""
        self._is_closed = True
        self._release()

    def _wake_waiters(self) -> None:
        waiters, self._waiters = self._waiters, None
        for waiter in waiters or ():
            if not waiter.done():
                waiter.set_result(None)


def listen(listening: Any, backlog: int) -> None:
    """Let a socket of an event loop listen, which is all that the loop has not done yet."""
    with socket.socket(fileno=socket.dup(listening.fileno())) as duplicate:
        duplicate.listen(backlog)
