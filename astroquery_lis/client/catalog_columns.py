"""The methods that tell the columns of the catalogue, and that read files of it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from astropy.table import Table

from .. import catalogs
from ..exceptions import refuse
from ..survey.tractor_columns import computed_columns, has_column, redshift_columns, tractor_columns
from .base import SurveyBase

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._typing import FilePath, Region


class ColumnMethods(SurveyBase):
    """Columns of the catalogue, and files of it."""

    def read_catalogue(
        self, path: FilePath, *, columns: str | Sequence[str] | None = None
    ) -> Table:
        """Return a file of the catalogue, on this computer, as a table with units and masks.

        Parameters
        ----------
        path : str or path-like
            A Tractor file, a sweep or one of the files beside it, randoms, or a table of CCDs or of
            bricks, of any release; FITS, also when packed with gzip.
        columns : str or sequence of str, optional
            Names of columns, in the order wanted, in any case; by default all of the file.

        Returns
        -------
        `~astropy.table.Table`
            One row per row of the file, whether primary or not.  Names are in lower case; units are
            astropy's, also where the survey writes none or spells them as astropy does not.  What
            the file marks as no value (``TNULL``, and -99 among redshifts) is masked; NaN stays.
            ``meta['file']`` is the path.

        Raises
        ------
        InvalidRequestError
            If there is no such file, it may not be read, or it has no such column.
        TruncatedError
            If the file ends too early.
        UnexpectedContentError
            If it is no FITS file, or its first table is no catalogue of the survey.

        Warns
        -----
        CoverageWarning
            If columns of the file cannot be columns of a table here and did not come.

        Examples
        --------
        >>> from astroquery_lis import LegacySurvey, sandbox
        >>> with sandbox.serve() as sky:
        ...     path = sky.root / 'dr10/south/tractor/045/tractor-0451p000.fits'
        ...     rows = LegacySurvey.read_catalogue(path, columns=['ra', 'flux_r'])
        >>> rows['flux_r'].unit
        Unit("nmgy")
        """
        try:
            file = Path(path).expanduser()
            is_file = os.path.isfile(file)
        except (TypeError, ValueError, RuntimeError):
            is_file = False
        if not is_file:
            must = "is no file on this computer; get_brick_files fetches those of the survey."
            refuse("path", path, must)
        names = columns.replace(",", " ").split() if isinstance(columns, str) else columns
        if names is not None and (not names or not all(isinstance(n, str) for n in names)):
            refuse("columns", columns, "must name columns; leave it out for all of the file.")
        try:
            return catalogs.any_file.read_file(file, names)
        except OSError as error:
            refuse("path", str(path), f"cannot be read: {error.strerror}.")

    def list_columns(self, *, release: str | None = None, region: Region = "auto") -> Table:
        """Return a `~astropy.table.Table` of the columns of the catalogue.

        Parameters
        ----------
        release : str, optional
            By default `release`.
        region : {'auto', 'north', 'south'}, optional
            ``'auto'`` for those that either region has.

        Returns
        -------
        `~astropy.table.Table`
            Columns ``name``, ``family``, ``band``, ``dtype``, ``length`` (values per row),
            ``unit``, ``core`` (whether every source has it, which makes it part of the default),
            ``computed`` (whether it is computed here from others: magnitudes, errors, colours).

        Raises
        ------
        InvalidRequestError
            If there is no such release or region.

        Examples
        --------
        >>> from astroquery_lis import LegacySurvey
        >>> columns = LegacySurvey.list_columns(release='dr9')
        >>> print(columns['unit'][columns['name'] == 'flux_r'][0])
        nmgy
        """
        release, region = self._tree(release, region)
        schema, computed = dict(tractor_columns(release)), dict(computed_columns(release))
        rows = [
            (
                *(c.name, c.family, c.band or "", c.dtype, c.length, str(c.unit or "")),
                *(c.in_tap and c.name in schema, c.name in computed),
            )
            for c in (schema | computed | redshift_columns(release)).values()
            if region == "auto" or has_column(c, release, region)
        ]
        names = ("name", "family", "band", "dtype", "length", "unit", "core", "computed")
        return Table(rows=rows, names=names)
