"""What programs of the asyncio interface leave behind when they end, fork, or run for long."""

from __future__ import annotations

import pytest
from client import Caller, voice
from test_lifetime import LOOPS, PRELUDE

SERVER = """
async def handler(call):
    live = call.live()
    async for event in call:
        match event:
            case audiosocket.Audio(data=data):
                live.push(data)


def be_patient():
    # A busy machine is no fault of this program.
    asyncio.get_running_loop().slow_callback_duration = 60


async def open_server(**settings):
    server = audiosocket.Server(port=0, **settings)
    await server.start()
    print(server.address[1], flush=True)
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


@pytest.mark.parametrize("statement", ["return", "sys.exit(3)", "raise LookupError('unhandled')"])
def test_the_interpreter_ends_while_calls_run(run_program, loop, statement):
    source = f"""
async def main():
    server = await open_server()
    serving = asyncio.create_task(server.serve(handler))
    await told()
    {statement}

run(main())
"""
    program = run_program(PRELUDE + SERVER + source, loop)
    caller = call(program)
    program.tell("end")
    caller.wait_for_end()
    assert caller.was_hung_up and caller.end == "fin"
    caller.close()
    status, _, errors = program.end()
    assert status == {"return": 0, "sys.exit(3)": 3}.get(statement, 1)
    assert errors.strip().rpartition("\n")[2] == ("LookupError: unhandled" if status == 1 else "")


LEAKS = """
import collections, gc, socket, time, uuid

def place(port, number):
    for at in range(number):
        with socket.create_connection(("127.0.0.1", port), 20) as caller:
            caller.sendall(b"\\x01\\x00\\x10" + uuid.uuid4().bytes + b"\\x10\\x01\\x40" + bytes([at % 250 + 1]) * 320)
            caller.recv(1)
            caller.sendall(b"\\x00\\x00\\x00")
            while caller.recv(65536):
                pass

handled = 0

async def handle(call):
    call.data.call = call
    try:
        await interrupt(call)
    finally:
        global handled
        handled += 1

async def interrupt(call):
    playback = call.play(bytes(1600), 8000)
    call.mark()
    async for event in call:
        if isinstance(event, audiosocket.Audio):
            await call.clear()
    await playback

def count():
    gc.collect()
    gc.collect()
    with open("/proc/self/statm") as statm:
        memory = int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    objects = collections.Counter(type(each).__name__ for each in gc.get_objects())
    return objects, len(os.listdir("/proc/self/fd")), memory

class Session:
    pass

async def calls(server, number):
    before, handled_before = ended.value, handled
    await asyncio.gather(*(asyncio.to_thread(place, server.address[1], number // 4) for _ in range(4)))
    # A call may have ended before its handler begins.
    while ended.value < before + number or handled < handled_before + number:
        await asyncio.sleep(0.01)
    while len(asyncio.all_tasks()) > 2:
        await asyncio.sleep(0.01)
    # Those that are done are let go of in the iterations that follow.
    for _ in range(3):
        await asyncio.sleep(0)

class Ended:
    value = 0

    def __call__(self, summary):
        self.value += 1

ended = Ended()

async def main():
    be_patient()
    number = int(sys.argv[2])
    server = await open_server(admit=lambda _: audiosocket.Accept(Session()), on_call_end=ended, trusted="any")
    serving = asyncio.create_task(server.serve(handle))
    # The first ones make the memory that the others need.
    await calls(server, number)
    objects, descriptors, memory = count()
    await calls(server, number)
    after_objects, after_descriptors, after_memory = count()
    grown = after_objects - objects
    print({name: more for name, more in grown.items() if more > 20})
    print(after_descriptors - descriptors)
    print(after_memory - memory)
    await server.close()
    await serving
    for _ in range(20):
        async with audiosocket.Server(port=0):
            pass
    print(count()[1] - descriptors)

run(main())
"""


def test_thousands_of_calls_leave_nothing(run_program, loop):
    program = run_program(PRELUDE + SERVER + LEAKS, loop, 2400, options=("-X", "dev"))
    program.line()
    status, output, errors = program.end()
    assert (status, errors) == (0, "")
    objects, descriptors, memory, at_the_end = output.splitlines()
    assert objects == "{}"
    # The last calls may still be closing.
    assert int(descriptors) < 20
    # A call that was kept would take several kilobytes.
    assert int(memory) < 2400 * 2500
    assert int(at_the_end) < 0


def test_it_is_silent_in_development_mode(run_program, loop):
    source = """
async def main():
    be_patient()
    async with audiosocket.Server(port=0) as server:
        print(server.address[1], flush=True)
        serving = asyncio.create_task(server.serve(handler))
        await told()
        await server.drain(0)
        await serving

run(main())
"""
    program = run_program(
        PRELUDE + SERVER + source, loop, options=("-X", "dev", "-X", "tracemalloc"), PYTHONASYNCIODEBUG="1"
    )
    caller = call(program)
    program.tell("end")
    caller.wait_for_end()
    caller.close()
    assert program.end() == (0, "", "")


def test_a_forked_child_has_no_part_in_its_parents_calls(run_program, loop):
    source = """
kept = []

async def keep(call):
    kept.append((call, call.live(), call.utterance().end(), call.utterance(), call.record(os.path.dirname(__file__))))
    await handler(call)

loop = new_event_loop()
server = loop.run_until_complete(open_server())
serving = loop.create_task(server.serve(keep))
loop.run_until_complete(told())
child = os.fork()
if child == 0:
    call, live, playback, utterance, recording = kept[0]
    uses = {
        "stats": lambda: call.stats, "ended": lambda: call.ended, "rate": lambda: call.rate,
        "peer": lambda: call.peer, "play": lambda: call.play(bytes(2)), "mark": call.mark, "clear": call.clear,
        "hang_up": call.hang_up, "finish": call.finish, "closed": call.closed, "live": call.live,
        "utterance": call.utterance, "pause": call.pause, "record": lambda: call.record(os.path.dirname(__file__)),
        "push": lambda: live.push(bytes(2)), "stop": playback.stop, "heard": lambda: playback.heard,
        "write": lambda: utterance.write(bytes(2)), "end": utterance.end, "report": lambda: recording.report,
        "server.stats": lambda: server.stats, "next": lambda: call._core.next_event(),
    }
    wrong = []
    for name, use in uses.items():
        try:
            use()
        except RuntimeError as error:
            if "forked child" not in str(error):
                wrong.append(f"{name}: {error!r}")
        else:
            wrong.append(f"{name} works")
    print(wrong, repr(server), playback, utterance, recording, flush=True)
    kept.clear()
    leave(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
loop.run_forever()
"""
    program = run_program(PRELUDE + SERVER + source, loop, options=("-W", "ignore"))
    caller = call(program)
    program.tell("fork")
    line = program.line()
    assert line.startswith("[] ") and line.count("of the parent process") == 4, line
    assert program.line() == "7"
    caller.say(voice(640, 1))
    caller.wait_for_voice(960)
    caller.close()
