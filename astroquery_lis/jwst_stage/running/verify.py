"""Whether a product is whole, and whether the steps that say COMPLETE did anything.

A step of jwst that finds nothing to do, or fails to do it, may still be COMPLETE in the header; the
checks here look at the effect.
"""

from __future__ import annotations

import json
import math
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
    from collections.abc import Mapping

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

_GROUP_KEYS = (
    "program_number",
    "observation_number",
    "visit_number",
    "visit_group",
    "sequence_id",
    "activity_id",
    "exposure_number",
)

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
    """What one look at a product tells: its headers, and how many pixels have a jump."""

    header: fits.Header = field(default_factory=fits.Header)
    science: fits.Header = field(default_factory=fits.Header)
    jump_share: float = 0.0

    def fill(self, hdul: fits.HDUList) -> None:
        """Take what the checks need of an open file."""
        self.header = hdul[0].header.copy()
        if "SCI" in hdul:
            self.science = hdul["SCI"].header.copy()
        if "DQ" in hdul and self.header.get("S_JUMP") == "COMPLETE":
            # As stored: the offset of unsigned integers changes their highest bit only.
            self.jump_share = float(np.mean((hdul["DQ"].data & _JUMP_DET) != 0))


def verify(task: Task, folder: Path, watch: LogWatch) -> list[dict]:
    """Look at what a task made, before it is moved to its place.

    Any line with the outcome 'failed' makes the products useless.
    """
    checks = _presence(task, folder)
    files = {path.name: path for path in sorted(folder.iterdir()) if path.is_file()}
    main = main_product(task, folder)
    product = _Product()
    unfit = [
        line
        for path in files.values()
        for line in _whole(path, product if path == main else _Product())
    ]
    checks += unfit or [check("whole", OK, f"{len(files)} files")]
    # A time series of images may leave its light curve only.
    is_named = any(not name.endswith("_asn.json") for name in task.outputs)
    if not is_named and all(path.suffix != ".fits" for path in files.values()):
        checks.append(check("products", FAILED, "no FITS file was made", "See the log."))
    if main is None or any(line["outcome"] == FAILED for line in checks):
        return checks
    return checks + _effects(task, product, files, watch)


def _effects(
    task: Task, product: _Product, files: Mapping[str, Path], watch: LogWatch
) -> list[dict]:
    """Return whether the steps that say COMPLETE did anything, by the main product."""
    header, steps = product.header, watch.parameters.get("steps", {})
    checks = _statuses(header)
    if task.kind != "pipeline":
        return checks
    checks += _backgrounds(task, header)
    if task.pipeline == "Detector1Pipeline":
        checks += _jumps(header, product.jump_share)
    if task.pipeline in ("Image2Pipeline", "Image3Pipeline"):
        checks += _photometry(header, product.science)
    if task.pipeline == "Image3Pipeline":
        checks += _alignment(header, files, watch, steps)
        checks += _catalogue(files, steps)
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
    if needs_tree and not any(ASDF_CARD in header for header in headers):
        return f"{path.name} has no ASDF extension; it ends after {len(headers)} HDUs"
    return "" if headers else f"{path.name} is empty"


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


def _backgrounds(task: Task, header: fits.Header) -> list[dict]:
    """Return whether the backgrounds among the members were subtracted, here or before."""
    steps = ("bkg_subtract", "master_background")
    asked = any(task.steps.get(step, {}).get("skip") for step in steps)
    if asked or all(member.exptype != "background" for member in task.members):
        return []
    if "COMPLETE" in (header.get("S_BKDSUB"), header.get("S_MSBSUB")):
        return [check("background", OK, "the background was subtracted")]
    message = "the background among the members was not subtracted"
    if task.pipeline == "Spec2Pipeline":
        return [check("background", NOTE, message, "Stage 3 may subtract its spectrum.")]
    return [check("background", NO_EFFECT, message, _ACTIONS["background"])]


