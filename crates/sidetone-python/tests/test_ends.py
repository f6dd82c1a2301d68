"""Every way in which a call ends, and what the callbacks are told of it: an empty bytearray, once, then the error if any."""

from __future__ import annotations

import asyncio
import errno
import random

import audiosocket
import pytest
from client import AUDIO, ERROR, HANGUP, UUID, message, voice
from conftest import Program

ECHO = bytes


async def test_the_caller_hangs_up_with_a_message(serve, call):
    program, _, address = await serve()
    caller = await call(address)
    caller.say(voice(320))
    caller.send(message(HANGUP))
    assert await program.end(caller) == [voice(320), b""]
    await asyncio.to_thread(caller.wait_for_end)


async def test_the_caller_closes(serve, call):
    program, _, address = await serve()
    caller = await call(address)
    caller.say(voice(320))
    caller.finish()
    assert await program.end(caller) == [voice(320), b""]


async def test_the_connection_is_reset_after_audio(serve, call):
    program, _, address = await serve()
    caller = await call(address)
    caller.say(voice(320))
    await program.wait(lambda: program.of(caller))
    await asyncio.to_thread(caller.reset)
    audio, end, error = await program.end(caller)
    assert (audio, end) == (voice(320), b"")
    assert isinstance(error, ConnectionResetError) and error.errno == errno.ECONNRESET


async def test_the_connection_is_reset_before_audio(serve, call):
    program, _, address = await serve()
    caller = await call(address)
    # Silence says that the UUID is known.
    await asyncio.to_thread(caller.wait, lambda: caller.heard)
    await asyncio.to_thread(caller.reset)
    end, error = await program.end(caller)
    assert end == b""
    assert isinstance(error, ConnectionResetError) and error.errno == errno.ECONNRESET
    assert {told.uuid for told in program.told} == {caller.uuid.hex}


async def test_the_connection_is_reset_before_its_uuid(serve, call):
    program, _, address = await serve()
    caller = await call(address, identify=False)
    caller.send(message(AUDIO, voice(320)))
    await asyncio.to_thread(caller.reset)
    end, *_ = await program.end(caller)
    assert end == b""
    assert {told.uuid for told in program.told} == {""}


async def test_a_message_is_cut_short(serve, call):
    program, _, address = await serve()
    caller = await call(address)
    caller.say(voice(320))
    caller.send(message(AUDIO, voice(320))[:200])
    caller.finish()
    # So does a dying call of Asterisk's end.
    assert await program.end(caller) == [voice(320), b""]


async def test_a_call_without_audio(serve, call):
    program, _, address = await serve()
    caller = await call(address)
    caller.finish()
    assert await program.end(caller) == [b""]
    assert program.told[0].uuid == caller.uuid.hex


async def test_a_connection_that_says_nothing(serve, call):
    program, _, address = await serve()
    caller = await call(address, identify=False)
    caller.finish()
    assert await program.end(caller) == [b""]
    assert program.told == [("", caller.name, b"")]


@pytest.mark.parametrize("length", [0, 1, 15, 17, 36])
async def test_a_malformed_uuid(serve, call, length):
    program, _, address = await serve()
    caller = await call(address, identify=False)
    caller.send(message(UUID, voice(length)))
    end, error = await program.end(caller)
    assert end == b""
    assert isinstance(error, audiosocket.AudioSocketReadError) and "16 bytes" in str(error)
    assert {told.uuid for told in program.told} == {""}


@pytest.mark.parametrize("text", [b"GET / HTTP/1.1\r\nHost: example\r\n\r\n", b"SSH-2.0-client\r\n", b"\x16\x03\x01\x02\x00\x01"])
async def test_another_protocol(serve, call, text):
    program, _, address = await serve()
    caller = await call(address, identify=False)
    caller.send(text)
    end, error = await program.end(caller)
    assert end == b""
    assert isinstance(error, audiosocket.AudioSocketReadError) and "not AudioSocket" in str(error)


async def test_an_exception_in_the_audio_callback_ends_that_call_alone(serve, call, loop_errors):
    def answer(audio):
        if audio == voice(320, 13):
            raise LookupError("thirteen")
        return bytes(audio)

    program, _, address = await serve(answer)
    unlucky, other = await call(address), await call(address)
    other.say(voice(320, 1))
    unlucky.say(voice(320, 13))
    unlucky.say(voice(320, 14))
    await asyncio.to_thread(unlucky.wait_for_end)
    assert unlucky.was_hung_up and unlucky.end == "fin"
    unlucky.finish()
    audio, end, error = await program.end(unlucky)
    assert (audio, end) == (voice(320, 13), b"")
    assert isinstance(error, LookupError) and error.__traceback__ is not None
    assert [context["exception"] for context in loop_errors] == [error]
    other.say(voice(320, 2))
    await asyncio.to_thread(other.wait_for_voice, 640)


async def test_exceptions_at_the_end_and_in_the_exception_callback(call, loop_errors):
    ended = asyncio.Event()
    told = []

    def on_audio(uuid, peer_name, audio):
        told.append(bytes(audio))
        raise LookupError("audio")

    def on_exception(uuid, peer_name, error):
        told.append(str(error))
        ended.set()
        raise LookupError("exception")

    async with await audiosocket.start_server(on_audio, on_exception, "127.0.0.1", 0) as server:
        caller = await call(server.sockets[0].getsockname())
        caller.say(voice(320))
        caller.finish()
        await asyncio.wait_for(ended.wait(), 30)
        # The server is as good as ever.
        other = await call(server.sockets[0].getsockname())
        await asyncio.to_thread(other.wait, lambda: other.heard)
        other.finish()
    assert told[:3] == [voice(320), b"", "audio"]
    assert [str(context["exception"]) for context in loop_errors[:3]] == ["audio", "audio", "exception"]


