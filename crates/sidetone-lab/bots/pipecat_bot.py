"""A pipecat bot behind pipecat's own Twilio runner, or a Vonage one: python pipecat_bot.py -t twilio --port 0 --mode echo

Its address is ws://127.0.0.1:PORT/ws, with the port that it prints when it listens. Of a call it prints whose call it is, whether its
signature is right, what it receives besides audio, when the caller speaks, and when it is over.
"""

import argparse
import asyncio
import json
import logging
import sys
import time

import numpy
import uvicorn
from fastapi import FastAPI, WebSocket
from loguru import logger
from pipecat.frames.frames import (
    EndFrame,
    InputAudioRawFrame,
    InputDTMFFrame,
    InterruptionFrame,
    OutputAudioRawFrame,
    OutputTransportMessageFrame,
    TTSAudioRawFrame,
    TTSStartedFrame,
    TTSStoppedFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.frame_processor import FrameProcessor
from pipecat.runner.run import main as run_pipecat
from pipecat.runner.utils import parse_telephony_websocket
from pipecat.serializers.twilio import TwilioFrameSerializer
from pipecat.serializers.vonage import VonageFrameSerializer
from pipecat.transports.websocket.fastapi import FastAPIWebsocketParams, FastAPIWebsocketTransport
from pipecat.workers.runner import WorkerRunner
from twilio.request_validator import RequestValidator

from report import read_wav, report

LINE_RATE = {"twilio": 8_000, "vonage": 16_000}

# A caller who speaks is louder than this; who is not for so long has stopped.
LOUD = 500
QUIET_S = 0.3


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--mode", choices=["echo", "speak", "interrupt", "hangup"], default="echo")
    parser.add_argument("--file", help="the WAV file that is spoken (speak, interrupt)")
    parser.add_argument("--then", choices=["end", "wait"], default="wait", help="what follows what was spoken")
    parser.add_argument("--mark", help="the name of a mark that is sent behind what was spoken")
    parser.add_argument("--seconds", type=float, default=1, help="after how long the bot ends the call (hangup)")
    parser.add_argument("--out-rate", type=int, help="the rate in Hz at which the pipeline speaks; the line's by default")
    parser.add_argument("--rest-url", help="where the call's REST resource is; without it, the bot just leaves")
    parser.add_argument("--auth-token", default="secret", help="of the account, for the resource and for signatures")
    parser.add_argument("--account-sid", default="AC" + 32 * "0")
    parser.add_argument("--signed", action="store_true", help="close calls whose signature is not right")
    return parser


def reporting(serializer_class):
    """A serializer that prints what arrives besides audio, and when what was queued is cleared, in Unix time."""

    class Reporting(serializer_class):
        async def deserialize(self, data):
            if isinstance(data, str) and (message := parsed(data)).get("event") != "media":
                report("received", message=message)
            return await super().deserialize(data)

        async def serialize(self, frame):
            message = await super().serialize(frame)
            if isinstance(frame, InterruptionFrame):
                report("clear", at=time.time())
            return message

    return Reporting


def parsed(text):
    """What a carrier sends is an object; what is none is pipecat's to judge, and must not end the call here."""
    try:
        message = json.loads(text)
    except ValueError:
        message = text
    return message if isinstance(message, dict) else {"not an object": message}


class Bot(FrameProcessor):
    """The one processor of the pipeline: answers as its mode says, and prints what the caller does."""

    def __init__(self, options):
        super().__init__()
        self._options = options
        self._speaking = False
        self._quiet = 0.0

    async def process_frame(self, frame, direction):
        await super().process_frame(frame, direction)
        if isinstance(frame, InputAudioRawFrame):
            await self._handle_audio(frame)
        elif isinstance(frame, InputDTMFFrame):
            report("digit", digit=frame.button.value)
            if self._options.mode == "interrupt":
                await self._interrupt("digit")
        else:
            await self.push_frame(frame, direction)

    async def _handle_audio(self, frame):
        samples = numpy.frombuffer(frame.audio, dtype=numpy.int16).astype(float)
        if numpy.sqrt(numpy.mean(samples**2)) > LOUD:
            self._quiet = 0.0
            if not self._speaking:
                self._speaking = True
                report("voice", speaking=True)
                if self._options.mode == "interrupt":
                    await self._interrupt("voice")
        elif self._speaking:
            self._quiet += len(samples) / frame.sample_rate
            if self._quiet > QUIET_S:
                self._speaking = False
                report("voice", speaking=False)
        if self._options.mode == "echo":
            await self.push_frame(OutputAudioRawFrame(frame.audio, frame.sample_rate, 1))

    async def _interrupt(self, cause):
        report("interruption", cause=cause)
        await self.broadcast_interruption()


def spoken(options):
    """The frames of what is spoken: all at once, as a speech service delivers it."""
    samples, rate = read_wav(options.file)
    second = 2 * rate
    yield TTSStartedFrame()
    for start in range(0, len(samples), second):
        yield TTSAudioRawFrame(samples[start : start + second], rate, 1)
    yield TTSStoppedFrame()


async def run(websocket, serializer, options, mark):
    """Runs the pipeline of one call to its end."""
    rate = LINE_RATE[options.transport]
    params = FastAPIWebsocketParams(
        audio_in_enabled=True, audio_out_enabled=True, add_wav_header=False, serializer=serializer
    )
    transport = FastAPIWebsocketTransport(websocket, params)
    worker = PipelineWorker(
        Pipeline([transport.input(), Bot(options), transport.output()]),
        params=PipelineParams(audio_in_sample_rate=rate, audio_out_sample_rate=options.out_rate or rate),
    )

    async def leave_later():
        await asyncio.sleep(options.seconds)
        report("leaving")
        await worker.queue_frame(EndFrame())

    waiting = []

    @transport.event_handler("on_client_connected")
    async def connected(transport, client):
        if options.mode in ("speak", "interrupt"):
            await worker.queue_frames([*spoken(options)])
            if options.mark:
                await worker.queue_frame(OutputTransportMessageFrame(mark))
            if options.then == "end":
                await worker.queue_frame(EndFrame())
        elif options.mode == "hangup":
            waiting.append(asyncio.create_task(leave_later()))

    @transport.event_handler("on_client_disconnected")
    async def disconnected(transport, client):
        report("disconnected")
        await worker.cancel()

    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    await runner.run()
    for task in waiting:
        task.cancel()
    report("over")


async def bot(runner_arguments):
    """A call that pipecat's runner has accepted on /ws; it finds this function by its name."""
    websocket, options = runner_arguments.websocket, runner_arguments.cli_args
    signature = websocket.headers.get("x-twilio-signature")
    valid = signature is not None and RequestValidator(options.auth_token).validate(str(websocket.url), {}, signature)
    report("signature", present=signature is not None, valid=valid)
    if options.signed and not valid:
        await websocket.close(code=1008)
        return
    transport, call = await parse_telephony_websocket(websocket)
    report("call", transport=transport, stream=call.stream_id, call=call.call_id, parameters=call.body,
        **{"from": call.from_number, "to": call.to_number})
    serializer = reporting(TwilioFrameSerializer)(
        stream_sid=call.stream_id,
        call_sid=call.call_id,
        account_sid=options.account_sid,
        auth_token=options.auth_token,
        base_url=options.rest_url,
        params=TwilioFrameSerializer.InputParams(auto_hang_up=options.rest_url is not None),
    )
    mark = {"event": "mark", "streamSid": call.stream_id, "mark": {"name": options.mark}}
    await run(websocket, serializer, options, mark)


def serve_vonage(options):
    """pipecat's runner knows no Vonage over a WebSocket: this is what its documentation says to do."""
    app = FastAPI()

    @app.websocket("/ws")
    async def call(websocket: WebSocket):
        await websocket.accept()
        report("call", transport="vonage")
        params = VonageFrameSerializer.InputParams(vonage_sample_rate=LINE_RATE["vonage"])
        mark = {"action": "notify", "payload": {"name": options.mark}}
        await run(websocket, reporting(VonageFrameSerializer)(params), options, mark)

    uvicorn.run(app, host=options.host, port=options.port)


def announce(record):
    """Reports the port once uvicorn listens on it; uvicorn itself writes it to its log only."""
    if str(record.msg).startswith("Uvicorn running on"):
        # Not before: pipecat's runner takes off all sinks when it starts.
        logger.add(complain, level="WARNING")
        report("listening", port=record.args[2])
    return True


def complain(message):
    record = message.record
    report("complaint", level=record["level"].name, logger=record["name"], text=record["message"])


def main():
    logging.getLogger("uvicorn.error").addFilter(announce)
    if any(argument == "vonage" for argument in sys.argv):
        parser = arguments()
        parser.add_argument("-t", "--transport")
        parser.add_argument("--host", default="127.0.0.1")
        parser.add_argument("--port", type=int, default=0)
        serve_vonage(parser.parse_args())
        return
    # The name is for the TwiML that it would serve: nobody asks for it.
    sys.argv += ["--host", "127.0.0.1", "--proxy", "bot.invalid"]
    run_pipecat(arguments())


if __name__ == "__main__":
    main()