def _presence(task: Task, folder: Path) -> list[dict]:
    missing = [Path(name).name for name in task.outputs if not (folder / Path(name).name).exists()]
    if missing:
        present = sorted(path.name for path in folder.iterdir()) or ["nothing"]
        message = f"not made: {', '.join(missing)}; made: {', '.join(present)}"
        return [check("products", FAILED, message, "See the log for the step that stopped.")]
    return []


def _whole(path: Path, product: _Product) -> list[dict]:
    """Return what is wrong with a product, which is read once for it."""
    try:
        if path.suffix == ".fits":
            problem = is_whole(path)
            if not problem:
                # What astropy only warns of is told by the sizes.
                with (
                    warnings.catch_warnings(action="ignore"),
                    fits.open(path, memmap=True, do_not_scale_image_data=True) as hdul,
                ):
                    product.fill(hdul)
                    return _content(hdul, path)
        else:
            problem = ""
            if path.suffix == ".json":
                json.loads(path.read_text())
            elif path.suffix == ".ecsv":
                Table.read(path, format="ascii.ecsv")
    except (OSError, ValueError, KeyError, TypeError) as error:
        problem = f"{path.name} cannot be read: {error}"
    if not problem:
        return []
    return [check("whole", FAILED, problem, "Check the space on the disk and run again.")]


def _content(hdul: fits.HDUList, path: Path) -> list[dict]:
    """Return checks that failed: of extensions that lack, of pixels without any value."""
    kind = path.stem.rpartition("_")[2]
    names = {hdu.name for hdu in hdul}
    if lacking := _EXTENSIONS.get(kind, frozenset()) - names:
        message = f"{path.name} has no {', '.join(sorted(lacking))}"
        return [check("whole", FAILED, message, "See the log.")]
    if kind in _EXTENSIONS and "SCI" in names and kind != "segm":
        # Spectra of several slits have an extension each.
        planes = (hdu.data for hdu in hdul if hdu.name == "SCI")
        if not any(data is not None and np.isfinite(data).any() for data in planes):
            message = f"{path.name} has no pixel with a value"
            action = "See the log and the DQ plane of the input."
            return [check("pixels", FAILED, message, action)]
    return []


def _statuses(header: fits.Header) -> list[dict]:
    """Return a line for each step that says itself that it failed."""
    checks = []
    for keyword in header:
        if keyword.startswith("S_") and header[keyword] == "FAILED":
            action = _ACTIONS.get(keyword, "See the warnings in the log.")
            message = f"{keyword} = FAILED: the product was made without the step"
            checks.append(check(keyword, NO_EFFECT, message, action))
    return checks


def _photometry(header: fits.Header, science: fits.Header) -> list[dict]:
    if header.get("S_PHOTOM") != "COMPLETE":
        return []
    unit, factor = science.get("BUNIT"), science.get("PHOTMJSR")
    if unit == "MJy/sr" and factor is not None and math.isfinite(factor) and factor > 0:
        return [check("photom", OK, f"MJy/sr, PHOTMJSR = {factor:.6g}")]
    message = (
        f"S_PHOTOM = COMPLETE, but the pixels were not calibrated: BUNIT is {unit!r} and PHOTMJSR "
        f"{'absent' if factor is None else factor}"
    )
    optics = ", ".join(f"{key} = {header[key]}" for key in ("FILTER", "PUPIL") if key in header)
    action = (
        f"The reference {header.get('R_PHOTOM', 'PHOTOM')} has no row for {optics or 'this set-up'}"
        "; correct the keywords, take a newer CRDS context, or give photom.override_photom."
    )
    return [check("photom", NO_EFFECT, message, action)]


def _jumps(header: fits.Header, flagged: float) -> list[dict]:
    if header.get("S_JUMP") != "COMPLETE":
        return []
    message = f"{100 * flagged:.2f} % of the pixels have a jump"
    if flagged == 0:
        action = "Rare for more than a few groups; check jump.rejection_threshold."
        return [check("jump", NOTE, "no jump was found in any pixel", action)]
    if flagged > _IMPLAUSIBLE:
        action = "Check jump.rejection_threshold and the READNOISE and GAIN references."
        return [check("jump", NOTE, message, action)]
    return [check("jump", OK, message)]


