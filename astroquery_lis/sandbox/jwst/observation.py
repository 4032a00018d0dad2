"""A simulated observation: its files, and what is true of them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
from astropy.table import Table

from ..._packages import how_to_install
from ..._typing import Keywords
from ...exceptions import OptionalDependencyError
from ..tree import lock
from .crds_files import CONTEXT
from .references import add_context
from .uncal import Exposure, planned_exposures

# Environment variables that must not be there when the simulated references are used.
UNSET_VARIABLES = ("CRDS_SERVER_URL", "CRDS_OBSERVATORY", "CRDS_OVERRIDES", "CRDS_MODE")

_TRUTH = "truth"
_HIT = {"file": "U64", "integration": "i8", "group": "i8", "x": "i8", "y": "i8"}
_TABLES = {
    "cosmic_rays": {**_HIT, "electrons": "f8"},
    "snowballs": {**_HIT, "radius": "f8"},
    "hot_pixels": {"detector": "U64", "x": "i8", "y": "i8", "dn_s": "f8"},
    "pointing_errors": {"file": "U64", "east": "f8", "north": "f8"},
}


@dataclass(frozen=True, eq=False)
class Observation:
    """Files of one simulated observation and everything that is true of them.

    Attributes
    ----------
    uncals : list of `~pathlib.Path`
        The uncalibrated exposures of all filters.
    crds_path : `~pathlib.Path`
        The CRDS cache that serves them.
    crds_context : str
        Its context.
    date : str
        ISO date and time of the first exposure.
    truth : `~astropy.table.Table`
        The sources: ``id``, ``legacy_id`` (``id`` in the truth table of the sky, -1 where the
        Legacy Survey has none), ``ra`` and ``dec`` at the date, ``kind``,
        ``saturated``, and ``mag_<filter>`` (AB) and ``flux_<filter>`` (Jy).
    cosmic_rays : `~astropy.table.Table`
        ``file``, ``integration``, ``group`` (from 0: the first that has the charge), ``x``, ``y``
        (pixels of the frame, from 0), ``electrons``.
    snowballs : `~astropy.table.Table`
        ``file``, ``integration``, ``group``, ``x``, ``y``, ``radius`` (pixels).
    hot_pixels : `~astropy.table.Table`
        ``detector``, ``x``, ``y``, ``dn_s``: pixels that no reference file knows.
    pointing_errors : `~astropy.table.Table`
        ``file``, ``east``, ``north`` (arcsec): the keywords less the true pointing.
    wisp_templates : dict of (str, str) to `~pathlib.Path`
        By detector and filter, FITS files with the stray light in the extension ``SCI``.
    exposures : dict of str to ``Exposure``
        By file name: what was commanded, and where the telescope truly pointed.
    """

    uncals: list
    crds_path: Path
    crds_context: str
    date: str
    truth: Table
    cosmic_rays: Table
    snowballs: Table
    hot_pixels: Table
    pointing_errors: Table
    wisp_templates: dict
    exposures: dict

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables to set, as a dict; ``CRDS_SERVER_URL`` has to go."""
        return {"CRDS_PATH": str(self.crds_path), "CRDS_CONTEXT": self.crds_context}

    @contextmanager
    def crds_environment(self) -> Iterator[dict[str, str]]:
        """Set the environment in a ``with`` block, before CRDS is imported."""
        names = (*self.environment, *UNSET_VARIABLES)
        before = {name: os.environ.get(name) for name in names}
        for name in UNSET_VARIABLES:
            os.environ.pop(name, None)
        os.environ.update(self.environment)
        try:
            yield self.environment
        finally:
            for name, value in before.items():
                os.environ.pop(name, None)
                if value is not None:
                    os.environ[name] = value

    def pixel_positions(
        self, file: str | PathLike[str], ra: float | np.ndarray, dec: float | np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return where places of the sky truly fall in an exposure.

        Parameters
        ----------
        file : path-like
            An exposure, or a product of it: the name as far as the detector counts.
        ra, dec : float or `~numpy.ndarray`
            Degrees.

        Returns
        -------
        x, y : `~numpy.ndarray`
            Pixels of the frame, from 0.
        """
        stem = "_".join(Path(file).name.split("_")[:4])
        return self.exposures[f"{stem}_uncal.fits"].to_pixel(np.asarray(ra), np.asarray(dec))

    def new_context(self, changed: Sequence[str] = ("flat",)) -> str:
        """Add a context to the cache in which some reference types have other files.

        Parameters
        ----------
        changed : sequence of str, optional
            Reference types; the flat by default.

        Returns
        -------
        str
            Name of the context.  Asked again for the same changes, the same name.
        """
        need_stdatamodels()
        with lock(self.crds_path):
            return add_context(self.crds_path, tuple(changed))


def need_stdatamodels() -> None:
    """Raise the error that names the extra, where stdatamodels or crds is missing."""
    try:
        import crds.jwst  # noqa: F401
        import stdatamodels.jwst.datamodels  # noqa: F401
    except ImportError as error:
        msg = f"Simulated JWST exposures need stdatamodels: {how_to_install('jwst')}."
        raise OptionalDependencyError(msg, cause=error) from error


def wisp_path(folder: Path, exposure: Exposure) -> Path:
    """Return where the stray light of an exposure's detector and filter is written."""
    return folder / f"WISP_{exposure.detector}_{exposure.filter_name}_CLEAR.fits"


def write_truth(
    folder: Path, sources: Table, rows: dict[str, list[tuple]], options: Keywords
) -> None:
    """Write what is true of an observation, and the options that it was made with."""
    truth = folder / _TRUTH
    truth.mkdir(exist_ok=True)
    sources.write(truth / "sources.ecsv", overwrite=True)
    for name, kinds in _TABLES.items():
        entries = np.array(rows[name], dtype=list(kinds.items()))
        Table(entries).write(truth / f"{name}.ecsv", overwrite=True)
    (truth / "options.json").write_text(json.dumps(options, indent=1))


def read_observation(folder: Path, cache: Path) -> Observation:
    """Return the observation in a folder."""
    truth = folder / _TRUTH
    tables = {name: Table.read(truth / f"{name}.ecsv") for name in _TABLES}
    options = json.loads((truth / "options.json").read_text())
    exposures = {exposure.name: exposure for exposure in planned_exposures(options)}
    templates = {}
    for exposure in exposures.values():
        if (path := wisp_path(folder, exposure)).exists():
            templates[exposure.detector, exposure.filter_name] = path
    first = next(iter(exposures.values()))
    return Observation(
        uncals=[folder / name for name in sorted(exposures)],
        crds_path=cache,
        crds_context=CONTEXT,
        date=first.shot.start.isot,
        truth=Table.read(truth / "sources.ecsv"),
        wisp_templates=templates,
        exposures=exposures,
        **tables,
    )
