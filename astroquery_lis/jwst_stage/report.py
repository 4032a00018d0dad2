"""One page about a run: what was made, whether the steps worked, with what, and how long it took.

Links to logs and products are relative to the page.
"""

from __future__ import annotations

import json
import os
import pprint
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np

from ..exceptions import InvalidRequestError
from ..io.whole_files import write_bytes
from ..pictures.page import (
    Markup,
    escape,
    facts,
    figure,
    figures,
    html_page,
    image,
    section,
    span,
    table,
    write_page,
)
from ..pictures.rgb import thumbnail
from .look import grey, read_plane
from .parameters import UNHEEDED
from .planning import Plan
from .planning.associations import association_document, association_path
from .running.progress import status
from .tasks import HIDDEN, Record, log_path, read_records

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .._typing import FilePath, Table
    from .tasks import Task

REPORT = "report.html"
"""The page, in the output directory, if no other path is given."""

_SCRIPT_HEAD = Path(__file__).with_name("data") / "plain_script.txt"
_THUMBNAIL_PIX, _MOSAIC_PIX = 128, 640
_GOOD = ("ok", "note")


def write_report(output_dir: FilePath, *, path: FilePath | None = None) -> Path:
    """Write the page about the run of an output directory, by default as ``report.html`` in it.

    Beside it, a script makes the products again with calls of `jwst` alone.
    """
    output_dir = Path(output_dir)
    path = output_dir / REPORT if path is None else Path(path)
    if path.is_dir():
        msg = f"path={str(path)!r} is a directory; give the name of the page."
        raise InvalidRequestError(msg, parameter="path", value=path)
    report = _Report(output_dir, path, status(output_dir))
    newest = report.newest
    script = plain_script(report.plan.tasks, output_dir, newest.environment, newest.context)
    write_bytes(report.script, script.encode())
    title = f"JWST run: {output_dir.absolute().name}"
    return write_page(path, html_page(title, report.body()))


