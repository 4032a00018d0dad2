"""The table of what became of each task of a run."""

import io
import os
from pathlib import Path

import numpy as np
from astropy.table import Table

from ...io.store import write_whole
from ..resume.fingerprints import key
from ..resume.records import Record

__all__ = ["MANIFEST", "make_manifest", "write_manifest"]

MANIFEST = "manifest.ecsv"
"""The manifest, in the output directory."""

_COLUMNS = {
    "Local Path": str,
    "Status": str,
    "Message": str,
    "URL": str,
    "task": str,
    "stage": int,
    "pipeline": str,
    "failure": str,
    "checks": str,
    "seconds": float,
    "memory_gb": float,
    "bytes": np.int64,
    "sha256": str,
    "key": str,
}


def make_manifest(output_dir, plan, records, *, states, cached=(), reasons=None, again=None):
    """Return what became of each task.

    Parameters
    ----------
    output_dir : path-like
        The output directory.
    plan : Plan
        What was to be done.
    records : dict of str to Record
        By task.
    states : dict of str to str
        'done', 'failed' or 'skipped', by task.
    cached : collection of str, optional
        Tasks that were done before.
    reasons : dict of str to str, optional
        Why tasks were skipped or made in part.
    again : dict of str to str, optional
        Why tasks were begun a second time.

    Returns
    -------
    `~astropy.table.Table`
        A row for each task in the order of the plan: ``Local Path`` of the main product,
        ``Status`` (COMPLETE, CACHED, SKIPPED, ERROR), ``Message``, ``URL`` (empty), ``task``,
        ``stage``, ``pipeline`` (or the correction), ``failure`` (data, reference, memory,
        parameter, code, killed), ``checks``, ``seconds``, ``memory_gb``, ``bytes``, ``sha256`` and
        the ``key`` of the fingerprint.
    """
    rows = []
    reasons, again = reasons or {}, again or {}
    for task in plan.tasks:
        state = states[task.name]
        record = records.get(task.name) or Record(task=task.name, state=state)
        is_done, is_skipped = state == "done", state == "skipped"
        words = {"done": "COMPLETE", "failed": "ERROR", "skipped": "SKIPPED"}
        status = "CACHED" if task.name in cached else words.get(state, "SKIPPED")
        product = record.products[0] if is_done and record.products else {}
        told = [notes[task.name] for notes in (reasons, again) if task.name in notes]
        if is_done:
            told += [_told(line) for line in record.checks if line["outcome"] not in ("ok", "note")]
        elif not is_skipped:
            told.append(record.message)
        known = record.state == state
        rows.append(
            (
                os.fspath(Path(output_dir, product["file"])) if product else "",
                status,
                " ".join(told),
                "",
                task.name,
                task.stage,
                task.pipeline or "+".join(str(c.get("name", "")) for c in task.corrections),
                record.kind_of_failure if state == "failed" else "",
                "; ".join(_short(line) for line in record.checks) if known else "",
                record.seconds if known else 0.0,
                record.memory_gb if known else 0.0,
                product.get("bytes", 0),
                product.get("sha256", ""),
                key(record.fingerprint) if known and record.fingerprint else "",
            )
        )
    table = Table(rows=rows or None, names=list(_COLUMNS), dtype=list(_COLUMNS.values()))
    table["seconds"].info.format = ".1f"
    table["memory_gb"].info.format = ".2f"
    return table


def write_manifest(output_dir, plan, records, **known):
    """Make the manifest, put it into the output directory, and return it.

    Parameters
    ----------
    output_dir, plan, records, **known
        As for `make_manifest`.

    Returns
    -------
    `~astropy.table.Table`
    """
    table = make_manifest(output_dir, plan, records, **known)
    text = io.StringIO()
    table.write(text, format="ascii.ecsv")
    with write_whole(Path(output_dir, MANIFEST)) as temporary:
        temporary.write_text(text.getvalue())
    return table


def _told(line):
    return f"{line['message']}. {line['action']}".strip()


def _short(line):
    return f"{line['check']} {line['outcome']}"
