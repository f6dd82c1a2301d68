"""A pipecat bot on calls of an Asterisk: it says back what the caller says.

    pip install -r requirements.txt
    python bot.py
    sidetone bot ws://127.0.0.1:8765/ws

In place of Parrot goes whatever your bot is: speech to text, a language model, text to speech.
"""

import argparse

import uvicorn
from fastapi import FastAPI, WebSocket
from pipecat.frames.frames import InputAudioRawFrame, InputDTMFFrame, OutputAudioRawFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.frame_processor import FrameProcessor
from pipecat.runner.utils import parse_telephony_websocket
from pipecat.serializers.twilio import TwilioFrameSerializer
from pipecat.transports.websocket.fastapi import FastAPIWebsocketParams, FastAPIWebsocketTransport
from pipecat.workers.runner import WorkerRunner

# What a call has: the serializer turns it into the dialect's µ-law and back.
RATE = 8_000

app = FastAPI()


class Parrot(FrameProcessor):
    """Gives the caller's audio back."""

    async def process_frame(self, frame, direction):
        await super().process_frame(frame, direction)
        if isinstance(frame, InputAudioRawFrame):
            await self.push_frame(OutputAudioRawFrame(frame.audio, frame.sample_rate, 1))
        elif isinstance(frame, InputDTMFFrame):
            print("the caller pressed", frame.button.value, flush=True)
        else:
            await self.push_frame(frame, direction)


@app.websocket("/ws")
async def answer(websocket: WebSocket):
    """One call, from its beginning to its end."""
    await websocket.accept()
    _, call = await parse_telephony_websocket(websocket)
    # What the dialplan said of the call when it asked for the ticket.
    print("a call:", call.body, flush=True)
    serializer = TwilioFrameSerializer(
        stream_sid=call.stream_id,
        call_sid=call.call_id,
        # Closing the connection ends the call: no account at Twilio is needed.
        params=TwilioFrameSerializer.InputParams(auto_hang_up=False),
    )
    transport = FastAPIWebsocketTransport(
        websocket,
        FastAPIWebsocketParams(
            audio_in_enabled=True, audio_out_enabled=True, add_wav_header=False, serializer=serializer
        ),
    )
    worker = PipelineWorker(
        Pipeline([transport.input(), Parrot(), transport.output()]),
        params=PipelineParams(audio_in_sample_rate=RATE, audio_out_sample_rate=RATE),
    )

    @transport.event_handler("on_client_disconnected")
    async def hung_up(transport, client):
        await worker.cancel()

    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    await runner.run()
    print("the call is over", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=8765)
    uvicorn.run(app, host="127.0.0.1", port=parser.parse_args().port)
