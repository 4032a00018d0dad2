"""One page about a run: what was made, whether the steps worked, with what, and how long it took.

The page is one HTML file that needs no other and no network; links to logs and products are
relative to it.
"""

import html
import json
import os
from importlib.resources import files
from pathlib import Path
from urllib.parse import quote

import numpy as np

from ..exceptions import InvalidRequestError
from ..pictures.encode import data_uri, thumbnail
from .look.planes import grey, read_plane
from .planning.plan import Plan
from .resume.records import Record, read_records
from .running.status import status
from .tasks import HIDDEN, log_path

__all__ = ["write_report"]

REPORT = "report.html"
"""The page, in the output directory, if no other path is given."""

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_THUMBNAIL_PIX, _MOSAIC_PIX = 128, 640
_GOOD = ("ok", "note")
_LONG = ("message", "action", "asked for", "in force", "parameters", "file", "sha256")
# How stpipe moves files about, which the run decides on.
_PLUMBING = frozenset(
    {"output_ext", "output_use_index", "output_use_model", "save_results", "search_output_file"}
    | {"suffix", "output_dir", "output_file", "input_dir", "maximum_cores"}
)
_SHOWN_VERSIONS = ("jwst", "stcal", "stdatamodels", "crds", "astroquery_lis")


def write_report(output_dir, *, path=None):
    """Write the page about the run of an output directory.

    Parameters
    ----------
    output_dir : path-like
        Where a run was, or is at work.
    path : path-like, optional
        The page, replaced if it is there; by default ``report.html`` in ``output_dir``.

    Returns
    -------
    `~pathlib.Path`
        The page.

    Raises
    ------
    InvalidRequestError
        If no run was ever begun there.
    """
    output_dir = Path(output_dir)
    path = output_dir / REPORT if path is None else Path(path)
    if path.is_dir():
        msg = f"path={str(path)!r} is a directory; give the name of the page."
        raise InvalidRequestError(msg, parameter="path", value=path)
    table = status(output_dir)
    page = _Page(output_dir, path, table)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(page.text(), encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


class _Page:
    """The parts of the page, from what the run left."""

    def __init__(self, output_dir, path, table):
        self.output_dir = output_dir
        self.folder = path.absolute().parent
        self.run = dict(table.meta)
        self.plan = Plan.load(output_dir / HIDDEN / "plan.toml")
        self.records = read_records(output_dir)
        self.rows = {row["task"]: row for row in table}

    def record(self, task):
        return self.records.get(task.name) or Record(task=task.name, state="")

    def text(self):
        title = f"JWST run: {self.output_dir.absolute().name}"
        style = files(__package__).joinpath("data", "report.css").read_text(encoding="utf-8")
        return (
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{_escape(title)}</title><style>{style}</style></head><body>"
            f"<h1>{_escape(title)}</h1>"
            f"{self.head()}{self.attention()}{self.mosaics()}{self.manifest()}{self.details()}"
            f"{self.asked()}</body></html>\n"
        )

    def head(self):
        counts = {}
        for row in self.rows.values():
            counts[row["state"]] = counts.get(row["state"], 0) + 1
        told = ", ".join(f"{n} {state}" for state, n in counts.items()) or "no tasks"
        seconds = sum(record.seconds for record in self._done())
        memory = max((record.memory_gb for record in self._done()), default=0)
        # The newest, where an output directory has seen several.
        newest = max(self._done(), key=lambda record: record.ended, default=None)
        versions = newest.versions if newest else {}
        facts = {
            "Run": self.run.get("state", ""),
            "Begun": self.run.get("started", ""),
            "Ended": self.run.get("ended", ""),
            "Host": self.run.get("host", ""),
            "Tasks": told,
            "Work": f"{seconds:.0f} s" if seconds else "",
            "Highest memory": f"{memory:.2f} GB" if memory else "",
            "CRDS context": (newest.context if newest else "") or self.run.get("context", ""),
            "Exposures": str(len(self.plan.exposures)),
            **{name: versions[name] for name in _SHOWN_VERSIONS if name in versions},
        }
        cells = "".join(
            f"<div><dt>{_escape(name)}</dt><dd>{_escape(value)}</dd></div>"
            for name, value in facts.items()
            if value
        )
        return f'<dl class="facts">{cells}</dl>'

    def _done(self):
        wanted = {task.name for task in self.plan.tasks}
        return [record for name, record in self.records.items() if name in wanted]

    def attention(self):
        """Return what went wrong or had no effect, with what to do about it."""
        lines = []
        for task in self.plan.tasks:
            row, record = self.rows[task.name], self.record(task)
            name = f'<a href="#{_anchor(task.name)}">{_escape(task.name)}</a>'
            if row["state"] in ("failed", "skipped", "interrupted"):
                kind = f" ({record.kind_of_failure})" if record.kind_of_failure else ""
                said = f"{row['state']}{kind}"
                lines.append((row["state"], said, name, row["message"] or ""))
            for line in record.checks:
                if line["outcome"] not in _GOOD:
                    said = f"{line['check']}: {line['outcome']}"
                    lines.append(("failed", said, name, f"{line['message']}. {line['action']}"))
        if not lines:
            return '<h2>Checks</h2><p class="state ok">Every step that ran had its effect.</p>'
        items = "".join(
            f'<li><span class="state {_escape(state)}">{_escape(said)}</span> {name}: '
            f"{_escape(message)}</li>"
            for state, said, name, message in lines
        )
        return f'<h2>What needs attention</h2><ul class="attention">{items}</ul>'

    def mosaics(self):
        figures = []
        for task in self.plan.tasks:
            if task.stage != 3:
                continue
            picture = self._picture(task, _MOSAIC_PIX, enlarge=True)
            if picture is None:
                continue
            ny, nx = picture.shape
            caption = self._link(self.output_dir / task.name, task.name)
            figures.append(
                f'<figure><img alt="{_escape(task.name)}" width="{nx}" height="{ny}" '
                f'src="{data_uri(picture)}"><figcaption>{caption}, {len(task.exposures)} '
                "exposures</figcaption></figure>"
            )
        if not figures:
            return ""
        return f'<h2>Mosaics</h2><div class="mosaics">{"".join(figures)}</div>'

    def _picture(self, task, size, *, enlarge=False):
        """Return the main product of a task in grey, or None: a page is made of any run."""
        path = self.output_dir / task.name
        if path.suffix != ".fits" or self.rows[task.name]["state"] not in ("done", "cached"):
            return None
        try:
            plane = read_plane(path)
        except InvalidRequestError:
            return None
        levels = grey(plane.data, dq=plane.dq)
        picture = (255 * levels[::-1]).astype(np.uint8)
        return thumbnail(picture, size, enlarge=enlarge)

    def _link(self, path, text):
        if not path.exists():
            return _escape(text)
        target = quote(Path(os.path.relpath(path.absolute(), self.folder)).as_posix())
        return f'<a href="{target}">{_escape(text)}</a>'

    def manifest(self):
        heads = ("Picture", "Product", "State", "By", "Checks", "Seconds", "GB", "Size", "Log")
        number = {"Seconds", "GB", "Size"}
        head = "".join(
            f'<th scope="col"{" class=number" if name in number else ""}>{name}</th>'
            for name in heads
        )
        body = "".join(self._row(task) for task in self.plan.tasks)
        return (
            '<h2>Manifest</h2><div class="scroll cards"><table><thead><tr>'
            f"{head}</tr></thead><tbody>{body}</tbody></table></div>"
        )

    def _row(self, task):
        row, record = self.rows[task.name], self.record(task)
        picture = self._picture(task, _THUMBNAIL_PIX)
        image = ""
        if picture is not None:
            ny, nx = picture.shape
            image = (
                f'<img loading="lazy" alt="{_escape(task.name)}" width="{nx}" height="{ny}" '
                f'src="{data_uri(picture)}">'
            )
        outcomes = {}
        for line in record.checks:
            outcomes[line["outcome"]] = outcomes.get(line["outcome"], 0) + 1
        checks = ", ".join(
            f'<span class="state {"ok" if name == "ok" else "note" if name == "note" else "bad"}">'
            f"{count} {_escape(name)}</span>"
            for name, count in outcomes.items()
        )
        size = sum(product["bytes"] for product in record.products)
        cells = [
            f'<td class="picture">{image}</td>',
            f'<td class="name">{self._link(self.output_dir / task.name, task.name)}</td>',
            f'<td data-label="State" class="state {_escape(row["state"])}">'
            f"{_escape(row['state'])}</td>",
            _cell("By", _by(task)),
            f'<td data-label="Checks">{checks}</td>',
            _cell("Seconds", f"{record.seconds:.1f}" if record.seconds else "", number=True),
            _cell("GB", f"{record.memory_gb:.2f}" if record.memory_gb else "", number=True),
            _cell("Size", f"{size / 1e6:.1f} MB" if size else "", number=True),
            f"<td>{self._link(log_path(task.name, self.output_dir), 'log') if size else ''}</td>",
        ]
        return f"<tr>{''.join(cells)}</tr>\n"

    def details(self):
        return f"<h2>Tasks</h2>{''.join(self._task(task) for task in self.plan.tasks)}"

    def _task(self, task):
        record = self.record(task)
        state = self.rows[task.name]["state"]
        parts = [
            f'<details id="{_anchor(task.name)}"><summary><strong>{_escape(task.name)}</strong> '
            f'<span class="state {_escape(state)}">{_escape(state)}</span> '
            f"{_escape(_by(task))}</summary>"
        ]
        if record.message:
            parts.append(f'<p class="state">{_escape(record.message)}</p>')
        if record.ended:
            log = self._link(log_path(task.name, self.output_dir), "log")
            parts.append(f'<p class="about">{_escape(record.ended)}, {log}</p>')
        parts += [
            _table("Checks", ("check", "outcome", "message", "action"), record.checks),
            _bars(record.steps),
            _corrections(task),
            _parameters(record, task),
            _pairs("References", record.references),
            _table("Products", ("file", "bytes", "sha256"), record.products),
            _pairs("Inputs", dict.fromkeys(map(str, task.inputs), "")),
        ]
        return f"{''.join(parts)}</details>\n"

    def asked(self):
        options = {name: value for name, value in self.plan.options.items() if value}
        options.pop("corrections", None)
        told = {name: _value(value) for name, value in options.items()}
        notes = "".join(f"<li>{_escape(note)}</li>" for note in self.plan.notes)
        notes = f"<h3>Notes of the plan</h3><ul>{notes}</ul>" if notes else ""
        return f"<h2>What was asked</h2>{_pairs('Options', told)}{notes}"


def _escape(text):
    return html.escape(str(text))


def _anchor(name):
    return _escape(name.replace("/", "-").replace(" ", "-"))


def _by(task):
    return task.pipeline or ", ".join(str(c.get("name", "")) for c in task.corrections)


def _value(value):
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)


