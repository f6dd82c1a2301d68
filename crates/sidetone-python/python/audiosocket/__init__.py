"""AudioSocket calls from Asterisk, for asyncio."""

from __future__ import annotations

from ._callbacks import HANGUP_CALL_MESSAGE, CallbackServer, start_server
from ._core import (
    AsteriskFrameForwardError,
    AsteriskMemoryAllocError,
    AudioDroppedError,
    AudioLaggedError,
    AudioSocketError,
    AudioSocketReadError,
    __version__,
)

__all__ = [
    "HANGUP_CALL_MESSAGE",
    "AsteriskFrameForwardError",
    "AsteriskMemoryAllocError",
    "AudioDroppedError",
    "AudioLaggedError",
    "AudioSocketError",
    "AudioSocketReadError",
    "CallbackServer",
    "__version__",
    "start_server",
]
