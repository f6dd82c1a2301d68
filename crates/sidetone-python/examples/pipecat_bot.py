"""A pipecat pipeline in the same process as its calls: it speaks until the caller does.

    pip install pipecat-ai sidetone-audiosocket
    python pipecat_bot.py --port 9092

In place of Speaker goes whatever your bot is: speech to text, a language model, text to speech.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import struct

import audiosocket
from pipecat.frames.frames import EndFrame, Frame, InputAudioRawFrame, InputDTMFFrame, OutputAudioRawFrame, StartFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.workers.runner import WorkerRunner
from pipecat_transport import CallTransport

RATE = 8_000
# Thirty seconds of a tone: nobody wants to hear that to its end.
SPEECH = b"".join(struct.pack("<h", int(8_000 * math.sin(2 * math.pi * 440 * at / RATE))) for at in range(30 * RATE))


class Speaker(FrameProcessor):
    """Speaks from the beginning on, stops when the caller speaks, and says goodbye when # is pressed."""

    def __init__(self) -> None:
        super().__init__()
        self._voice = audiosocket.VoiceDetector(RATE)

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, InputAudioRawFrame):
            if any(what == "started" for what, _ in self._voice.push(frame.audio)):
                print("interrupted", flush=True)
                await self.broadcast_interruption()
            return
        await self.push_frame(frame, direction)
        if isinstance(frame, StartFrame):
            await self.push_frame(OutputAudioRawFrame(SPEECH, RATE, 1))
        elif isinstance(frame, InputDTMFFrame) and frame.button.value == "#":
            await self.push_frame(EndFrame())


async def answer(call: audiosocket.Call) -> None:
    transport = CallTransport(call)
    worker = PipelineWorker(
        Pipeline([transport.input(), Speaker(), transport.output()]),
        params=PipelineParams(audio_in_sample_rate=RATE, audio_out_sample_rate=RATE),
    )

    @transport.event_handler("on_client_disconnected")
    async def hung_up(_: CallTransport, call: audiosocket.Call) -> None:
        await worker.cancel()

    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    await runner.run()
    print(f"{call.id}: over", flush=True)


async def main(host: str, port: int) -> None:
    async with audiosocket.Server(host, port) as server:
        print(f"listening on {server.address[0]}:{server.address[1]}", flush=True)
        await server.serve(answer)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on [127.0.0.1]")
    parser.add_argument("--port", type=int, default=9092, help="the port to listen on [9092]")
    options = parser.parse_args()
    try:
        asyncio.run(main(options.host, options.port))
    except KeyboardInterrupt:
        pass
