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
    """In the median round. 0 when it held none that it was asked for, None when it was asked for none."""
    rounds = {}
    for line in figures.lines:
        kind, _, calls = line["scenario"].partition(", ")
        if line["server"] == server and kind == task and calls.endswith(" calls"):
            most = int(calls.split()[0]) if is_held(line["report"]) else 0
            rounds[line["round"]] = max(most, rounds.get(line["round"], 0))
    return statistics.median_high(rounds.values()) if rounds else None


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