def _alignment(
    header: fits.Header, files: Mapping[str, Path], watch: LogWatch, steps: Mapping
) -> list[dict]:
    """Return whether tweakreg moved the images: the frame that it adds to a WCS tells."""
    if header.get("S_TWKREG") != "COMPLETE":
        return []
    asked = steps.get("tweakreg", {})
    catalogue = str(asked.get("abs_refcat") or "").strip()
    catalogue = "" if catalogue == "None" else catalogue
    crf = [path for name, path in files.items() if name.endswith("_crf.fits")]
    if not crf:
        message = "no _crf product to read the alignment from: outlier_detection was skipped"
        return [check("tweakreg", NOTE, message, "See the log for the matches of each image.")]
    groups = _aligned_groups(crf)
    unaligned = sorted(name for name, aligned in groups.items() if not aligned)
    if catalogue:
        return _absolute(catalogue, groups, unaligned, watch, asked)
    message = f"{len(groups) - len(unaligned)} of {len(groups) - 1} groups aligned to the reference"
    if watch.relative_matches:
        message += f", with {min(watch.relative_matches)} or more matches"
    if len(unaligned) <= 1:
        return [check("tweakreg", OK, message)]
    message = (
        f"S_TWKREG = COMPLETE, but {message}; not aligned or the reference: {', '.join(unaligned)}"
    )
    return [check("tweakreg", NO_EFFECT, message, _ACTIONS["S_TWKREG"])]


def _absolute(
    catalogue: str,
    groups: Mapping[str, bool],
    unaligned: list[str],
    watch: LogWatch,
    asked: Mapping,
) -> list[dict]:
    name = Path(catalogue).name
    needed = int(asked.get("abs_minobj", 15))
    matched = max(watch.absolute_matches, default=0)
    # The shift to the catalogue is that of all groups, also of those that fit no other.
    least = int(asked.get("minobj", 15))
    # Nothing is logged of a group without sources, nor of any where the step gave up; the
    # reference is matched to none.
    apart = len(groups) - 1 - sum(count >= least for count in watch.relative_matches)
    if not unaligned and matched >= needed and apart > 0:
        message = (
            f"S_TWKREG = COMPLETE, but {apart} of {len(groups)} groups were not aligned to the "
            f"others before all were moved to {name}: fewer than {least} sources matched (minobj)"
        )
        return [check("tweakreg", NO_EFFECT, message, _ACTIONS["S_TWKREG"])]
    if not unaligned and matched >= needed:
        message = f"all {len(groups)} groups aligned to {name} with {matched} matches"
        return [check("tweakreg", OK, message)]
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
    return [check("tweakreg", NO_EFFECT, message, action)]


def _aligned_groups(crf: list[Path]) -> dict[str, bool]:
    """Return whether all images of each group carry the frame of a correction."""
    from stdatamodels.jwst import datamodels

    groups: dict[str, bool] = {}
    for path in crf:
        with datamodels.open(str(path)) as model:
            frames = model.meta.wcs.available_frames
            observation = model.meta.observation.instance
            own = model.meta.group_id
            values = (observation.get(key) for key in _GROUP_KEYS)
            parts = [str(value) for value in values if value is not None]
        group = "-".join(parts) if len(parts) == len(_GROUP_KEYS) else path.stem
        group = str(own) if own not in (None, "") else group
        groups[group] = groups.get(group, True) and "v2v3corr" in frames
    return groups


def _catalogue(files: Mapping[str, Path], steps: Mapping) -> list[dict]:
    if steps.get("source_catalog", {}).get("skip") in (True, "True"):
        return []
    for name, path in files.items():
        if name.endswith("_cat.ecsv"):
            count = len(Table.read(path, format="ascii.ecsv"))
            if count:
                return [check("source_catalog", OK, f"{count} sources")]
    message = "no source was detected, so that there is no catalogue"
    action = "Lower source_catalog.snr_threshold or npixels if there are sources in the picture."
    return [check("source_catalog", NOTE, message, action)]
