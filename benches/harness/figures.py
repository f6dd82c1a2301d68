"""Raw figures: what benches/run writes down line by line, and everything else is made from."""

import json
import statistics
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Figures:
    # What stands above each file's figures.
    heads: dict
    # One for each measurement.
    lines: list

    def scenarios(self):
        return list(dict.fromkeys(line["scenario"] for line in self.lines))

    def of(self, scenario):
        return [line for line in self.lines if line["scenario"] == scenario]

    def values(self, scenario, server, path):
        """One for each round that has it."""
        found = (look_up(line["report"], path) for line in self.of(scenario) if line["server"] == server)
        return [value for value in found if value is not None]

    def median(self, scenario, server, path):
        values = self.values(scenario, server, path)
        return statistics.median(values) if values else None

    def worst(self, scenario, server, path):
        return max(self.values(scenario, server, path), default=None)

    def share(self, scenario, server, part, whole):
        """In per cent."""
        parts = zip(self.values(scenario, server, part), self.values(scenario, server, whole))
        shares = [100 * some / all_ for some, all_ in parts if all_]
        return statistics.median(shares) if shares else None

    def against(self, scenario, server, other, path, relation):
        """The median of what `relation` makes of both servers' figures of the same round."""
        by_round = {}
        for line in self.of(scenario):
            if (value := look_up(line["report"], path)) is not None:
                by_round.setdefault(line["round"], {})[line["server"]] = value
        pairs = [(found[server], found[other]) for found in by_round.values() if server in found and other in found]
        return statistics.median([relation(*pair) for pair in pairs]) if pairs else None

    def ratio(self, scenario, server, floor, path):
        return self.against(scenario, server, floor, path, lambda own, base: own / base)

    def difference(self, scenario, server, floor, path):
        return self.against(scenario, server, floor, path, lambda own, base: own - base)


def read(paths):
    """Of a scenario that several files have, only the last one's figures count."""
    figures = Figures({}, [])
    for path in map(Path, paths):
        head, *lines = [json.loads(line) for line in path.read_text().splitlines()]
        figures.heads[path.name] = head
        measured = {line["scenario"] for line in lines}
        figures.lines = [line for line in figures.lines if line["scenario"] not in measured] + lines
    return figures


def look_up(report, path):
    for key in path.split("."):
        report = report.get(key) if isinstance(report, dict) else None
    return report
