"""What each EXP_TYPE decides: the pipeline of every stage, and how its exposures are put together.

The table is ``data/exp_types.toml``; the tests hold it against the lists in the `jwst` package and
in CRDS.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...exceptions import InvalidExposureError

_IMAGING = ("Detector1Pipeline", "Image2Pipeline", "Image3Pipeline")


@dataclass(frozen=True, slots=True)
class Kind:
    """What one EXP_TYPE decides.

    Attributes
    ----------
    stages : tuple of str, (3,)
        Class of stage 1, of 2, of 3; empty where the chain stops.
    tso : {'', 'visit', 'always'}
        Whether it is a time series: where TSOVISIT says so, or whatever it says.
    is_slitless : bool
        Whether it holds spectra of a field, whose sources a mosaic of direct images tells.
    optics : tuple of str or None
        Keywords of the optics that have to be there, where they are not those of the instrument.
    has_mask : bool
        Whether a coronagraph's mask is in the beam.
    is_retired : bool
        Whether CRDS still lists it, and the data models do not.
    spectra : tuple of str
        Endings of the spectra of stage 3, where a product has one set of them, the main first.
    is_acquisition : bool
        Whether it finds the target, or confirms it.
    """

    stages: tuple[str, str, str]
    tso: str = ""
    is_slitless: bool = False
    optics: tuple[str, ...] | None = None
    has_mask: bool = False
    is_retired: bool = False
    spectra: tuple[str, ...] = ()
    is_acquisition: bool = False


def table_text(name: str) -> str:
    """Return a table of the folder ``data``, as it is written there."""
    path = Path(__file__).parents[1] / "data" / f"{name}.toml"
    return path.read_text(encoding="utf-8")


def _kinds() -> dict[str, Kind]:
    kinds: dict[str, Kind] = {}
    for row in tomllib.loads(table_text("exp_types"))["kind"]:
        types = row.pop("types")
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in row.items()}
        kinds |= dict.fromkeys(types, Kind(**values))
    return kinds


EXP_TYPES = _kinds()
"""What every EXP_TYPE decides."""

IMAGING = frozenset(name for name, kind in EXP_TYPES.items() if kind.stages == _IMAGING)
"""Types of plain images."""

STAGE3_SUFFIXES = {
    "Image3Pipeline": ("i2d.fits",),
    "Coron3Pipeline": ("i2d.fits",),
    "Ami3Pipeline": ("aminorm-oi.fits",),
}
"""Endings of the products of those pipelines of stage 3 that give them one name, the main first."""

STAGE3_PIPELINES = {
    "image3": "Image3Pipeline",
    "spec3": "Spec3Pipeline",
    "coron3": "Coron3Pipeline",
    "ami3": "Ami3Pipeline",
    "tso3": "Tso3Pipeline",
    "wfs-image3": "WfsCombineStep",
}
"""The pipeline of each type of associations of stage 3."""


def is_guider(exp_type: str) -> bool:
    """Return True for one of the guider's types."""
    return exp_type in EXP_TYPES and EXP_TYPES[exp_type].stages[0] == "GuiderPipeline"


def pipelines_for(
    exp_type: str, *, is_tso: bool = False, wavefront: bool = False, path: str = ""
) -> tuple[str, str, str]:
    """Return the classes of the three stages of a type, empty where the chain stops."""
    try:
        kind = EXP_TYPES[exp_type]
    except KeyError:
        where = f"{path}: " if path else ""
        msg = f"{where}EXP_TYPE={exp_type!r} is none of {', '.join(sorted(EXP_TYPES))}."
        raise InvalidExposureError(msg, parameter="EXP_TYPE", value=exp_type) from None
    if is_tso and kind.tso == "visit":
        return (*kind.stages[:2], "Tso3Pipeline")
    if wavefront and kind.stages == _IMAGING:
        return (*kind.stages[:2], "WfsCombineStep")
    return kind.stages
