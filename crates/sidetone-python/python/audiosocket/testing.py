"""Calls as Asterisk places them, to test programs with::

    import audiosocket, audiosocket.testing

    async def test_the_greeting_is_heard_whole():
        async with audiosocket.Server(port=0) as server:
            serving = asyncio.create_task(server.serve(handler))
            call = await audiosocket.testing.place_call(*server.address, hang_up_after=3)
            assert call.share_heard(greeting) == 1

The caller keeps Asterisk's pace, and takes nothing that Asterisk does not take: see :attr:`PlacedCall.is_fault`.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from ._call import Samples
from ._core import PlacedCall
from ._core import place_call as _place_call

__all__ = ["PlacedCall", "place_call"]


async def place_call(
    host: str,
    port: int,
    *,
    say: Samples = b"",
    digits: Sequence[tuple[str, float]] = (),
    hang_up_after: float,
    id: uuid.UUID | None = None,
    observer: Callable[[str, float, Any], object] | None = None,
) -> PlacedCall:
    """Call a server, and wait until the call is over.

    :param host: The server's IP address.
    :param say: What the caller says: 16-bit samples of 8 kHz, from the call's beginning on; silence follows.
    :param digits: Keys and when they are pressed, in seconds.
    :param hang_up_after: When the caller hangs up, in seconds, unless the server does so before.
    :param id: The call's UUID; a random one unless given.
    :param observer: Called as things happen, on another thread: with ``"connected"``, ``"heard"``, ``"sent"``,
        ``"digit"`` or ``"ended"``, the seconds since the call began, and the level of the frame in dBFS, the digit, or
        how it ended.
    :raises OSError: the server can't be reached.
    """
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    text = str(id or uuid.uuid4())
    return await asyncio.to_thread(_place_call, address, text, say, list(digits), hang_up_after, observer)
