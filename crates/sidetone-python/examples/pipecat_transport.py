"""A pipecat transport in the process that has the calls: between a pipeline and an `audiosocket.Call`, no socket and no codec.

    transport = CallTransport(call)
    Pipeline([transport.input(), ..., transport.output()])

Digits become `InputDTMFFrame`s. An interruption clears what is queued with the next frame, and an `EndFrame` hangs up when
all has been heard. `on_client_disconnected` says that the call is over.
"""

from __future__ import annotations

import asyncio

import audiosocket
from pipecat.audio.dtmf.types import KeypadEntry
from pipecat.frames.frames import (
    CancelFrame,
    EndFrame,
    Frame,
    InputAudioRawFrame,
    InputDTMFFrame,
    InterruptionFrame,
    OutputAudioRawFrame,
    StartFrame,
)
from pipecat.processors.frame_processor import FrameDirection
from pipecat.transports.base_input import BaseInputTransport
from pipecat.transports.base_output import BaseOutputTransport
from pipecat.transports.base_transport import BaseTransport, TransportParams

# How much speech is queued at most, in seconds: it plays on while the pipeline is busy for so long.
AHEAD = 0.2


class CallTransport(BaseTransport):
    """A call, as a pipeline has it."""

    def __init__(self, call: audiosocket.Call, params: TransportParams | None = None) -> None:
        super().__init__()
        params = params or TransportParams(audio_in_enabled=True, audio_out_enabled=True)
        self._input = CallInput(self, call, params)
        self._output = CallOutput(call, params)
        self._register_event_handler("on_client_disconnected")

    def input(self) -> CallInput:
        return self._input

    def output(self) -> CallOutput:
        return self._output


class CallInput(BaseInputTransport):
    """What the caller says and presses."""

    def __init__(self, transport: CallTransport, call: audiosocket.Call, params: TransportParams) -> None:
        super().__init__(params)
        self._transport = transport
        self._call = call
        self._reading: asyncio.Task[None] | None = None

    async def start(self, frame: StartFrame) -> None:
        await super().start(frame)
        if self._reading is None:
            self._reading = self.create_task(self._read())
        await self.set_transport_ready(frame)

    async def stop(self, frame: EndFrame) -> None:
        await super().stop(frame)
        await self._stop_reading()

    async def cancel(self, frame: CancelFrame) -> None:
        await super().cancel(frame)
        await self._stop_reading()

    async def _stop_reading(self) -> None:
        reading, self._reading = self._reading, None
        if reading is not None:
            await self.cancel_task(reading)

    async def _read(self) -> None:
        async for event in self._call:
            match event:
                case audiosocket.Audio(data=data, rate=rate):
                    await self.push_audio_frame(InputAudioRawFrame(data, rate, 1))
                case audiosocket.Dtmf(digit=digit) if digit in "0123456789*#":
                    await self.push_frame(InputDTMFFrame(KeypadEntry(digit)))
                case audiosocket.Ended():
                    await self._transport._call_event_handler("on_client_disconnected", self._call)
                case _:
                    pass


class CallOutput(BaseOutputTransport):
    """What the caller hears."""

    def __init__(self, call: audiosocket.Call, params: TransportParams) -> None:
        super().__init__(params)
        self._call = call
        self._utterance: audiosocket.Utterance | None = None

    async def start(self, frame: StartFrame) -> None:
        await super().start(frame)
        await self.set_transport_ready(frame)

    async def stop(self, frame: EndFrame) -> None:
        # What the pipeline has said is written by then.
        await super().stop(frame)
        self._end_utterance()
        await self._call.finish()

    async def cancel(self, frame: CancelFrame) -> None:
        await super().cancel(frame)
        self._call.hang_up()

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        if isinstance(frame, InterruptionFrame):
            # At once, whatever the pipeline does next.
            self._call.clear()
            self._utterance = None
        await super().process_frame(frame, direction)

    async def write_audio_frame(self, frame: OutputAudioRawFrame) -> bool:
        try:
            if self._utterance is None:
                self._utterance = self._call.utterance(frame.sample_rate)
            self._utterance.write(frame.audio)
        except audiosocket.ClearedError:
            self._utterance = None
            return True
        except audiosocket.CallEndedError:
            return False
        # A pipeline may make minutes at once; it is to know how far the caller is.
        while self._call.ended is None and (ahead := self._call.stats.buffered - AHEAD) > 0:
            await asyncio.sleep(ahead)
        return True

    def _end_utterance(self) -> None:
        if self._utterance is not None:
            self._utterance.end()
            self._utterance = None
