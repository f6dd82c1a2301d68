"""How many calls a server holds on one core."""

import statistics

from .catalogue import is_held
from .document import table
from .figures import look_up

HEADS = [
    "server",
    "echoes",
    "core %",
    "round trip p50 ms",
    "p99 ms",
    "listeners",
    "core %",
    "lateness p99 ms",
]
CORE, ROUND_TRIP, LATENESS = "server.cpu_percent", "round_trip_us.{}", "pace.lateness_us.p99"


def calls_on_one_core(figures):
    """The lines of the table, the most echoes first."""
    servers = list(dict.fromkeys(line["server"] for line in figures.lines))
    held = {server: (most_held(figures, server, "echo"), most_held(figures, server, "playout")) for server in servers}
    rows = [row(figures, server, *most) for server, most in held.items() if any(most)]
    if not rows:
        return []
    rows.sort(key=lambda cells: -int(cells[1]) if cells[1].isdigit() else 0)
    return ["### Calls on one core", "", *table(HEADS, rows)]


def most_held(figures, server, task):
    """In the median round. None of it when it did not hold the fewest that it was asked for."""
    rounds = {}
    for line in figures.lines:
        kind, _, calls = line["scenario"].partition(", ")
        if line["server"] == server and kind == task and calls.endswith(" calls"):
            rounds.setdefault(line["round"], {})[int(calls.split()[0])] = is_held(line["report"])
    most = [most_of(held) for held in rounds.values()]
    return int(statistics.median_low(most)) if most else None


def most_of(held):
    """The number of calls before the first that was not held; 0 if there is none."""
    most = 0
    for calls in sorted(held):
        if not held[calls]:
            break
        most = calls
    return most


def row(figures, server, echoes, listeners):
    def cell(task, calls, path, unit=1, form="{:.1f}"):
        values = figures.values(f"{task}, {calls} calls", server, path)
        return form.format(statistics.median(values) / unit) if values else "–"

    return [
        server,
        "–" if echoes is None else str(echoes),
        cell("echo", echoes, CORE, form="{:.0f}"),
        cell("echo", echoes, ROUND_TRIP.format("p50"), 1000),
        cell("echo", echoes, ROUND_TRIP.format("p99"), 1000),
        "–" if listeners is None else str(listeners),
        cell("playout", listeners, CORE, form="{:.0f}"),
        cell("playout", listeners, LATENESS, 1000),
    ]
