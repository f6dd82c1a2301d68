"""Play a WAV file to each caller, from its beginning to its end, and hang up."""

from __future__ import annotations

import argparse
import asyncio
import sys
import wave
from dataclasses import dataclass
from typing import Any

import audiosocket

RATE = 8_000
WIDTH = 2
SECOND = RATE * WIDTH
# A caller's audio comes every 20 ms.
MESSAGES = 50


def read(path: str) -> bytes:
    """The sound of a mono file of 16-bit samples, as AudioSocket takes it."""
    with wave.open(path, "rb") as file:
        if (file.getnchannels(), file.getsampwidth()) != (1, WIDTH):
            raise ValueError("mono and 16 bits are needed; `sox IN -c 1 -b 16 OUT.wav` makes such a file")
        samples, rate = file.readframes(file.getnframes()), file.getframerate()
    return samples if rate == RATE else audiosocket.resample(samples, rate, RATE)


@dataclass
class Progress:
    """How far a call is."""

    messages: int = 0
    position: int = 0


class Player:
    """Callbacks that give each call the sound in pieces, and are a second ahead of what it hears.

    So it plays on, whatever else this program is doing. Pieces of more than 80 ms wait for their turn.
    """

    def __init__(self, sound: bytes) -> None:
        self._sound = sound
        self._calls: dict[str, Progress] = {}

    def on_audio(self, uuid: str, peer: tuple[Any, ...], audio: bytearray) -> bytes | None:
        if not audio:
            if self._calls.pop(uuid, None) is not None:
                print(f"{uuid}: over", flush=True)
            return None
        call = self._calls.get(uuid)
        if call is None:
            print(f"{uuid}: playing", flush=True)
            call = self._calls[uuid] = Progress()
        if call.position >= len(self._sound):
            # All of it is heard first.
            return audiosocket.HANGUP_CALL_MESSAGE
        if call.messages % MESSAGES == 0:
            piece = self._piece(call.position)
            call.position += len(piece)
        else:
            piece = None
        call.messages += 1
        return piece

    def _piece(self, position: int) -> bytes:
        end = position + (SECOND if position else 2 * SECOND)
        # No short piece is left over.
        return self._sound[position:] if len(self._sound) < end + SECOND else self._sound[position:end]

    def on_exception(self, uuid: str, peer: tuple[Any, ...], error: BaseException) -> None:
        print(f"{uuid or peer}: {error}", flush=True)


async def main(host: str, port: int, sound: bytes) -> None:
    player = Player(sound)
    server = await audiosocket.start_server(player.on_audio, player.on_exception, host, port)
    print("listening on {}:{}".format(*server.sockets[0].getsockname()), flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", help="a WAV file: mono, 16 bits, any rate")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (%(default)s)")
    parser.add_argument("--port", type=int, default=9092, help="the port (%(default)s); 0 takes a free one")
    options = parser.parse_args()
    try:
        sound = read(options.file)
    except (OSError, EOFError, ValueError, wave.Error) as error:
        sys.exit(f"{options.file}: {error}")
    try:
        asyncio.run(main(options.host, options.port, sound))
    except KeyboardInterrupt:
        pass
