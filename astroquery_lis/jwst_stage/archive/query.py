"""Which uncal files there are: the search for a request, and one tidy table of what it finds.

Three ways lead to lists of JWST files at MAST.  The keyword search of the portal shows only the
highest level of calibration and so no uncal files.  The observation search (CAOM) finds planned and
combined observations, whose lists of products repeat each file many times, hold ten times as many
of guide stars, and take minutes.  The mission search has a row per file with the keywords of its
header: a program takes one search, and one list of files for every hundred exposures.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy import log
from astropy import units as u
from astropy.table import Table
from astropy.time import Time
from astroquery.exceptions import NoResultsWarning

from ...exceptions import LegacySurveyWarning, warn
from .uncal_request import DETECTORS, UncalRequest, dataset_facts, parse_uncal_name

if TYPE_CHECKING:
    from .search import MissionSearch

_SHUTTERS = re.compile(r"jw(\d{5})(\d{3})(\d{3})_\w+_msa\.fits")


def size_text(n_bytes: int) -> str:
    """Return a number of bytes in words."""
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.1f} MB"


UNKNOWN_SIZE = -1

GUIDE_STAR = "_gs-"
"""Is in the name of every file and dataset of a guide star."""

_TYPES = {
    "file": str,
    "product": str,
    "size": np.int64,
    "uri": str,
    "program": np.int64,
    "observation": np.int64,
    "visit": np.int64,
    "activity": str,
    "exposure": np.int64,
    "segment": np.int64,
    "instrument": str,
    "detector": str,
    "filter": str,
    "pupil": str,
    "grating": str,
    "exp_type": str,
    "target": str,
    "date_obs": str,
    "s_region": str,
    "release_date": str,
    "public": bool,
}
_OF_A_DETECTOR = (
    "detector", "exp_type", "filter", "pupil", "grating", "band", "elements", "s_region", "access",
)  # fmt: skip
_TEXTS = ("instrument", "filter", "pupil", "grating", "exp_type", "target")
# Names of spectra of single sources: thousands share one association.
_SOURCE = re.compile(r"_[bsv]\d{5,}_|-s\d{5,}_")
_ASN = re.compile(r"jw(\d{5})(?:-o(\d{3})_)?.*_asn\.json")


def find_uncal(search: MissionSearch, request: UncalRequest) -> Table:
    """Return the table of the files that a request asks for."""
    rows: dict[str, list[dict]] = {}
    due: dict[str, set[str]] = {}
    for row in search.search(request.criteria(), *request.cone):
        dataset = str(row["dataset"])
        rows.setdefault(dataset, []).append(row)
        if GUIDE_STAR not in dataset and request.wants(dataset_facts(row)):
            detector = str(row.get("detector") or "").upper()
            due.setdefault(dataset, set()).update({detector} & set(DETECTORS))

    def is_complete(dataset: str, files: list[dict]) -> bool:
        names = [parse_uncal_name(str(file.get("filename"))) for file in files]
        listed = {name["detector"] for name in names if name is not None}
        return bool(files) and due[dataset] <= listed

    entries: dict[str, dict] = {}
    odd: list[str] = []
    for dataset, files in search.products(due, is_complete).items():
        exposures = _exposures(files, rows.get(dataset, []), request, odd)
        entries |= exposures
        if any(entry["instrument"] in ("", "NIRSPEC") for entry in exposures.values()):
            entries |= _shutters(files, rows.get(dataset, []))
    if odd:
        msg = (
            f"{len(odd)} uncal file(s) have names that are not those of exposures, and are left "
            "out."
        )
        warn(msg, LegacySurveyWarning)
    if request.associations and entries:
        entries |= _associations(search, request, entries.values(), set(due))
    return _tidy(entries, request, search.server)


def _exposures(
    files: Iterable[dict], rows: list[dict], request: UncalRequest, odd: list[str]
) -> dict[str, dict]:
    """Return the entries of a dataset's uncal files that are asked for; ``odd`` gets others."""
    entries = {}
    for file in files:
        filename = str(file.get("filename"))
        if not filename.endswith("_uncal.fits") or GUIDE_STAR in filename:
            continue
        name = parse_uncal_name(filename)
        if name is None:
            odd.append(filename)
            continue
        row = _row_of(str(name["detector"]), rows)
        if request.exp_type and rows and "exp_type" not in row:
            continue  # The search was for types, and found other detectors only.
        if request.wants({**row, **name}):
            entries[filename] = {
                "product": "uncal",
                **name,
                "date_obs": str(row.get("begun") or ""),
                "s_region": str(row.get("s_region") or ""),
                **{key: str(row.get(key) or "") for key in _TEXTS},
                **_file(file, row),
            }
    return entries


