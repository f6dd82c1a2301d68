"""What the callbacks are given, and what becomes of what they return."""

from __future__ import annotations

import array
import asyncio
import ctypes
import inspect
import mmap

import audiosocket
import pytest
from client import voice


async def test_messages_come_as_they_were_sent(serve, call):
    program, _, address = await serve()
    caller = await call(address)
    # 160 bytes are µ-law, and nothing is decoded. One byte, an odd number and the most that there can be are messages, too.
    payloads = [voice(size, size) for size in (320, 160, 1, 2, 321, 65535, 640)]
    for payload in payloads:
        caller.say(payload)
    caller.finish()
    assert await program.end(caller) == [*payloads, b""]


async def test_every_message_is_a_new_bytearray(serve, call):
    program, _, address = await serve()
    caller = await call(address)
    for seed in range(5):
        caller.say(voice(320, seed))
    caller.finish()
    told = await program.end(caller)
    assert {type(audio) for audio in told} == {bytearray}
    assert len({id(audio) for audio in told}) == len(told)
    told[0].extend(b"it is the program's own")
    assert told[1] == voice(320, 1)


@pytest.mark.parametrize("kind", range(0x10, 0x19))
async def test_audio_of_every_rate(serve, call, kind):
    program, _, address = await serve()
    caller = await call(address)
    caller.say(voice(7680), kind)
    caller.finish()
    assert await program.end(caller) == [voice(7680), b""]


