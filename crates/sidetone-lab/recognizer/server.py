"""A Vosk server over pocketsphinx: python3 server.py CALLS

Speaks the protocol of alphacep's server, of which every message but the configuration gets exactly one reply. Prints its port
when it takes calls, and takes so many at once, each with a process of its own, so that no decoder holds up another.
"""

import asyncio
import ctypes
import json
import multiprocessing
import signal
import sys
from concurrent.futures import ProcessPoolExecutor

import websockets

from transcriber import Transcriber, load

PR_SET_PDEATHSIG = 1

decoder = load()
transcriber = None


def outlive_nobody():
    """In a caller's process: ends when the server does, by whatever means."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def configure(hz, phrases):
    """In a caller's process: begins anew."""
    global transcriber
    transcriber = Transcriber(decoder, hz, phrases)


def hear(pcm):
    return transcriber.hear(pcm)


def finish():
    return transcriber.finish()


def reply(kind, said):
    if kind == "partial":
        return json.dumps({"partial": said})
    text = {"text": " ".join(word["word"] for word in said)}
    return json.dumps({"result": said, **text} if said else text)


class Server:
    def __init__(self, calls):
        # Forked with the model loaded: no caller waits for it, and all of them share its memory.
        fork = multiprocessing.get_context("fork")
        self.free = asyncio.Queue()
        for _ in range(calls):
            process = ProcessPoolExecutor(1, mp_context=fork, initializer=outlive_nobody)
            process.submit(int).result()
            self.free.put_nowait(process)

    async def call(self, socket):
        process = await self.free.get()
        try:
            await self.converse(socket, process)
        except websockets.ConnectionClosed:
            pass
        finally:
            self.free.put_nowait(process)

    async def converse(self, socket, process):
        def work(function, *arguments):
            return asyncio.get_running_loop().run_in_executor(process, function, *arguments)

        hz, configured = 8_000, False
        async for message in socket:
            if isinstance(message, str) and "config" in message:
                config = json.loads(message)["config"]
                hz = int(config.get("sample_rate", hz))
                await work(configure, hz, config.get("phrase_list", []))
                configured = True
                continue
            if not configured:
                await work(configure, hz, [])
                configured = True
            # The exact text: with other spaces it would be something else.
            if message == '{"eof" : 1}':
                await socket.send(reply("words", await work(finish)))
                return
            if isinstance(message, str):
                raise ValueError(f"neither a configuration nor the end: {message}")
            await socket.send(reply(*await work(hear, message)))


async def main():
    server = Server(int(sys.argv[1]))
    # Messages of whole seconds are fine; nobody is pinged, as a client that computes may be late.
    async with websockets.serve(server.call, "127.0.0.1", 0, ping_interval=None) as listening:
        print(listening.sockets[0].getsockname()[1], flush=True)
        await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    asyncio.run(main())
