"""The method that gives the values of the survey's maps at many positions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from astropy import units as u
from astropy.table import Column, MaskedColumn, Table

from .. import images, survey
from ..exceptions import CoverageWarning, warn
from ..survey.bitmasks import maskbits
from ..survey.releases import get_release
from .base import SurveyBase
from .inputs import as_targets, warn_of_unplaced

if TYPE_CHECKING:
    from concurrent.futures import Executor
    from typing import Literal

    from .._typing import Bands, FilePath, Mirror, Positions, Products, Region


class MapMethods(SurveyBase):
    """Values of maps."""

    def query_maps(
        self,
        coordinates: Positions,
        products: Products = ("maskbits", "nexp"),
        *,
        bands: Bands | None = None,
        bit_names: bool = False,
        release: str | None = None,
        region: Region = "auto",
        id_column: str | None = None,
        ra: str | None = None,
        dec: str | None = None,
        name: str | None = None,
        download_dir: FilePath | None = None,
        executor: Executor | Literal["threads", "processes"] | None = None,
        show_progress: bool = True,
        mirror: Mirror | None = None,
        cache: bool | None = None,
    ) -> Table:
        """Return the values of the survey's maps at positions: masks, depths, exposures, seeing.

        The value at a position is that of the nearest pixel of the brick that owns it.  Positions
        are read brick by brick, so that a million of them, randoms or mocks, cost little more than
        reading each brick's files once.

        Parameters
        ----------
        coordinates : `~astropy.coordinates.SkyCoord`, str, `~astropy.table.Table` or sequence
            The positions; a table as for `download_cutouts`.
        products : str or sequence of str, optional
            Maps to read (`list_products`), also ``'wisem1'`` and ``'wisem2'``.
        bands : str or sequence of str, optional
            Bands of the maps that have some; by default those of the release.
        bit_names : bool, default: False
            Whether to add a column ``maskbits_names``: the names of the bits that are set, with
            commas.
        release : str, optional
            ``'dr5'`` to ``'dr11'``; by default `release`.
        region : {'auto', 'north', 'south'}, optional
            ``'auto'`` takes the official one of each brick.
        id_column : str, optional
            Column of names in the table; by default ``id``, or the numbers of the rows.
        ra, dec, name : str, optional
            Columns of a table, as for `download_cutouts`.
        download_dir : str or path-like, optional
            Folder that keeps the values of each brick; the same call again goes on from there.
        executor : `~concurrent.futures.Executor` or {'threads', 'processes'}, optional
            As for `download_cutouts`.
        show_progress : bool, optional
            Whether to show a bar, where tqdm is installed, in terminals and notebooks.
        mirror : str, path-like, or sequence of them, optional
            By default `mirror`.
        cache : bool, optional
            Whether to keep and use files on disk; by default astroquery's ``cache_conf``.

        Returns
        -------
        `~astropy.table.Table`
            One row per position, in order: ``id``, ``ra``, ``dec`` (deg), and a column per map,
            with the survey's unit: ``maskbits``, ``nexp_r``, ``depth_r`` ...  Values are masked
            where the row has no position, or the survey has no such file of its brick, or, by a
            pole, the brick's image does not reach the position.

        Raises
        ------
        InvalidRequestError
            If an argument is wrong; nothing was sent.
        TransferError
            Of the first brick that failed; with ``download_dir``, after the others were read and
            kept.  The files of a brick have ``conf.deadline`` seconds to come.

        Warns
        -----
        CoverageWarning
            If some positions are in no brick of the release.
        LegacySurveyWarning
            If some rows have no position.
        FailoverWarning
            If a mirror failed and another answered.
        CacheWarning
            If what was fetched could not be kept.

        Examples
        --------
        >>> from astroquery_lis import LegacySurvey, sandbox
        >>> with sandbox.serve() as sky:
        ...     table = LegacySurvey.query_maps(sky.positions['star'], 'nexp', bands='r')
        >>> table.colnames
        ['id', 'ra', 'dec', 'nexp_r']
        """
        release, region = self._tree(release, region)
        targets = as_targets(
            coordinates, id_column, ra=ra, dec=dec, name=name, parameter="coordinates"
        )
        warn_of_unplaced(targets, "have no values")
        bands = (
            survey.named_planes.as_bands(bands, release, region)
            or get_release(release).bands_in[region]
        )
        folder = "" if download_dir is None else str(Path(download_dir).expanduser().absolute())
        spec = images.map_values.MapSpec(
            survey.named_planes.as_products(products, release, planes=True),
            bands,
            release,
            region,
            folder,
        )
        access = self._access(mirror, cache, executor)
        places = targets.ra_deg, targets.dec_deg
        maps, n_lacking = images.map_values.values_at(
            spec, access, places, executor=executor, show_progress=show_progress
        )
        # Of a million positions no column is copied.
        columns = [Column(axis, unit=u.deg, copy=False) for axis in places]
        names = ["id", "ra", "dec", *maps]
        table = Table([targets.ids, *columns, *maps.values()], names=names, copy=False)
        if bit_names and "maskbits" in maps:
            table["maskbits_names"] = _bit_names(maps["maskbits"], release)
        if n_lacking:
            msg = f"{release} has no brick at {n_lacking} of {len(table)} position(s)."
            warn(msg, CoverageWarning)
        return table


def _bit_names(column: MaskedColumn, release: str) -> MaskedColumn:
    """Return the names of the bits that are set in each value."""
    values, inverse = np.unique(np.ma.getdata(column), return_inverse=True)
    bits = maskbits(release).items()
    texts = [",".join(name for name, bit in bits if value >> bit & 1) for value in values.tolist()]
    return MaskedColumn(np.array(texts, str)[inverse], mask=np.ma.getmaskarray(column))
