"""An AudioSocket server on asyncio, as fast as its streams' lower layer (protocols) allows.

    asyncio_server.py echo PORT
    asyncio_server.py play PORT CLIP      CLIP: headerless 16-bit samples at 8 kHz
"""

import asyncio
import socket
import sys

HEADER = 3
FRAME = 320
STEP = 0.02


class Call(asyncio.Protocol):
    """Takes the messages out of the stream; what to do with them is the subclass's."""

    def connection_made(self, transport):
        self.transport = transport
        self.rest = b""

    def data_received(self, data):
        if self.rest:
            data = self.rest + data
        begin, length = 0, len(data)
        while length - begin >= HEADER:
            end = begin + HEADER + (data[begin + 1] << 8 | data[begin + 2])
            if end > length:
                break
            self.message(data[begin], data[begin:end])
            begin = end
        self.rest = data[begin:]

    def message(self, kind, message):
        pass


class Echo(Call):
    def message(self, kind, message):
        if kind == 0x10:
            self.transport.write(message)


class Play(Call):
    clip = []

    def message(self, kind, message):
        if kind == 0x01:
            self.loop = asyncio.get_running_loop()
            self.frame = 0
            self.due = self.loop.time()
            self.step()

    def step(self):
        if self.transport.is_closing():
            return
        self.transport.write(self.clip[self.frame])
        self.frame = (self.frame + 1) % len(self.clip)
        self.due += STEP
        self.loop.call_at(self.due, self.step)


def messages_of(path):
    with open(path, "rb") as file:
        samples = file.read()
    header = bytes([0x10, FRAME >> 8, FRAME & 0xFF])
    frames = range(0, len(samples) - FRAME + 1, FRAME)
    return [header + samples[begin : begin + FRAME] for begin in frames]


async def serve():
    mode, port = sys.argv[1], int(sys.argv[2])
    if mode == "play":
        Play.clip = messages_of(sys.argv[3])
    listener = socket.create_server(("127.0.0.1", port), backlog=4096)
    # Accepted connections inherit it.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    protocol = Play if mode == "play" else Echo
    loop = asyncio.get_running_loop()
    server = await loop.create_server(protocol, sock=listener, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve())
