"""The project's targets, and what of them was reached."""

import operator
from dataclasses import dataclass

from .capacity import most_held
from .catalogue import (
    ASYNCIO,
    BLOCKED,
    ECHOES,
    BACK_ENDS,
    EPOLL_FLOOR,
    GO_PEER,
    JITTER,
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
PLAYOUT = "playout, 1000 calls"
PEERS = (RUST_PEER, UVLOOP, ASYNCIO, NODE_PEER, GO_PEER)

# What waits for a handler that doesn't read, unless set otherwise: 250 ms at 8 kHz.
RECEIVE_BUFFER = 4000 / 1024
# Where frames come anywhere within so many milliseconds, no answer can be in time for all of them sooner.
ARRIVALS = 2 * JITTER


def targets(figures):
    heads = ["what", "target", "reached, io_uring / epoll", ""]
    return "\n".join(table(heads, [row.cells() for row in rows(figures)]))


def rows(figures):
    yield from delays(figures)
    yield from crowds(figures)
    yield from costs(figures)
    yield from playing(figures)
    yield from resources(figures)


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
    """One target for all, or one for each, and which back end reached what."""

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


def by_back_end(figure, styles=("callbacks",)):
    """Of several styles the one that did worse."""
    return {back_end: worst(v for style in styles if (v := figure(ours(style, back_end))) is not None) for back_end in BACK_ENDS}


def at_least(bound, **shape):
    return Target("≥", bound, **{"form": "{:.0f}"} | shape)


def at_most(bound, **shape):
    return Target("≤", bound, **shape)


def none_of(what, reached):
    """A count that must be 0 is that of the worst round."""
    return Row(what, [Target("=", 0, "{:.0f}")], reached)


def delays(figures):
    for kind, what, median, most in [
        ("echo", "without jitter", 3, 5),
        ("echo with jitter", f"frames come within ±{JITTER:g} ms", ARRIVALS / 2 + 2.5, ARRIVALS + 2.5),
    ]:
        scenarios = [f"{kind}, {calls} calls" for calls in ECHOES]
        for percentile, bound in (("p50", median), ("p99", most)):
            reached = by_back_end(lambda server: worst(above_floor(figures, scenarios, server, percentile)), STYLES)
            yield Row(
                f"echo of 10 to 1000 calls, {what}: {percentile} of the round trip, less the floor's; the worst",
                [at_most(bound, form="{:.1f}", unit=" ms")],
                reached,
            )
        astray = by_back_end(lambda server: worst(astray_shares(figures, scenarios, server)), STYLES)
        yield Row("… frames late, lost or replaced; the worst", [at_most(0.1, unit=" %")], astray)
    first = by_back_end(lambda server: figures.median("set-up", server, "setup.first_frame_us.p50"), STYLES)
    first = {back_end: None if micros is None else micros / 1000 for back_end, micros in first.items()}
    yield Row("the first frame back after set-up, 500 calls a second: p50", [at_most(3, form="{:.1f}", unit=" ms")], first)


def above_floor(figures, scenarios, server, percentile):
    path = f"round_trip_us.{percentile}"
    found = (figures.difference(scenario, server, EPOLL_FLOOR, path) for scenario in scenarios)
    return [micros / 1000 for micros in found if micros is not None]


def astray_shares(figures, scenarios, server):
    """In per cent of what was sent, one for each scenario."""
    for scenario in scenarios:
        parts = [figures.share(scenario, server, f"frames.{part}", "frames.sent") for part in ("late", "lost", "silence")]
        if None not in parts:
            yield sum(parts)


def worst(values):
    return max(values, default=None)


def crowds(figures):
    held = by_back_end(lambda server: most_held(figures, server, "echo"))
    yield Row("echoes that one core holds", [at_least(2500), at_least(2000)], held)
    peer = worst(most for most in (most_held(figures, peer, "echo") for peer in PEERS) if most)
    if peer:
        yield Row("… the most that a peer holds, which paces nothing", [at_least(peer)], held)
    scenario = "echo, 1500 calls"
    median = by_back_end(lambda server: figures.median(scenario, server, "round_trip_us.p50"))
    median = {back_end: None if micros is None else micros / 1000 for back_end, micros in median.items()}
    yield Row("echo of 1500 calls: p50 of the round trip", [at_most(8, form="{:.1f}", unit=" ms")], median)
    scenario = "echo, 2000 calls"
    lost = by_back_end(lambda server: figures.worst(scenario, server, "frames.lost"), STYLES)
    yield none_of("echo of 2000 calls: frames lost", lost)
    latest = by_back_end(lambda server: figures.median(scenario, server, "round_trip_us.p99"), STYLES)
    latest = {back_end: None if micros is None else micros / 1000 for back_end, micros in latest.items()}
    yield Row("… p99 of the round trip", [at_most(25, form="{:.1f}", unit=" ms")], latest)
    listeners = by_back_end(lambda server: most_held(figures, server, "playout"), ["async"])
    peer = worst(most for most in (most_held(figures, peer, "playout") for peer in PEERS) if most)
    if peer:
        yield Row("listeners to a clip that one core holds, to the most of a peer", [at_least(peer)], listeners)
    blocked = milliseconds(figures, f"playout, {BLOCKED} calls, blocked")
    yield Row(
        "all workers blocked, two busy loops beside: p99 lateness of playing clips",
        [at_most(5, unit=" ms")],
        by_back_end(blocked, ["async"]),
    )


def costs(figures):
    """Ratios to the floor: the median of those of all rounds."""
    for calls, bound in ((100, 1.3), (1000, 1.2)):
        for style in STYLES:
            scenario = f"echo, {calls} calls"
            reached = by_back_end(lambda server: figures.ratio(scenario, server, EPOLL_FLOOR, CPU), [style])
            yield Row(f"echo, {style}, {calls} calls: CPU a frame, to the epoll floor", [at_most(bound)], reached)


def playing(figures):
    ratios = by_back_end(lambda server: figures.ratio(PLAYOUT, server, WHEEL_FLOOR, CPU), ["async"])
    measured = {back_end: ratio for back_end, ratio in ratios.items() if ratio}
    better = min(measured, key=measured.get, default=BACK_ENDS[0])
    yield Row(
        "a shared clip played to 1000 calls: CPU a frame, to the bare wheel; the better back end",
        [at_most(1.05)],
        {better: ratios[better]},
    )
    late = milliseconds(figures, PLAYOUT)
    yield Row("… its p99 lateness against the schedule", [at_most(1.5, unit=" ms")], by_back_end(late, ["async"]))
    underruns = by_back_end(lambda server: figures.worst(PLAYOUT, server, "pace.underruns"), ["async"])
    yield none_of("… its underruns", underruns)


def milliseconds(figures, scenario):
    def late(server):
        micros = figures.median(scenario, server, "pace.lateness_us.p99")
        return None if micros is None else micros / 1000

    return late


def resources(figures):
    path = "server.cpu_us_per_call"
    for style in STYLES:
        reached = by_back_end(lambda server: figures.ratio("set-up", server, EPOLL_FLOOR, path), [style])
        yield Row(f"set-up and teardown, {style}: CPU a call, to the epoll floor", [at_most(1.5)], reached)
    for what, scenario, style, most in [
        ("accepted and idle", "accepted, 5000 connections", "async", 2),
        ("an async handler waits", "waiting, 5000 calls", "async", 4),
        ("talking, and a callback keeps up", "talking, 1000 calls", "callbacks", 24),
        ("talking, and an async handler keeps up", "talking, 1000 calls", "async", 24),
        ("its handler never reads", "never read, 1000 calls", "async", round(RECEIVE_BUFFER + 8, 1)),
    ]:
        reached = by_back_end(lambda server: figures.median(scenario, server, RESIDENT), [style])
        yield Row(f"memory of a call: {what}", [at_most(most, unit=" KiB")], reached)
    for style in STYLES:
        path = "server.allocations"
        reached = by_back_end(lambda server: figures.worst("talking, 1000 calls", server, path), [style])
        yield none_of(f"allocations of the whole process, 1000 calls for 10 s, {style}", reached)
