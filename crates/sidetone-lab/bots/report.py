"""How every bot here reports: one JSON object a line on standard output, each with the key `event`."""

import json
import logging
import wave


def report(event, **fields):
    """Prints one line, at once: its reader waits for it."""
    print(json.dumps({"event": event, **fields}), flush=True)


class Complaints(logging.Handler):
    """Prints what a library warns of: a bot that complains is what a test wants to know of."""

    def __init__(self):
        super().__init__(logging.WARNING)

    def emit(self, record):
        report("complaint", level=record.levelname, logger=record.name, text=self.format(record))


def read_wav(path):
    """The samples of a mono file of 16 bits, as bytes, and their rate in Hz."""
    with wave.open(path) as file:
        if file.getnchannels() != 1 or file.getsampwidth() != 2:
            raise SystemExit(f"{path}: not a mono WAV file of 16 bits")
        return file.readframes(file.getnframes()), file.getframerate()
