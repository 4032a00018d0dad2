"""Whether a product is whole, and whether the steps that say COMPLETE did anything.

A step of jwst that finds nothing to do, or fails to do it, may still be COMPLETE in the header; the
checks here look at the effect.
"""

from __future__ import annotations

import json
import math
import re
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from astropy.io import fits
from astropy.table import Table

from ...exceptions import TransferError
from ...io.whole_files import fits_headers
from ..tasks import ASDF_CARD

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from ..._typing import FilePath
    from ..tasks import Task
    from .work import LogWatch

OK, NOTE, NO_EFFECT, FAILED = "ok", "note", "no effect", "failed"

_JUMP_DET = 4
_IMPLAUSIBLE = 0.25

_EXPOSURES = ("rate", "rateints", "cal", "calints", "crf", "crfints")
_EXTENSIONS = {
    **dict.fromkeys(_EXPOSURES, frozenset({"SCI", "ERR", "DQ"})),
    **dict.fromkeys(("i2d", "s2d"), frozenset({"SCI", "ERR"})),
    **dict.fromkeys(("segm", "dark"), frozenset({"SCI"})),
    "x1d": frozenset({"EXTRACT1D"}),
}
_WITH_PIXELS = frozenset(_EXTENSIONS) - {"segm", "x1d"}
"""Kinds of products that are of no use if every pixel is NaN."""

_GROUP_CARDS = ("PROGRAM", "OBSERVTN", "VISIT", "VISITGRP", "SEQ_ID", "ACT_ID", "EXPOSURE")
# An id that is null or empty is none.
_GROUP_ID = re.compile(rb"^  group_id: +(?!null\s*$|~\s*$)['\"]?([^'\"\s][^'\"\n]*)", re.MULTILINE)
_MOVED_FRAME = b"v2v3corr"

_ACTIONS = {
    "S_TWKREG": (
        "Lower tweakreg.minobj or snr_threshold, raise searchrad (with a reference catalogue: "
        "abs_minobj, abs_searchrad), or check the log for how many sources were found in each "
        "image and in the catalogue."
    ),
    "S_SKYMAT": "Check that the images overlap and that group identifiers differ.",
    "background": "See the log of the task for the reason; background exposures have to fit.",
    "S_OUTLIR": "Check the log; two or more groups of images are needed.",
}


def check(name: str, outcome: str, message: str = "", action: str = "") -> dict[str, str]:
    """Return one line of a record's ``checks``."""
    return {"check": name, "outcome": outcome, "message": message, "action": action}


@dataclass
class _Product:
    """What one look at a product tells."""

    path: Path
    faults: list[dict] = field(default_factory=list)
    """Checks that failed."""
    header: fits.Header = field(default_factory=fits.Header)
    science: fits.Header = field(default_factory=fits.Header)
    jump_share: float = 0.0
    tree: bytes = b""
    """Of an aligned exposure, the ASDF extension."""
    rows: int = 0
    """Of a table."""

    def __post_init__(self) -> None:
        """Read the file, once for all checks."""
        looks = {
            ".fits": self._look_at_fits,
            ".json": self._look_at_json,
            ".ecsv": self._look_at_table,
        }
        try:
            if look := looks.get(self.path.suffix):
                look()
        except (OSError, ValueError, KeyError, TypeError) as error:
            self._fail(f"{self.path.name} cannot be read: {error}")

    def _fail(self, problem: str) -> None:
        action = "Check the space on the disk and run again."
        self.faults.append(check("whole", FAILED, problem, action))

    def _look_at_json(self) -> None:
        json.loads(self.path.read_text())

    def _look_at_table(self) -> None:
        self.rows = len(Table.read(self.path, format="ascii.ecsv"))

    def _look_at_fits(self) -> None:
        if problem := is_whole(self.path):
            self._fail(problem)
            return
        # What astropy only warns of is told by the sizes.
        with (
            warnings.catch_warnings(action="ignore"),
            fits.open(self.path, memmap=True, do_not_scale_image_data=True) as hdul,
        ):
            self.header = hdul[0].header.copy()
            if "SCI" in hdul:
                self.science = hdul["SCI"].header.copy()
            is_rate = self.path.stem.endswith(("_rate", "_rateints"))
            if is_rate and "DQ" in hdul and self.header.get("S_JUMP") == "COMPLETE":
                # As stored: the offset of unsigned integers changes their highest bit only.
                self.jump_share = float(np.mean((hdul["DQ"].data & _JUMP_DET) != 0))
            if self.path.stem.endswith("_crf"):
                self.tree = hdul["ASDF"].data.tobytes()
            self.faults += _content(hdul, self.path)

    @property
    def group(self) -> str:
        """The group of exposures that tweakreg took it for."""
        if match := _GROUP_ID.search(self.tree):
            return match[1].decode()
        values = [self.header.get(name) for name in _GROUP_CARDS]
        return self.path.stem if None in values else "-".join(map(str, values))


