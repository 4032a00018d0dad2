"""The method that matches a table of the user's to the catalogue."""

from __future__ import annotations

from typing import TYPE_CHECKING

from astropy import units as u
from astropy.table import QTable, Table
from astropy.time import Time

from .. import catalogs, survey
from .._conf import conf
from ..exceptions import refuse
from .base import SurveyBase
from .inputs import as_targets, as_years

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Literal

    from .._typing import Angle, Mirror, OnMissing, Region


class CrossmatchMethods(SurveyBase):
    """Matches to the catalogue."""

    def crossmatch(
        self,
        table: Table,
        *,
        radius: Angle,
        find: Literal["best", "all"] = "best",
        columns: str | Sequence[str] | None = None,
        ra: str | None = None,
        dec: str | None = None,
        name: str | None = None,
        epoch: Time | str | None = None,
        release: str | None = None,
        region: Region = "auto",
        source: Literal["auto", "files", "sweeps"] = "auto",
        mirror: Mirror | None = None,
        on_missing: OnMissing = "warn",
        cache: bool | None = None,
    ) -> Table:
        """Match a table of yours to the Tractor catalogue, brick by brick.

        Parameters
        ----------
        table : `~astropy.table.Table` or `~astropy.coordinates.SkyCoord`, shape (n,)
            Your positions, as for `download_cutouts`.
        radius : `~astropy.units.Quantity` ['angle'] or str
            Largest separation, up to 1 arcmin.
        find : {'best', 'all'}, optional
            The nearest source of each position, with masked values where there is none, or every
            pair.
        columns : str or sequence of str, optional
            Of the catalogue, as for `query_tractor`.
        ra, dec, name : str, optional
            Columns of ``table`` with its positions, as for `download_cutouts`.  A row without a
            position has no match.
        epoch : `~astropy.time.Time`, scalar or shape (n,), optional
            When your positions hold: stars with a proper motion from Gaia are moved to it from
            their ``ref_epoch``.
        release, region, mirror, cache : optional
            As for `query_tractor`.
        source : {'auto', 'files', 'sweeps'}, optional
            The bricks' Tractor files, or the sweeps, which have redshifts beside them;
            ``'auto'`` takes the sweeps where ``columns`` names redshifts.
        on_missing : {'warn', 'raise'}, optional
            Whether bricks without a catalogue are an error.

        Returns
        -------
        `~astropy.table.Table`
            Of the class of ``table`` (a `~astropy.table.QTable` for a SkyCoord): its columns, then
            ``separation`` in arcsec and the catalogue's columns, with ``_tractor`` appended to
            ``ra`` and ``dec`` and to names that ``table`` has too (``_tractor2`` the next time, so
            that a result can be matched again).  One row per row of ``table`` for ``'best'``; one
            per pair, in the order of ``table`` and by separation, for ``'all'``.

        Raises
        ------
        InvalidRequestError
            If an argument is wrong, or more brick files would have to be fetched than
            ``conf.max_query_bricks``.
        NoCoverageError
            With ``on_missing='raise'``, if a brick has no catalogue.
        TransferError
            If a file could not be had.

        Warns
        -----
        CoverageWarning
            If a brick has no catalogue.
        `~astroquery.exceptions.LargeQueryWarning`
            If more than a few brick files are fetched.

        Examples
        --------
        >>> from astroquery_lis import LegacySurvey, sandbox
        >>> from astropy.table import Table
        >>> mine = Table({'ra': [45.1312, 45.2], 'dec': [0.0047, 0.03]})
        >>> with sandbox.serve() as sky:
        ...     result = LegacySurvey.crossmatch(mine, radius='1 arcsec', columns='type')
        >>> len(result)
        2
        """
        survey.request.as_choice("find", find, ("best", "all"))
        survey.request.as_choice("source", source, ("auto", "files", "sweeps"))
        survey.request.as_choice("on_missing", on_missing, ("warn", "raise"))
        radius_deg = survey.catalog_request.as_angle_deg(
            "radius", radius, catalogs.match.MAX_RADIUS_DEG
        )
        request = survey.catalog_request.catalog_request(
            survey.catalog_request.WHOLE_SKY,
            columns=columns,
            release=self.release if release is None else release,
            region=region,
        )
        if request.columns is None:
            must = "is for query_tractor; name the columns that a match shall have."
            refuse("columns", columns, must)
        targets = as_targets(table, ra=ra, dec=dec, name=name)
        degrees, own = (targets.ra_deg, targets.dec_deg), targets.table
        if own is None:
            own = QTable([values * u.deg for values in degrees], names=("ra", "dec"))
        years = as_years(epoch, len(targets))
        positions = catalogs.match.Positions(*degrees, radius_deg, years)
        with self._finder(mirror, cache) as finder:
            by_sweeps = source == "sweeps" or (source == "auto" and request.redshifts)
            sweeps, bricks = catalogs.sweep_files, catalogs.catalog_files
            make = sweeps.SweepFiles if by_sweeps else bricks.TractorFiles
            files = make(finder, self._tables, conf.max_query_bricks, on_missing)
            if request.redshifts and not files.has_redshifts:
                refuse("source", source, "has no redshifts; leave it out, or take 'sweeps'.")
            return catalogs.match.match_table(request, own, positions, files, find)
