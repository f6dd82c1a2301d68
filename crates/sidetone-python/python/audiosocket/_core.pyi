"""The compiled half of the module. What has no underscore here, `audiosocket` exports."""

import asyncio
import os
from collections.abc import Callable, Generator, Sequence
from typing import Any, Literal, final

from ._types import CallStats, Ended, Event, Heard, RecordingReport, ServerStats

__all__ = [
    "AdmissionRequest",
    "AsteriskFrameForwardError",
    "AsteriskMemoryAllocError",
    "AudioDroppedError",
    "AudioLaggedError",
    "AudioSocketError",
    "AudioSocketReadError",
    "Call",
    "CallEndedError",
    "CallbackServer",
    "ClearedError",
    "Clip",
    "Live",
    "Mark",
    "PlacedCall",
    "Playback",
    "PlaybackFullError",
    "Recording",
    "RecordingError",
    "Resampler",
    "Server",
    "SoundError",
    "Utterance",
    "VoiceDetector",
    "__version__",
    "begin_forked_child",
    "decode_alaw",
    "decode_ulaw",
    "encode_alaw",
    "encode_ulaw",
    "greeting",
    "place_call",
    "resample",
    "voice",
]

__version__: str

class AudioSocketError(Exception): ...
class AsteriskFrameForwardError(AudioSocketError): ...
class AsteriskMemoryAllocError(AudioSocketError): ...
class AudioSocketReadError(AudioSocketError): ...
class AudioLaggedError(AudioSocketError): ...
class AudioDroppedError(AudioSocketError): ...
class CallEndedError(AudioSocketError): ...
class ClearedError(AudioSocketError): ...
class PlaybackFullError(AudioSocketError): ...
class SoundError(AudioSocketError): ...
class RecordingError(AudioSocketError): ...

def begin_forked_child() -> None: ...
def encode_ulaw(samples: Any) -> bytes:
    """Linear samples as µ-law: a byte for each."""

def encode_alaw(samples: Any) -> bytes:
    """Linear samples as A-law: a byte for each."""

def decode_ulaw(codes: bytes | bytearray) -> bytes:
    """µ-law as linear samples."""

def decode_alaw(codes: bytes | bytearray) -> bytes:
    """A-law as linear samples."""

def resample(samples: Any, from_rate: int, to_rate: int) -> bytes:
    """A whole sound at another rate, from 4 to 384 kHz; its beginning and end stay where they are.

    :raises ValueError: a rate is out of range.
    """

@final
class Resampler:
    """Converts a stream of samples to another rate; what comes out is some milliseconds late."""

    def __new__(cls, from_rate: int, to_rate: int) -> Resampler: ...
    @property
    def from_rate(self) -> int: ...
    @property
    def to_rate(self) -> int: ...
    def process(self, samples: Any) -> bytes:
        """What can be told of the other rate, given these samples and those before."""

    def flush(self) -> bytes:
        """The rest, at the end of the stream."""

@final
class VoiceDetector:
    """Tells speech from silence, in a stream of samples of one rate."""

    def __new__(cls, rate: int) -> VoiceDetector: ...
    def push(self, samples: Any) -> list[tuple[Literal["started", "ended"], float]]:
        """What these samples show: that speech started or ended, and when, in seconds from the stream's beginning."""

    def push_silence(self, seconds: float) -> list[tuple[Literal["started", "ended"], float]]:
        """The same for time in which no audio came, which is silence."""

    @property
    def is_speaking(self) -> bool: ...

@final
class Clip:
    """A sound that is prepared once and played by any number of calls."""

    def __new__(cls, samples: Any, rate: int = 8000) -> Clip: ...
    @staticmethod
    def open(path: str | os.PathLike[str]) -> Clip:
        """Read a sound file: WAV or AU, of any rate. It blocks while it reads.

        :raises SoundError: the file can't be read; the message says why.
        """

    def looped(self) -> Clip:
        """The same over and over, until it is stopped or cleared."""

    @property
    def duration(self) -> float:
        """In seconds."""

@final
class Mark:
    """A place in what a call plays. Marks of one call are ordered as they were queued."""

    def __lt__(self, other: Mark, /) -> bool: ...
    def __le__(self, other: Mark, /) -> bool: ...
    def __gt__(self, other: Mark, /) -> bool: ...
    def __ge__(self, other: Mark, /) -> bool: ...

@final
class Playback:
    """Something that was queued on a call.

    Awaited, it waits until that has been heard, stopped or cleared, or the call is over, and returns how much of it
    the caller heard. If the wait is cancelled, it stops.
    """

    def __await__(self) -> Generator[Any, None, Heard]: ...
    def finished(self) -> asyncio.Future[Heard]:
        """Wait as `await` does, but let it play on if the wait is cancelled."""

    def stop(self) -> asyncio.Future[Heard]:
        """Take it out of what is played, at once, awaited or not; what is queued behind it follows."""

    @property
    def is_finished(self) -> bool: ...
    @property
    def heard(self) -> Heard | None:
        """How much of it was heard, once that is known."""

