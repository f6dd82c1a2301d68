"""What programs leave behind when they end, fork, or run for long."""

from __future__ import annotations

import os
import signal
import sys

import pytest
from client import Caller, voice

LOOPS = ["asyncio", "uvloop"]

# The beginning of every program: an echo that can be told what to do.
PRELUDE = """
import asyncio, atexit, os, signal, sys
import audiosocket

if sys.argv[1] == "uvloop":
    import uvloop
    new_event_loop = uvloop.new_event_loop
else:
    new_event_loop = asyncio.new_event_loop


def run(main):
    loop = new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        return loop.run_until_complete(main)
    finally:
        # As `asyncio.run` does it, which can be given a loop only from Python 3.12 on.
        if tasks := asyncio.all_tasks(loop):
            for task in tasks:
                task.cancel()
            loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        loop.close()


def echo(uuid, peer_name, audio):
    return bytes(audio) if audio else None


async def told():
    loop = asyncio.get_running_loop()
    line = loop.create_future()
    loop.add_reader(0, lambda: line.done() or line.set_result(sys.stdin.readline().strip()))
    await line
    loop.remove_reader(0)
    return line.result()


def leave(status):
    if sys.argv[1] == "uvloop":
        # A child that drops its parent's loop crashes in uvloop itself, whatever else it does.
        atexit._run_exitfuncs()
        os._exit(status)
    sys.exit(status)


async def start(on_audio=echo, on_exception=None):
    server = await audiosocket.start_server(on_audio, on_exception, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    return server
"""


@pytest.fixture(params=LOOPS)
def loop(request):
    return request.param


def call(program):
    """A call that is being heard."""
    caller = Caller(("127.0.0.1", int(program.line())))
    caller.say(voice(320))
    caller.wait_for_voice(320)
    return caller