@dataclass(frozen=True)
class _Made:
    """What a task made, and how it went."""

    task: Task
    main: _Product
    products: Collection[_Product]
    watch: LogWatch

    @property
    def header(self) -> fits.Header:
        """The primary header of the main product."""
        return self.main.header

    def parameters(self, step: str) -> dict:
        """Return the parameters that were in force in a step."""
        return self.watch.parameters.get("steps", {}).get(step, {})


def verify(task: Task, folder: Path, watch: LogWatch) -> list[dict]:
    """Look at what a task made, before it is moved to its place.

    Any line with the outcome 'failed' makes the products useless.
    """
    products = {path.name: _Product(path) for path in sorted(folder.iterdir()) if path.is_file()}
    faults = [line for product in products.values() for line in product.faults]
    missing = _presence(task, products)
    checks = missing + (faults or [check("whole", OK, f"{len(products)} files")])
    main = main_product(task, folder)
    if missing or faults or main is None:
        return checks
    return checks + _effects(_Made(task, products[main.name], products.values(), watch))


def _effects(made: _Made) -> list[dict]:
    """Return whether the steps that say COMPLETE did anything, by the main product."""
    checks = _statuses(made.header) + _backgrounds(made)
    checks += [
        effect(made)
        for keyword, pipelines, effect in _EFFECTS
        if made.task.pipeline in pipelines and made.header.get(keyword) == "COMPLETE"
    ]
    is_skipped = made.parameters("source_catalog").get("skip") in (True, "True")
    if made.task.pipeline == "Image3Pipeline" and not is_skipped:
        checks.append(_catalogue(made))
    return checks


def is_whole(path: FilePath, *, needs_tree: bool = True) -> str:
    """Return what is missing of a FITS file that its headers announce; empty if nothing is."""
    path = Path(path)
    try:
        with open(path, "rb") as stream:
            headers = [header for header, _ in fits_headers(stream, path.name)]
    except TransferError as error:
        return str(error).rstrip(".")
    except OSError as error:
        return f"{path.name} cannot be read: {error}"
    if not headers:
        return f"{path.name} is empty"
    if needs_tree and not any(ASDF_CARD in header for header in headers):
        return f"{path.name} has no ASDF extension; it ends after {len(headers)} HDUs"
    return ""


def main_product(task: Task, folder: Path) -> Path | None:
    """Return the product whose header tells how a task went; of many the first of its name."""
    main = folder / Path(task.name).name
    if main.suffix == ".fits":
        return main if main.exists() else None
    files = sorted(folder.glob("*.fits"))
    stem = main.name.removesuffix("_asn.json")
    # Of products with a source or an exposure in their names, none may begin so.
    first = files[0] if files else None
    return next((path for path in files if path.name.startswith(stem)), first)