@final
class Utterance:
    """Speech that comes in pieces, is queued as one and counts as one. `with` ends it."""

    def write(self, samples: Any) -> None:
        """Queue more of it.

        :raises ClearedError: it has ended, or was stopped or cleared.
        :raises CallEndedError: the call is over.
        :raises PlaybackFullError: ten minutes are queued already, or what `playback_buffer` says.
        """

    def end(self) -> Playback:
        """Say that nothing more comes: what is queued of it plays to its end."""

    def stop(self) -> asyncio.Future[Heard]:
        """Take it out of what is played, at once, awaited or not."""

    @property
    def playback(self) -> Playback: ...
    def __enter__(self) -> Utterance: ...
    def __exit__(self, *error: object) -> None: ...

@final
class Live:
    """Audio that is made as it plays."""

    def push(self, samples: Any) -> None:
        """Play samples as soon as possible. After the end of the call they go nowhere."""

@final
class Recording:
    """The recording of a call. It ends with the call."""

    def pause(self) -> None:
        """Keep what is said from now on out of the file; silence stands in its place."""

    def resume(self) -> None:
        """Go on after a pause."""

    def stop(self) -> None:
        """End it now, while the call goes on."""

    @property
    def is_paused(self) -> bool: ...
    @property
    def report(self) -> RecordingReport:
        """How it stands, at most half a second ago."""

    def ended(self) -> asyncio.Future[RecordingReport]:
        """Wait until its file is whole, or can't be."""

@final
class Call:
    @property
    def hex(self) -> str: ...
    @property
    def peer(self) -> tuple[Any, ...]: ...
    @property
    def rate(self) -> int: ...
    @property
    def stats(self) -> CallStats: ...
    @property
    def ended(self) -> Ended | None: ...
    def next_event(self) -> Event | None: ...
    def wait(self) -> asyncio.Future[None]: ...
    def play(self, sound: Any, rate: int = 8000) -> Playback: ...
    def utterance(self, rate: int = 8000, prebuffer: float = 0.0) -> Utterance: ...
    def live(self, rate: int | None = None, prebuffer: float = 0.0) -> Live: ...
    def mark(self) -> Mark: ...
    def clear(self) -> asyncio.Future[Heard]: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def record(self, path: str) -> Recording: ...
    def hang_up(self) -> None: ...
    def finish(self) -> asyncio.Future[Ended]: ...
    def closed(self) -> asyncio.Future[Ended]: ...

@final
class AdmissionRequest:
    @property
    def hex(self) -> str: ...
    @property
    def peer(self) -> tuple[Any, ...]: ...
    def accept(self, data: Any, max_duration: float | None) -> None: ...
    def reject(self) -> None: ...

@final
class Server:
    def __new__(
        cls, sockets: Sequence[Any], sink: object, event_loop: asyncio.AbstractEventLoop, settings: dict[str, Any]
    ) -> Server: ...
    def fileno(self) -> int: ...
    def poll(self) -> None: ...
    def shutdown(self, grace: float) -> None: ...
    def drained(self) -> asyncio.Future[None]: ...
    @property
    def stats(self) -> ServerStats: ...
    def close(self) -> None: ...

@final
class CallbackServer:
    def __new__(
        cls, sockets: Sequence[Any], on_audio: object, on_exception: object, event_loop: asyncio.AbstractEventLoop
    ) -> CallbackServer: ...
    def fileno(self) -> int: ...
    def poll(self) -> None: ...
    def stop_accepting(self) -> None: ...
    def hang_up_all(self) -> None: ...
    def has_ended(self) -> bool: ...
    def close(self) -> None: ...

def place_call(
    address: str,
    id: str,
    samples: Any,
    digits: Sequence[tuple[str, float]],
    hang_up_after: float,
    observer: Callable[[str, float, Any], object] | None = None,
) -> PlacedCall: ...
def greeting() -> bytes:
    """A greeting, without words, at 8 kHz."""

def voice(seconds: float) -> bytes:
    """Something like a voice, at 8 kHz."""

@final
class PlacedCall:
    """A call that was placed and is over, as its caller saw it."""

    @property
    def heard(self) -> bytes:
        """The samples that were heard, all of them."""

    @property
    def sent(self) -> bytes:
        """The samples that were said."""

    @property
    def duration(self) -> float:
        """How long it lasted, in seconds."""

    @property
    def ended(self) -> str:
        """How it ended, in words."""

    @property
    def is_fault(self) -> bool:
        """Whether the server did something that an Asterisk punishes."""

    @property
    def worst_lateness_ms(self) -> float:
        """How late the latest frame came, in milliseconds, against the best schedule of 20 ms."""

    @property
    def echo_delay_ms(self) -> float | None:
        """The median delay of what came back of what was said, in milliseconds, if anything did."""

    def share_heard(self, samples: Any) -> float:
        """How much of these samples was heard, bit for bit, as a share from 0 to 1."""

    def first_heard(self, samples: Any) -> float | None:
        """When the first of these samples was heard, in seconds, if any was."""
