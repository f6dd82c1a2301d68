"""A program that holds its loop up: what it returned before plays on, its calls stay up, and it is told all that was said.

The callers are in a process of their own, and judge. What they hear is compared with what they hear of a program that works.
"""

from __future__ import annotations

import asyncio
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
# Four seconds, which are returned in one piece.
SPOKEN = voice(64_000)


def sleep():
    time.sleep(3)


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


def digest(data):
    return hashlib.sha256(data).hexdigest()


class Speaker(Program):
    """It answers the first audio of each call, and keeps what it is told."""

    def __init__(self):
        super().__init__()
        self.heard = {}

    def on_audio(self, uuid, peer, audio):
        super().on_audio(uuid, peer, audio)
        is_first = uuid not in self.heard
        self.heard[uuid] = self.heard.get(uuid, b"") + audio
        return SPOKEN if is_first else None


async def place_calls(block):
    """What the callers report, what the program was told, and how long it was blocked while it spoke."""
    speaker = Speaker()
    async with await audiosocket.start_server(speaker.on_audio, speaker.on_exception, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        arguments = map(str, (HERE / "client.py", host, port, CALLS, len(SPOKEN)))
        callers = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdout=asyncio.subprocess.PIPE)
        assert await callers.stdout.readline() == b"hearing\n"
        began = time.monotonic()
        block()
        blocked = time.monotonic() - began
        output, _ = await callers.communicate()
        await speaker.wait(lambda: sum(told.what == b"" for told in speaker.told) == CALLS)
    return json.loads(output), speaker, blocked


@pytest.mark.parametrize("block", [sleep, hold_the_gil, collect_garbage])
async def test_what_was_returned_plays_on(block):
    control, _, _ = await place_calls(lambda: None)
    report, speaker, blocked = await place_calls(block)
    # Else there was nothing to survive.
    assert blocked > 1
    usual = max(call["gap"] for call in control["calls"])
    for call in report["calls"]:
        assert call["heard"] == digest(SPOKEN)
        assert call["gap"] < usual + blocked / 4
        assert call["end"] is None
        assert digest(speaker.heard[call["uuid"]]) == report["said"]
    assert not [told for told in speaker.told if isinstance(told.what, BaseException)]
