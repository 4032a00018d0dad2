"""The methods that return rows of the catalogue."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.table import QTable, Table
from astropy.time import Time
from astroquery.exceptions import MaxResultsWarning

from .. import catalogs, io, survey
from .._conf import conf, setting
from .._typing import answering
from ..exceptions import InvalidRequestError, refuse, warn
from .base import SurveyBase, alias, in_time
from .inputs import as_sky, as_sources, as_targets, as_years
from .position_columns import Columns

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Literal

    from .._typing import Angle, Coordinates, Mirror, OnMissing, Payload, Region
    from ..catalogs.catalog_services import TapClient
    from ..catalogs.catalog_table import CatalogSource
    from ..io.http import PoliteSession
    from ..survey.catalog_request import Sky


class CatalogMethods(SurveyBase):
    """The Tractor catalogue."""

    @answering
    @in_time
    def query_tractor(
        self,
        coordinates: Coordinates | None = None,
        *,
        radius: Angle | None = None,
        width: Angle | None = None,
        height: Angle | None = None,
        polygon: SkyCoord | Sequence[tuple[float, float]] | None = None,
        ids: int | Sequence[int] | Sequence[tuple[int, int, int]] | Table | None = None,
        columns: str | Sequence[str] | None = None,
        column_filters: Mapping[str, object] | None = None,
        primary: bool = True,
        drop_duplicates: bool = True,
        maskbits: str | Sequence[str] | None = None,
        release: str | None = None,
        region: Region = "auto",
        source: str | Sequence[str] = "auto",
        mirror: Mirror | None = None,
        async_job: bool = False,
        maxrec: int | None = None,
        on_missing: OnMissing = "warn",
        cache: bool | None = None,
        get_query_payload: bool = False,
    ) -> Table | Payload:
        """Return the sources of the Tractor catalogue in a part of the sky.

        The table is the same whichever source answers: names, types, units, masks and order.

        Parameters
        ----------
        coordinates : `~astropy.coordinates.SkyCoord` or str, optional
            Centre, in any frame; a string is a position in ICRS (degrees, or hours and degrees) or
            an object's name.
        radius : `~astropy.units.Quantity` ['angle'] or str, optional
            For a cone, its rim included.
        width, height : `~astropy.units.Quantity` ['angle'] or str, optional
            For a box round the centre, full extent east-west and north-south, measured along great
            circles.  ``height`` is ``width`` by default.
        polygon : `~astropy.coordinates.SkyCoord`, shape (n,), or sequence of tuple, optional
            Corners of a polygon with great-circle sides, instead of ``coordinates``; pairs are RA
            and Dec in degrees.
        ids : int, sequence of int, sequence of tuple, or `~astropy.table.Table`, optional
            Rows by ``ls_id``, by DESI's TARGETID, by (release, brickid, objid), or a table with
            such columns, instead of a part of the sky.  They come in this order, whether they are
            primary or duplicates or not; ``release`` is theirs by default.
        columns : str or sequence of str, optional
            Names, and families such as ``'flux'`` for all its bands.  Beside the survey's own
            there are those that are computed from them (see `list_columns`): ``mag_r``,
            ``mag_err_r``, ``dered_mag_r``, ``dered_flux_r``, ``snr_r``, colours such as ``g_r``,
            and an error for every inverse variance, such as ``ra_err``.  By default the core
            schema: every column that all sources have.  ``'brief'`` gives those that people look
            at first, ``'all'`` or ``'*'`` everything that the answering source has.  Files on this
            computer, or on a mirror of yours, may have columns of your own.  From TAP and with the
            sweeps there are redshifts too: ``'z_phot'`` for all photometric ones, ``z_spec`` and
            ``survey`` (DR9 to DR11).
        column_filters : dict, optional
            Conditions by column; all have to be met, and a missing value meets none.  Text is
            written as in Vizier: ``'>10'``, ``'<=3'``, ``'10..20'`` and ``'10..'`` with their ends,
            ``'!=PSF'``, ``'PSF, REX'`` for any of them, ``'!=PSF, REX'`` for none of them,
            ``'<1 | >5'``, ``'>1 & <5'``, and ``'~*E*'`` or ``'!~*E*'`` for texts like a pattern.  A
            list is any of its values, a tuple ``(low, high)`` a range of which an end may be
            `None`.  Quantities, and numbers with a unit in text, are converted to the unit of the
            column; fluxes are AB.
        primary : bool, default: True
            Only the row of the brick that owns the position; else each source may come several
            times, with ``brick_primary`` telling.  Only the files have the others.
        drop_duplicates : bool, default: True
            Leave out rows of type ``DUP``: Gaia sources that were fitted as part of another one.
        maskbits : str or sequence of str, optional
            Leave out rows with any of these bits of ``maskbits``, for example ``'BRIGHT'``.
        release : str, optional
            ``'dr5'`` to ``'dr11'``; by default `release`.
        region : {'auto', 'north', 'south'}, optional
            ``'auto'`` takes the official one at each position.
        source : {'auto', 'tap', 'files', 'sweeps', 'viewer'}, optional
            Astro Data Lab's TAP service, the bricks' Tractor files, the sweeps, or the viewer, or
            several of them in order.  ``'auto'`` takes the files if they are on this computer, else
            TAP, else the files over the network; ``meta['reason']`` says why.  With a mirror of
            your own, which need not hold the same data, it does not take TAP unless
            ``conf.tap_url`` is yours too.  Of a sweep on a server just the rows of the bricks that
            are touched are read.  Sweeps lack some columns, which are an error if they are named.
        mirror : str, path-like, or sequence of them, optional
            Where files come from; by default `mirror`.
        async_job : bool, default: False
            Whether a TAP query runs as a job, for queries of more than a minute or so.
        maxrec : int, optional
            At most so many rows.
        on_missing : {'warn', 'raise'}, optional
            Whether a column that the release or region lacks, or a region without catalogue, is an
            error, or masked values and a warning.
        cache : bool, optional
            Whether to keep and use files on disk; by default astroquery's ``cache_conf``.
        get_query_payload : bool, optional
            Return the ADQL, or the list of addresses, in place of the rows; nothing is fetched.

        Returns
        -------
        `~astropy.table.Table`
            One row per source, by separation from the centre, in the order of ``ids``, or else by
            ``ls_id``.  Values that the survey does not have are masked.  ``meta`` has ``source``,
            ``reason``, ``release``, ``region``, and ``adql`` or ``files``.

        Raises
        ------
        InvalidRequestError
            If an argument is wrong, or more brick files would have to be fetched than
            ``conf.max_query_bricks``; nothing was sent.
        MissingDataError, NoCoverageError
            With ``on_missing='raise'``.
        RefusedQueryError
            If the TAP service does not accept the query.
        ServiceDownError, TruncatedError, UnexpectedContentError, TransferError
            If no source could answer.

        Warns
        -----
        CoverageWarning
            If part of what was asked is not in the survey.
        FailoverWarning
            If another source or mirror than the first answered.
        `~astroquery.exceptions.MaxResultsWarning`
            If there are more rows than came.
        `~astroquery.exceptions.NoResultsWarning`
            If there are none, or none of some of the ids.
        `~astroquery.exceptions.LargeQueryWarning`
            If more than a few brick files are fetched.

        Examples
        --------
        >>> from astroquery_lis import LegacySurvey, sandbox
        >>> with sandbox.serve() as sky:
        ...     rows = LegacySurvey.query_tractor(sky.positions['star'], radius='5 arcsec',
        ...                                       columns=['type', 'flux_r'])
        >>> rows['flux_r'].unit
        Unit("nmgy")
        """
        sky: Sky
        if ids is not None:
            if any(item is not None for item in (coordinates, radius, width, height, polygon)):
                msg = "ids= stands alone, without coordinates, radius, width, height or polygon."
                raise InvalidRequestError(msg, parameter="ids", value=ids)
            sky, release = survey.tractor.as_row_ids(ids, release)
        else:
            sky = as_sky(coordinates, radius, width, height, polygon)
            release = setting("release", self._release) if release is None else release
        names = as_sources(source, catalogs.catalog_table.SOURCES)
        with self._finder(mirror, cache) as finder:
            settings = (finder, self._tables, conf.max_query_bricks, on_missing)
            files, sweeps = (
                catalogs.catalog_files.TractorFiles(*settings),
                catalogs.sweep_files.SweepFiles(*settings),
            )
            has_own = (sweeps if names == ("sweeps",) else files).own_columns
            may_ask = not {"auto", "files", "sweeps"}.isdisjoint(names)
            request = survey.catalog_request.catalog_request(
                sky,
                columns=columns,
                column_filters=column_filters,
                primary=primary,
                drop_duplicates=drop_duplicates,
                maskbits=maskbits,
                maxrec=maxrec,
                release=release,
                region=region,
                own=partial(has_own, sky, may_ask=may_ask),
            )
            reason = "it was asked for"
            if names == ("auto",):
                same_sky = self._is_same_sky("tap_url", finder.mirrors)
                names, reason = catalogs.catalog_files.order_of_sources(
                    request, files, tap_is_same_sky=same_sky
                )
            makers: dict[str, Callable[[], CatalogSource]] = {
                "files": lambda: files,
                "sweeps": lambda: sweeps,
                "tap": lambda: catalogs.catalog_services.TapSource(
                    self._tap(), self._cone_refused, async_job=async_job
                ),
                "viewer": lambda: catalogs.catalog_services.ViewerSource(self._viewer(cache)),
            }
            sources = [(makers[name](), reason) for name in names]
            if get_query_payload:
                return sources[0][0].payload(request)
            return catalogs.catalog_table.query_catalog(request, sources, on_missing)

    query_region = alias(query_tractor, "query_region")
    """Astroquery's name for it."""

    @answering
    def query_object(
        self,
        object_name: str,
        *,
        radius: Angle | None = None,
        width: Angle | None = None,
        height: Angle | None = None,
        columns: str | Sequence[str] | None = None,
        column_filters: Mapping[str, object] | None = None,
        primary: bool = True,
        drop_duplicates: bool = True,
        maskbits: str | Sequence[str] | None = None,
        release: str | None = None,
        region: Region = "auto",
        source: str | Sequence[str] = "auto",
        mirror: Mirror | None = None,
        async_job: bool = False,
        maxrec: int | None = None,
        on_missing: OnMissing = "warn",
        cache: bool | None = None,
        get_query_payload: bool = False,
    ) -> Table | Payload:
        """Return the sources round an object whose name CDS knows.

        Parameters
        ----------
        object_name : str
            For example ``'NGC 6240'``.
        radius, width, height : optional
            How much of the sky, as for `query_tractor`.
        columns, column_filters, primary, drop_duplicates, maskbits : optional
            What of the catalogue, as for `query_tractor`.
        release, region, source, mirror, async_job, maxrec, on_missing, cache : optional
            From where, as for `query_tractor`.
        get_query_payload : bool, optional
            Return what would be asked, as `query_tractor` does.

        Returns
        -------
        `~astropy.table.Table`
            As from `query_tractor`.

        Raises
        ------
        InvalidRequestError
            If it is no str, if nobody knows the name, or as for `query_tractor`.
        ServiceDownError
            If no name service answers.

        Examples
        --------
        >>> from astroquery_lis import LegacySurvey, sandbox
        >>> with sandbox.serve() as sky:
        ...     rows = LegacySurvey.query_object('NGC 1', radius='5 arcsec', columns='type')
        >>> rows.colnames
        ['type']
        """
        options = {k: v for k, v in locals().items() if k not in ("self", "object_name")}
        if not isinstance(object_name, str):
            refuse("object_name", object_name, "must be a str; for positions see query_region.")
        return self.query_tractor(object_name, **options)

    @answering
    @in_time
    def query_tap(
        self,
        query: str,
        *,
        async_job: bool = False,
        maxrec: int | None = None,
        get_query_payload: bool = False,
    ) -> Table | Payload:
        """Run a query of yours at the TAP service, Astro Data Lab's by default.

        Parameters
        ----------
        query : str
            ADQL.
        async_job : bool, default: False
            Whether it runs as a job, for queries of more than a minute or so.
        maxrec : int, optional
            At most so many rows; by default the service decides.
        get_query_payload : bool, optional
            Return a dict of the service and what it would be asked; nothing is fetched.

        Returns
        -------
        `~astropy.table.Table`
            As the service has it: types, missing values and units are the service's.

        Raises
        ------
        RefusedQueryError
            If the service does not accept the query.
        ServiceDownError, TruncatedError, UnexpectedContentError, TransferError
            If there was no answer.

        Warns
        -----
        `~astroquery.exceptions.MaxResultsWarning`
            If there are more rows than came.

        Examples
        --------
        >>> from astroquery_lis import LegacySurvey, sandbox
        >>> with sandbox.serve() as sky:
        ...     rows = LegacySurvey.query_tap('SELECT TOP 2 type, flux_r FROM ls_dr10.tractor')
        >>> len(rows)
        2
        """
        if not isinstance(query, str) or not query.strip():
            refuse("query", query, "must be ADQL.")
        if get_query_payload:
            return {"service": self._tap().url, "query": query}
        client = self._tap()
        maxrec = None if maxrec is None else survey.catalog_request.as_maxrec(maxrec)
        answer = client.run(query, maxrec=maxrec, async_job=async_job)
        if answer.is_cut:
            msg = f"There are more rows than the {len(answer.table)} that came."
            warn(msg, MaxResultsWarning)
        answer.table.meta.update({"adql": query, "url": client.url})
        return answer.table

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
        radius_deg = survey.sphere.as_angle_deg("radius", radius, catalogs.match.MAX_RADIUS_DEG)
        request = survey.catalog_request.catalog_request(
            survey.tractor.WHOLE_SKY,
            columns=columns,
            release=setting("release", self._release) if release is None else release,
            region=region,
        )
        if request.columns is None:
            must = "is for query_tractor; name the columns that a match shall have."
            refuse("columns", columns, must)
        targets = as_targets(table, Columns(ra, dec, name))
        degrees, own = (targets.ra_deg, targets.dec_deg), targets.table
        if own is None:
            own = QTable([values * u.deg for values in degrees], names=("ra", "dec"))
        years = as_years(epoch, len(targets))
        positions = catalogs.match.Positions(*degrees, radius_deg, years)
        with self._finder(mirror, cache) as finder:
            kinds = {
                "files": catalogs.catalog_files.TractorFiles,
                "sweeps": catalogs.sweep_files.SweepFiles,
            }
            kinds["auto"] = kinds["sweeps" if request.redshifts else "files"]
            files = kinds[source](finder, self._tables, conf.max_query_bricks, on_missing)
            if request.redshifts and not files.has_redshifts:
                refuse("source", source, "has no redshifts; leave it out, or take 'sweeps'.")
            return catalogs.match.match_table(request, own, positions, files, find)

    # ---- inner ----------------------------------------------------------------------------------

    def _tap(self) -> TapClient:
        make: Callable[..., PoliteSession] = io.http.PoliteSession
        return catalogs.catalog_services.TapClient(
            setting("tap_url"), partial(make, **dict(self._client_options()))
        )
