"""A bot made for Asterisk's chan_websocket, with galcymedia: python galcymedia_bot.py --mode echo

Its address is ws://127.0.0.1:PORT, with the port that it prints when it listens. Of a call it prints each event that it gets, and all
that galcymedia complains of.
"""

import argparse
import asyncio
import audioop
import logging

import galcymedia

from report import Complaints, read_wav, report


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--mode", choices=["echo", "speak", "interrupt", "finish", "buffer", "fail"], default="echo")
    parser.add_argument("--file", help="the WAV file that is spoken")
    return parser


class Agent:
    """What galcymedia calls a provider: one for each call.

    echo: what the caller says comes back. speak: the file, and then a mark. interrupt: the file, dropped at the first digit. finish: the
    file, and the end once it is heard. buffer: the file in one message, for Asterisk to cut. fail: it can't start.
    """

    def __init__(self, session, options):
        self.session = session
        self._options = options
        self._playing = None

    async def start(self):
        media = self.session.media
        report("call", channel=media.channel_name, id=media.channel_id, format=media.audio_format,
            frame=media.optimal_frame_size, variables=media.channel_variables)
        if self._options.mode == "fail":
            raise RuntimeError("the provider is out of order")
        self.session.accept_audio()
        await self.session.answer()
        if self._options.mode not in ("echo", "fail"):
            # galcymedia reads no more until this method returns.
            self._playing = asyncio.create_task(self._play())

    async def send_audio(self, chunk):
        """The caller's audio."""
        if self._options.mode == "echo":
            await self.session.send_audio(chunk)

    async def on_dtmf(self, digit):
        report("digit", digit=digit)
        if self._options.mode == "interrupt":
            await self.session.speech.interrupt()
            report("interruption")

    async def close(self):
        if self._playing is not None:
            self._playing.cancel()
        report("over")

    async def _play(self):
        audio = encoded(self._options.file, self.session.media)
        if self._options.mode == "buffer":
            await self.session.start_buffering()
            await self.session.send_audio(audio)
            await self.session.stop_buffering()
            return
        await self.session.speech.play(audio)
        await self.session.speech.end_turn()
        if self._options.mode == "finish":
            await self.session.finish()
        else:
            await self.session.mark()


def encoded(path, media):
    """A file's audio, as the channel wants it."""
    samples, rate = read_wav(path)
    if rate != media.sample_rate:
        samples, _ = audioop.ratecv(samples, 2, 1, rate, media.sample_rate, None)
    encode = {"ulaw": audioop.lin2ulaw, "alaw": audioop.lin2alaw}.get(media.audio_format)
    return samples if encode is None else encode(samples, 2)


async def main():
    options = arguments().parse_args()
    log = logging.getLogger("galcymedia")
    log.setLevel(logging.WARNING)
    log.addHandler(Complaints())
    server = galcymedia.serve(
        lambda session: Agent(session, options),
        port=options.port,
        on_event=lambda name, payload: report("received", message=payload),
        forward_dtmf=True,
    )
    async with server:
        # The port that the system chose: galcymedia has no way to ask for it.
        report("listening", port=server._ws_server.sockets[0].getsockname()[1])
        await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    asyncio.run(main())
