"""Who is measured, and doing what."""

from dataclasses import dataclass

from .places import BENCHES, FLOORS, GO_PROGRAM, NODE, PROGRAMS, VENV

FLOOR, OURS, PEER = "floor", "ours", "peer"

EPOLL_FLOOR = "floor: epoll"
URING_FLOOR = "floor: io_uring, 2 ms tick"
WHEEL_FLOOR = "floor: wheel"
RUST_PEER = "Rust `audiosocket`, tokio"
UVLOOP = "Python, uvloop"
ASYNCIO = "Python, asyncio"
NODE_PEER = "Node `asterisk-audiosocket`"
GO_PEER = "Go, CyCoreSystems"

STYLES = ("callbacks", "async")
BACK_ENDS = ("io_uring", "epoll")


def ours(style, back_end):
    return f"**sidetone, {style}, {back_end}**"


@dataclass(frozen=True)
class Server:
    name: str
    role: str
    # The command line for each task that it can do, without the port and what else the task needs.
    does: dict


def servers():
    return [
        Server(EPOLL_FLOOR, FLOOR, {"echo": [FLOORS / "epoll_echo"]}),
        Server(URING_FLOOR, FLOOR, {"echo": [FLOORS / "uring_echo"]}),
        Server(WHEEL_FLOOR, FLOOR, {"play": [FLOORS / "playout_wheel"]}),
        *(our_server(style, back_end) for style in STYLES for back_end in reversed(BACK_ENDS)),
        peer(RUST_PEER, PROGRAMS / "rust-audiosocket"),
        peer(UVLOOP, VENV / "bin" / "python", BENCHES / "peers" / "uvloop_server.py"),
        peer(ASYNCIO, VENV / "bin" / "python", BENCHES / "peers" / "asyncio_server.py"),
        peer(NODE_PEER, "node", NODE / "server.mjs"),
        peer(GO_PEER, GO_PROGRAM),
    ]


def our_server(style, back_end):
    programs = {
        "callbacks": {"echo": "echo_callback"},
        "async": {"echo": "echo_async", "play": "play_clip", "block": "play_clip", "never read": "never_reads"},
    }
    chosen = ["env", f"SIDETONE_IO_BACKEND={back_end}"]
    does = {task: [*chosen, PROGRAMS / program] for task, program in programs[style].items()}
    return Server(ours(style, back_end), OURS, does)


def peer(name, *words):
    return Server(name, PEER, {task: [*words, task] for task in ("echo", "play")})


# How often a scenario is measured.
EVERY_ROUND, ONCE = "every round", "once"


@dataclass(frozen=True)
class Scenario:
    name: str
    task: str
    # The load's words.
    load: tuple
    roles: tuple
    # The server has the load's CPU, and no other.
    shared: bool = False
    # In seconds, instead of what the run says.
    warm_up: float | None = None
    seconds: float | None = None
    often: str = EVERY_ROUND
    # Our servers are asked what they allocate.
    allocations: bool = False
    # A server that did not hold the calls of the one before is not asked for more.
    climbs: bool = False


# Numbers of calls whose round trips are compared; at those of the second list the peers are measured, too.
ECHOES, ECHOES_OF_PEERS = (10, 100, 500, 1000), (100, 500, 1000)
# More and more calls, until a server does not hold them.
CLIMB = (1500, 2000, 2500, 3000)
# Frames leave up to so many milliseconds before or after their place.
JITTER = 5.5
# Calls are held when nothing is lost and 99 % of frames come within so many milliseconds of the schedule, and back within
# so many.
HELD_LATENESS, HELD_ROUND_TRIP = 5, 25
# Calls whose server's workers are all blocked, with so many busy loops on the same CPU.
BLOCKED, LOOPS = 100, 2


def scenarios():
    return [
        *(echo(calls) for calls in ECHOES),
        *(echo(calls, climbs=True) for calls in CLIMB),
        *(echo_with_jitter(calls) for calls in ECHOES),
        *(playout(calls, climbs=calls in CLIMB) for calls in (1000, *CLIMB)),
        Scenario(
            f"playout, {BLOCKED} calls, blocked",
            "block",
            ("--calls", BLOCKED, "--mode", "playout"),
            (OURS,),
            shared=True,
        ),
        set_up((FLOOR, OURS)),
        set_up((PEER,), often=ONCE),
        memory("accepted, 5000 connections", "echo", ("--calls", 5000, "--mode", "nameless"), (OURS,)),
        memory("waiting, 5000 calls", "echo", ("--calls", 5000, "--mode", "idle"), (OURS, PEER)),
        memory("never read, 1000 calls", "never read", ("--calls", 1000, "--mode", "echo"), (OURS,)),
        Scenario(
            "talking, 1000 calls",
            "echo",
            ("--calls", 1000, "--mode", "echo"),
            (OURS,),
            warm_up=4,
            seconds=10,
            often=ONCE,
            allocations=True,
        ),
    ]


def echo(calls, climbs=False):
    roles = (FLOOR, OURS, PEER) if climbs or calls in ECHOES_OF_PEERS else (FLOOR, OURS)
    load = ("--calls", calls, "--mode", "echo", "--busy-poll")
    return Scenario(f"echo, {calls} calls", "echo", load, roles, climbs=climbs)


def echo_with_jitter(calls):
    load = ("--calls", calls, "--mode", "echo", "--busy-poll", "--jitter", JITTER)
    return Scenario(f"echo with jitter, {calls} calls", "echo", load, (FLOOR, OURS))


def playout(calls, climbs=False):
    load = ("--calls", calls, "--mode", "playout", "--busy-poll")
    return Scenario(f"playout, {calls} calls", "play", load, (FLOOR, OURS, PEER), climbs=climbs)


def set_up(roles, often=EVERY_ROUND):
    load = ("--calls", 200, "--mode", "setup", "--rate", 500)
    return Scenario("set-up", "echo", load, roles, often=often)


def memory(name, task, load, roles):
    """What a call takes does not change with time."""
    return Scenario(name, task, load, roles, seconds=1, often=ONCE)


def is_held(report):
    """Nothing is lost, and frames are in time."""
    late = (report.get("pace") or {}).get("lateness_us") or {}
    back = report.get("round_trip_us") or {}
    return (
        "failed" not in report
        and report["frames"]["lost"] == 0
        and late.get("p99", 0) <= HELD_LATENESS * 1000
        and back.get("p99", 0) <= HELD_ROUND_TRIP * 1000
    )
