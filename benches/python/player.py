"""Plays a clip to each caller with `audiosocket.Server`.

    player.py play PORT CLIP
"""

import sys

import audiosocket
from programs import run


async def serve(path, port):
    with open(path, "rb") as file:
        clip = audiosocket.Clip(file.read()).looped()

    async def play(call):
        await call.play(clip)

    async with audiosocket.Server("127.0.0.1", port, trusted="any") as server:
        await server.serve(play)


if __name__ == "__main__":
    run(serve(sys.argv[3], int(sys.argv[2])))