@pytest.mark.parametrize(("kind", "hz"), [(0x11, 12_000), (0x12, 16_000), (0x13, 24_000), (0x16, 48_000)])
async def test_what_is_returned_is_8_khz_whatever_came(serve, call, kind, hz):
    answered = []

    def answer(audio):
        if not answered:
            answered.append(audio)
            # Half a second of a constant tone: no sample of it is silence.
            return b"\x10\x20" * 4000

    _, _, address = await serve(answer)
    caller = await call(address)
    caller.say(voice(hz // 25), kind)
    # As many samples as half a second has at that rate, but for the ends of the filter.
    await asyncio.to_thread(caller.wait_for_voice, int(hz * 0.95))
    assert {heard.kind for heard in caller.heard if heard.payload.strip(b"\0")} == {kind}


def as_ctypes(data: bytes):
    return (ctypes.c_char * len(data)).from_buffer_copy(data)


def as_mmap(data: bytes):
    mapped = mmap.mmap(-1, len(data))
    mapped.write(data)
    return mapped


BYTES_LIKE = {
    "bytes": bytes,
    "bytearray": bytearray,
    "memoryview": memoryview,
    "a part of a memoryview": lambda data: memoryview(b"no" + data + b"no")[2:-2],
    "a memoryview with strides": lambda data: memoryview(bytes(b for byte in data for b in (byte, 0)))[::2],
    "array of samples": lambda data: array.array("h", data),
    "array of bytes": lambda data: array.array("B", data),
    "ctypes": as_ctypes,
    "mmap": as_mmap,
    "a memoryview of samples": lambda data: memoryview(data).cast("h"),
}


@pytest.mark.parametrize("kind", BYTES_LIKE)
async def test_anything_bytes_like_is_played(serve, call, kind):
    program, _, address = await serve(lambda audio: BYTES_LIKE[kind](bytes(audio)))
    caller = await call(address)
    caller.say(voice(640))
    await asyncio.to_thread(caller.wait_for_voice, 640)
    assert caller.voice == voice(640)
    caller.finish()
    assert await program.end(caller) == [voice(640), b""]


async def test_numpy_is_played(serve, call):
    numpy = pytest.importorskip("numpy")
    arrays = [
        lambda data: numpy.frombuffer(data, "<i2"),
        lambda data: numpy.frombuffer(data, "<i2").reshape(2, -1),
        lambda data: numpy.frombuffer(bytes(b for i in range(0, len(data), 2) for b in data[i : i + 2] * 2), "<i2")[::2],
    ]
    for make in arrays:
        program, _, address = await serve(lambda audio, make=make: make(bytes(audio)))
        caller = await call(address)
        caller.say(voice(640))
        await asyncio.to_thread(caller.wait_for_voice, 640)
        assert caller.voice == voice(640)


async def test_a_bytearray_can_be_changed_after_it_was_returned(serve, call):
    kept = bytearray()

    def answer(audio):
        kept[:] = audio
        return kept

    program, _, address = await serve(answer)
    caller = await call(address)
    for seed in range(3):
        caller.say(voice(320, seed))
    await asyncio.to_thread(caller.wait_for_voice, 960)
    assert caller.voice == voice(320, 0) + voice(320, 1) + voice(320, 2)


@pytest.mark.parametrize("size", [1, 2, 3, 319, 320, 321, 16001])
async def test_answers_of_any_length(serve, call, size):
    sent = voice(2 * size)
    program, _, address = await serve(ECHO)
    caller = await call(address)
    # The second half makes the samples whole.
    caller.say(sent[:size])
    caller.say(sent[size:])
    await asyncio.to_thread(caller.wait_for_voice, len(sent))
    assert caller.voice == sent


ECHO = bytes


@pytest.mark.parametrize("size", [65_535, 65_536, 100_000])
async def test_long_answers(serve, call, size):
    answers = iter([voice(size)])
    program, _, address = await serve(lambda audio: next(answers, None))
    caller = await call(address)
    caller.say(voice(320))
    # An odd byte at the end is half a sample, which waits for the other half.
    await asyncio.to_thread(caller.wait_for_voice, size - size % 2)
    assert caller.voice == voice(size - size % 2)
    # None of it is heard faster than real time: every message is 20 ms of audio.
    assert {len(heard.payload) for heard in caller.heard} == {320}


async def test_none_plays_nothing(serve, call):
    program, _, address = await serve(lambda audio: None)
    caller = await call(address)
    for seed in range(20):
        caller.say(voice(320, seed))
    caller.finish()
    assert len(await program.end(caller)) == 21
    assert caller.voice == b""


@pytest.mark.parametrize("empty", [b"", bytearray(), memoryview(b""), array.array("h"), audiosocket.HANGUP_CALL_MESSAGE])
async def test_anything_empty_hangs_up(serve, call, empty):
    program, _, address = await serve(lambda audio: empty)
    caller = await call(address)
    caller.say(voice(320))
    await asyncio.to_thread(caller.wait_for_end)
    assert caller.was_hung_up and caller.end == "fin"
    caller.finish()
    # The end that the program asked for is told as any other, and it is no error.
    assert await program.end(caller) == [voice(320), b""]


async def test_what_was_returned_before_the_hang_up_is_heard(serve, call):
    answers = iter([voice(16_000), voice(320, 5), b""])
    program, _, address = await serve(lambda audio: next(answers))
    caller = await call(address)
    for _ in range(3):
        caller.say(voice(320))
    await asyncio.to_thread(caller.wait_for_end)
    assert caller.voice == voice(16_000) + voice(320, 5)
    assert caller.was_hung_up


async def test_nothing_is_asked_after_the_hang_up(serve, call):
    program, _, address = await serve(lambda audio: audiosocket.HANGUP_CALL_MESSAGE)
    caller = await call(address)
    for _ in range(50):
        caller.say(voice(320))
    await asyncio.to_thread(caller.wait_for_end)
    caller.finish()
    assert await program.end(caller) == [voice(320), b""]


@pytest.mark.parametrize("wrong", ["hello", 17, [1, 2], object(), 1.5, True])
async def test_what_is_not_bytes_like_is_an_error_that_says_what_to_do(serve, call, loop_errors, wrong):
    program, _, address = await serve(lambda audio: wrong)
    caller = await call(address)
    caller.say(voice(320))
    await asyncio.to_thread(caller.wait_for_end)
    caller.finish()
    audio, end, error = await program.end(caller)
    assert (audio, end) == (voice(320), b"")
    assert isinstance(error, TypeError)
    assert f"returned {type(wrong).__name__}" in str(error)
    assert "None" in str(error) and "HANGUP_CALL_MESSAGE" in str(error)
    assert [context["exception"] for context in loop_errors] == [error]


async def test_a_coroutine_is_an_error_that_says_what_to_do(serve, call, loop_errors):
    async def answer(audio):
        return audio

    coroutines = []

    def start(audio):
        coroutines.append(answer(audio))
        return coroutines[-1]

    program, _, address = await serve(start)
    caller = await call(address)
    caller.say(voice(320))
    caller.finish()
    *_, error = await program.end(caller)
    assert isinstance(error, TypeError) and "async" in str(error)
    # Nothing warns that it was never awaited.
    assert {inspect.getcoroutinestate(coroutine) for coroutine in coroutines} == {inspect.CORO_CLOSED}


async def test_callbacks_run_in_the_loop(serve, call):
    loops = set()
    program, _, address = await serve(lambda audio: loops.add(asyncio.get_running_loop()))
    caller = await call(address)
    caller.say(voice(320))
    caller.finish()
    await program.end(caller)
    assert loops == {asyncio.get_running_loop()}


async def test_callbacks_may_be_methods_and_partials(call):
    import functools

    class Bot:
        def __init__(self):
            self.heard = []
            self.ended = asyncio.Event()

        def on_audio(self, extra, uuid, peer_name, audio):
            self.heard.append((extra, bytes(audio)))
            if not audio:
                self.ended.set()

    bot = Bot()
    on_audio = functools.partial(bot.on_audio, "extra")
    async with await audiosocket.start_server(on_audio, None, "127.0.0.1", 0) as server:
        caller = await call(server.sockets[0].getsockname())
        caller.say(voice(320))
        caller.finish()
        await asyncio.wait_for(bot.ended.wait(), 30)
    assert bot.heard == [("extra", voice(320)), ("extra", b"")]