def _backgrounds(made: _Made) -> list[dict]:
    """Return whether the backgrounds among the members were subtracted, here or before."""
    task, header = made.task, made.header
    steps = ("bkg_subtract", "master_background")
    is_skipped = any(task.steps.get(step, {}).get("skip") for step in steps)
    roles = {member.exptype for member in task.members}
    if is_skipped or "background" not in roles:
        return []
    if "COMPLETE" in (header.get("S_BKDSUB"), header.get("S_MSBSUB")):
        return [check("background", OK, "the background was subtracted")]
    message = "the background among the members was not subtracted"
    if task.pipeline == "Spec2Pipeline":
        return [check("background", NOTE, message, "Stage 3 may subtract its spectrum.")]
    return [check("background", NO_EFFECT, message, _ACTIONS["background"])]


def _presence(task: Task, products: Mapping[str, _Product]) -> list[dict]:
    names = [Path(name).name for name in task.outputs]
    missing = [name for name in names if name not in products]
    if missing:
        message = f"not made: {', '.join(missing)}; made: {', '.join(products) or 'nothing'}"
        return [check("products", FAILED, message, "See the log for the step that stopped.")]
    # A time series of images may leave its light curve only.
    is_named = any(not name.endswith("_asn.json") for name in names)
    if not is_named and not any(name.endswith(".fits") for name in products):
        return [check("products", FAILED, "no FITS file was made", "See the log.")]
    return []


def _content(hdul: fits.HDUList, path: Path) -> list[dict]:
    """Return checks that failed: of extensions that lack, of pixels without any value."""
    kind = path.stem.rpartition("_")[2]
    names = {hdu.name for hdu in hdul}
    if lacking := _EXTENSIONS.get(kind, frozenset()) - names:
        message = f"{path.name} has no {', '.join(sorted(lacking))}"
        return [check("whole", FAILED, message, "See the log.")]
    if kind in _WITH_PIXELS:
        # Spectra of several slits have an extension each.
        planes = (hdu.data for hdu in hdul if hdu.name == "SCI")
        if not any(data is not None and np.isfinite(data).any() for data in planes):
            message = f"{path.name} has no pixel with a value"
            action = "See the log and the DQ plane of the input."
            return [check("pixels", FAILED, message, action)]
    return []


def _statuses(header: fits.Header) -> list[dict]:
    """Return a line for each step that says itself that it failed."""
    return [
        check(
            keyword,
            NO_EFFECT,
            f"{keyword} = FAILED: the product was made without the step",
            _ACTIONS.get(keyword, "See the warnings in the log."),
        )
        for keyword, value in header.items()
        if keyword.startswith("S_") and value == "FAILED"
    ]


def _photometry(made: _Made) -> dict:
    header = made.header
    unit, factor = made.main.science.get("BUNIT"), made.main.science.get("PHOTMJSR")
    is_factor = isinstance(factor, (int, float)) and 0 < factor < math.inf
    if unit == "MJy/sr" and is_factor:
        return check("photom", OK, f"MJy/sr, PHOTMJSR = {factor:.6g}")
    message = (
        f"S_PHOTOM = COMPLETE, but the pixels were not calibrated: BUNIT is {unit!r} and PHOTMJSR "
        f"{'absent' if factor is None else factor}"
    )
    optics = ", ".join(f"{key} = {header[key]}" for key in ("FILTER", "PUPIL") if key in header)
    action = (
        f"The reference {header.get('R_PHOTOM', 'PHOTOM')} has no row for {optics or 'this set-up'}"
        "; correct the keywords, take a newer CRDS context, or give photom.override_photom."
    )
    return check("photom", NO_EFFECT, message, action)


def _jumps(made: _Made) -> dict:
    flagged = made.main.jump_share
    message = f"{100 * flagged:.2f} % of the pixels have a jump"
    if flagged == 0:
        action = "Rare for more than a few groups; check jump.rejection_threshold."
        return check("jump", NOTE, "no jump was found in any pixel", action)
    if flagged > _IMPLAUSIBLE:
        action = "Check jump.rejection_threshold and the READNOISE and GAIN references."
        return check("jump", NOTE, message, action)
    return check("jump", OK, message)


