"""A server, one call to it, and a check of what the caller heard."""

from __future__ import annotations

import argparse
import array
import asyncio
import sys
import time
import uuid
import wave
from typing import Any

from . import testing
from ._call import Call
from ._core import greeting, voice
from ._server import Server
from ._types import Audio, Dtmf, Ended

FILE = "demo.wav"
RATE = 8000
# What the caller does, and when, in seconds.
SPEAKS_AT, SPEAKS_FOR = 2.4, 3.2
DIGITS, PRESSES_AT = "42#", 5.9
HANGS_UP_AT = 7.0
# From this level on a frame is audible, in dBFS.
AUDIBLE = -50.0
# From this share of its samples on, bit for bit, a sound counts as heard: on a busy machine a live frame may be skipped.
ENOUGH = 0.9


async def run(once: bool, host: str, port: int) -> int:
    """Show the demonstration, and return the exit code."""
    narrator = Narrator()
    async with Server(host, port) as server:
        address = f"{server.address[0]}:{server.address[1]}"
        print(f"\n  A server listens on {address}.\n  Now it gets a call, placed as Asterisk would:\n")
        serving = asyncio.create_task(server.serve(narrator.answer))
        said = bytes(int(SPEAKS_AT * RATE) * 2) + voice(SPEAKS_FOR)
        call = await testing.place_call(
            "127.0.0.1" if server.address[0] == "0.0.0.0" else server.address[0],
            server.address[1],
            say=said,
            digits=[(DIGITS, PRESSES_AT)],
            hang_up_after=HANGS_UP_AT,
            id=narrator.id,
            observer=narrator.caller,
        )
        await narrator.has_ended.wait()
        write(call)
        heard = report(call)
        if once:
            return 0 if heard else 1
        print(f"\n  The server keeps listening on {address}. To call it from your Asterisk, put this")
        print("  into extensions.conf and dial 9092:\n")
        print(f"    exten => 9092,1,Answer()\n     same => n,AudioSocket(${{UUID()}},{address})\n")
        await serving
    return 0


class Narrator:
    """Tells of the demonstration's call as it happens."""

    def __init__(self) -> None:
        self.id = uuid.uuid4()
        self.began = time.monotonic()
        self.told: set[str] = set()
        self.has_ended = asyncio.Event()

    async def answer(self, call: Call) -> None:
        """The handler: greets, then echoes."""
        self.server(call, "answers and plays a greeting")
        greeted = call.play(greeting(), RATE)
        live = call.live()
        async for event in call:
            match event:
                case Audio(data=data) if greeted.is_finished:
                    live.push(data)
                    self.server(call, "has played the greeting and starts to echo", once=True)
                case Dtmf(digit=digit):
                    self.server(call, f"receives the digit {digit}")
                case Ended(message=message):
                    self.server(call, f"ends the call: {message}")
                    self.has_ended.set()
                case _:
                    pass

    def server(self, call: Call, what: str, once: bool = False) -> None:
        if call.id == self.id and not (once and what in self.told):
            self.tell(time.monotonic() - self.began, "server", what)

    def caller(self, what: str, at: float, detail: Any) -> None:
        match what:
            case "connected":
                self.began = time.monotonic()
                self.tell(at, "caller", f"calls; its UUID is {self.id}")
            case "heard" if detail > AUDIBLE:
                self.tell_once(at, "hears the greeting")
                if "starts to speak" in self.told:
                    self.tell_once(at, "hears itself")
            case "sent" if at >= SPEAKS_AT:
                self.tell_once(at, "starts to speak")
                if at >= SPEAKS_AT + SPEAKS_FOR:
                    self.tell_once(at, "stops speaking")
            case "digit":
                self.tell(at, "caller", f"presses {detail}")
            case "ended":
                self.tell(at, "caller", f"ends: {detail}")
            case _:
                pass

    def tell_once(self, at: float, what: str) -> None:
        if what not in self.told:
            self.tell(at, "caller", what)

    def tell(self, at: float, who: str, what: str) -> None:
        self.told.add(what)
        print(f"  {at:5.2f} s  {who}  {what}", flush=True)


def write(call: testing.PlacedCall) -> None:
    """Write both sides of the call into a stereo file: the caller on the left, the server on the right."""
    sides = array.array("h", call.sent), array.array("h", call.heard)
    length = max(map(len, sides))
    both = array.array("h", bytes(4 * length))
    for place, side in enumerate(sides):
        both[place : 2 * len(side) : 2] = side
    with wave.open(FILE, "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(both.tobytes())


def report(call: testing.PlacedCall) -> bool:
    """Print what the caller heard, and return whether that is what it should have heard."""
    greeted, echoed = call.share_heard(greeting()), call.share_heard(voice(SPEAKS_FOR))
    started, delay = call.first_heard(greeting()), call.echo_delay_ms
    mark = {True: "heard", False: "NOT HEARD"}
    print()
    if call.is_fault:
        print(f"  the call failed: {call.ended}")
    when = "" if started is None else f", started after {started * 1000:.0f} ms"
    print(f"  greeting   {mark[greeted >= ENOUGH]:9}  {greeted:.1%} of it bit by bit{when}")
    late = "" if delay is None else f", delay {delay:.0f} ms"
    print(f"  echo       {mark[echoed >= ENOUGH]:9}  {echoed:.1%} of it bit by bit{late}")
    print(f"  timing                the latest frame {call.worst_lateness_ms:.1f} ms late")
    print(f"  {FILE}              caller on the left, server on the right, {call.duration:.1f} s")
    return greeted >= ENOUGH and echoed >= ENOUGH and not call.is_fault


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m audiosocket", description="AudioSocket for Asterisk.")
    commands = parser.add_subparsers(dest="command", required=True)
    demo = commands.add_parser("demo", help="a server, one call to it, and a check of what the caller heard")
    demo.add_argument("--once", action="store_true", help="end after the call, with 0 if the caller heard what it should")
    demo.add_argument("--host", default="127.0.0.1", help="the address to listen on [127.0.0.1]")
    demo.add_argument("--port", type=int, default=9092, help="the port to listen on [9092]")
    options = parser.parse_args(words)
    try:
        return asyncio.run(run(options.once, options.host, options.port))
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        print(f"the demonstration failed: {error}", file=sys.stderr)
        return 1
