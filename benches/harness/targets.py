"""The project's targets, and what of them was reached."""

import operator
from dataclasses import dataclass

from .catalogue import (
    ASYNCIO,
    BLOCKED,
    ENGINES,
    EPOLL_FLOOR,
    GO_PEER,
    NODE_PEER,
    RUST_PEER,
    STYLES,
    UVLOOP,
    WHEEL_FLOOR,
    ours,
)
from .document import table

CPU = "server.cpu_us_per_frame"
RESIDENT = "server.rss_kib_per_call"
ECHO_1000 = "echo, 1000 calls"
PLAYOUT = "playout, 1000 calls"
TURNS = {"without jitter": "echo, 10 calls", "with Asterisk's jitter": "echo with jitter, 10 calls"}

# What waits for a handler that doesn't read, unless set otherwise: 250 ms at 8 kHz.
RECEIVE_BUFFER = 4000 / 1024
# Asterisk's frames leave anywhere within so many ms; 99.9 % of them within as good as all of it.
JITTER = 5.5


def targets(figures):
    heads = ["what", "target", "reached, io_uring / epoll", ""]
    return "\n".join(table(heads, [row.cells() for row in rows(figures)]))


def rows(figures):
    yield from costs(figures)
    yield from playing(figures)
    yield from crowds(figures)
    yield from resources(figures)
    yield from turns(figures)
    yield from rivals(figures)


@dataclass(frozen=True)
class Target:
    sign: str
    bound: float
    form: str = "{:.2f}"
    unit: str = ""

    def __str__(self):
        bound = f"{self.bound:g}{self.unit}"
        return bound if self.sign == "=" else f"{self.sign} {bound}"

    def shown(self, value):
        return "–" if value is None else self.form.format(value) + self.unit

    def verdict(self, value):
        if value is None:
            return "not measured"
        holds = {"≤": operator.le, "<": operator.lt, "≥": operator.ge, "=": operator.eq}[self.sign]
        return "met" if holds(value, self.bound) else "**missed**"


@dataclass(frozen=True)
class Row:
    """One target for all, or one for each, and which engine reached what."""

    what: str
    targets: list
    reached: dict

    def cells(self):
        each = self.targets * len(self.reached) if len(self.targets) == 1 else self.targets
        pairs = list(zip(each, self.reached.values()))
        verdicts = [target.verdict(value) for target, value in pairs]
        reached = " / ".join(target.shown(value) for target, value in pairs)
        return [
            self.what,
            " / ".join(str(target) for target in self.targets),
            reached if len(pairs) > 1 else f"{reached} ({', '.join(self.reached)})",
            verdicts[0] if len(set(verdicts)) == 1 else " / ".join(verdicts),
        ]


def by_engine(figure, style="callbacks"):
    return {engine: figure(ours(style, engine)) for engine in ENGINES}


def at_most(bound, **shape):
    return Target("≤", bound, **shape)


def none_of(what, reached):
    """A count that must be 0 is that of the worst round."""
    return Row(what, [Target("=", 0, "{:.0f}")], reached)


def costs(figures):
    """Ratios to the floor: the median of those of all rounds."""

    def row(what, scenario, style, io_uring, epoll):
        reached = by_engine(lambda server: figures.ratio(scenario, server, EPOLL_FLOOR, CPU), style)
        return Row(f"{what}: CPU a frame, to the epoll floor", [at_most(io_uring), at_most(epoll)], reached)

    yield row("echo with callbacks, 1000 calls", ECHO_1000, "callbacks", 0.85, 1.10)
    yield row("echo with callbacks, 100 calls", "echo, 100 calls", "callbacks", 0.75, 1.15)
    yield row("echo as `async fn`, 1000 calls", ECHO_1000, "async", 1.15, 1.35)


