"""The program of a mode: exposures taken one after the other, and the references for them."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path

import numpy as np
from astropy.table import Table

from ..observation import need_stdatamodels
from .cache import CONTEXT, References, write_cache
from .exposures import ModeObservation, Setup, Shot, write_exposure
from .ramps import write_ramp


class Program:
    """Takes exposures into a folder, as count rates or as ramps, with noise of its own."""

    def __init__(self, directory: str | PathLike[str], seed: int, *, uncal: bool = False) -> None:
        need_stdatamodels()
        self._folder = Path(directory).absolute()
        self._folder.mkdir(parents=True, exist_ok=True)
        self._files: list[Path] = []
        self._is_uncal = uncal
        self.rng = np.random.default_rng(seed)

    def expose(
        self, setup: Setup, shot: Shot, light_dn_s: np.ndarray, *, bad: np.ndarray | None = None
    ) -> None:
        """Take one exposure of light, of one frame or of several integrations."""
        where = self._folder, setup, shot, light_dn_s, self.rng
        self._files.append(
            write_ramp(*where) if self._is_uncal else write_exposure(*where, bad=bad)
        )

    def observation(
        self, instrument: Mapping[str, str], references: References, truth: Table
    ) -> ModeObservation:
        """Write the references, and return what was taken."""
        crds = self._folder / "crds"
        write_cache(crds, dict(instrument), references)
        return ModeObservation(self._files, crds, CONTEXT, truth)
