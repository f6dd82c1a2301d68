"""AudioSocket calls from Asterisk, for asyncio.

A server that echoes what each caller says, until the caller presses ``#``::

    import asyncio
    import audiosocket

    async def echo(call: audiosocket.Call) -> None:
        live = call.live()
        async for event in call:
            match event:
                case audiosocket.Audio(data=data):
                    live.push(data)
                case audiosocket.Dtmf(digit="#"):
                    break

    async def main() -> None:
        async with audiosocket.Server("127.0.0.1", 9092) as server:
            await server.serve(echo)

    asyncio.run(main())

And in Asterisk's dialplan::

    exten => 100,1,Answer()
     same => n,AudioSocket(${UUID()},127.0.0.1:9092)

:func:`start_server` is the interface of the original module: two callbacks for all calls.
"""

from __future__ import annotations

# First: it refuses a sub-interpreter before the extension module is loaded.
from . import _lifetime  # noqa: F401  # pyright: ignore[reportUnusedImport]
from ._call import Call, Samples
from ._callbacks import HANGUP_CALL_MESSAGE, CallbackServer, start_server
from ._core import (
    AsteriskFrameForwardError,
    AsteriskMemoryAllocError,
    AudioDroppedError,
    AudioLaggedError,
    AudioSocketError,
    AudioSocketReadError,
    CallEndedError,
    ClearedError,
    Clip,
    Live,
    Mark,
    Playback,
    PlaybackFullError,
    Recording,
    RecordingError,
    Resampler,
    SoundError,
    Utterance,
    VoiceDetector,
    __version__,
    decode_alaw,
    decode_ulaw,
    encode_alaw,
    encode_ulaw,
    resample,
)
from ._server import Accept, CallRequest, CallSummary, Server
from ._types import (
    Audio,
    CallError,
    CallStats,
    Closing,
    CodecNotice,
    Dtmf,
    Ended,
    Event,
    Heard,
    Lagged,
    MarkReached,
    NoAudio,
    PlaybackDrained,
    RecordingReport,
    ServerStats,
    Underrun,
)

__all__ = [
    "HANGUP_CALL_MESSAGE",
    "Accept",
    "AsteriskFrameForwardError",
    "AsteriskMemoryAllocError",
    "Audio",
    "AudioDroppedError",
    "AudioLaggedError",
    "AudioSocketError",
    "AudioSocketReadError",
    "Call",
    "CallEndedError",
    "CallError",
    "CallRequest",
    "CallStats",
    "CallSummary",
    "CallbackServer",
    "ClearedError",
    "Clip",
    "Closing",
    "CodecNotice",
    "Dtmf",
    "Ended",
    "Event",
    "Heard",
    "Lagged",
    "Live",
    "Mark",
    "MarkReached",
    "NoAudio",
    "Playback",
    "PlaybackDrained",
    "PlaybackFullError",
    "Recording",
    "RecordingError",
    "RecordingReport",
    "Resampler",
    "Samples",
    "Server",
    "ServerStats",
    "SoundError",
    "Underrun",
    "Utterance",
    "VoiceDetector",
    "__version__",
    "decode_alaw",
    "decode_ulaw",
    "encode_alaw",
    "encode_ulaw",
    "resample",
    "start_server",
]
