"""Who is measured, and doing what."""

from dataclasses import dataclass

from .places import BENCHES, FLOORS, GO_PROGRAM, NODE, PROGRAMS, VENV

FLOOR, OURS, PEER = "floor", "ours", "peer"

EPOLL_FLOOR = "floor: epoll"
PACED_FLOOR = "floor: epoll, 10 ms later"
URING_FLOOR = "floor: io_uring, 2 ms tick"
WHEEL_FLOOR = "floor: wheel"
RUST_PEER = "Rust `audiosocket`, tokio"
UVLOOP = "Python, uvloop"
ASYNCIO = "Python, asyncio"
NODE_PEER = "Node `asterisk-audiosocket`"
GO_PEER = "Go, CyCoreSystems"

STYLES = ("callbacks", "async")
ENGINES = ("io_uring", "epoll")


def ours(style, engine):
    return f"**sidetone, {style}, {engine}**"


@dataclass(frozen=True)
class Server:
    name: str
    role: str
    # The command line for each task that it can do, without the port and what else the task needs.
    does: dict


def servers():
    return [
        Server(EPOLL_FLOOR, FLOOR, {"echo": [FLOORS / "epoll_echo"]}),
        Server(PACED_FLOOR, FLOOR, {"echo": [FLOORS / "epoll_paced"]}),
        Server(URING_FLOOR, FLOOR, {"echo": [FLOORS / "uring_echo"]}),
        Server(WHEEL_FLOOR, FLOOR, {"play": [FLOORS / "playout_wheel"]}),
        *(our_server(style, engine) for style in STYLES for engine in reversed(ENGINES)),
        peer(RUST_PEER, PROGRAMS / "rust-audiosocket"),
        peer(UVLOOP, VENV / "bin" / "python", BENCHES / "peers" / "uvloop_server.py"),
        peer(ASYNCIO, VENV / "bin" / "python", BENCHES / "peers" / "asyncio_server.py"),
        peer(NODE_PEER, "node", NODE / "server.mjs"),
        peer(GO_PEER, GO_PROGRAM),
    ]


def our_server(style, engine):
    programs = {
        "callbacks": {"echo": "echo_callback"},
        "async": {"echo": "echo_async", "play": "play_clip", "block": "play_clip", "never read": "never_reads"},
    }
    chosen = ["env", f"SIDETONE_ENGINE={engine}"]
    does = {task: [*chosen, PROGRAMS / program] for task, program in programs[style].items()}
    return Server(ours(style, engine), OURS, does)


def peer(name, *words):
    return Server(name, PEER, {task: [*words, task] for task in ("echo", "play")})


# How often a scenario is measured.
EVERY_ROUND, ONCE, WHEN_NAMED = "every round", "once", "when named"


@dataclass(frozen=True)
class Scenario:
    name: str
    task: str
    # The load's words.
    load: tuple
    roles: tuple
    # Server and load share a CPU, or have one each.
    shared: bool = True
    # In seconds, instead of what the run says.
    warm_up: float | None = None
    seconds: float | None = None
    often: str = EVERY_ROUND
    # Our servers are asked what they allocate.
    allocations: bool = False

    @property
    def kind(self):
        return self.name.split(",")[0]


# Numbers of calls; at those of the second list the peers are measured, too.
ECHOES, ECHOES_OF_PEERS = (10, 100, 500, 1000, 2000), (100, 500, 1000)
# Calls whose server's workers are all blocked, with so many busy loops on the same CPU.
BLOCKED, LOOPS = 100, 2


def scenarios():
    return [
        *(echo(calls) for calls in ECHOES),
        Scenario(
            "echo with jitter, 10 calls",
            "echo",
            ("--calls", 10, "--mode", "echo", "--jitter", 2.75),
            (FLOOR, OURS),
        ),
        Scenario("playout, 1000 calls", "play", ("--calls", 1000, "--mode", "playout"), (FLOOR, OURS, PEER)),
        Scenario(f"playout, {BLOCKED} calls, blocked", "block", ("--calls", BLOCKED, "--mode", "playout"), (OURS,)),
        set_up((FLOOR, OURS)),
        set_up((PEER,), often=ONCE),
        memory("accepted, 5000 connections", "echo", ("--calls", 5000, "--mode", "nameless"), (OURS,)),
        waiting((OURS,)),
        waiting((PEER,), often=ONCE),
        memory("never read, 1000 calls", "never read", ("--calls", 1000, "--mode", "echo"), (OURS,)),
        Scenario(
            "talking, 1000 calls",
            "echo",
            ("--calls", 1000, "--mode", "echo"),
            (OURS,),
            shared=False,
            warm_up=4,
            seconds=10,
            often=ONCE,
            allocations=True,
        ),
        Scenario(
            "held, 4000 calls",
            "echo",
            ("--calls", 4000, "--mode", "echo"),
            (FLOOR, OURS),
            shared=False,
            seconds=60,
            often=WHEN_NAMED,
        ),
    ]


def echo(calls):
    roles = (FLOOR, OURS, PEER) if calls in ECHOES_OF_PEERS else (FLOOR, OURS)
    return Scenario(f"echo, {calls} calls", "echo", ("--calls", calls, "--mode", "echo"), roles)


def set_up(roles, often=EVERY_ROUND):
    load = ("--calls", 200, "--mode", "setup", "--rate", 500)
    return Scenario("set-up", "echo", load, roles, shared=False, often=often)


def waiting(roles, often=EVERY_ROUND):
    return memory("waiting, 5000 calls", "echo", ("--calls", 5000, "--mode", "idle"), roles, often)


def memory(name, task, load, roles, often=EVERY_ROUND):
    """What a call takes does not change with time."""
    return Scenario(name, task, load, roles, shared=False, seconds=1, often=often)