async def test_without_an_exception_callback_the_loop_is_told(call, loop_errors):
    program = Program()
    async with await audiosocket.start_server(program.on_audio, None, "127.0.0.1", 0) as server:
        caller = await call(server.sockets[0].getsockname())
        caller.say(b"\x02", ERROR)
        caller.say(voice(320))
        await program.wait(lambda: program.of(caller))
        await asyncio.to_thread(caller.reset)
        await program.end(caller)
    assert [type(context["exception"]) for context in loop_errors] == [
        audiosocket.AsteriskFrameForwardError,
        ConnectionResetError,
    ]
    assert caller.uuid.hex in loop_errors[0]["message"]


async def test_the_server_is_closed_in_a_callback(serve, call):
    servers = []

    def answer(audio):
        servers[0].close()
        servers[0].close_clients()

    program, server, address = await serve(answer)
    servers.append(server)
    caller, other = await call(address), await call(address)
    await asyncio.to_thread(other.wait, lambda: other.heard)
    caller.say(voice(320))
    for each in (caller, other):
        await asyncio.to_thread(each.wait_for_end)
        assert each.was_hung_up
        each.finish()
        assert (await program.end(each))[-1] == b""
    await server.wait_closed()


async def test_a_call_that_is_on_its_way_in_is_hung_up_with_the_others(serve, call):
    program, server, address = await serve(lambda audio: pytest.fail("it is over"))
    caller = await call(address, identify=False)
    # Accepted in turn: when this one is heard, the first is waited for.
    other = await call(address)
    await asyncio.to_thread(other.wait, lambda: other.heard)
    server.close()
    server.close_clients()
    caller.identify()
    caller.say(voice(320))
    for each in (caller, other):
        await asyncio.to_thread(each.wait_for_end)
        assert each.was_hung_up
        each.finish()
        assert await program.end(each) == [b""]
    await server.wait_closed()


async def test_a_call_after_the_others_were_hung_up_goes_on(serve, call):
    program, server, address = await serve(ECHO)
    server.close_clients()
    caller = await call(address)
    caller.say(voice(320))
    await asyncio.to_thread(caller.wait_for_voice, 320)
    server.close()
    caller.say(voice(320, 1))
    await asyncio.to_thread(caller.wait_for_voice, 640)
    assert caller.voice == voice(320) + voice(320, 1)


async def test_the_port_is_free_once_it_is_closed(serve, call):
    # One that the system gives nobody: else another program may have it as soon as it is free.
    for port in random.sample(range(20_000, 30_000), 20):
        try:
            _, server, address = await serve(ECHO, port=port)
            break
        except OSError:
            continue
    for _ in range(20):
        # A call that goes on doesn't keep it.
        caller = await call(address)
        await asyncio.to_thread(caller.wait, lambda caller=caller: caller.heard)
        server.close()
        _, server, again = await serve(ECHO, port=address[1])
        assert again == address


async def test_asterisks_errors(serve, call):
    program, _, address = await serve()
    caller = await call(address)
    for bits in (2, 4, 6):
        caller.say(bytes([bits]), ERROR)
    caller.say(voice(320))
    caller.finish()
    forward, memory = audiosocket.AsteriskFrameForwardError, audiosocket.AsteriskMemoryAllocError
    told = await program.end(caller)
    assert [type(what) for what in told] == [forward, memory, forward, memory, bytearray, bytearray]
    assert {entry.uuid for entry in program.told} == {caller.uuid.hex}


async def test_asterisks_error_with_the_hang_up_bit_ends_the_call(serve, call):
    program, _, address = await serve()
    caller = await call(address)
    caller.say(voice(320))
    caller.say(b"\x01", ERROR)
    assert await program.end(caller) == [voice(320), b""]


@pytest.mark.parametrize(
    ("kind", "payload"),
    [(ERROR, b""), (ERROR, b"\x02\x02"), (UUID, b"short"), (UUID, b""), (HANGUP, b"x"), (0x03, b""), (0x03, b"12")],
)
async def test_payloads_of_unexpected_length(serve, call, kind, payload):
    program, _, address = await serve()
    caller = await call(address)
    caller.say(payload, kind)
    caller.say(voice(320))
    caller.finish()
    told = await program.end(caller)
    if kind == HANGUP:
        # It says what it says.
        assert told == [b""]
        return
    error, audio, end = told
    assert isinstance(error, audiosocket.AudioSocketReadError) and f"{len(payload)} bytes" in str(error)
    assert (audio, end) == (voice(320), b"")


def test_exceptions_have_a_base():
    own = [audiosocket.AsteriskFrameForwardError, audiosocket.AsteriskMemoryAllocError, audiosocket.AudioSocketReadError]
    for error in (*own, audiosocket.AudioLaggedError, audiosocket.AudioDroppedError):
        assert issubclass(error, audiosocket.AudioSocketError) and error.__module__ == "audiosocket"