ENDINGS = {
    "the main function returns": ("return", 0, ""),
    "sys.exit": ("sys.exit(3)", 3, ""),
    "an exception": ("raise LookupError('unhandled')", 1, "LookupError: unhandled"),
    "KeyboardInterrupt": ("raise KeyboardInterrupt", -signal.SIGINT, "KeyboardInterrupt"),
    "SIGINT": ("os.kill(os.getpid(), signal.SIGINT); await asyncio.sleep(60)", -signal.SIGINT, "KeyboardInterrupt"),
    "SIGINT, while it is served for ever": (
        "asyncio.get_running_loop().call_later(0.1, os.kill, os.getpid(), signal.SIGINT); await server.serve_forever()",
        -signal.SIGINT,
        "KeyboardInterrupt",
    ),
    "closed, and not waited for": ("server.close()", 0, ""),
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_interpreter_ends_while_calls_run(run_program, loop, ending):
    statement, status, error = ENDINGS[ending]
    program = run_program(PRELUDE + f"async def main():\n    server = await start()\n    await told()\n    {statement}\n\nrun(main())", loop)
    caller = call(program)
    program.tell("end")
    caller.wait_for_end()
    # The dialplan goes on, as it does when a program hangs up.
    assert caller.was_hung_up and caller.end == "fin"
    caller.close()
    ended, _, errors = program.end()
    assert ended == status
    assert errors.strip().rpartition("\n")[2] == error


def test_it_is_terminated_while_calls_run(run_program, loop):
    program = run_program(PRELUDE + "async def main():\n    server = await start()\n    await server.serve_forever()\n\nrun(main())", loop)
    port = int(program.line())
    caller = Caller(("127.0.0.1", port))
    caller.wait(lambda: caller.heard)
    program.process.terminate()
    assert program.end() == (-signal.SIGTERM, "", "")
    caller.wait_for_end()
    caller.close()


@pytest.mark.parametrize("raised", ["KeyboardInterrupt", "SystemExit(5)"])
def test_what_is_to_end_the_program_ends_it_from_a_callback_too(run_program, loop, raised):
    source = f"""
def on_audio(uuid, peer_name, audio):
    if audio.startswith(b"end"):
        raise {raised}
    return echo(uuid, peer_name, audio)

async def main():
    server = await start(on_audio)
    await server.serve_forever()

run(main())
"""
    program = run_program(PRELUDE + source, loop)
    caller = call(program)
    caller.say(b"end!")
    caller.wait_for_end()
    caller.close()
    status, _, errors = program.end()
    assert status == (5 if "5" in raised else -signal.SIGINT)
    assert "never retrieved" not in errors and "Fatal" not in errors and "panicked" not in errors


def test_nothing_warns(run_program, loop):
    source = """
async def main():
    asyncio.get_running_loop().slow_callback_duration = 60
    def on_exception(uuid, peer_name, error):
        print(type(error).__name__, flush=True)
    server = await start(echo, on_exception)
    await told()
    server.close()
    server.close_clients()
    await server.wait_closed()
    other = await start()
    never = await audiosocket.start_server(echo, None, "127.0.0.1", 0, start_serving=False)
    async with other, never:
        pass

run(main())
"""
    options = ("-X", "dev", "-X", "tracemalloc", "-W", "error")
    program = run_program(PRELUDE + source, loop, options=options, PYTHONASYNCIODEBUG="1")
    caller = call(program)
    caller.say(b"\x02", 0xFF)
    assert program.line() == "AsteriskFrameForwardError"
    program.tell("end")
    caller.wait_for_end()
    caller.close()
    status, _, errors = program.end()
    assert (status, errors) == (0, "")


LEAKS = """
import collections, gc, socket

FRAME = b"\\x10\\x01\\x40" + b"\\x01" * 320
UUID = b"\\x01\\x00\\x10"

def place(port, calls):
    for number in range(calls):
        with socket.create_connection(("127.0.0.1", port)) as caller:
            caller.sendall(UUID + os.urandom(16) + FRAME * 3)
            # One in four is reset, one says that it hangs up, one never said who it is.
            if number % 4 == 0:
                caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\\1\\0\\0\\0\\0\\0\\0\\0")
                continue
            if number % 4 == 1:
                caller.sendall(b"\\x00\\x00\\x00")
            else:
                caller.shutdown(socket.SHUT_WR)
            while caller.recv(65536):
                pass

def count():
    gc.collect()
    gc.collect()
    with open("/proc/self/statm") as statm:
        memory = int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    objects = collections.Counter(type(each).__name__ for each in gc.get_objects())
    return objects, len(os.listdir("/proc/self/fd")), memory

async def calls(server, number):
    port = server.sockets[0].getsockname()[1]
    ended = 0
    done = asyncio.Event()

    def end():
        nonlocal ended
        ended += 1
        if ended >= number:
            done.set()

    ends[0] = end
    await asyncio.gather(*(asyncio.to_thread(place, port, number // 4) for _ in range(4)))
    await asyncio.wait_for(done.wait(), 30)

ends = [None]

def on_audio(uuid, peer_name, audio):
    if not audio:
        ends[0]()
    return bytes(audio) if audio else None

async def main():
    number = int(sys.argv[2])
    server = await start(on_audio, lambda *told: None)
    await calls(server, 400)
    await asyncio.sleep(0)
    objects, descriptors, memory = count()
    began = asyncio.get_running_loop().time()
    await calls(server, number)
    took = asyncio.get_running_loop().time() - began
    print(f"{number / took:.0f} calls a second", file=sys.stderr)
    after_objects, after_descriptors, after_memory = count()
    grown = after_objects - objects
    print({name: more for name, more in grown.items() if more > 20})
    print(after_descriptors - descriptors)
    print(after_memory - memory)
    print(f"{memory} {after_memory}", file=sys.stderr)
    server.close()
    await server.wait_closed()
    for _ in range(20):
        async with await start():
            pass

    print(count()[1] - descriptors)

run(main())
"""


def test_thousands_of_calls_leave_nothing(run_program, loop):
    program = run_program(PRELUDE + LEAKS, loop, 4000)
    program.line()
    status, output, errors = program.end()
    assert status == 0, errors
    objects, descriptors, memory, *_, at_the_end = output.splitlines()
    assert objects == "{}"
    # The last calls may still be closing.
    assert int(descriptors) < 20
    # A call that was kept would take several kilobytes.
    assert int(memory) < 4000 * 1000
    assert int(at_the_end) < 0


def test_a_program_that_holds_its_server_and_is_dropped_leaves_nothing(run_program, loop):
    source = """
import gc, weakref

class Program:
    async def serve(self):
        self.server = await start(self.on_audio, self.on_exception)

    def on_audio(self, uuid, peer_name, audio):
        return bytes(audio) if audio else None

    def on_exception(self, uuid, peer_name, error):
        pass

loop = new_event_loop()
program = Program()
loop.run_until_complete(program.serve())
loop.run_until_complete(told())
loop.close()
dropped = weakref.ref(program)
del program, loop
gc.collect()
print(dropped(), flush=True)
"""
    program = run_program(PRELUDE + source, loop, options=("-W", "ignore"))
    caller = Caller(("127.0.0.1", int(program.line())))
    caller.wait(lambda: caller.heard)
    program.tell("end")
    assert program.line() == "None"
    caller.wait_for_end()
    assert caller.was_hung_up
    caller.close()


FORK = """
def uses(server):
    async def use(method):
        await method()
    return {
        "sockets": lambda: server.sockets,
        "is_serving": server.is_serving,
        "start_serving": lambda: asyncio.run(use(server.start_serving)),
        "serve_forever": lambda: asyncio.run(use(server.serve_forever)),
        "close": server.close,
        "close_clients": server.close_clients,
        "abort_clients": server.abort_clients,
        "wait_closed": lambda: asyncio.run(use(server.wait_closed)),
        **{f"core.{name}": getattr(server._core, name)
           for name in ("fileno", "poll", "stop_accepting", "hang_up_all", "has_ended", "close")},
    }

def in_child(server):
    wrong = []
    for name, use in uses(server).items():
        try:
            use()
        except RuntimeError as error:
            if "forked child" not in str(error):
                wrong.append(f"{name}: {error!r}")
        except BaseException as error:
            wrong.append(f"{name}: {error!r}")
        else:
            wrong.append(f"{name} works")
    print(wrong, repr(server), flush=True)
"""


def test_a_forked_child_has_no_part_in_its_parents_server(run_program, loop):
    source = """
loop = new_event_loop()
server = loop.run_until_complete(start())
loop.run_until_complete(told())
child = os.fork()
if child == 0:
    in_child(server)
    # It ends as any program: its exit handlers run, and its objects are dropped.
    leave(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
loop.run_forever()
"""
    program = run_program(PRELUDE + FORK + source, loop, options=("-W", "ignore"))
    caller = call(program)
    program.tell("fork")
    assert program.line().startswith("[] <audiosocket._callbacks.CallbackServer of the parent process>")
    assert program.line() == "7"
    # The parent knows nothing of it, nor do its calls.
    caller.say(voice(640, 1))
    caller.wait_for_voice(960)
    assert caller.voice == voice(320) + voice(640, 1)
    caller.close()


def test_a_child_that_goes_on_leaves_its_parents_calls_alone(run_program, loop):
    source = """
import gc

loop = new_event_loop()
server = loop.run_until_complete(start())
loop.run_until_complete(told())
child = os.fork()
if child == 0:
    # It forgets the server, but lives on.
    del server, loop
    gc.collect()
    print("child", flush=True)
    while True:
        signal.pause()
print(child, flush=True)
loop.run_forever()
"""
    program = run_program(PRELUDE + source, loop, options=("-W", "ignore"))
    caller = call(program)
    program.tell("fork")
    lines = {program.line(), program.line()}
    child = int((lines - {"child"}).pop())
    try:
        caller.say(voice(640, 1))
        caller.wait_for_voice(960)
    finally:
        os.kill(child, signal.SIGKILL)
    caller.close()


def test_a_child_has_servers_of_its_own(run_program, loop):
    source = """
async def serve(calls):
    ended = asyncio.Event()
    def on_audio(uuid, peer_name, audio):
        if not audio:
            ended.set()
        return echo(uuid, peer_name, audio)
    server = await start(on_audio)
    await ended.wait()
    server.close()
    await server.wait_closed()

# A server that has been, and one that is there.
loop = new_event_loop()
first = loop.run_until_complete(start())
child = os.fork()
if child == 0:
    run(serve(1))
    sys.exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
    program = run_program(PRELUDE + source, loop, options=("-W", "ignore"))
    program.line()
    caller = call(program)
    caller.close()
    assert program.line() == "0"
    assert program.end()[0] == 0


def test_a_callback_forks(run_program, loop):
    source = """
def on_audio(uuid, peer_name, audio):
    if audio.startswith(b"fork"):
        child = os.fork()
        if child == 0:
            leave(9)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    return echo(uuid, peer_name, audio)

async def main():
    server = await start(on_audio)
    await server.serve_forever()

run(main())
"""
    program = run_program(PRELUDE + source, loop, options=("-W", "ignore"))
    caller = call(program)
    caller.say(b"fork" + voice(316))
    assert program.line() == "9"
    caller.say(voice(320, 2))
    caller.wait_for_voice(960)
    assert caller.voice == voice(320) + b"fork" + voice(316) + voice(320, 2)
    caller.close()


@pytest.mark.parametrize("is_isolated", [True, False])
@pytest.mark.parametrize("is_first", [True, False])
def test_a_sub_interpreter_cannot_import_it(run_program, is_isolated, is_first):
    if sys.version_info >= (3, 13):
        kind = repr("isolated" if is_isolated else "legacy")
    else:
        kind = f"isolated={is_isolated}"
    source = f"""
import sys
try:
    import _interpreters as interpreters
    run = interpreters.exec
except ImportError:
    import _xxsubinterpreters as interpreters
    run = interpreters.run_string
if not {is_first}:
    import audiosocket
run(interpreters.create({kind}), '''
try:
    import audiosocket
except ImportError as error:
    print(error, flush=True)
else:
    print("imported", flush=True)
''')
import audiosocket
"""
    status, output, errors = run_program(source).end()
    assert (status, errors) == (0, "")
    assert "main interpreter only" in output
