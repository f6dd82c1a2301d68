"""A program that holds its loop up: what it has queued plays on, its calls stay up, and it is told all that was said, or how much
of that it missed.

The callers are in a process of their own, and judge. What they hear is compared with what they hear of a program that works.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import hashlib
import json
import sys
import threading
import time

import audiosocket
import pytest
from client import voice
from conftest import HERE, Program

CALLS = 3


def sleep():
    time.sleep(10)


def hold_the_gil():
    """Another thread gets it, and does not give it back."""
    interval = sys.getswitchinterval()
    began = threading.Event()

    def work():
        began.set()
        # No bytecode ends before this has, and only between those can it be taken away.
        until = time.monotonic() + 2.5
        while time.monotonic() < until:
            sum(range(5_000_000))

    thread = threading.Thread(target=work)
    sys.setswitchinterval(1000)
    try:
        thread.start()
        began.wait()
        thread.join()
    finally:
        sys.setswitchinterval(interval)


def collect_garbage():
    objects = [[number] for number in range(3_000_000)]
    for _ in range(5):
        gc.collect()
    del objects


# What holds the loop up, and for how many seconds the program speaks meanwhile.
BLOCKS = pytest.mark.parametrize(("block", "seconds"), [(sleep, 11), (hold_the_gil, 4), (collect_garbage, 4)])


def speech(seconds):
    return voice(16_000 * seconds)


def digest(data):
    return hashlib.sha256(data).hexdigest()


class Callbacks(Program):
    """It answers the first audio of each call in one piece, and keeps what it is told."""

    def __init__(self, spoken):
        super().__init__()
        self.spoken = spoken
        self.heard = {}
        self.missed = 0

    def on_audio(self, uuid, peer, audio):
        super().on_audio(uuid, peer, audio)
        is_first = uuid not in self.heard
        self.heard[uuid] = self.heard.get(uuid, b"") + audio
        return self.spoken if is_first else None

    @contextlib.asynccontextmanager
    async def serve(self):
        async with await audiosocket.start_server(self.on_audio, self.on_exception, "127.0.0.1", 0) as server:
            yield server.sockets[0].getsockname()
            await self.wait(lambda: sum(told.what == b"" for told in self.told) == CALLS)
        assert not [told for told in self.told if isinstance(told.what, BaseException)]


class Handlers:
    """The same with the asyncio interface."""

    def __init__(self, spoken):
        self.spoken = spoken
        self.heard = {}
        # Frames that it was told it missed.
        self.missed = 0

    async def handle(self, call):
        call.play(self.spoken)
        heard = []
        async for event in call:
            match event:
                case audiosocket.Audio(data=data):
                    heard.append(bytes(data))
                case audiosocket.Lagged(frames=frames):
                    self.missed += frames
        self.heard[call.id.hex] = b"".join(heard)

    @contextlib.asynccontextmanager
    async def serve(self):
        async with audiosocket.Server(port=0) as server:
            serving = asyncio.ensure_future(server.serve(self.handle))
            yield server.address
            await server.drain()
            await serving


async def place_calls(program, block):
    """What the callers report, and how long the program was blocked while it spoke."""
    async with program.serve() as (host, port):
        arguments = map(str, (HERE / "client.py", host, port, CALLS, len(program.spoken)))
        callers = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdout=asyncio.subprocess.PIPE)
        assert await callers.stdout.readline() == b"hearing\n"
        began = time.monotonic()
        block()
        blocked = time.monotonic() - began
        output, _ = await callers.communicate()
    return json.loads(output), blocked


@BLOCKS
@pytest.mark.parametrize("interface", [Callbacks, Handlers])
async def test_what_is_queued_plays_on(interface, block, seconds):
    control, _ = await place_calls(interface(speech(1)), lambda: None)
    spoken = speech(seconds)
    program = interface(spoken)
    report, blocked = await place_calls(program, block)
    # Else there was nothing to survive.
    assert blocked > 1
    usual = max(call["gap"] for call in control["calls"])
    for call in report["calls"]:
        assert call["heard"] == digest(spoken)
        assert call["gap"] < usual + blocked / 4
        assert call["end"] is None
    heard = [program.heard[call["uuid"]] for call in report["calls"]]
    if interface is Callbacks:
        assert {digest(each) for each in heard} == {report["said"]}
    else:
        # It is told once it works again, and a quarter of a second is kept for it.
        assert program.missed > 0
        assert sum(map(len, heard)) + program.missed * 320 == report["size"] * CALLS
