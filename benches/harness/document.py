"""The parts of BENCHMARKS.md that programs write, each between comments of its own."""

from .places import DOCUMENT


def write_part(name, text):
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, rest = DOCUMENT.read_text().split(begin, 1)
    _, after = rest.split(end, 1)
    DOCUMENT.write_text(f"{before}{begin}\n\n{text.strip()}\n\n{end}{after}")


def table(heads, rows):
    """The lines of one, with an empty one behind."""
    lines = [heads, ["---"] * len(heads), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines] + [""]
