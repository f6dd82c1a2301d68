"""What happens on a call, and what is said of it. All times are seconds, unless they say otherwise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Union

if TYPE_CHECKING:
    from ._core import Mark

__all__ = [
    "Audio",
    "CallError",
    "CallStats",
    "Closing",
    "CodecNotice",
    "Dtmf",
    "Ended",
    "Event",
    "Heard",
    "Lagged",
    "MarkReached",
    "NoAudio",
    "PlaybackDrained",
    "RecordingReport",
    "ServerStats",
    "Underrun",
]


@dataclass(frozen=True, slots=True)
class Audio:
    """Audio from the caller, 20 ms of it as a rule."""

    data: bytes
    """16-bit samples, mono, in little-endian order. `numpy.asarray(audio)` is an array of them."""
    rate: int
    """Samples a second."""
    offset: float
    """Where it begins on the call's clock, which starts with the call and counts what was lost or not sent."""
    arrived: float
    """When it came, since the call began."""

    @property
    def samples(self) -> memoryview:
        """The samples as a view of 16-bit integers, without a copy."""
        return memoryview(self.data).cast("h")

    @property
    def duration(self) -> float:
        """How long it is."""
        return len(self.data) / 2 / self.rate

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        import numpy

        array = numpy.frombuffer(self.data, dtype="<i2")
        return array if dtype is None and not copy else numpy.array(array, dtype=dtype)

    def __repr__(self) -> str:
        return f"Audio({self.duration * 1000:g} ms, rate={self.rate}, offset={self.offset:.3f})"


@dataclass(frozen=True, slots=True)
class Dtmf:
    """The caller pressed a key: one of `0-9 * # A-D`."""

    digit: str


@dataclass(frozen=True, slots=True)
class MarkReached:
    """All that was queued before a mark of :meth:`Call.mark` has been heard."""

    mark: Mark


@dataclass(frozen=True, slots=True)
class PlaybackDrained:
    """All that was queued has been heard, and nothing is left."""


@dataclass(frozen=True, slots=True)
class Underrun:
    """Live audio had nothing when its frame was due, so silence went out."""


@dataclass(frozen=True, slots=True)
class NoAudio:
    """No audio came for a while: the caller is muted or on hold, or the phone suppresses silence."""

    offset: float
    duration: float


@dataclass(frozen=True, slots=True)
class Lagged:
    """Audio was dropped here, because the program did not read it in time."""

    frames: int


@dataclass(frozen=True, slots=True)
class CodecNotice:
    """What was found out about the caller's codec, in words."""

    message: str
    codec: str | None
    """`slin`, `ulaw` or `alaw`, if that is what it is about."""


@dataclass(frozen=True, slots=True)
class CallError:
    """Something is wrong with the call, which goes on or is about to end."""

    error: Exception


@dataclass(frozen=True, slots=True)
class Closing:
    """The server is about to end the call."""

    reason: str
    """`shutdown` or `max_duration`."""
    remaining: float
    """How long the call can still last."""


@dataclass(frozen=True, slots=True)
class Ended:
    """The call is over; nothing follows."""

    reason: str
    """`caller_hung_up`, `finished`, `hung_up`, `shutdown` and so on: a short name that stays."""
    by: Literal["caller", "server", "connection"]
    message: str
    """The reason in words."""


Event = Union[
    Audio,
    Dtmf,
    MarkReached,
    PlaybackDrained,
    Underrun,
    NoAudio,
    Lagged,
    CodecNotice,
    CallError,
    Closing,
    Ended,
]
"""Anything that `async for event in call` yields."""


@dataclass(frozen=True, slots=True)
class Heard:
    """How much of what was queued the caller heard, and how much was thrown away."""

    played_ms: float
    discarded_ms: float


@dataclass(frozen=True, slots=True)
class CallStats:
    """What a call has counted so far, at most 200 ms ago."""

    duration: float
    rate: int
    """The rate at which audio goes out."""
    codec: str
    """The codec of what comes in at 8 kHz."""
    buffered: float
    """What is queued and was not sent yet."""
    handler_lag: float
    """What came and was not read yet."""
    lagged: int
    """Frames that were dropped because they were not read in time."""
    frames_in: int
    frames_out: int
    underruns: int
    live_dropped: int
    """Frames of live audio that were dropped, since they came too early."""
    gaps: int
    """How often audio was missing in what came in."""
    worst_lateness: float
    """How late the latest frame was sent."""
    caller_dbfs: float
    server_dbfs: float


@dataclass(frozen=True, slots=True)
class ServerStats:
    """What a server has counted since it started."""

    connections: int
    calls: int
    """Calls that were let in."""
    running: int
    rejected: int
    without_identity: int
    """Connections that ended without a UUID: health checks, or `AudioSocket()` without `Answer()`."""
    io_uring: bool
    """Whether it runs over io_uring; else it runs over epoll."""


@dataclass(frozen=True, slots=True)
class RecordingReport:
    """What a recording holds and what it lacks."""

    files: list[str]
    duration: float
    paused: float
    """How long it was paused; silence stands for that."""
    lost_frames: int
    """Frames that are missing because the disk was too slow."""
    failure: str | None
    """Why it ended before its call did, if it did."""
