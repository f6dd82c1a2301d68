"""The same programs, with `audiosocket.start_server`; the same words."""

import sys

import audiosocket
from programs import serve_as_told


async def serve(on_audio, port):
    server = await audiosocket.start_server(on_audio, print, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    serve_as_told(serve, *sys.argv[1:])
