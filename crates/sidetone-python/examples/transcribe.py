"""Write down what a caller says, as Google Cloud Speech-to-Text understands it while the call lasts.

One call is heard at a time; others are hung up. A word ends the call, and so does a time limit.

    pip install google-cloud-speech
    gcloud auth application-default login
    python transcribe.py --project my-project
"""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

import audiosocket
import grpc.aio
from google.api_core.exceptions import GoogleAPICallError
from google.cloud.speech_v2 import SpeechAsyncClient
from google.cloud.speech_v2.services.speech.transports import SpeechGrpcAsyncIOTransport
from google.cloud.speech_v2.types import (
    ExplicitDecodingConfig,
    RecognitionConfig,
    StreamingRecognitionConfig,
    StreamingRecognitionFeatures,
    StreamingRecognizeRequest,
)

ENCODINGS = {
    "slin": ExplicitDecodingConfig.AudioEncoding.LINEAR16,
    "ulaw": ExplicitDecodingConfig.AudioEncoding.MULAW,
    "alaw": ExplicitDecodingConfig.AudioEncoding.ALAW,
}


class Transcriber:
    """Callbacks that have one call heard by the service."""

    def __init__(self, client: SpeechAsyncClient, options: argparse.Namespace) -> None:
        self._client = client
        self._options = options
        self._uuid: str | None = None
        self._rejected: set[str] = set()
        # The caller's audio, and nothing more once the call is over.
        self._audio: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None

    def on_audio(self, uuid: str, peer: tuple[Any, ...], audio: bytearray) -> bytes | None:
        if not audio:
            self._end(uuid)
        elif uuid in self._rejected:
            return audiosocket.HANGUP_CALL_MESSAGE
        elif self._uuid is None:
            print(f"{uuid}: started", flush=True)
            self._uuid, self._audio = uuid, asyncio.Queue()
            self._task = asyncio.create_task(self._transcribe(uuid, self._audio))
            self._audio.put_nowait(bytes(audio))
        elif self._uuid != uuid:
            print(f"{uuid}: rejected, since another call is being heard", flush=True)
            self._rejected.add(uuid)
            return audiosocket.HANGUP_CALL_MESSAGE
        elif self._task is None or self._task.done():
            return audiosocket.HANGUP_CALL_MESSAGE
        else:
            self._audio.put_nowait(bytes(audio))
        return None

    def on_exception(self, uuid: str, peer: tuple[Any, ...], error: BaseException) -> None:
        print(f"{uuid or peer}: {error}", flush=True)

    def _end(self, uuid: str) -> None:
        self._rejected.discard(uuid)
        if uuid == self._uuid:
            print(f"{uuid}: over", flush=True)
            self._uuid = None
            self._audio.put_nowait(None)

    async def _transcribe(self, uuid: str, audio: asyncio.Queue[bytes | None]) -> None:
        """Print what is said, until the call has to end."""
        try:
            await asyncio.wait_for(self._recognize(uuid, audio), self._options.time_limit)
        except asyncio.TimeoutError:
            print(f"{uuid}: hanging up: the time is over", flush=True)
        except GoogleAPICallError as error:
            print(f"{uuid}: hanging up: {error}", flush=True)

    async def _recognize(self, uuid: str, audio: asyncio.Queue[bytes | None]) -> None:
        responses = await self._client.streaming_recognize(requests=self._requests(audio))
        async for response in responses:
            for result in response.results:
                if not result.alternatives:
                    continue
                text = result.alternatives[0].transcript.strip()
                print(f"{uuid}: {'said' if result.is_final else 'interim'}: {text}", flush=True)
                if result.is_final and self._options.stop_word in text.lower().split():
                    print(f"{uuid}: hanging up: the caller said {self._options.stop_word}", flush=True)
                    return

    async def _requests(self, audio: asyncio.Queue[bytes | None]) -> AsyncIterator[StreamingRecognizeRequest]:
        options = self._options
        decoding = ExplicitDecodingConfig(
            encoding=ENCODINGS[options.codec], sample_rate_hertz=8_000, audio_channel_count=1
        )
        config = RecognitionConfig(
            explicit_decoding_config=decoding, language_codes=[options.language], model=options.model
        )
        features = StreamingRecognitionFeatures(interim_results=True)
        yield StreamingRecognizeRequest(
            recognizer=f"projects/{options.project}/locations/global/recognizers/_",
            streaming_config=StreamingRecognitionConfig(config=config, streaming_features=features),
        )
        while (piece := await audio.get()) is not None:
            yield StreamingRecognizeRequest(audio=piece)


def connect(emulator: str | None) -> SpeechAsyncClient:
    """A client of the service, with the credentials of this machine, or of an emulator, which needs none."""
    if emulator is None:
        return SpeechAsyncClient()
    return SpeechAsyncClient(transport=SpeechGrpcAsyncIOTransport(channel=grpc.aio.insecure_channel(emulator)))


async def main(options: argparse.Namespace) -> None:
    transcriber = Transcriber(connect(options.emulator), options)
    server = await audiosocket.start_server(
        transcriber.on_audio, transcriber.on_exception, options.host, options.port
    )
    print("listening on {}:{}".format(*server.sockets[0].getsockname()), flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (%(default)s)")
    parser.add_argument("--port", type=int, default=9092, help="the port (%(default)s); 0 takes a free one")
    parser.add_argument("--codec", choices=ENCODINGS, default="slin", help="what the caller sends (%(default)s)")
    project = os.environ.get("GOOGLE_CLOUD_PROJECT")
    parser.add_argument(
        "--project", default=project, required=project is None, help="the project at Google ($GOOGLE_CLOUD_PROJECT)"
    )
    parser.add_argument("--language", default="en-US", help="what the caller speaks (%(default)s)")
    parser.add_argument("--model", default="telephony", help="how it is understood (%(default)s)")
    parser.add_argument("--stop-word", default="stop", help="what ends the call when it is said (%(default)s)")
    parser.add_argument("--time-limit", type=float, default=30, help="how long a call is heard, in s (%(default)s)")
    parser.add_argument("--emulator", metavar="HOST:PORT", help="an emulator to use instead of the service")
    try:
        asyncio.run(main(parser.parse_args()))
    except KeyboardInterrupt:
        pass