def playing(figures):
    ratios = by_engine(lambda server: figures.ratio(PLAYOUT, server, WHEEL_FLOOR, CPU), "async")
    measured = {engine: ratio for engine, ratio in ratios.items() if ratio}
    better = min(measured, key=measured.get, default=ENGINES[0])
    yield Row(
        "a shared clip played to 1000 calls: CPU a frame, to the bare wheel; the better engine",
        [at_most(1.05)],
        {better: ratios[better]},
    )
    late = milliseconds(figures, PLAYOUT)
    yield Row("… its p99 lateness against the grid", [at_most(1.5, unit=" ms")], by_engine(late, "async"))
    underruns = by_engine(lambda server: figures.worst(PLAYOUT, server, "pace.underruns"), "async")
    yield none_of("… its underruns", underruns)


def milliseconds(figures, scenario):
    def late(server):
        micros = figures.median(scenario, server, "pace.lateness_us.p99")
        return None if micros is None else micros / 1000

    return late


def crowds(figures):
    scenario = "echo, 2000 calls"
    lost = by_engine(lambda server: figures.worst(scenario, server, "frames.lost"))
    yield none_of("echo, 2000 calls on one CPU shared with the load: frames lost", lost)
    late = by_engine(lambda server: figures.share(scenario, server, "frames.late", "frames.returned"))
    yield Row("… frames more than 20 ms late", [Target("<", 0.1, unit=" %")], late)
    lost = by_engine(lambda server: figures.worst("held, 4000 calls", server, "frames.lost"))
    yield none_of("echo, 4000 calls on two CPUs for a minute: frames lost", lost)
    blocked = milliseconds(figures, f"playout, {BLOCKED} calls, blocked")
    yield Row(
        "all workers blocked, two busy loops beside: p99 lateness of playing clips",
        [at_most(5, unit=" ms")],
        by_engine(blocked, "async"),
    )


def resources(figures):
    path = "server.cpu_us_per_call"
    for style in STYLES:
        reached = by_engine(lambda server: figures.ratio("set-up", server, EPOLL_FLOOR, path), style)
        yield Row(f"set-up and teardown, {style}: CPU a call, to the epoll floor", [at_most(1.5)], reached)
    for what, scenario, style, most in [
        ("accepted and idle", "accepted, 5000 connections", "async", 2),
        ("an async handler waits", "waiting, 5000 calls", "async", 4),
        ("talking, and a callback keeps up", "talking, 1000 calls", "callbacks", 24),
        ("talking, and an async handler keeps up", "talking, 1000 calls", "async", 24),
        ("its handler never reads", "never read, 1000 calls", "async", round(RECEIVE_BUFFER + 8, 1)),
    ]:
        reached = by_engine(lambda server: figures.median(scenario, server, RESIDENT), style)
        yield Row(f"memory of a call: {what}", [at_most(most, unit=" KiB")], reached)
    for style in STYLES:
        path = "server.allocations"
        reached = by_engine(lambda server: figures.worst("talking, 1000 calls", server, path), style)
        yield none_of(f"allocations of the whole process, 1000 calls for 10 s, {style}", reached)


def turns(figures):
    for (what, scenario), most in zip(TURNS.items(), (5, JITTER + 3)):
        for percentile in ("p50", "p99"):
            path = f"round_trip_us.{percentile}"
            differences = by_engine(lambda server: figures.difference(scenario, server, EPOLL_FLOOR, path))
            yield Row(
                f"echo of 10 calls {what}: {percentile} of the round trip, less the floor's",
                [at_most(most, unit=" ms")],
                {engine: None if micros is None else micros / 1000 for engine, micros in differences.items()},
            )


def rivals(figures):
    for peer, least in {ASYNCIO: 2.5, NODE_PEER: 2.5, GO_PEER: 2.2, UVLOOP: 2, RUST_PEER: 1.3}.items():
        reached = by_engine(lambda server: figures.ratio(ECHO_1000, peer, server, CPU))
        yield Row(f"echo of 1000 calls: CPU a frame of {peer}, to ours with callbacks", [Target("≥", least)], reached)
