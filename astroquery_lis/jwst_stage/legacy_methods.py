"""The methods that put JWST and the Legacy Surveys together."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from astropy import units as u

from ..client import LegacySurvey
from ..exceptions import NoCoverageError, StageWarning, refuse, warn
from ..pictures.page import write_page
from ..survey.releases import get_release
from ..survey.sphere import as_angle_deg
from .legacy.field_page import jwst_picture, page_of
from .legacy.field_sources import (
    as_epoch,
    as_tractor,
    field_sources,
    has_motion,
    read_jwst_catalog,
)
from .legacy.fields import as_width_deg, field_cutouts
from .legacy.matching import CatalogMatch, match_tables
from .legacy.refcat import as_cuts, make_reference

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Literal, TypeAlias

    from .._typing import (
        WCS,
        Angle,
        Bands,
        FilePath,
        HDUList,
        Header,
        OnMissing,
        Products,
        Quantity,
        SkyCoord,
        Table,
        Time,
    )
    from ..client import LegacySurveyClass
    from .planning import Plan

    Footprints: TypeAlias = Plan | Table | FilePath | SkyCoord | Sequence[FilePath | SkyCoord]

MAX_RADIUS_DEG = 5 / 3600
MAX_OFFSET_DEG = 30 / 3600


class LegacyMethods:
    """JWST fields in the Legacy Surveys."""

    def cutouts_for(
        self,
        footprints: Footprints,
        *,
        bands: Bands | None = None,
        products: Products = ("image",),
        survey: LegacySurveyClass = LegacySurvey,
        like: FilePath | WCS | Header | HDUList | None = None,
        margin: Angle = "2 arcsec",
        union: bool | None = None,
        release: str | None = None,
        on_missing: OnMissing = "raise",
        **options: Any,
    ) -> list[HDUList | None]:
        """Cut JWST fields out of the Legacy Surveys.

        Parameters
        ----------
        footprints : Plan, `~astropy.table.Table`, path-like, str, \
`~astropy.coordinates.SkyCoord`, or sequence of those
            Where: a plan; a table with a column ``s_region``; FITS files with S_REGION in their
            headers, such as mosaics; a directory of mosaics; an S_REGION; or the corners of a
            polygon.
        bands : str or sequence of str, optional
            For example ``'grz'``; by default the optical ones that there are.
        products : str or sequence of str, optional
            As for `~astroquery_lis.LegacySurveyClass.get_cutout`.
        survey : `~astroquery_lis.LegacySurveyClass`, optional
            Where the cutouts come from: its mirror, release and cache are used.
        like : path-like, `~astropy.wcs.WCS`, `~astropy.io.fits.Header`, \
