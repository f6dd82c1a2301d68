from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import audiosocket
import pytest
import pytest_asyncio
import uvloop

from client import PATIENCE, Caller

HERE = Path(__file__).parent

# In the background a shell's programs ignore it, and those that are tested would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Every test that has a loop runs on both."""
    return LOOPS


class Told(NamedTuple):
    """One call of a callback: its audio, or its exception."""

    uuid: str
    peer: tuple[Any, ...]
    what: bytearray | BaseException


class Program:
    """Two callbacks that note what they are told. What `answer` returns is returned."""

    def __init__(self, answer: Callable[[bytearray], Any] = lambda audio: None) -> None:
        self.answer = answer
        self.told: list[Told] = []
        self._changed = asyncio.Event()

    def on_audio(self, uuid: str, peer: tuple[Any, ...], audio: bytearray) -> Any:
        self._note(Told(uuid, peer, audio))
        return self.answer(audio) if audio else None

    def on_exception(self, uuid: str, peer: tuple[Any, ...], error: BaseException) -> None:
        self._note(Told(uuid, peer, error))

    def _note(self, told: Told) -> None:
        self.told.append(told)
        self._changed.set()

    async def wait(self, condition: Callable[[], object]) -> None:
        while not condition():
            self._changed.clear()
            await asyncio.wait_for(self._changed.wait(), PATIENCE)

    def of(self, caller: Caller) -> list[bytearray | BaseException]:
        """What was told of this call, or of this connection if it never said its UUID."""
        return [told.what for told in self.told if told.peer[:2] == caller.name[:2]]

    def audio(self, caller: Caller) -> bytes:
        return b"".join(what for what in self.of(caller) if isinstance(what, bytearray))

    def has_ended(self, caller: Caller) -> bool:
        return any(what == b"" for what in self.of(caller))

    async def end(self, caller: Caller) -> list[bytearray | BaseException]:
        """Waits for the end of a call, and for everything that was due with it. Its whole story."""
        await self.wait(lambda: self.has_ended(caller))
        # What belongs to the end is told in the same turn of the loop.
        await asyncio.sleep(0)
        return self.of(caller)


class Started(NamedTuple):
    program: Program
    server: audiosocket.CallbackServer
    address: Any


@pytest_asyncio.fixture
async def serve() -> AsyncIterator[Callable[..., Any]]:
    """Starts servers on ports of the system's choice, and ends them after the test."""
    servers = []

    async def serve(
        answer: Callable[[bytearray], Any] = lambda audio: None,
        host: Any = "127.0.0.1",
        port: int = 0,
        **kwargs: Any,
    ) -> Started:
        program = Program(answer)
        server = await audiosocket.start_server(program.on_audio, program.on_exception, host, port, **kwargs)
        servers.append(server)
        return Started(program, server, server.sockets[0].getsockname())

    yield serve
    for server in servers:
        server.close()
        server.close_clients()
        await server.wait_closed()


@pytest_asyncio.fixture
async def call() -> AsyncIterator[Callable[..., Any]]:
    """Places calls, and lets go of them after the test."""
    callers = []

    async def call(address: Any, **kwargs: Any) -> Caller:
        caller = await asyncio.to_thread(Caller, address, **kwargs)
        callers.append(caller)
        return caller

    yield call
    for caller in callers:
        await asyncio.to_thread(caller.close)


@pytest_asyncio.fixture
async def loop_errors() -> AsyncIterator[list[dict[str, Any]]]:
    """What the loop's exception handler is given."""
    errors: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
    yield errors


class Running:
    """A program in a process of its own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def line(self) -> str:
        """The next line that it prints."""
        line = self.process.stdout.readline()
        if not line:
            _, _, errors = self.end()
            raise AssertionError(f"the program ended: {errors}")
        return line.rstrip("\n")

    def tell(self, line: str) -> None:
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def end(self) -> tuple[int, str, str]:
        """Waits for its end: its status, and what else it printed, to both."""
        output, errors = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, output, errors


@pytest.fixture
def run_program(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Runs programs, given as their source."""
    running = []

    def run_program(source: str, *arguments: object, options: tuple[str, ...] = (), **environment: str) -> Running:
        path = tmp_path / f"program{len(running)}.py"
        path.write_text(source)
        process = subprocess.Popen(
            [sys.executable, *options, str(path), *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(HERE), **environment},
        )
        running.append(Running(process))
        return running[-1]

    yield run_program
    for each in running:
        each.process.kill()
        each.end()