def _shutters(files: Iterable[dict], rows: list[dict]) -> dict[str, dict]:
    """Return the entries of the files that tell which shutters of NIRSpec's MSA were open."""
    entries = {}
    for file in files:
        filename = str(file.get("filename"))
        if match := _SHUTTERS.fullmatch(filename):
            numbers = zip(("program", "observation", "visit"), match.groups(), strict=True)
            entries[filename] = {
                "product": "msa",
                **{key: int(value) for key, value in numbers},
                "instrument": "NIRSPEC",
                **_file(file, rows[0] if rows else {}),
            }
    return entries


def _row_of(detector: str, rows: Iterable[dict[str, Any]]) -> dict:
    """Return the row of the search that a file belongs to.

    Detectors of one exposure may differ in all that a row tells of optics, type and place: of the
    row of another detector only the rest is taken.
    """
    rows = list(rows)
    detectors = [str(row.get("detector") or "").upper() for row in rows]
    if detector in detectors:
        return rows[detectors.index(detector)]
    if not rows or not all(detectors):
        return (rows or [{}])[0]
    return {key: value for key, value in rows[0].items() if key not in _OF_A_DETECTOR}


def _file(file: dict[str, Any], row: dict[str, Any]) -> dict:
    filename = str(file["filename"])
    size = file.get("size")
    released = str(row.get("released") or "")
    access = str(file.get("access") or row.get("access") or "").upper()
    return {
        "file": filename,
        "size": int(size) if size and not np.ma.is_masked(size) else UNKNOWN_SIZE,
        "uri": f"mast:JWST/product/{filename}",
        "release_date": released,
        "public": access == "PUBLIC" or (not access and _is_past(released)),
    }


def _is_past(text: str) -> bool:
    try:
        return bool(text) and Time(text, scale="utc") <= Time.now()
    except ValueError:
        return False


def _associations(
    search: MissionSearch, request: UncalRequest, entries: Iterable[dict], asked: set[str]
) -> dict[str, dict]:
    """Return the association files of the observations whose uncal files were found."""
    observations = {(entry["program"], entry["observation"]) for entry in entries}
    programs = {program for program, _ in observations}
    criteria = {"level": "2a,2b,2c,3", "program": ",".join(map(str, sorted(programs)))}
    if request.instrument:
        criteria["instrument"] = ",".join(request.instrument)
    rows = {str(row["dataset"]): row for row in search.search(criteria)}
    by_association = {_SOURCE.sub("_", name): name for name in sorted(rows, reverse=True)}
    due = asked | set(by_association.values())
    associations: dict[str, dict] = {}
    for dataset, files in search.products(sorted(due)).items():
        row = rows.get(dataset, {})
        for file in files:
            match = _ASN.fullmatch(str(file.get("filename")))
            if match is None:
                continue
            program, observation = int(match[1]), int(match[2] or 0)
            if (program, observation) in observations or (program in programs and not match[2]):
                associations[match[0]] = {
                    "product": "asn",
                    "program": program,
                    "observation": observation,
                    "instrument": str(row.get("instrument") or ""),
                    **_file(file, row),
                }
    return associations


def _tidy(entries: dict[str, dict], request: UncalRequest, server: str) -> Table:
    """Return the table, and say what is in it."""
    every = [entries[name] for name in sorted(entries)]
    listed = [entry for entry in every if entry["public"] or not request.public_only]
    table = Table(
        {
            name: np.array([entry.get(name, dtype()) for entry in listed], dtype)
            for name, dtype in _TYPES.items()
        }
    )
    table["size"].unit = u.byte
    sizes = np.array(table["size"])
    kinds = np.array(table["product"])
    table.meta.update(
        server=server,
        queried=Time.now().utc.iso[:19],
        n_uncal=int((kinds == "uncal").sum()),
        n_associations=int((kinds == "asn").sum()),
        n_shutters=int((kinds == "msa").sum()),
        n_not_public=int((~np.array(table["public"])).sum()),
        n_left_out=len(every) - len(listed),
        bytes=int(sizes[sizes > 0].sum()),
        n_unknown_size=int((sizes < 0).sum()),
    )
    log.info(_summary(table.meta))
    if not len(table):
        warn("Query returned no results.", NoResultsWarning)
    return table


def _summary(meta: dict) -> str:
    """Return the line that tells how much there is before anything is fetched."""
    text = f"{meta['n_uncal']} uncal file(s)"
    if meta["n_associations"]:
        text += f" and {meta['n_associations']} association(s)"
    if meta["n_shutters"]:
        text += f" and {meta['n_shutters']} file(s) of NIRSpec's shutters"
    text += f", {size_text(meta['bytes'])}"
    if meta["n_unknown_size"]:
        text += f" and {meta['n_unknown_size']} of unknown size"
    if meta["n_not_public"]:
        text += f"; {meta['n_not_public']} not public yet"
    if meta["n_left_out"]:
        text += f"; {meta['n_left_out']} not public yet and left out"
    return text + "."
