"""The tables of what was measured: a row for each server, medians with their range."""

import statistics

from .capacity import calls_on_one_core
from .catalogue import EPOLL_FLOOR, WHEEL_FLOOR
from .document import table
from .machine import sentence

CORE = ("core %", "server.cpu_percent", "{:.0f}")
COST = ("CPU µs a frame", "server.cpu_us_per_frame", "{:.2f}")
MEMORY = ("KiB a call", "server.rss_kib_per_call", "{:.2f}")
FRAMES = [
    ("lost", "frames.lost", "{:.0f}"),
    ("late", "frames.late", "{:.0f}"),
    ("replaced", "frames.silence", "{:.0f}"),
    ("load's own µs", "load_cpu_us_per_frame", "{:.2f}"),
]
SENT_LATE = ("load sent late p99 µs", "send_lateness_us.p99", "{:.0f}")
ECHO = [
    COST,
    CORE,
    ("round trip p50 µs", "round_trip_us.p50", "{:.0f}"),
    ("p99 µs", "round_trip_us.p99", "{:.0f}"),
    ("lateness p99 µs", "pace.lateness_us.p99", "{:.0f}"),
    *FRAMES,
    SENT_LATE,
]
RESIDENT = [
    MEMORY,
    ("KiB before", "server.rss_before_kib", "{:.0f}"),
    ("CPU %", "server.cpu_percent", "{:.1f}"),
]
COLUMNS = {
    "echo": ECHO,
    "echo with jitter": ECHO,
    "talking": [("allocations", "server.allocations", "{:.0f}"), MEMORY, COST, *FRAMES, SENT_LATE],
    "playout": [
        COST,
        CORE,
        ("lateness p50 µs", "pace.lateness_us.p50", "{:.0f}"),
        ("p99 µs", "pace.lateness_us.p99", "{:.0f}"),
        ("underruns", "pace.underruns", "{:.0f}"),
        *FRAMES,
    ],
    "set-up": [
        ("CPU µs a call", "server.cpu_us_per_call", "{:.1f}"),
        ("first frame p50 µs", "setup.first_frame_us.p50", "{:.0f}"),
        ("calls a second", "setup.per_second", "{:.0f}"),
        ("failed", "setup.failed", "{:.0f}"),
    ],
    "accepted": RESIDENT,
    "waiting": RESIDENT,
    "never read": RESIDENT,
}


def tables(figures):
    lines = []
    for file, head in figures.heads.items():
        for paragraph in above(head, file):
            lines += [paragraph, ""]
    stolen = max(line["stolen_percent"] for line in figures.lines)
    lines += [f"At most {stolen:.1f} % of a measurement's time went to the host.", ""]
    lines += calls_on_one_core(figures)
    for scenario in figures.scenarios():
        lines += of_scenario(figures, scenario)
    return "\n".join(lines)


def above(head, file):
    yield (
        f"Taken {head['date']} at `{head['commit']}`: {head['rounds']} rounds of {head['seconds']:g} s, {sentence(head)}. "
        f"Load average at the beginning {head['load_average']:.1f}. Raw figures: `benches/results/{file}`."
    )
    if head["quick"]:
        yield "**A smoke run: it proves that everything runs. Its figures say nothing.**"
    for name, why in head["missing"].items():
        yield f"Missing: {name} ({why})."


def of_scenario(figures, scenario):
    lines = figures.of(scenario)
    servers = list(dict.fromkeys(line["server"] for line in lines))
    columns = COLUMNS[scenario.split(",")[0]]
    floor = next((floor for floor in (EPOLL_FLOOR, WHEEL_FLOOR) if floor in servers), None)
    heads = ["server", *(head for head, _, _ in columns)]
    if floor:
        heads.insert(2, "× floor")
    rows = []
    for server in servers:
        cells = [spread(figures.values(scenario, server, path), form) for _, path, form in columns]
        if floor:
            ratio = figures.ratio(scenario, server, floor, columns[0][1])
            cells.insert(1, f"{ratio:.2f}" if ratio else "–")
        rows.append([server, *cells])
    failed = [failure(line) for line in lines if "failed" in line["report"]]
    return [f"### {scenario[0].upper()}{scenario[1:]}", "", *table(heads, rows), *failed]


def failure(line):
    return f"{line['server']} failed: {line['report']['failed']}.\n"


def spread(values, form):
    """Median and range."""
    if not values:
        return "–"
    middle, low, high = (form.format(value) for value in (statistics.median(values), min(values), max(values)))
    return middle if low == high else f"{middle} ({low}–{high})"