class _Report:
    """The parts of the page, from what the run left."""

    def __init__(self, output_dir: Path, path: Path, states: Table) -> None:
        self.output_dir = output_dir
        self.folder = path.absolute().parent
        self.run = dict(states.meta)
        self.plan = Plan.load(output_dir / HIDDEN / "plan.toml")
        self.rows = {row["task"]: row for row in states}
        records = read_records(output_dir)
        names = [task.name for task in self.plan.tasks]
        self.finished = [record for name, record in records.items() if name in names]
        self.records = {name: records.get(name) or Record(task=name, state="") for name in names}
        # Where an output directory has seen several runs, the last one counts.
        self.newest = max(self.finished, key=lambda r: r.ended, default=Record(task="", state=""))
        self.script = path.with_name(f"{path.stem}_plain.py")

    def body(self) -> str:
        heads = ("Picture", "Product", "State", "By", "Checks", "Seconds", "GB", "Size", "Log")
        kinds = {"Picture": "picture", "Product": "name"}
        kinds |= dict.fromkeys(("Seconds", "GB", "Size"), "number")
        rows = (self._manifest_row(task) for task in self.plan.tasks)
        parts = [
            self._overview(),
            self._attention(),
            self._mosaics(),
            section("Manifest", table(heads, rows, kinds)),
            section("Tasks", *(self._details(task) for task in self.plan.tasks)),
            self._options(),
        ]
        return "".join(parts)

    def _overview(self) -> Markup:
        counts = Counter(row["state"] for row in self.rows.values())
        seconds = sum(record.seconds for record in self.finished)
        memory = max((record.memory_gb for record in self.finished), default=0)
        return facts(
            {
                "Run": self.run.get("state", ""),
                "Begun": self.run.get("started", ""),
                "Ended": self.run.get("ended", ""),
                "Host": self.run.get("host", ""),
                "Tasks": ", ".join(f"{n} {state}" for state, n in counts.items()) or "no tasks",
                "Work": _amount(seconds, "{:.0f} s"),
                "Highest memory": _amount(memory, "{:.2f} GB"),
                "CRDS context": self.newest.context or self.run.get("context", ""),
                "Exposures": len(self.plan.exposures),
                **self.newest.versions,
            }
        )

    def _attention(self) -> Markup:
        """Return what went wrong or had no effect, with what to do about it."""
        lines = []
        for task in self.plan.tasks:
            lines += self._faults(task)
        if not lines:
            fine = Markup('<p class="state ok">Every step that ran had its effect.</p>')
            return section("Checks", fine)
        return section("What needs attention", _items(map(Markup, lines)))

    def _faults(self, task: Task) -> list[str]:
        """Return a line for the failure of a task, and for each check that is not good."""
        row, record = self.rows[task.name], self.records[task.name]
        link = f'<a href="#{_anchor(task.name)}">{escape(task.name)}</a>'
        lines = []
        if row["state"] in ("failed", "skipped", "interrupted"):
            kind = f" ({record.kind_of_failure})" if record.kind_of_failure else ""
            state = span(f"{row['state']}{kind}", f"state {row['state']}")
            lines.append(f"{state} {link}: {escape(row['message'] or '')}")
        for line in record.checks:
            if line["outcome"] not in _GOOD:
                state = span(f"{line['check']}: {line['outcome']}", "state")
                lines.append(f"{state} {link}: {escape(line['message'])}. {escape(line['action'])}")
        return lines

    def _mosaics(self) -> Markup | str:
        parts = []
        for task in self.plan.tasks:
            picture = self._picture(task, _MOSAIC_PIX, enlarge=True) if task.stage == 3 else None
            if picture is not None:
                link = self._link(self.output_dir / task.name, task.name)
                caption = Markup(f"{link}, {len(task.exposures)} exposures")
                parts.append(figure(picture, task.name, caption))
        return section("Mosaics", figures(*parts)) if parts else ""

    def _picture(self, task: Task, size: int, *, enlarge: bool = False) -> np.ndarray | None:
        """Return the main product of a task in grey, or None: a page is made of any run."""
        path = self.output_dir / task.name
        if path.suffix != ".fits" or self.rows[task.name]["state"] not in ("done", "cached"):
            return None
        try:
            plane = read_plane(path)
        except InvalidRequestError:
            return None
        levels = grey(plane.data, dq=plane.dq)
        return thumbnail((255 * levels[::-1]).astype(np.uint8), size, enlarge=enlarge)

    def _link(self, path: Path, text: str) -> Markup:
        if not path.exists():
            return escape(text)
        target = quote(Path(os.path.relpath(path.absolute(), self.folder)).as_posix())
        return Markup(f'<a href="{target}">{escape(text)}</a>')

    def _manifest_row(self, task: Task) -> list[str]:
        state, record = self.rows[task.name]["state"], self.records[task.name]
        picture = self._picture(task, _THUMBNAIL_PIX)
        outcomes = Counter(line["outcome"] for line in record.checks)
        checks = ", ".join(span(f"{n} {name}", f"state {name}") for name, n in outcomes.items())
        size = sum(product["bytes"] for product in record.products)
        return [
            "" if picture is None else image(picture, task.name),
            self._link(self.output_dir / task.name, task.name),
            span(state, f"state {state}"),
            task.work,
            Markup(checks),
            _amount(record.seconds, "{:.1f}"),
            _amount(record.memory_gb, "{:.2f}"),
            _amount(size / 1e6, "{:.1f} MB"),
            self._link(log_path(task.name, self.output_dir), "log") if size else "",
        ]

    def _details(self, task: Task) -> Markup:
        record, state = self.records[task.name], self.rows[task.name]["state"]
        notes = []
        if record.message:
            notes.append(f'<p class="state">{escape(record.message)}</p>')
        if record.ended:
            log = self._link(log_path(task.name, self.output_dir), "log")
            notes.append(f'<p class="about">{escape(record.ended)}, {log}</p>')
        checks = [{**line, "outcome": _outcome(line["outcome"])} for line in record.checks]
        parts = [
            *notes,
            _table("Checks", ("check", "outcome", "message", "action"), checks),
            _bars(record.steps),
            _corrections(task),
            _parameters(record, task),
            _titled("References", facts(record.references)) if record.references else "",
            _table("Products", ("file", "bytes", "sha256"), record.products),
            self._members(task),
        ]
        return Markup(
            f'<details id="{_anchor(task.name)}"><summary><strong>{escape(task.name)}</strong> '
            f"{span(state, f'state {state}')} {escape(task.work)}</summary>{''.join(parts)}"
            "</details>\n"
        )

    def _members(self, task: Task) -> str:
        """Return what a product is made of, with the roles where there is more than one."""
        if not task.members:
            return _titled("Inputs", _items(map(str, task.inputs))) if task.inputs else ""
        rows = [{"role": m.exptype, "member": m.name} for m in task.members]
        return _table("Members", ("role", "member"), rows)

    def _options(self) -> Markup:
        options = {name: _value(value) for name, value in self.plan.options.items() if value}
        options.pop("corrections", None)
        notes = _titled("Notes of the plan", _items(self.plan.notes)) if self.plan.notes else ""
        link = self._link(self.script, self.script.name)
        again = Markup(f"<p>The same with calls of jwst alone: {link}</p>")
        return section("What was asked", facts(options) if options else "", notes, again)