`~astropy.io.fits.HDUList` or 'own', optional
            Grid of the cutout: that of a mosaic (``_i2d.fits``), or any other with its size.
            ``'own'`` takes that of each file in ``footprints``.  By default the pixels are the
            survey's, north up, and the cutout is the smallest that holds the footprint.
        margin : `~astropy.units.Quantity` ['angle'] or str, optional
            Added to the footprint on every side, unless there is ``like``.
        union : bool, optional
            Whether footprints that overlap make one field, with one cutout.  By default those of a
            plan or a table do, and files that are named one by one do not.
        release : str, optional
            ``'dr5'`` to ``'dr11'``; by default that of ``survey``.
        on_missing : {'raise', 'warn'}, optional
            Whether data that were named and are not there are an error, and a field without any.
        **options
            As for `~astroquery_lis.LegacySurveyClass.get_cutout`: ``region``, ``pixel_scale``,
            ``source``, ``mirror``, ``cache``, ``get_query_payload`` and so on.

        Returns
        -------
        list of `~astropy.io.fits.HDUList`
            One per field, or per grid; `None` for one without data if that is no error.  The
            primary header names the footprints (``FOOT1`` and so on).

        Raises
        ------
        InvalidRequestError
            If an argument is wrong or a field is larger than a cutout may be.
        InvalidExposureError
            If a file has no footprint or no grid.
        LegacySurveyError
            As ``get_cutout`` raises it.

        Warns
        -----
        CoverageWarning
            If part of what was asked is not in the survey, or rows of a table have no ``s_region``.

        Examples
        --------
        >>> from astroquery_lis import LegacySurvey, sandbox
        >>> from astroquery_lis.jwst_stage import JwstStage
        >>> with sandbox.serve() as sky:
        ...     (hdul,) = JwstStage.cutouts_for("CIRCLE ICRS 45.09 0.062 0.002", bands="r")
        >>> hdul["IMAGE_R"].shape
        (73, 73)
        """
        return field_cutouts(
            footprints,
            survey=survey,
            bands=bands,
            products=products,
            like=like,
            margin=margin,
            union=union,
            release=release,
            on_missing=on_missing,
            **options,
        )

    def match_catalogs(
        self,
        i2d_catalog: FilePath | Table,
        *,
        tractor: Table | None = None,
        survey: LegacySurveyClass = LegacySurvey,
        radius: Angle = 0.3 * u.arcsec,
        max_offset: Angle = 3 * u.arcsec,
        epoch: Time | None = None,
        magnitude: str = "auto",
        dereddened: bool = True,
        release: str | None = None,
        **options: Any,
    ) -> CatalogMatch:
        """Match the catalogue of a JWST mosaic to Tractor.

        Parameters
        ----------
        i2d_catalog : path-like or `~astropy.table.Table`
            ``*_cat.ecsv``, or ``*_i2d.fits`` with the catalogue beside it, or a table with a
            column ``sky_centroid`` of `~astropy.coordinates.SkyCoord` (or ``ra`` and ``dec``).  A
            mosaic beside the catalogue tells its footprint, its epoch and its filter.
        tractor : `~astropy.table.Table`, optional
            Sources of the catalogue; by default those of the footprint are asked of ``survey``.
        survey : `~astroquery_lis.LegacySurveyClass`, optional
            Asked for Tractor.
        radius : `~astropy.units.Quantity` ['angle'] or str, optional
            Largest separation of partners, once the common offset is taken off.
        max_offset : `~astropy.units.Quantity` ['angle'] or str, optional
            Longest common offset that is looked for.  0 takes the positions as they are: the
            offset is measured all the same.
        epoch : `~astropy.time.Time`, optional
            When the mosaic was observed, to which stars with a proper motion from Gaia are carried;
            by default what the mosaic says.
        magnitude : str, optional
            Column of the JWST magnitudes, AB.  ``'auto'`` takes ``aper_total_abmag`` for what
            Tractor fitted with a point source and ``isophotal_abmag`` for the rest; for sources
            without a partner, ``is_extended`` of the catalogue decides.
        dereddened : bool, optional
            Whether Tractor's magnitudes are corrected for the Galaxy's extinction.  Those of JWST
            are as the catalogue has them.
        release : str, optional
            By default that of ``survey``.
        **options
            As for `~astroquery_lis.LegacySurveyClass.query_tractor`.

        Returns
        -------
        `~astroquery_lis.jwst_stage.legacy.matching.CatalogMatch`
            ``matches``, ``jwst_only``, ``legacy_only`` (tables), ``offset`` and ``star_offset``.
            Partners are each other's nearest.

        Raises
        ------
        InvalidRequestError
            If an argument is wrong.
        InvalidExposureError
            If a file cannot be read.
        LegacySurveyError
            As ``query_tractor`` raises it.

        Warns
        -----
        StageWarning
            If there are stars with proper motions and the epoch is not known.

        Examples
        --------
        >>> from astropy.coordinates import SkyCoord
        >>> from astropy.table import QTable
        >>> from astropy.time import Time
        >>> from astroquery_lis import LegacySurvey, sandbox
        >>> from astroquery_lis.jwst_stage import JwstStage
        >>> with sandbox.serve() as sky:
        ...     true = sky.truth[abs(sky.truth["ra"] - 45.09) < 0.01]
        ...     true = true[abs(true["dec"] - 0.062) < 0.01]
        ...     catalogue = QTable({"sky_centroid": SkyCoord(true["ra"], true["dec"])})
        ...     match = JwstStage.match_catalogs(catalogue, epoch=Time("2023-08-20"))
        >>> len(match.matches) == len(catalogue)
        True
        """
        radius_mas = as_angle_deg("radius", radius, MAX_RADIUS_DEG) * 3.6e6
        reach_mas = as_width_deg("max_offset", max_offset, MAX_OFFSET_DEG) * 3.6e6
        if not isinstance(dereddened, (bool, np.bool_)):
            refuse("dereddened", dereddened, "must be True or False.")
        as_epoch(epoch)
        catalog = read_jwst_catalog(i2d_catalog, magnitude=magnitude)
        epoch = catalog.epoch if epoch is None else epoch
        if tractor is None:
            release = get_release(survey.release if release is None else release).name
            margin_deg = (radius_mas + reach_mas) / 3.6e6
            tractor = field_sources(
                catalog.field, survey, margin_deg=margin_deg, release=release, **options
            )
        tractor = as_tractor(tractor)
        _warn_of_motion(epoch, tractor)
        match = match_tables(
            catalog,
            tractor,
            epoch=epoch,
            radius_mas=radius_mas,
            reach_mas=reach_mas,
            dereddened=bool(dereddened),
        )
        match.meta.update(
            filter=catalog.filter,
            epoch=None if epoch is None else epoch.utc.isot,
            release=release or "",
            radius_arcsec=radius_mas / 1000,
            max_offset_arcsec=reach_mas / 1000,
            dereddened=bool(dereddened),
        )
        return match

    def field_page(
        self,
        mosaics: FilePath | Sequence[FilePath],
        path: FilePath,
        *,
        match: CatalogMatch | None = None,
        survey: LegacySurveyClass = LegacySurvey,
        title: str | None = None,
        bands: Bands | None = None,
        size: int = 900,
        brightness: float = 1.0,
        release: str | None = None,
        **options: Any,
    ) -> Path:
        """Write a page that shows a field by JWST and by the Legacy Surveys, side by side.

        Parameters
        ----------
        mosaics : path-like or sequence of path-like
            ``*_i2d.fits``: one for a grey picture, several on one grid for colours.  The catalogue
            beside the first one is matched.
        path : path-like
            HTML file, which needs no other and no network; replaced if it is there.
        match : `~astroquery_lis.jwst_stage.legacy.matching.CatalogMatch`, optional
            By default `match_catalogs` of the first mosaic.
        survey : `~astroquery_lis.LegacySurveyClass`, optional
            Where cutout and catalogue come from.
        title : str, optional
            Heading; by default the name of the first mosaic.
        bands : str or sequence of str, optional
            Bands of the Legacy picture; by default those that there are.
        size : int, optional
            Largest width or height of the pictures, pixels.
        brightness : float, optional
            More than 1 shows fainter things in the JWST picture.
        release : str, optional
            By default that of ``survey``.
        **options
            As for `match_catalogs`, without ``match``.

        Returns
        -------
        `~pathlib.Path`
            The page: both pictures on the grid of the mosaic with the sources marked, a plot of the
            offsets, one of colours, and the pairs as a table.

        Raises
        ------
        InvalidRequestError
            If an argument is wrong or the mosaics are not on one grid.
        OptionalDependencyError
            If the picture has pixels of more than 0.29 arcsec, and reproject is not installed.
        LegacySurveyError
            As `match_catalogs` and ``get_cutout`` raise it.

        Examples
        --------
        >>> from astroquery_lis.jwst_stage import JwstStage
        >>> JwstStage.field_page("field_i2d.fits", "field.html")  # doctest: +SKIP
        """
        picture = jwst_picture(mosaics, size=size, brightness=brightness)
        first = mosaics if isinstance(mosaics, (str, os.PathLike)) else mosaics[0]
        if match is None:
            match = self.match_catalogs(first, survey=survey, release=release, **options)
        else:
            _check_match(match, options)
        release = release or match.meta.get("release") or None
        try:
            legacy = survey.get_cutout(None, wcs=picture.wcs, bands=bands, release=release)
        except NoCoverageError:
            legacy = None
        name = Path(first).name.removesuffix("_i2d.fits") if title is None else title
        return write_page(path, page_of(match, picture, legacy, title=name))

    def astrometric_reference(
        self,
        footprints: Footprints,
        *,
        catalog: Literal["legacy", "gaia"] = "legacy",
        survey: LegacySurveyClass = LegacySurvey,
        epoch: Time | None = None,
        path: FilePath | None = None,
        margin: Angle = "10 arcsec",
        galaxies: bool = True,
        min_snr: float = 10.0,
        max_error: Quantity = 30 * u.mas,
        max_radius: Quantity = 0.6 * u.arcsec,
        max_fracflux: float = 0.2,
        maskbits: str | Sequence[str] | None = None,
        release: str | None = None,
        gaia: Any = None,
        **options: Any,
    ) -> Table:
        """Make a reference catalogue for ``tweakreg.abs_refcat``.

        Parameters
        ----------
        footprints : object
            The exposures, as for `cutouts_for`.
        catalog : {'legacy', 'gaia'}, optional
            Tractor: stars with a proper motion from Gaia, and compact galaxies.  Or Gaia DR3, from
            ESA's archive.  Stars without a proper motion are left out.
        survey : `~astroquery_lis.LegacySurveyClass`, optional
            Asked for Tractor.
        epoch : `~astropy.time.Time`, optional
            To which the stars are carried; by default when the exposures were made.
        path : path-like, optional
            ECSV file to write, replaced if it is there.
        margin : `~astropy.units.Quantity` ['angle'] or str, optional
            Around the footprints: pointing errors and the search radius of tweakreg.
        galaxies : bool, optional
            Whether compact galaxies are taken too; Gaia has none.
        min_snr : float, optional
            Smallest flux over error of a galaxy, in its best band.
        max_error : `~astropy.units.Quantity` ['angle'], optional
            Largest error of a position at the epoch, in one coordinate.
        max_radius : `~astropy.units.Quantity` ['angle'], optional
            Largest half-light radius of a galaxy.
        max_fracflux : float, optional
            Largest part of other sources' light, relative to a galaxy's own, in its best band.
        maskbits : str or sequence of str, optional
            Sources with any of these bits are left out.  By default galaxies in the masks of bright
            stars, large galaxies and clusters, or where a band is bad in every exposure, and stars
            in large galaxies.
        release : str, optional
            By default that of ``survey``.
        gaia : `~astroquery.gaia.GaiaClass`, optional
            Asked for Gaia.
        **options
            As for `~astroquery_lis.LegacySurveyClass.query_tractor`: ``region``, ``source``,
            ``mirror``, ``cache``.

        Returns
        -------
        `~astropy.table.Table`
            ``RA`` and ``DEC`` (deg, ICRS, at the epoch), ``weight`` (1 for the best),
            ``error_mas``, ``kind`` (star or galaxy), identifiers and motions.  ``meta`` says how it
            was made.

        Raises
        ------
        InvalidRequestError
            If an argument is wrong, or the epoch is not known.
        NoCoverageError
            If no source is fit for it.
        LegacySurveyError
            As ``query_tractor`` raises it.

        Warns
        -----
        StageWarning
            If there are fewer sources than the pipeline takes by default, or the exposures are more
            than a year apart.

        Examples
        --------
        >>> from astropy.time import Time
        >>> from astroquery_lis import LegacySurvey, sandbox
        >>> from astroquery_lis.jwst_stage import JwstStage
        >>> with sandbox.serve() as sky:
        ...     reference = JwstStage.astrometric_reference(
        ...         "CIRCLE ICRS 45.125 0.0 0.08", epoch=Time("2023-08-20"))
        >>> reference.colnames[:3]
        ['RA', 'DEC', 'weight']
        """
        cuts = as_cuts(
            max_error=max_error,
            galaxies=galaxies,
            min_snr=min_snr,
            max_radius=max_radius,
            max_fracflux=max_fracflux,
            maskbits=maskbits,
        )
        return make_reference(
            footprints,
            catalog=catalog,
            survey=survey,
            epoch=epoch,
            path=path,
            margin=margin,
            cuts=cuts,
            release=release,
            gaia=gaia,
            **options,
        )


def _warn_of_motion(epoch: Time | None, tractor: Table) -> None:
    if epoch is None and has_motion(tractor).any():
        msg = (
            "The epoch of the mosaic is not known, so that stars are left where Tractor has "
            "them; give epoch=Time(...)."
        )
        warn(msg, StageWarning)


def _check_match(match: object, options: dict[str, Any]) -> None:
    """Refuse what is no match, and arguments of one that is not made."""
    if options or not isinstance(match, CatalogMatch):
        value = ", ".join(options) or match
        refuse("match", value, "must be what match_catalogs returned, without its arguments.")