def _cell(label, text, *, number=False):
    kind = ' class="number"' if number else ""
    return f'<td data-label="{_escape(label)}"{kind}>{_escape(text)}</td>'


def _table(title, names, rows):
    names = [name for name in names if any(row.get(name) for row in rows)]
    if not names:
        return ""
    head = "".join(f'<th scope="col">{name}</th>' for name in names)
    lines = []
    for row in rows:
        cells = []
        for name in names:
            kind = "value" if name in _LONG else "word"
            if name == "outcome":
                kind = f"state {row[name] if row[name] in _GOOD else 'bad'}"
            text = _escape(row.get(name, ""))
            cells.append(f'<td data-label="{_escape(name)}" class="{kind}">{text}</td>')
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return (
        f'<h3>{title}</h3><div class="scroll cards"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _bars(steps):
    """Return the times of the steps as bars, the longest of them full."""
    if not steps:
        return ""
    longest = max(step["seconds"] for step in steps) or 1.0
    lines = "".join(
        f'<span>{_escape(step["step"])}</span><span class="track"><span class="bar" '
        f'style="width:{100 * step["seconds"] / longest:.1f}%"></span></span>'
        f'<span class="number">{step["seconds"]:.2f} s</span>'
        f"<span>{_escape(step.get('status', ''))}</span>"
        for step in steps
    )
    return f'<h3>Steps</h3><div class="bars">{lines}</div>'


def _corrections(task):
    rows = [
        {
            "correction": f"{c.get('name')} ({c.get('suffix')})",
            "point": c.get("point"),
            "parameters": _value(c.get("parameters", {})),
            "digest": str(c.get("digest", ""))[:16],
        }
        for c in task.corrections
    ]
    return _table("Corrections", ("correction", "point", "parameters", "digest"), rows)


def _parameters(record, task):
    """Return the parameters in force; those that were asked for in the plan are marked."""
    given = record.parameters.get("steps", {}) if record.parameters else {}
    rows = []
    for step, values in given.items():
        if not isinstance(values, dict):
            continue
        asked = task.steps.get(step, {})
        kept = {
            name: value
            for name, value in values.items()
            if name in asked or (value not in (None, "None", [], "") and name not in _PLUMBING)
        }
        if not kept.get("skip"):
            kept.pop("skip", None)
        if kept.get("skip") in (True, "True"):
            kept = {"skip": True, **{name: kept[name] for name in asked if name in kept}}
        told = ", ".join(f"{n}={_value(v)}" for n, v in kept.items() if n not in asked)
        marked = ", ".join(f"{n}={_value(v)}" for n, v in kept.items() if n in asked)
        if kept:
            rows.append({"step": step, "asked for": marked, "in force": told})
    return _table("Effective parameters", ("step", "asked for", "in force"), rows)


def _pairs(title, values):
    if not values:
        return ""
    lines = "".join(
        f'<tr><th scope="row">{_escape(name)}</th><td class="value">{_escape(value)}</td></tr>'
        for name, value in values.items()
    )
    return f'<h3>{title}</h3><div class="scroll"><table><tbody>{lines}</tbody></table></div>'