def _amount(value: float, form: str) -> str:
    """Return a number as text; nothing where there is none."""
    return form.format(value) if value else ""


def _anchor(name: str) -> Markup:
    return escape(name.replace("/", "-").replace(" ", "-"))


def _value(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)


def _outcome(outcome: str) -> Markup:
    return span(outcome, f"state {outcome}")


def _titled(title: str, body: str) -> Markup:
    return Markup(f"<h3>{title}</h3>{body}")


def _items(lines: Iterable[str]) -> Markup:
    return Markup(f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>")


def _table(title: str, names: Iterable[str], rows: Iterable[Mapping[str, Any]]) -> Markup | str:
    """Return a table of the columns that have a value in any row."""
    rows = list(rows)
    names = [name for name in names if any(row.get(name) for row in rows)]
    if not names:
        return ""
    cells = ([row.get(name, "") for name in names] for row in rows)
    words = {"check", "outcome", "correction", "point", "step", "bytes", "digest"}
    kinds = {name: "value" for name in names if name not in words}
    return _titled(title, table(names, cells, kinds))


def _bars(steps: list[dict[str, Any]]) -> Markup | str:
    """Return the times of the steps as bars, the longest of them full."""
    if not steps:
        return ""
    longest = max(step["seconds"] for step in steps) or 1.0
    lines = "".join(
        f'<span>{escape(step["step"])}</span><span class="track"><span class="bar" '
        f'style="width:{100 * step["seconds"] / longest:.1f}%"></span></span>'
        f'<span class="number">{step["seconds"]:.2f} s</span>'
        f"<span>{escape(step.get('status', ''))}</span>"
        for step in steps
    )
    return _titled("Steps", f'<div class="bars">{lines}</div>')


def _corrections(task: Task) -> Markup | str:
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


def _parameters(record: Record, task: Task) -> Markup | str:
    """Return the parameters in force, apart from those that the plan asked for."""
    steps = record.parameters.get("steps", {}) if record.parameters else {}
    rows = []
    for step, values in steps.items():
        if isinstance(values, dict) and (shown := _shown(values, task.steps.get(step, {}))):
            texts = {name: f"{name}={_value(value)}" for name, value in shown.items()}
            requested = [texts.pop(name) for name in task.steps.get(step, {}) if name in texts]
            row = {"asked for": ", ".join(requested), "in force": ", ".join(texts.values())}
            rows.append({"step": step, **row})
    return _table("Effective parameters", ("step", "asked for", "in force"), rows)


def _shown(values: dict[str, Any], requested: dict[str, Any]) -> dict[str, object]:
    """Return the parameters of a step that say something."""
    if values.get("skip") in (True, "True"):
        # Of a step that is left out only what was asked for matters.
        return {name: values[name] for name in ("skip", *requested) if name in values}
    # Where the exposures were kept tells of memory and time.
    plumbing = UNHEEDED - {"in_memory"}
    hidden = plumbing if values.get("skip") else {*plumbing, "skip"}
    return {
        name: value
        for name, value in values.items()
        if name in requested or (value not in (None, "None", [], "") and name not in hidden)
    }


def plain_script(
    tasks: Iterable[Task], output_dir: Path, environment: Mapping[str, str], context: str
) -> str:
    """Return the script of the tasks of a run."""
    variables = {k: v for k, v in environment.items() if k in ("CRDS_PATH", "CRDS_CONTEXT")}
    variables |= {"CRDS_CONTEXT": context} if context else {}
    text = _SCRIPT_HEAD.read_text(encoding="utf-8")
    head = text.format(made=str(output_dir.absolute()), variables=variables)
    return head + "\n".join(_script_lines(task, output_dir) for task in tasks)


def _script_lines(task: Task, output_dir: Path) -> str:
    if task.kind != "pipeline":
        names = ", ".join(task.correction_names)
        return f"# {task.name} is what the correction {names} made of {task.inputs[0]}.\n"
    inputs = dict.fromkeys([*task.inputs, *(m.name for m in task.members)])
    arguments = [repr(task.pipeline), repr(task.name)]
    arguments += [_script_text(list(inputs)), _script_text(task.steps)]
    if task.members:
        document = {
            "name": association_path(task, "").name,
            "content": association_document(task, output_dir, None),
        }
        arguments.append(_script_text(document))
    note = ""
    if task.corrections:
        names = ", ".join(task.correction_names)
        note = f"# Without the correction {names}, which works within the pipeline:\n"
    body = ",\n".join(f"    {argument}" for argument in arguments)
    return f"{note}call(\n{body},\n)\n"


def _script_text(value: object) -> str:
    return pprint.pformat(value, width=90, sort_dicts=False).replace("\n", "\n    ")
