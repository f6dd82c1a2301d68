"""Clients that are difficult, against an echo: nothing of what they say is lost, doubled or reordered.

Silence may come between, so what they say has none in it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import pytest
from client import AUDIO, DTMF, HANGUP, UUID, Caller, message, voice

FRAME = 320
# Half a second.
SAID = voice(25 * FRAME)


def frames(size: int = FRAME) -> list[bytes]:
    return [SAID[place : place + size] for place in range(0, len(SAID), size)]


def messages(size: int = FRAME) -> bytes:
    return b"".join(message(AUDIO, frame) for frame in frames(size))


def pieces(data: bytes, sizes: Callable[[], int]) -> list[bytes]:
    cut = []
    while data:
        size = sizes()
        cut.append(data[:size])
        data = data[size:]
    return cut


async def paced(caller: Caller, parts: list[bytes], pause: Callable[[], float] = lambda: 0.0) -> None:
    """Each part in a segment of its own."""
    for part in parts:
        caller.send(part)
        # It is the client's own pace, and nothing depends on how exact it is.
        await asyncio.sleep(pause())


async def split_at_every_byte(caller):
    # A few of them, for each byte is a segment.
    await paced(caller, pieces(messages()[: 10 * (FRAME + 3)], lambda: 1))
    caller.send(messages()[10 * (FRAME + 3) :])


async def merged_into_one_segment(caller):
    caller.send(messages())


async def merged_with_the_uuid(caller):
    caller.send(message(UUID, caller.uuid.bytes) + messages())


async def cut_anywhere(caller):
    rng = random.Random(1)
    await paced(caller, pieces(messages(), lambda: rng.randint(1, 1000)))


async def headers_apart_from_payloads(caller):
    for frame in frames():
        whole = message(AUDIO, frame)
        await paced(caller, [whole[:3], whole[3:]])


async def headers_cut_in_two(caller):
    for frame in frames():
        whole = message(AUDIO, frame)
        await paced(caller, [whole[:2], whole[2:]])


async def odd_sizes(caller):
    rng = random.Random(2)
    for part in pieces(SAID, lambda: rng.randrange(1, 1000, 2)):
        caller.say(part)


async def messages_of_one_byte(caller):
    for part in pieces(SAID, lambda: 1):
        caller.say(part)


async def messages_of_161_bytes(caller):
    caller.send(messages(161))


async def one_large_message(caller):
    caller.say(SAID)


async def faster_than_real_time(caller):
    await paced(caller, [message(AUDIO, frame) for frame in frames()], lambda: 0.002)


async def slower_than_real_time(caller):
    await paced(caller, [message(AUDIO, frame) for frame in frames()], lambda: 0.03)


async def with_jitter(caller):
    rng = random.Random(3)
    await paced(caller, [message(AUDIO, frame) for frame in frames()], lambda: rng.choice([0, 0, 0, 0.06]))


async def in_bursts_with_pauses(caller):
    parts = [messages()[place : place + 10 * (FRAME + 3)] for place in range(0, len(messages()), 10 * (FRAME + 3))]
    await paced(caller, parts, lambda: 0.3)


async def unknown_kinds_between(caller):
    for number, frame in enumerate(frames()):
        caller.say(frame)
        caller.say(voice(number * 50), [0x02, 0x04, 0x0F, 0x19, 0x20, 0xFE][number % 6])


async def digits_between(caller):
    for frame, digit in zip(frames(), b"0123456789*#ABCD" * 2):
        caller.say(frame)
        caller.say(bytes([digit]), DTMF)


async def a_second_uuid(caller):
    for frame in frames():
        caller.say(frame)
        caller.say(voice(16), UUID)


async def audio_before_the_uuid(caller):
    caller.say(b"\x55" * FRAME)
    caller.identify()
    caller.send(messages())


async def empty_messages_between(caller):
    for frame in frames():
        caller.say(frame)
        caller.say(b"")


async def malformed_messages_between(caller):
    for frame in frames():
        caller.say(frame)
        caller.say(b"12", DTMF)


async def asterisk_errors_between(caller):
    for frame in frames():
        caller.say(frame)
        caller.say(b"\x02", 0xFF)


UNIDENTIFIED = {merged_with_the_uuid, audio_before_the_uuid}
CLIENTS = [
    split_at_every_byte,
    merged_into_one_segment,
    merged_with_the_uuid,
    cut_anywhere,
    headers_apart_from_payloads,
    headers_cut_in_two,
    odd_sizes,
    messages_of_one_byte,
    messages_of_161_bytes,
    one_large_message,
    faster_than_real_time,
    slower_than_real_time,
    with_jitter,
    in_bursts_with_pauses,
    unknown_kinds_between,
    digits_between,
    a_second_uuid,
    audio_before_the_uuid,
    empty_messages_between,
    malformed_messages_between,
    asterisk_errors_between,
]


@pytest.mark.parametrize("speak", CLIENTS, ids=lambda speak: speak.__name__)
async def test_speaking(serve, call, speak: Callable[[Caller], Awaitable[None]]):
    program, _, address = await serve(bytes)
    caller = await call(address, identify=speak not in UNIDENTIFIED)
    await speak(caller)
    await asyncio.to_thread(caller.wait_for_voice, len(SAID))
    caller.finish()
    await program.end(caller)
    assert program.audio(caller) == SAID
    assert caller.voice == SAID
    # Asterisk takes nothing else.
    assert all(heard.kind == AUDIO and heard.payload for heard in caller.heard)


async def test_the_largest_messages(serve, call):
    program, _, address = await serve()
    caller = await call(address)
    # Fifty seconds of audio: a minute of it waits for a loop that is busy.
    messages = [voice(65_535, seed) for seed in range(12)]
    for message in messages:
        caller.say(message)
    caller.finish()
    # Nobody wants to read the difference.
    is_whole = await program.end(caller) == [*messages, b""]
    assert is_whole


async def test_a_hang_up_in_the_segment_of_the_last_audio(serve, call):
    program, _, address = await serve(bytes)
    caller = await call(address)
    caller.send(messages() + message(HANGUP))
    assert await program.end(caller) == [*frames(), b""]


async def test_all_of_a_call_in_one_segment(serve, call):
    program, _, address = await serve(bytes)
    caller = await call(address, identify=False)
    caller.send(message(UUID, caller.uuid.bytes) + messages())
    caller.finish()
    assert await program.end(caller) == [*frames(), b""]


async def test_a_reset_within_a_message(serve, call):
    program, _, address = await serve(bytes)
    caller = await call(address)
    caller.send(messages() + message(AUDIO, voice(FRAME))[:100])
    await program.wait(lambda: len(program.of(caller)) == len(frames()))
    await asyncio.to_thread(caller.reset)
    *told, end, error = await program.end(caller)
    assert (told, end) == (frames(), b"")
    assert isinstance(error, ConnectionResetError)


async def test_a_reader_that_stops_and_goes_on(serve, call):
    program, _, address = await serve(bytes)
    caller = await call(address, is_reading=False, receive_buffer=2048)
    other = await call(address)
    # More than the kernel keeps for it, so that the server can't send.
    said = voice(150 * FRAME)
    for place in range(0, len(said), FRAME):
        caller.say(said[place : place + FRAME])
    await program.wait(lambda: len(program.audio(caller)) == len(said))
    # Another call runs for seconds, unharmed, and counts them.
    other.say(voice(100 * FRAME, 1))
    await asyncio.to_thread(other.wait_for_voice, 100 * FRAME)
    assert other.voice == voice(100 * FRAME, 1)
    caller.resume()
    await asyncio.to_thread(caller.wait_for_voice, len(said))
    assert caller.voice == said


async def test_a_slow_reader(serve, call):
    _, _, address = await serve(bytes)
    caller = await call(address, is_reading=False, receive_buffer=2048)
    caller.send(messages())
    while len(caller.voice) < len(SAID):
        caller.resume()
        before = len(caller.heard)
        await asyncio.to_thread(caller.wait, lambda before=before: len(caller.heard) > before)
        caller.pause()
    assert caller.voice == SAID


async def test_a_hundred_at_once(serve, call):
    program, _, address = await serve(bytes)
    callers = await asyncio.gather(*(call(address) for _ in range(100)))
    said = {caller: voice(25 * FRAME, seed) for seed, caller in enumerate(callers)}
    for place in range(0, 25 * FRAME, FRAME):
        for caller in callers:
            caller.say(said[caller][place : place + FRAME])
    for caller in callers:
        await asyncio.to_thread(caller.wait_for_voice, 25 * FRAME)
        caller.finish()
    for caller in callers:
        await program.end(caller)
        assert caller.voice == said[caller]
        assert program.audio(caller) == said[caller]
    assert {told.uuid for told in program.told} == {caller.uuid.hex for caller in callers}
