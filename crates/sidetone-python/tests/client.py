"""The other end of the line: an AudioSocket client on plain blocking sockets, which knows nothing of the module under test.

It notes every message that it hears, with the time. As a program it places calls from a process of its own, where nothing
that the server's process does can delay it; see `main`.
"""

from __future__ import annotations

import hashlib
import json
import socket
import struct
import sys
import threading
import time
import uuid as uuids
from collections.abc import Callable
from typing import Any, NamedTuple

HANGUP, UUID, DTMF, AUDIO, ERROR = 0x00, 0x01, 0x03, 0x10, 0xFF

# Long enough for a machine with much else to do. No test waits for it to pass.
PATIENCE = 30.0


def message(kind: int, payload: bytes = b"") -> bytes:
    return struct.pack(">BH", kind, len(payload)) + payload


def voice(size: int, seed: int = 0) -> bytes:
    """Audio without a zero byte, so that silence can be told from it, and that differs from place to place."""
    return bytes(1 + (seed * 31 + place * 7 + place // 255) % 255 for place in range(size))


class Heard(NamedTuple):
    time: float
    kind: int
    payload: bytes


class Caller:
    """One call. Its methods may be called from any thread; those that wait raise `TimeoutError` after `PATIENCE`."""

    def __init__(
        self,
        address: Any,
        *,
        identify: bool = True,
        is_reading: bool = True,
        receive_buffer: int | None = None,
    ) -> None:
        self.uuid = uuids.uuid4()
        self.heard: list[Heard] = []
        # How the other side ended: "fin", "reset", or not yet.
        self.end: str | None = None
        self._changed = threading.Condition()
        self._may_read = threading.Event()
        if is_reading:
            self._may_read.set()
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(PATIENCE)
        try:
            self.socket.connect(tuple(address))
        except OSError:
            self.socket.close()
            raise
        self.socket.settimeout(None)
        self.name = self.socket.getsockname()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        if identify:
            self.identify()

    def identify(self) -> None:
        self.send(message(UUID, self.uuid.bytes))

    def say(self, payload: bytes, kind: int = AUDIO) -> None:
        self.send(message(kind, payload))

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def pause(self) -> None:
        self._may_read.clear()

    def resume(self) -> None:
        self._may_read.set()

    def finish(self) -> None:
        """Close this side's direction, as Asterisk does when the caller hangs up."""
        self.socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._may_read.set()
        # The reading thread holds the socket open until it is woken.
        self.socket.shutdown(socket.SHUT_RD)
        self._thread.join(PATIENCE)
        self.socket.close()

    def close(self) -> None:
        self._may_read.set()
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._thread.join(PATIENCE)
        self.socket.close()

    @property
    def audio(self) -> bytes:
        """All audio that was heard."""
        return b"".join(heard.payload for heard in self.heard if 0x10 <= heard.kind <= 0x18)

    @property
    def voice(self) -> bytes:
        """The same without silence."""
        return self.audio.replace(b"\0", b"")

    @property
    def was_hung_up(self) -> bool:
        return bool(self.heard) and self.heard[-1].kind == HANGUP

    def wait(self, condition: Callable[[], object]) -> None:
        with self._changed:
            if not self._changed.wait_for(condition, PATIENCE):
                raise TimeoutError(f"the caller heard {len(self.heard)} messages, {self.voice!r:.200}, end {self.end}")

    def wait_for_voice(self, size: int) -> None:
        # It is counted as it comes: looking through all of it each time takes too long.
        self.wait(lambda: self._voice_size >= size)

    def wait_for_end(self) -> None:
        self.wait(lambda: self.end is not None)

    _voice_size = 0

    def _read(self) -> None:
        pending = bytearray()
        end = "fin"
        while True:
            self._may_read.wait()
            try:
                data = self.socket.recv(65536)
            except OSError:
                end = "reset"
                break
            if not data:
                break
            now = time.monotonic()
            pending += data
            with self._changed:
                while len(pending) >= 3:
                    length = 3 + int.from_bytes(pending[1:3], "big")
                    if len(pending) < length:
                        break
                    payload = bytes(pending[3:length])
                    self.heard.append(Heard(now, pending[0], payload))
                    if 0x10 <= pending[0] <= 0x18:
                        self._voice_size += len(payload) - payload.count(0)
                    del pending[:length]
                self._changed.notify_all()
        with self._changed:
            self.end = end
            self._changed.notify_all()


def main(host: str, port: str, calls: str, size: str) -> None:
    """Place so many calls, and speak on each until all of them have heard `size` bytes of voice.

    It prints "hearing" once every call hears something. In the end it prints what was said and how many bytes that were, and for
    each call what was heard, and the longest time between two messages that carried voice.
    """
    callers = [Caller((host, int(port))) for _ in range(int(calls))]
    said = b""
    is_hearing = False
    while any(caller._voice_size < int(size) for caller in callers):
        frame = voice(320, len(said))
        for caller in callers:
            caller.say(frame)
        said += frame
        time.sleep(0.02)
        if not is_hearing and all(caller._voice_size for caller in callers):
            is_hearing = True
            print("hearing", flush=True)
    report = []
    for caller in callers:
        times = [heard.time for heard in caller.heard if heard.payload.strip(b"\0")]
        gap = max(later - earlier for earlier, later in zip(times, times[1:]))
        heard = hashlib.sha256(caller.voice).hexdigest()
        report.append({"uuid": caller.uuid.hex, "heard": heard, "gap": gap, "end": caller.end})
        caller.finish()
    print(json.dumps({"said": hashlib.sha256(said).hexdigest(), "size": len(said), "calls": report}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
