"""Where the survey is, and what its maps say there."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, cast

import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.table import Column, MaskedColumn, Table

from .. import catalogs, images, survey
from .._typing import answering
from ..exceptions import CoverageWarning, InvalidRequestError, NoCoverageError, warn
from ..survey.bitmasks import maskbits
from ..survey.bricks import brick_id
from ..survey.releases import get_release
from .base import SurveyBase, in_time, whole_number
from .inputs import as_path, as_sky, as_targets
from .position_columns import Columns, Targets

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Executor
    from typing import Literal

    from mocpy import MOC
    from numpy.typing import NDArray

    from .._typing import Angle, Bands, FilePath, Mirror, Payload, Positions, Products, Region
    from ..survey.layers import Layer


MAX_PROBES = 200
"""Most positions that the viewer is asked for one by one in a call."""

MAX_DEPTH = 29
"""The deepest order that a MOC can have."""


class FootprintMethods(SurveyBase):
    """Bricks, coverage and maps."""

    @answering
    @in_time
    def query_bricks(
        self,
        coordinates: Positions | None = None,
        *,
        radius: Angle | None = None,
        width: Angle | None = None,
        height: Angle | None = None,
        polygon: SkyCoord | Sequence[tuple[float, float]] | None = None,
        ra: str | None = None,
        dec: str | None = None,
        name: str | None = None,
        release: str | None = None,
        region: Region = "auto",
        mirror: Mirror | None = None,
        cache: bool | None = None,
        get_query_payload: bool = False,
    ) -> Table | Payload:
        """Return the bricks of a release at positions, or that a part of the sky touches.

        Parameters
        ----------
        coordinates : `~astropy.coordinates.SkyCoord`, `~astropy.table.Table` or sequence, optional
            One position or many, as for `download_cutouts`.
        radius : `~astropy.units.Quantity` ['angle'] or str, optional
            Take every brick that a circle round a position touches; without it, the brick that
            owns the position.
        width, height, polygon : optional
            As for `query_tractor`; ``width`` and ``height`` with one position.
        ra, dec, name : str, optional
            Columns of a table, as for `download_cutouts`.
        release : str, optional
            ``'dr5'`` to ``'dr11'``; by default `release`.
        region : {'auto', 'north', 'south'}, optional
            ``'auto'`` takes the official one of each brick.
        mirror : str, path-like, or sequence of them, optional
            Where the table of bricks comes from, once; by default `mirror`.
        cache : bool, optional
            Whether to keep and use files on disk; by default astroquery's ``cache_conf``.
        get_query_payload : bool, optional
            Return a dict of the service and what it would be asked; nothing is fetched.

        Returns
        -------
        `~astropy.table.Table`
            By brick id: name, id, the release and region whose files they are, centre and edges
            (deg), and per band the median number of exposures, the PSF's FWHM (arcsec) and the
            5-sigma depths (AB mag).

        Raises
        ------
        InvalidRequestError
            If an argument is wrong.
        IncompleteMirrorError
            If no mirror has the table of bricks.
        TransferError
            If it could not be had.

        Warns
        -----
        CoverageWarning
            If the release has no brick there, or rows have no position.

        Examples
        --------
        >>> from astroquery_lis import LegacySurvey, sandbox
        >>> with sandbox.serve() as sky:
        ...     table = LegacySurvey.query_bricks(sky.positions['corner'], radius='10 arcsec')
        >>> print(*table['brickname'])
        0451p000 0453p000 0451p002 0453p002
        """
        release, region = self._tree(release, region)
        columns = Columns(ra, dec, name)
        if coordinates is not None and width is height is polygon is None:
            radius_deg = as_brick_radius_deg(radius)
            targets = as_targets(coordinates, columns, "coordinates")
            ids = bricks_at(targets, radius_deg)
            targets.warn_of_unplaced("are left out")
        else:
            ids = as_sky(coordinates, radius, width, height, polygon, columns).bricks()
        with self._finder(mirror, cache) as finder:
            if get_query_payload:
                regions = get_release(release).regions_of(region)
                paths = [
                    survey.paths.file_path("region-bricks", release, which) for which in regions
                ]
                urls = [finder.address(path) for path in paths]
                return {"service": finder.service, "urls": urls}
            return catalogs.brick_tables.bricks_of_release(ids, release, region, finder)

    @in_time
    def covers(
        self,
        coordinates: Positions,
        *,
        ra: str | None = None,
        dec: str | None = None,
        name: str | None = None,
        bands: Bands | None = None,
        release: str | None = None,
        region: Region = "auto",
        layer: str | None = None,
        observed: bool = False,
        mirror: Mirror | None = None,
        cache: bool | None = None,
    ) -> bool | NDArray[np.bool_]:
        """Tell which positions a release covers.

        Parameters
        ----------
        coordinates : `~astropy.coordinates.SkyCoord`, str, `~astropy.table.Table` or sequence
            One position or many, as for `download_cutouts`.
        ra, dec, name : str, optional
            Columns of a table, as for `download_cutouts`.
        bands : str or sequence of str, optional
            Bands that have to be there too: ``'grz'``.
        release, region, mirror, cache : optional
            As for `query_bricks`.
        layer : str, optional
            A layer of the viewer in place of ``release`` and ``region``.  For one of another survey
            the viewer is asked for a pixel at each position, at most ``MAX_PROBES`` of them.
        observed : bool, default: False
            Whether to ask the pixels in place of the table of bricks: those of the maps of
            exposures (``nexp``), which are fetched, one for each band of each brick.

        Returns
        -------
        bool or `~numpy.ndarray` of bool
            Of the shape of ``coordinates``, False for a row without a position: whether the brick
            that owns the position is in the release and has exposures in every band.  Inside of
            such a brick there can be unobserved pixels: with ``observed`` it is whether the pixel
            there has an exposure in every band that was named, else in any.  For another survey's
            layer: whether the viewer has a pixel there that is not zero.

        Raises
        ------
        InvalidRequestError
            If an argument is wrong.
        IncompleteMirrorError
            If no mirror has the table of bricks.
        TransferError
            If it could not be had.

        Warns
        -----
        CoverageWarning
            If rows have no position.

        Examples
        --------
        >>> from astroquery_lis import LegacySurvey, sandbox
        >>> with sandbox.serve() as sky:
        ...     there = LegacySurvey.covers(sky.positions['star'], bands='griz')
        >>> there
        True
        """
        shown = None if layer is None else survey.layers.get_layer(layer)
        if shown is not None:
            survey.layers.refuse_beside_layer(release, region)
            bands = survey.layers.as_layer_bands(bands, shown.bands, shown.name)
        ask: Callable[[tuple[np.ndarray, np.ndarray]], np.ndarray]
        if shown is not None and None in (shown.release, shown.region):
            ask = partial(self._probe, shown, bands, cache)
        else:
            if shown is not None:
                release, region = shown.release, cast("Region", shown.region)
                bands = bands or shown.bands
            release, region = self._tree(release, region)
            bands = survey.releases.as_bands(bands, release, region)
            inside = self._exposed if observed else self._inside
            ask = partial(inside, bands, (release, region), mirror, cache)
        # Names are looked up when the rest is known to be right.
        targets = as_targets(coordinates, Columns(ra, dec, name), "coordinates")
        targets.warn_of_unplaced("are not covered")
        answer = np.zeros(len(targets), bool)
        places = targets.ra_deg[targets.placed], targets.dec_deg[targets.placed]
        answer[targets.placed] = ask(places)
        return bool(answer[0]) if targets.shape == () else answer.reshape(targets.shape)

    def _inside(
        self,
        bands: Sequence[str] | None,
        tree: tuple[str, Region],
        mirror: Mirror | None,
        cache: bool | None,
        places: tuple[np.ndarray, np.ndarray],
    ) -> np.ndarray:
        """Tell by the table of bricks which places have exposures."""
        with self._finder(mirror, cache) as finder:
            return catalogs.brick_tables.covered(*places, bands, *tree, finder)

    def _exposed(
        self,
        bands: Sequence[str] | None,
        tree: tuple[str, Region],
        mirror: Mirror | None,
        cache: bool | None,
        places: tuple[np.ndarray, np.ndarray],
    ) -> np.ndarray:
        """Tell by the pixels which places have exposures: in every band that was named, or any."""
        every = bands or get_release(tree[0]).bands
        spec = images.map_values.MapSpec(("nexp",), tuple(every), *tree)
        access = self._access(mirror, cache, None)
        maps, _ = images.map_values.values_at(spec, access, places)
        exposed = np.array([column.filled(0) > 0 for column in maps.values()])
        return np.any(exposed, axis=0) if bands is None else np.all(exposed, axis=0)

    def _probe(
        self,
        layer: Layer,
        bands: Sequence[str] | None,
        cache: bool | None,
        places: tuple[np.ndarray, np.ndarray],
    ) -> np.ndarray:
        """Ask the viewer for a pixel of a layer at each position."""
        ra_deg, dec_deg = places
        if len(ra_deg) > MAX_PROBES:
            msg = (
                f"coordinates has {len(ra_deg)} positions; for layer {layer.name!r} the viewer has "
                f"to be asked for each, and {MAX_PROBES} at most are allowed in a call."
            )
            raise InvalidRequestError(msg, parameter="coordinates", value=len(ra_deg))
        service = self._viewer(cache)
        answer = np.zeros(len(ra_deg), bool)
        for number, (ra, dec) in enumerate(zip(ra_deg, dec_deg, strict=True)):
            request = survey.request.cutout_request(
                (float(ra), float(dec)), 1, bands=bands or layer.default_bands or None, layer=layer
            )
            with suppress(NoCoverageError):
                cutout = images.renderings.viewer_cutout(request, service, on_missing="raise")
                answer[number] = all(hdu.data.any() for hdu in cutout[1:])
        return answer

    @in_time
    def get_moc(
        self,
        *,
        bands: Bands | None = None,
        release: str | None = None,
        region: Region = "auto",
        max_depth: int = 10,
        mirror: Mirror | None = None,
        cache: bool | None = None,
    ) -> MOC:
        """Return the footprint of a release as a MOC; needs mocpy.

        Parameters
        ----------
        bands : str or sequence of str, optional
            Bands that have to be there.
        release, region, mirror, cache : optional
            As for `query_bricks`.
        max_depth : int, default: 10
            HEALPix order of the smallest cells; 10 is 3.4 arcmin.

        Returns
        -------
        `mocpy.MOC`

        Raises
        ------
        OptionalDependencyError
            If mocpy is not installed.

        Examples
        --------
        >>> from astroquery_lis import LegacySurvey, sandbox
        >>> with sandbox.serve() as sky:
        ...     moc = LegacySurvey.get_moc(bands='r')  # doctest: +SKIP
        """
        release, region = self._tree(release, region)
        bands = survey.releases.as_bands(bands, release, region)
        max_depth = whole_number("max_depth", max_depth, MAX_DEPTH)
        with self._finder(mirror, cache) as finder:
            return catalogs.brick_tables.footprint_moc(bands, release, region, finder, max_depth)

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
        bands = (
            survey.releases.as_bands(bands, release, region)
            or get_release(release).bands_in[region]
        )
        folder = as_path("download_dir", download_dir)
        spec = images.map_values.MapSpec(
            survey.releases.as_products(products, release, planes=True),
            bands,
            release,
            region,
            str(folder or ""),
        )
        access = self._access(mirror, cache, executor)
        targets = as_targets(coordinates, Columns(ra, dec, name, id_column), "coordinates")
        targets.warn_of_unplaced("have no values")
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


def as_brick_radius_deg(radius: Angle | None) -> float | None:
    """Return how far from a position bricks may be; `None` for the one that owns it."""
    if radius is None:
        return None
    return survey.sphere.as_angle_deg("radius", radius, 180.0, zero=True)


def bricks_at(targets: Targets, radius_deg: float | None = None) -> np.ndarray:
    """Return the ids of the bricks at positions, or of all that circles touch, each once."""
    placed = targets[targets.placed]
    if radius_deg is None:
        return np.unique(brick_id(placed.ra_deg, placed.dec_deg))
    places = zip(placed.ra_deg, placed.dec_deg, strict=True)
    touched = [survey.sphere.bricks_in_circle(*at, radius_deg) for at in places]
    return np.unique(np.concatenate([np.array([], np.int64), *touched]))
