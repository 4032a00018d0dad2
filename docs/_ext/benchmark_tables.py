"""Numbers of the benchmarks: ``.. benchmark-table:: NAME`` shows what ``benchmarks.json`` has."""

import json
from pathlib import Path

from docutils.parsers.rst import Directive, directives
from docutils.statemachine import StringList
from survey_tables import list_table

__all__ = ["setup"]

RESULTS = Path(__file__).parents[1] / "benchmarks.json"
LINK = "bench_link"


def _link_rows(rows):
    """Yield heading and rows of the cutout over links: a row per link, client and cutout."""
    yield "link", "client", "cutout", "time (s)", "over the floor", "requests", "MB"
    found = {}
    for name, entry in rows.items():
        place, _, what = name.rpartition(": ")
        found.setdefault(tuple(place.split(" | ")), {})[what] = entry["value"]
    for (link, client, cutout), values in found.items():
        floor = values.get("over the floor")
        yield (
            link,
            client,
            cutout,
            f"{values['time']:.2f}",
            "" if floor is None else f"{floor:.2f} x",
            f"{values['requests']:.0f}",
            f"{values['bytes']:.2f}",
        )


def _plain_rows(rows):
    yield "what", "value", ""
    for name, entry in rows.items():
        yield name, f"{entry['value']:.4g}", entry["unit"]


def _machine_rows(machine):
    yield "", ""
    for name, value in machine.items():
        yield name, str(value)


class BenchmarkTable(Directive):
    """A table of one benchmark, or of the machine."""

    required_arguments = 1
    option_spec = {"class": directives.class_option}  # noqa: RUF012 - docutils reads it so

    def run(self):
        """Return the table."""
        self.state.document.settings.env.note_dependency(str(RESULTS))
        results = json.loads(RESULTS.read_text())
        name = self.arguments[0]
        if name == "machine":
            rows = _machine_rows(results["machine"])
        else:
            measured = results["benchmarks"][name]["rows"]
            rows = _link_rows(measured) if name == LINK else _plain_rows(measured)
        return list_table(self, list(rows), StringList)


def setup(app):
    """Register the directive."""
    app.add_directive("benchmark-table", BenchmarkTable)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
