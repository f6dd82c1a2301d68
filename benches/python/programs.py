"""What the programs of both servers do with a call."""

import asyncio
import os

FRAME = 320


def serve_as_told(serve, task, port, *clip):
    """Runs the server of a command line: TASK PORT [CLIP]."""
    on_audio = echo if task == "echo" else Playback(*clip)
    run(serve(on_audio, int(port)))


def run(work):
    """On the event loop that LOOP names in the environment."""
    if os.environ.get("LOOP") == "uvloop":
        import uvloop

        uvloop.run(work)
    else:
        asyncio.run(work)


def echo(uuid, peer, audio):
    return audio or None


class Playback:
    """Answers each message with the next 20 ms of a clip, to each caller from its beginning."""

    def __init__(self, path):
        with open(path, "rb") as file:
            self.clip = file.read()
        self.places = {}

    def __call__(self, uuid, peer, audio):
        if not audio:
            self.places.pop(uuid, None)
            return None
        place = self.places.get(uuid, 0)
        self.places[uuid] = (place + FRAME) % (len(self.clip) - FRAME)
        return self.clip[place : place + FRAME]
