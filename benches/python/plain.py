"""A plain asyncio server of two callbacks, as one writes it: a buffered protocol that reads a header, then its payload.

    plain.py echo PORT
    plain.py play PORT CLIP      CLIP: headerless 16-bit samples at 8 kHz; each message is answered with its next 20 ms
"""

import asyncio
import sys

from programs import serve_as_told

HEADER, UUID, AUDIO = 3, 0x01, 0x10


class Protocol(asyncio.BufferedProtocol):
    def __init__(self, on_audio):
        self.on_audio = on_audio
        self.uuid = ""
        self.kind = None
        self.buffer = bytearray(HEADER)
        self.filled = 0

    def connection_made(self, transport):
        self.transport = transport
        self.peer = transport.get_extra_info("peername")

    def get_buffer(self, size_hint):
        return memoryview(self.buffer)[self.filled :]

    def buffer_updated(self, count):
        self.filled += count
        if self.filled < len(self.buffer):
            return
        if self.kind is None:
            self.kind, length = self.buffer[0], int.from_bytes(self.buffer[1:3], "big")
        else:
            self.message(self.kind, self.buffer)
            self.kind, length = None, HEADER
        self.buffer, self.filled = bytearray(length), 0

    def message(self, kind, payload):
        if kind == AUDIO:
            answer = self.on_audio(self.uuid, self.peer, payload)
            if answer:
                self.transport.write(bytes((AUDIO,)) + len(answer).to_bytes(2, "big") + answer)
        elif kind == UUID:
            self.uuid = payload.hex()

    def connection_lost(self, error):
        self.on_audio(self.uuid, self.peer, bytearray())


async def serve(on_audio, port):
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Protocol(on_audio), "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    serve_as_told(serve, *sys.argv[1:])
