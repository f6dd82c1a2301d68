"""Say back to each caller what it says.

For a phone that rings with `Dial(AudioSocket/...)`, say which codec it has: what comes is as it left the phone, and what
goes out is linear in any case.
"""

from __future__ import annotations

import argparse
import asyncio
from typing import Any, Callable

import audiosocket

Decoder = Callable[[bytearray], "bytes | bytearray"]

DECODERS: dict[str, Decoder] = {
    "slin": lambda audio: audio,
    "ulaw": audiosocket.decode_ulaw,
    "alaw": audiosocket.decode_alaw,
}


def on_exception(uuid: str, peer: tuple[Any, ...], error: BaseException) -> None:
    print(f"{uuid or peer}: {error}", flush=True)


async def main(host: str, port: int, decode: Decoder) -> None:
    def on_audio(uuid: str, peer: tuple[Any, ...], audio: bytearray) -> bytes | bytearray | None:
        if not audio:
            print(f"{uuid}: over", flush=True)
            return None
        return decode(audio)

    server = await audiosocket.start_server(on_audio, on_exception, host, port)
    print("listening on {}:{}".format(*server.sockets[0].getsockname()), flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (%(default)s)")
    parser.add_argument("--port", type=int, default=9092, help="the port (%(default)s); 0 takes a free one")
    parser.add_argument("--codec", choices=DECODERS, default="slin", help="what callers send (%(default)s)")
    options = parser.parse_args()
    try:
        asyncio.run(main(options.host, options.port, DECODERS[options.codec]))
    except KeyboardInterrupt:
        pass
