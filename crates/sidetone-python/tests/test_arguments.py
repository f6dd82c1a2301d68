"""What `start_server` is given, and what it returns: all as with `loop.create_server`."""

from __future__ import annotations

import asyncio
import socket
import sys

import audiosocket
import pytest
from client import Caller, voice

ECHO = bytes


async def is_served(address, program) -> bool:
    """Whether a call to this address is heard."""
    caller = await asyncio.to_thread(Caller, address)
    caller.say(voice(320))
    try:
        await program.wait(lambda: program.audio(caller) == voice(320))
        return True
    finally:
        await asyncio.to_thread(caller.close)


async def is_refused(address) -> bool:
    try:
        caller = await asyncio.to_thread(Caller, address, identify=False)
    except ConnectionRefusedError:
        return True
    await asyncio.to_thread(caller.close)
    return False


async def test_arguments_may_be_named(serve):
    heard = []

    def on_audio(uuid, peer_name, audio):
        heard.append(audio)

    server = await audiosocket.start_server(
        on_audio_callback=on_audio, on_exception_callback=None, host="127.0.0.1", port=0
    )
    async with server:
        assert server.is_serving()


async def test_it_is_served_as_soon_as_it_is_returned(serve):
    program, server, address = await serve()
    assert server.is_serving()
    assert server.get_loop() is asyncio.get_running_loop()
    assert await is_served(address, program)


async def test_a_socket_that_is_bound_already(serve):
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        program, server, address = await serve(host=None, port=None, sock=bound)
        assert address == bound.getsockname()
        assert await is_served(address, program)
        server.close()
        await server.wait_closed()
        # It became the server's, as it does with asyncio.
        assert bound.fileno() == -1 or "uvloop" in type(server.get_loop()).__module__


async def test_a_socket_that_listens_already(serve):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        program, server, address = await serve(host=None, port=None, sock=listening)
        assert await is_served(address, program)
        server.close()


async def test_a_socket_and_a_host_are_one_too_many(serve):
    with socket.create_server(("127.0.0.1", 0)) as listening, pytest.raises(ValueError):
        await serve(host="127.0.0.1", port=0, sock=listening)


async def test_neither_a_socket_nor_a_host(serve):
    with pytest.raises(ValueError):
        await serve(host=None, port=None)


async def test_the_backlog_is_that_of_the_socket(serve):
    _, server, (host, port) = await serve(backlog=7)
    assert [backlog for at, backlog in listening_backlogs() if at == port] == [7]


def listening_backlogs():
    """The ports that listen, and how many connections may wait there, as the kernel has it."""
    import subprocess

    listed = subprocess.run(["ss", "-Hltn"], capture_output=True, text=True, check=True).stdout
    for line in listed.splitlines():
        _, _, backlog, local, *_ = line.split()
        yield int(local.rpartition(":")[2]), int(backlog)


@pytest.mark.parametrize("option", ["reuse_address", "reuse_port"])
async def test_options_of_the_socket(serve, option):
    number = {"reuse_address": socket.SO_REUSEADDR, "reuse_port": socket.SO_REUSEPORT}[option]
    for value in (True, False):
        program, server, address = await serve(**{option: value})
        listening = server.sockets[0]
        assert bool(listening.getsockopt(socket.SOL_SOCKET, number)) is value
        assert await is_served(address, program)


async def test_two_servers_share_a_port_if_they_may(serve):
    _, _, (host, port) = await serve(reuse_port=True)
    await serve(host=host, port=port, reuse_port=True)


async def test_a_port_that_is_taken(serve):
    _, _, (host, port) = await serve()
    with pytest.raises(OSError):
        await serve(host=host, port=port)


async def test_it_starts_when_it_is_told_to(serve):
    program, server, address = await serve(start_serving=False)
    assert not server.is_serving()
    assert await is_refused(address)
    await server.start_serving()
    await server.start_serving()
    assert server.is_serving()
    assert await is_served(address, program)


async def test_it_starts_with_serve_forever(serve):
    program, server, address = await serve(start_serving=False)
    serving = asyncio.create_task(server.serve_forever())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert server.is_serving()
    assert await is_served(address, program)
    with pytest.raises(RuntimeError, match="already"):
        await server.serve_forever()
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    assert not server.is_serving()
    assert server.sockets == ()
    assert await is_refused(address)


async def test_a_server_that_never_served_can_be_closed(serve):
    _, server, address = await serve(start_serving=False)
    server.close()
    await server.wait_closed()
    assert await is_refused(address)
    with pytest.raises(RuntimeError, match="closed"):
        await server.start_serving()
    with pytest.raises(RuntimeError, match="closed"):
        await server.serve_forever()


async def test_the_family(serve):
    _, server, _ = await serve(host="localhost", family=socket.AF_INET)
    assert [listening.family for listening in server.sockets] == [socket.AF_INET]


async def test_ipv6(serve, call):
    program, _, address = await serve(host="::1")
    assert address[0] == "::1"
    caller = await call(address)
    caller.say(voice(320))
    caller.finish()
    await program.end(caller)
    # Four values, as from `getpeername`.
    assert {told.peer for told in program.told} == {caller.name}
    assert len(caller.name) == 4


