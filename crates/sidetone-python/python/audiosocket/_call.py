"""A call, as a program has it."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import AsyncIterator
from typing import Any, Union

from . import _core
from ._types import CallStats, Ended, Event, Heard

__all__ = ["Call", "Samples"]

Samples = Union[bytes, bytearray, memoryview, Any]
"""16-bit samples, mono: bytes in little-endian order, `array('h')`, or a NumPy array of int16."""


class Call(AsyncIterator[Event]):
    """A call from Asterisk.

    What happens on it is read with ``async for``::

        async for event in call:
            match event:
                case audiosocket.Audio(data=data):
                    ...
                case audiosocket.Dtmf(digit="#"):
                    break

    Nobody has to read: what is not read in time is dropped, oldest first, and an :class:`audiosocket.Lagged` stands in
    its place. What is played is paced by threads that never wait for Python.

    A call that is no longer referred to is hung up.
    """

    __slots__ = ("__weakref__", "_core", "_data", "_id")

    def __init__(self, core: _core.Call, data: Any) -> None:
        self._core = core
        self._data = data
        self._id = uuid.UUID(hex=core.hex)

    @property
    def id(self) -> uuid.UUID:
        """The UUID that the dialplan gave the call."""
        return self._id

    @property
    def peer(self) -> tuple[Any, ...]:
        """The address of the other side, as :meth:`socket.socket.getpeername` gives it."""
        return self._core.peer

    @property
    def rate(self) -> int:
        """The rate at which audio goes out. It is 8000 until the caller's first audio shows another one."""
        return self._core.rate

    @property
    def data(self) -> Any:
        """What the admission hook attached, else ``None``."""
        return self._data

    @property
    def stats(self) -> CallStats:
        """What has been counted so far."""
        return self._core.stats

    @property
    def ended(self) -> Ended | None:
        """How the call ended, or ``None`` while it runs."""
        return self._core.ended

    async def __anext__(self) -> Event:
        """The next event. After :class:`audiosocket.Ended` the iteration ends.

        Cancelled, it loses nothing: the event is there for the next call.
        """
        while True:
            event = self._core.next_event()
            if event is not None:
                return event
            await self._core.wait()

    def play(self, sound: Samples | _core.Clip, rate: int = 8000) -> _core.Playback:
        """Queue a sound, behind what is queued already: samples at any rate from 4 to 384 kHz, or a :class:`Clip`.

        It plays whether or not what is returned is awaited. Awaited, that returns what the caller heard of it, as
        :class:`Heard`; if the wait is cancelled, it stops. ``playback.finished()`` waits, too, and stops nothing.

        :raises CallEndedError: the call is over.
        :raises PlaybackFullError: ten minutes are queued already, or what ``playback_buffer`` says.
        :raises TypeError: it holds no 16-bit samples.
        :raises ValueError: the rate is out of range, or a sample is cut in half.
        """
        return self._core.play(sound, rate)

    async def play_file(self, path: str | os.PathLike[str]) -> Heard:
        """Play a sound file: WAV or AU, of any rate. It is read on another thread.

        Returns when it has been heard to its end, or cleared, or the call is over. Cancelled, it stops.

        :raises SoundError: the file can't be read; the message says why.
        :raises CallEndedError: the call is over.
        """
        clip = await asyncio.to_thread(_core.Clip.open, path)
        return await self.play(clip)

    def utterance(self, rate: int = 8000, prebuffer: float = 0.0) -> _core.Utterance:
        """Begin an utterance: speech that comes in pieces, is queued as one and counts as one.

        ``prebuffer``, in seconds, is how much of it is to be there before it starts, so that uneven speech has no
        gaps. Use it with ``with``, or end it with ``end()``::

            with call.utterance(rate=24000) as utterance:
                async for piece in voice:
                    utterance.write(piece)
            heard = await utterance.playback
        """
        return self._core.utterance(rate, prebuffer)

    def live(self, rate: int | None = None, prebuffer: float = 0.0) -> _core.Live:
        """A source of audio that is made as it plays: an echo, a relay from another call.

        It is heard as soon as possible, and what comes too early is dropped: at most 80 ms and twice ``prebuffer``,
        which is in seconds, wait. ``rate`` is that of what is pushed; without one it is the caller's own.
        """
        return self._core.live(rate, prebuffer)

    def mark(self) -> _core.Mark:
        """Queue a mark. :class:`audiosocket.MarkReached` reports it when all before it has been heard.

        A mark that is cleared is never reported.
        """
        return self._core.mark()

    def clear(self) -> asyncio.Future[Heard]:
        """Throw everything queued away, with the next frame: the caller interrupts.

        It acts at once, awaited or not. Awaited, it returns how much of it the caller had heard and how much not, to
        the sample.
        """
        return self._core.clear()

    def pause(self) -> None:
        """Hold what is queued where it is. Live audio goes on."""
        self._core.pause()

    def resume(self) -> None:
        """Go on with what is queued."""
        self._core.resume()

    def record(self, path: str | os.PathLike[str]) -> _core.Recording:
        """Record the call into a stereo WAV file: the caller on the left, what was played on the right.

        It begins with the call if nothing has been read of that yet, else now, ends with it, and never delays it.
        A ``path`` that ends in ``.wav`` is the file. Any other is a directory, where the file is named after the time and
        the UUID. Nothing is overwritten: if a name is taken, ``-2`` and so on is added to it.
        ``await recording.ended()`` says what the file is called.

        :raises RecordingError: the directory can't be written to, or the call is over.
        """
        return self._core.record(os.fspath(path))

    def hang_up(self) -> None:
        """End the call at once. Asterisk goes on in the dialplan."""
        self._core.hang_up()

    def finish(self) -> asyncio.Future[Ended]:
        """End the call when everything queued has been heard. Awaited, it returns how it ended.

        It acts at once, and goes on if the wait is cancelled.
        """
        return self._core.finish()

    def closed(self) -> asyncio.Future[Ended]:
        """Wait until the call is over."""
        return self._core.closed()

    def __repr__(self) -> str:
        ended = self.ended
        state = f"ended: {ended.reason}" if ended else "running"
        return f"<audiosocket.Call {self._id} from {self.peer[0]}:{self.peer[1]}, {state}>"