def _alignment(made: _Made) -> dict:
    """Return whether tweakreg moved the images: the frame that it adds to a WCS tells."""
    groups = _groups(made.products)
    if not groups:
        message = "no _crf product to read the alignment from: outlier_detection was skipped"
        return check("tweakreg", NOTE, message, "See the log for the matches of each image.")
    unaligned = sorted(name for name, aligned in groups.items() if not aligned)
    catalogue = str(made.parameters("tweakreg").get("abs_refcat") or "").strip()
    if catalogue not in ("", "None"):
        return _absolute(catalogue, len(groups), unaligned, made)
    message = f"{len(groups) - len(unaligned)} of {len(groups) - 1} groups aligned to the reference"
    if matches := made.watch.relative_matches:
        message += f", with {min(matches)} or more matches"
    if len(unaligned) <= 1:
        return check("tweakreg", OK, message)
    message = (
        f"S_TWKREG = COMPLETE, but {message}; not aligned or the reference: {', '.join(unaligned)}"
    )
    return check("tweakreg", NO_EFFECT, message, _ACTIONS["S_TWKREG"])


def _groups(products: Iterable[_Product]) -> dict[str, bool]:
    """Return whether all images of each group were moved."""
    groups: dict[str, bool] = {}
    for product in products:
        if product.tree:
            is_moved = _MOVED_FRAME in product.tree
            groups[product.group] = groups.get(product.group, True) and is_moved
    return groups


def _absolute(catalogue: str, n_groups: int, unaligned: list[str], made: _Made) -> dict:
    name, values = Path(catalogue).name, made.parameters("tweakreg")
    needed = int(values.get("abs_minobj", 15))
    matched = max(made.watch.absolute_matches, default=0)
    if unaligned or matched < needed:
        return _not_absolute(name, unaligned, matched, needed)
    # The shift to the catalogue is that of all groups, also of those that fit no other.
    least = int(values.get("minobj", 15))
    # Nothing is logged of a group without sources, nor of any where the step gave up; the
    # reference is matched to none.
    apart = n_groups - 1 - sum(count >= least for count in made.watch.relative_matches)
    if apart > 0:
        message = (
            f"S_TWKREG = COMPLETE, but {apart} of {n_groups} groups were not aligned to the "
            f"others before all were moved to {name}: fewer than {least} sources matched (minobj)"
        )
        return check("tweakreg", NO_EFFECT, message, _ACTIONS["S_TWKREG"])
    message = f"all {n_groups} groups aligned to {name} with {matched} matches"
    return check("tweakreg", OK, message)


def _not_absolute(name: str, unaligned: list[str], matched: int, needed: int) -> dict:
    message = (
        f"S_TWKREG = COMPLETE, but the images were not aligned to {name}: {matched} sources "
        f"matched, {needed} needed (abs_minobj)"
    )
    if unaligned:
        message += f"; unaligned: {', '.join(unaligned)}"
    action = (
        "Raise tweakreg.abs_searchrad, lower abs_minobj, or check that the catalogue covers the "
        "field and has the epoch of the exposures."
    )
    return check("tweakreg", NO_EFFECT, message, action)


def _catalogue(made: _Made) -> dict:
    catalogues = (one for one in made.products if one.path.name.endswith("_cat.ecsv"))
    n_sources = max((catalogue.rows for catalogue in catalogues), default=0)
    if n_sources:
        return check("source_catalog", OK, f"{n_sources} sources")
    message = "no source was detected, so that there is no catalogue"
    action = "Lower source_catalog.snr_threshold or npixels if there are sources in the picture."
    return check("source_catalog", NOTE, message, action)


_IMAGES = ("Image2Pipeline", "Image3Pipeline")
_EFFECTS: tuple[tuple[str, tuple[str, ...], Callable[[_Made], dict]], ...] = (
    ("S_JUMP", ("Detector1Pipeline",), _jumps),
    ("S_PHOTOM", _IMAGES, _photometry),
    ("S_TWKREG", ("Image3Pipeline",), _alignment),
)
"""What says that a step was done, in which pipelines, and what looks at its effect."""
