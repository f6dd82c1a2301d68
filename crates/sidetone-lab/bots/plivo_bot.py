"""A bot made for Plivo's audio streams, with Plivo's own SDK: python plivo_bot.py --mode echo

Its address is ws://127.0.0.1:PORT, with the port that it prints when it listens. Of a call it prints what it receives besides audio, and
each message that the SDK's models refuse.
"""

import argparse
import asyncio
import audioop

import websockets
from plivo_stream import PlivoWebsocketStreamingHandler

from report import read_wav, report


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--mode", choices=["echo", "speak", "interrupt", "hangup"], default="echo")
    parser.add_argument("--file", help="the WAV file that is spoken, as x-mulaw")
    parser.add_argument("--linear", action="store_true", help="it is spoken as x-l16, at 16 kHz")
    parser.add_argument("--checkpoint", default="spoken", help="the name of the checkpoint behind what is spoken")
    parser.add_argument("--seconds", type=float, default=1, help="after how long the bot leaves (hangup)")
    return parser


async def call(socket, options):
    """One call.

    echo: what the caller says comes back. speak: the file, in one message, and then a checkpoint. interrupt: the same, dropped at the
    first digit. hangup: it leaves.
    """
    plivo = PlivoWebsocketStreamingHandler()

    @plivo.on_error
    async def complain(error):
        report("complaint", text=str(error))

    @plivo.on_start
    async def start(event):
        report("call", start=event.model_dump(by_alias=True))
        if options.mode in ("speak", "interrupt"):
            await speak(plivo, options)
        elif options.mode == "hangup":
            # Not here: the SDK reads no more until this function returns.
            leaving.append(asyncio.create_task(leave()))

    @plivo.on_media
    async def media(event):
        if options.mode == "echo":
            await plivo.send_media(event.get_raw_media())

    @plivo.on_dtmf
    async def digit(event):
        report("digit", digit=event.dtmf.digit)
        if options.mode == "interrupt":
            await plivo.send_clear_audio()
            report("interruption")

    @plivo.on_played_stream
    async def played(event):
        report("played", name=event.name)

    @plivo.on_cleared_audio
    async def cleared(event):
        report("cleared")

    @plivo.on_disconnected
    async def over():
        report("over", code=socket.close_code)

    async def leave():
        await asyncio.sleep(options.seconds)
        report("leaving")
        await plivo.stop()

    leaving = []
    await plivo.handle(socket)
    for task in leaving:
        task.cancel()


async def speak(plivo, options):
    samples, rate = read_wav(options.file)
    wanted = 16_000 if options.linear else 8_000
    if rate != wanted:
        samples, _ = audioop.ratecv(samples, 2, 1, rate, wanted, None)
    if options.linear:
        await plivo.send_media(samples, "audio/x-l16", wanted)
    else:
        await plivo.send_media(audioop.lin2ulaw(samples, 2))
    await plivo.send_checkpoint(options.checkpoint)


async def main():
    options = arguments().parse_args()
    async with websockets.serve(lambda socket: call(socket, options), "127.0.0.1", options.port) as server:
        report("listening", port=server.sockets[0].getsockname()[1])
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