async def test_ipv4(serve, call):
    program, _, address = await serve()
    caller = await call(address)
    caller.say(voice(320))
    caller.finish()
    await program.end(caller)
    assert {told.peer for told in program.told} == {caller.name}
    assert {told.uuid for told in program.told} == {caller.uuid.hex}


async def test_several_hosts(serve):
    program, server, _ = await serve(host=["127.0.0.1", "127.0.0.2", "::1"])
    assert len(server.sockets) == 3
    for listening in server.sockets:
        assert await is_served(listening.getsockname(), program)


@pytest.mark.parametrize("host", [None, ""])
async def test_all_hosts(serve, host):
    program, server, _ = await serve(host=host)
    ports = {listening.family: listening.getsockname()[1] for listening in server.sockets}
    assert socket.AF_INET in ports and socket.AF_INET6 in ports
    assert await is_served(("127.0.0.1", ports[socket.AF_INET]), program)
    assert await is_served(("::1", ports[socket.AF_INET6]), program)


async def test_flags(serve):
    # A name would have to be looked up.
    with pytest.raises(OSError):
        await serve(host="localhost", flags=socket.AI_NUMERICHOST)


async def test_an_argument_that_does_not_exist(serve):
    with pytest.raises(TypeError):
        await serve(no_such_argument=1)


async def test_there_is_no_tls(serve):
    import ssl

    with pytest.raises(ValueError, match="tunnel"):
        await serve(ssl=ssl.create_default_context())


@pytest.mark.parametrize("on_audio", [None, 17, "on_audio"])
async def test_an_audio_callback_that_cannot_be_called(on_audio):
    with pytest.raises(TypeError, match="on_audio"):
        await audiosocket.start_server(on_audio, None, "127.0.0.1", 0)


async def test_a_coroutine_function_is_no_callback():
    async def on_audio(uuid, peer_name, audio):
        pass

    with pytest.raises(TypeError, match="on_audio_callback.*async"):
        await audiosocket.start_server(on_audio, None, "127.0.0.1", 0)
    with pytest.raises(TypeError, match="on_exception_callback.*async"):
        await audiosocket.start_server(print, on_audio, "127.0.0.1", 0)


async def test_async_with_ends_it(serve):
    program, server, address = await serve()
    async with server as entered:
        assert entered is server
        assert await is_served(address, program)
    assert not server.is_serving()
    assert await is_refused(address)


async def test_closing_twice(serve):
    _, server, _ = await serve()
    server.close()
    server.close()
    await server.wait_closed()
    await server.wait_closed()
    server.close()
    server.close_clients()
    server.abort_clients()


async def test_two_servers_in_one_loop(serve, call):
    first, second = await serve(ECHO), await serve(ECHO)
    one, other = await call(first.address), await call(second.address)
    one.say(voice(640, 1))
    other.say(voice(640, 2))
    for caller, seed in ((one, 1), (other, 2)):
        await asyncio.to_thread(caller.wait_for_voice, 640)
        assert caller.voice == voice(640, seed)
    first.server.close()
    first.server.close_clients()
    await asyncio.to_thread(one.wait_for_end)
    other.say(voice(640, 3))
    await asyncio.to_thread(other.wait_for_voice, 1280)
    assert not second.program.of(one) and not first.program.of(other)


async def test_close_lets_calls_go_on(serve, call):
    program, server, address = await serve(ECHO)
    caller = await call(address)
    caller.say(voice(320))
    await program.wait(lambda: program.of(caller))
    server.close()
    assert await is_refused(address)
    waiting = asyncio.create_task(server.wait_closed())
    caller.say(voice(320, 1))
    await asyncio.to_thread(caller.wait_for_voice, 640)
    assert caller.voice == voice(320) + voice(320, 1)
    if sys.version_info >= (3, 12, 1):
        assert not waiting.done()
    caller.finish()
    await program.end(caller)
    await waiting


async def test_close_clients_hangs_up(serve, call):
    program, server, address = await serve(ECHO)
    callers = [await call(address) for _ in range(3)]
    for caller in callers:
        caller.say(voice(320))
        await program.wait(lambda caller=caller: program.of(caller))
    server.close_clients()
    for caller in callers:
        await asyncio.to_thread(caller.wait_for_end)
        assert caller.was_hung_up and caller.end == "fin"
        caller.finish()
        assert (await program.end(caller)) == [voice(320), b""]
    # It serves on.
    assert await is_served(address, program)


async def test_serve_forever_cancelled_hangs_up(serve, call):
    program, server, address = await serve(ECHO)
    serving = asyncio.create_task(server.serve_forever())
    caller = await call(address)
    caller.say(voice(320))
    await program.wait(lambda: program.of(caller))
    serving.cancel()
    await asyncio.to_thread(caller.wait_for_end)
    assert caller.was_hung_up and caller.end == "fin"
    caller.finish()
    with pytest.raises(asyncio.CancelledError):
        await serving
    assert program.of(caller) == [voice(320), b""]


async def test_close_ends_serve_forever(serve):
    _, server, _ = await serve()
    serving = asyncio.create_task(server.serve_forever())
    await asyncio.sleep(0)
    server.close()
    with pytest.raises(asyncio.CancelledError):
        await serving


def test_version():
    assert isinstance(audiosocket.__version__, str)
    assert audiosocket.HANGUP_CALL_MESSAGE == b""
