"""A server of calls, for asyncio."""

from __future__ import annotations

import asyncio
import collections
import inspect
import math
import socket
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Union

from . import _core, _lifetime
from ._call import Call
from ._callbacks import listen
from ._types import Ended, ServerStats

__all__ = ["Accept", "CallRequest", "CallSummary", "Server"]

# What handlers get to end in, once their calls are over.
_HANDLER_GRACE = 5.0


@dataclass(frozen=True, slots=True)
class CallRequest:
    """A call that asks to be let in: all that is known of it."""

    id: uuid.UUID
    peer: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Accept:
    """Let a call in."""

    data: Any = None
    """It is at :attr:`Call.data` afterwards."""
    max_duration: float | None = None
    """How long the call may last, in seconds."""


@dataclass(frozen=True, slots=True)
class CallSummary:
    """A call that is over."""

    id: uuid.UUID
    peer: tuple[Any, ...]
    ended: Ended
    duration: float
    """In seconds, from its UUID to its end."""
    data: Any
    """What the admission hook attached."""


Answer = Union[bool, None, Accept]
AdmissionHook = Callable[[CallRequest], Union[Answer, Awaitable[Answer]]]
Handler = Callable[[Call], Awaitable[object]]


class Server(AsyncIterator[Call]):
    """Accepts AudioSocket calls from Asterisk.

    Give each call to a handler, in a task of its own::

        async with audiosocket.Server("127.0.0.1", 9092) as server:
            await server.serve(handler)

    or take them one by one, with ``async for call in server``. It listens from ``async with`` or :meth:`start` on.

    :param host: The address to listen on, several of them, or ``None`` for all.
    :param port: The port; 0 takes a free one, which :attr:`address` has.
    :param sock: A socket that is bound already, instead of the two.
    :param allow: The networks that may call, such as ``"10.0.0.0/8, 192.0.2.7"``, or ``"any"``. AudioSocket has no
        login, so it has to be said where others than this machine can reach the address.
    :param trusted: The networks that no limit per address concerns: your Asterisks.
    :param max_calls: How many calls may run; others are rejected.
    :param codec: What ``Dial()`` sends: ``"slin"``, ``"ulaw"``, ``"alaw"``, or ``"auto"`` to find out. Audio is
        always linear samples here.
    :param admit: Asked about each call before it starts, while the caller hears silence. It returns, or is a coroutine
        that returns, :class:`Accept`, or whether to let the call in. One that raises rejects the call.
    :param on_call_end: Told of each call that ended or was rejected.
    :param max_duration: How long a call may last, in seconds.
    :param idle_timeout: After how long without audio a call is ended, in seconds.
    :param receive_buffer: How much audio waits for a program that does not read, in seconds; 0.25 unless given.
    :param playback_buffer: How much may be queued on a call, in seconds; 600 unless given.
    """

    def __init__(
        self,
        host: str | list[str] | None = "127.0.0.1",
        port: int = 9092,
        *,
        sock: socket.socket | None = None,
        allow: str | None = None,
        trusted: str | None = None,
        max_calls: int = 10_000,
        codec: str = "slin",
        admit: AdmissionHook | None = None,
        on_call_end: Callable[[CallSummary], object] | None = None,
        max_duration: float | None = None,
        idle_timeout: float | None = None,
        receive_buffer: float | None = None,
        playback_buffer: float | None = None,
    ) -> None:
        self._where: dict[str, Any] = {"sock": sock} if sock is not None else {"host": host, "port": port}
        self._admit = admit
        self._on_call_end = on_call_end
        self._settings = {
            "max_calls": max_calls,
            "allow": allow,
            "trusted": trusted,
            "codec": codec,
            "max_duration": max_duration,
            "idle_timeout": idle_timeout,
            "receive_buffer": receive_buffer,
            "playback_buffer": playback_buffer,
            "admits": admit is not None,
            "tells_ends": on_call_end is not None,
        }
        self._origin = _lifetime.Origin()
        self._core: _core.Server | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._addresses: list[tuple[Any, ...]] = []
        self._calls: collections.deque[Call] = collections.deque()
        # A call has come, or none will come any more.
        self._has_news = asyncio.Event()
        self._is_closing = False
        self._closed: asyncio.Future[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> tuple[Any, ...]:
        """The address it listens on, the first of several."""
        if not self._addresses:
            raise RuntimeError("the server does not listen yet: use `async with`, or await start()")
        return self._addresses[0]

    @property
    def stats(self) -> ServerStats:
        """What has been counted since it started."""
        return self._running().stats

    async def start(self) -> None:
        """Begin to listen.

        :raises OSError: the address can't be listened on.
        :raises ValueError: a setting is wrong, or ``allow`` is missing.
        """
        if self._core is not None or self._is_closing:
            raise RuntimeError("a server can be started once")
        loop = asyncio.get_running_loop()
        binding: Any = await loop.create_server(asyncio.Protocol, start_serving=False, **self._where)
        try:
            sockets = list(binding.sockets)
            self._addresses = [listening.getsockname() for listening in sockets]
            for listening in sockets:
                listen(listening, 4096)
            core = _core.Server(sockets, _Sink(self), loop, self._settings)
        finally:
            binding.close()
        self._loop, self._core, self._closed = loop, core, loop.create_future()
        loop.add_reader(core.fileno(), _poll, core, self._origin)
        _lifetime.register(self)

    async def serve(self, handler: Handler) -> None:
        """Give every call to ``handler``, in a task of its own, until the server is drained or closed.

        When a handler returns, what it queued is heard, and then its call is hung up. When it raises, its call is hung
        up at once, and the event loop's exception handler is told; that the call is over
        (:class:`audiosocket.CallEndedError`) is no error. Cancelled, this closes the server.
        """
        try:
            async for call in self:
                self._start(self._handle(handler, call))
            await self.wait_closed()
        except asyncio.CancelledError:
            await self.close()
            raise

    async def __anext__(self) -> Call:
        """The next call. The iteration ends when the server is drained or closed."""
        while not self._calls:
            if self._is_closing:
                raise StopAsyncIteration
            self._running()
            self._has_news.clear()
            await self._has_news.wait()
        return self._calls.popleft()

    async def drain(self, grace: float = math.inf) -> None:
        """Reject new calls, wait ``grace`` seconds at most for those that run, hang up the rest, and close.

        Calls are told with :class:`audiosocket.Closing`. The address stays taken until the end, since Asterisk copes
        badly with connections that are refused.
        """
        core = self._running()
        core.shutdown(min(grace, 1e9))
        self._begin_closing()
        try:
            await asyncio.wait_for(core.drained(), None if math.isinf(grace) else grace)
        except asyncio.TimeoutError:
            pass
        await self.close()

    async def close(self) -> None:
        """Hang up all calls, and stop listening. Handlers get five seconds, and then are cancelled."""
        if not self._origin.is_here():
            # The child leaves its parent's block, most likely to end.
            return
        core, loop = self._core, self._loop
        self._begin_closing()
        if core is None or loop is None or self._closed is None:
            await self.wait_closed()
            return
        self._core = None
        self._calls.clear()
        # It waits for callers to close.
        await loop.run_in_executor(None, core.close)
        core.poll()
        # A handler may be who closes it.
        if handlers := self._tasks - {asyncio.current_task()}:
            _, late = await asyncio.wait(handlers, timeout=_HANDLER_GRACE)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        loop.remove_reader(core.fileno())
        self._closed.set_result(None)

    async def wait_closed(self) -> None:
        """Wait until it is closed."""
        if self._closed is not None:
            await asyncio.shield(self._closed)

    async def __aenter__(self) -> Server:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        if not self._origin.is_here():
            return "<audiosocket.Server of the parent process>"
        state = "closed" if self._is_closing else "serving" if self._core else "not started"
        where = " ".join(f"{address[0]}:{address[1]}" for address in self._addresses)
        return f"<audiosocket.Server {state} {where}>"

    def _running(self) -> _core.Server:
        self._origin.check()
        if self._core is None:
            raise RuntimeError("the server is closed" if self._is_closing else "the server is not started yet")
        return self._core

    def _begin_closing(self) -> None:
        self._is_closing = True
        self._has_news.set()

    def _start(self, work: Any) -> None:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _handle(self, handler: Handler, call: Call) -> None:
        try:
            await handler(call)
        except _core.CallEndedError:
            pass
        except Exception as error:
            call.hang_up()
            self._report("a handler failed, and its call was hung up", error, call=call)
            return
        except asyncio.CancelledError:
            call.hang_up()
            raise
        await call.finish()

    def _report(self, message: str, error: BaseException, **context: object) -> None:
        loop = asyncio.get_running_loop()
        loop.call_exception_handler({"message": message, "exception": error, **context})

    def _call_started(self, call: Call) -> None:
        if not self._is_closing:
            self._calls.append(call)
            self._has_news.set()

    def _ask(self, request: _core.AdmissionRequest) -> None:
        assert self._admit is not None
        try:
            answer = self._admit(CallRequest(uuid.UUID(hex=request.hex), request.peer))
        except Exception as error:
            self._report("the admission hook failed, and the call was rejected", error)
            request.reject()
            return
        if inspect.isawaitable(answer):
            self._start(self._wait_for_answer(request, answer))
        else:
            _decide(request, answer)

    async def _wait_for_answer(self, request: _core.AdmissionRequest, answer: Awaitable[Answer]) -> None:
        try:
            _decide(request, await answer)
        except Exception as error:
            self._report("the admission hook failed, and the call was rejected", error)
            request.reject()

    def _tell_end(self, summary: CallSummary) -> None:
        assert self._on_call_end is not None
        try:
            self._on_call_end(summary)
        except Exception as error:
            self._report("on_call_end failed", error)

    def _shut_down(self) -> None:
        """Hang up all calls: the interpreter is about to end."""
        core, self._core = self._core, None
        if core is not None:
            core.close()


def _poll(core: _core.Server, origin: _lifetime.Origin) -> None:
    # The loop of a forked child hears of its parent's calls.
    if origin.is_here():
        core.poll()


class _Sink:
    """What the compiled half tells of, without keeping the server alive."""

    def __init__(self, server: Server) -> None:
        self._server = _lifetime.reference(server)

    def call_started(self, core: _core.Call, data: Any) -> None:
        server = self._server()
        if server is not None:
            server._call_started(Call(core, data))

    def admit(self, request: _core.AdmissionRequest) -> None:
        server = self._server()
        if server is not None:
            server._ask(request)

    def call_ended(self, hex: str, peer: tuple[Any, ...], ended: Ended, duration: float, data: Any) -> None:
        server = self._server()
        if server is not None:
            server._tell_end(CallSummary(uuid.UUID(hex=hex), peer, ended, duration, data))


def _decide(request: _core.AdmissionRequest, answer: Answer) -> None:
    if isinstance(answer, Accept):
        request.accept(answer.data, answer.max_duration)
    elif answer:
        request.accept(None, None)
    else:
        request.reject()
