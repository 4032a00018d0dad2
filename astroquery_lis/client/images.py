"""The methods that return cutouts, PSFs and pictures."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from .. import images, survey
from .._conf import setting
from .._typing import answering, answering_each
from ..exceptions import refuse
from ..io.bounds import within
from ..survey.pixel_grids import DEFAULT_SIZE
from .base import SurveyBase, in_time, options_of
from .inputs import as_sources, as_targets, request_at, requests_by_row
from .position_columns import Columns

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Literal

    from numpy import ndarray

    from .._typing import (
        WCS,
        Angle,
        Bands,
        ByRow,
        Coordinates,
        HDUList,
        Header,
        Mirror,
        OnMissing,
        Payload,
        Positions,
        Products,
        Region,
        Size,
    )
    from ..images.sources import Sources
    from ..survey.request import CutoutRequest


class ImageMethods(SurveyBase):
    """Cutouts, PSFs and pictures."""

    @answering
    @in_time
    def get_cutout(
        self,
        coordinates: Coordinates,
        size: Size = DEFAULT_SIZE,
        *,
        bands: Bands | None = None,
        products: Products = ("image",),
        release: str | None = None,
        region: Region = "auto",
        layer: str | Sequence[str] | None = None,
        pixel_scale: Angle | None = None,
        wcs: WCS | Header | None = None,
        rotation: Angle | None = None,
        wise_grid: Literal["native", "optical"] = "native",
        source: str | Sequence[str] = "auto",
        mirror: Mirror | None = None,
        on_missing: OnMissing = "raise",
        convert_flux: bool | None = None,
        allow_unknown_layer: bool = False,
        cache: bool | None = None,
        get_query_payload: bool = False,
    ) -> HDUList | Payload:
        """Cut a box out of the survey's coadds, or out of a layer of the viewer.

        Parameters
        ----------
        coordinates : `~astropy.coordinates.SkyCoord` or str
            One position, in any frame; a string is a position in ICRS (degrees, or hours and
            degrees) or an object's name.  With ``wcs`` it may be `None`, for the middle of the
            grid.
        size : int, `~astropy.units.Quantity` ['angle'] or str, scalar or (2,) in (ny, nx), optional
            Pixels, of 0.262 arcsec unless ``pixel_scale`` says otherwise, or an angle such as
            ``'30 arcsec'``, rounded to whole pixels.
        bands : str or sequence of str, optional
            For example ``'grz'``.  By default the optical ones that the brick of the target has.
            ``'W1'`` to ``'W4'``, from DR8 on, are Vega fluxes.
        products : str or sequence of str, optional
            Any of ``image``, ``invvar``, ``model``, ``blobmodel``, ``chi2``, ``depth``,
            ``galdepth``, ``nexp``, ``psfsize``, ``maskbits``, ``wisem1``, ``wisem2``; ``resid``
            (image - model), ``snr``, ``sigma``; ``psf`` (`get_psf`, turned to the sky).  ``'all'``
            is everything but the last three.  Of a layer: ``image``, which is what it shows,
            ``invvar``, ``maskbits``.
        release : str, optional
            ``'dr5'`` to ``'dr11'``; by default `release`.
        region : {'auto', 'north', 'south'}, optional
            ``'auto'`` takes the official one at each position.
        layer : str or sequence of str, optional
            A layer of the viewer (`list_layers`) instead of ``release`` and ``region``; of several
            the first that has data there.
        pixel_scale : `~astropy.units.Quantity` ['angle'] or str, optional
            Size of the result's pixels; by default the native one.
        wcs : `~astropy.wcs.WCS` or `~astropy.io.fits.Header`, optional
            Grid of the result, with its size, instead of ``size`` and ``pixel_scale``.
        rotation : `~astropy.units.Quantity` ['angle'] or str, optional
            Position angle of the result's y axis, from north towards east.
        wise_grid : {'native', 'optical'}, optional
            Whether WISE bands come on their own pixels of 2.75 arcsec or on those of the others.
        source : {'auto', 'bricks', 'viewer'} or sequence of them, optional
            What to cut from, in the order to try.  ``'auto'`` takes the bricks for a release of
            the Legacy Surveys, then the viewer; the viewer for all else.  With ``pixel_scale`` the
            bricks, resampled with flux conserved, come first for boxes of up to 3000 native pixels,
            and from 0.37 to 0.53 arcsec, where the viewer's pixels are aliased, at any size; for
            larger boxes the viewer, which sends a fraction of the bytes.
        mirror : str, path-like, or sequence of them, optional
            A registered name, a URL or template, or a directory; by default `mirror`.
        on_missing : {'raise', 'warn'}, optional
            Whether named data that the survey lacks there is an error, or a plane without values
            and a warning.
        convert_flux : bool, optional
            Whether the viewer's fluxes and inverse variances, which are per native pixel at any
            scale, are brought to the pixel of the result, so that sums over pixels are fluxes.
            By default where the unit is known; the card ``FLUXPIX`` says what flux is per.
        allow_unknown_layer : bool, optional
            Whether a layer that is not in `list_layers` may be asked for.  Some such names harm
            the service.
        cache : bool, optional
            Whether to keep and use files on disk; by default astroquery's ``cache_conf``.
        get_query_payload : bool, optional
            Return what the first source would be asked, instead of the cutout; nothing is fetched.

        Returns
        -------
        `~astropy.io.fits.HDUList`
            An empty primary HDU whose header tells the request and where the pixels came from; then
            one 2-D image HDU of shape ``(ny, nx)`` per product and band, named ``IMAGE_G``,
            ``INVVAR_G``, ``MASKBITS`` and so on, north up, east left, with WCS, ``BUNIT``
            (nanomaggy, AB zero point 22.5, for images; 1/nanomaggy^2 for inverse variances) and
            ``BAND``. ``OBSFRAC`` is the share of the pixels that were observed, ``NOTOWNED`` the
            number of those that a brick gives which does not own them.  Unobserved pixels hold 0
            and have invvar 0; where no brick is, images hold NaN, MASKBITS is NPRIMARY, and the
            rest 0.  With ``get_query_payload=True`` a dict of
            ``service`` and either ``urls`` (of the brick files) or ``params`` (of the viewer).

        Raises
        ------
        InvalidRequestError
            If an argument is wrong; nothing was sent.
        NoCoverageError
            If the release has nothing at the target, or nothing in the box was observed.
        MissingDataError
            If a band or product that was named has no observed pixel in the box.
        ServiceDownError, TruncatedError, UnexpectedContentError, TransferError
            If no mirror could give a file.

        Warns
        -----
        CoverageWarning
            If part of what was asked is not in the survey.
        FailoverWarning
            If another mirror or source than the first answered.

        Notes
        -----
        The grid is the TAN projection of the brick that owns the target, whose pixels come as they
        are.  Pixels that other bricks own are taken from those, whatever the size of the box:
        image, model and blobmodel interpolated by Lanczos-3, everything else from the nearest
        pixel.  Where the owner has no file, any brick whose image holds the pixel gives it, with
        NPRIMARY set.  Only the compressed tiles that the box touches are fetched.

        Examples
        --------
        >>> import astropy.units as u
        >>> from astroquery_lis import LegacySurvey, sandbox
        >>> with sandbox.serve() as sky:
        ...     hdul = LegacySurvey.get_cutout(sky.positions['star'], 30 * u.arcsec, bands='gr',
        ...                                    products=('image', 'invvar'))
        >>> [hdu.name for hdu in hdul[1:]]
        ['IMAGE_G', 'IMAGE_R', 'INVVAR_G', 'INVVAR_R']
        >>> hdul['IMAGE_R'].shape
        (115, 115)
        """
        names = as_sources(source, images.sources.SOURCES)
        make = partial(
            survey.request.cutout_request,
            size=size,
            bands=bands,
            products=products,
            release=release,
            default_release=setting("release", self._release),
            region=region,
            layer=layer,
            allow_unknown_layer=allow_unknown_layer,
            pixel_scale=pixel_scale,
            wcs=wcs,
            rotation=rotation,
            wise_grid=wise_grid,
            convert_flux=convert_flux,
        )
        is_in_wcs = coordinates is None and wcs is not None
        request = make(None) if is_in_wcs else request_at(coordinates, make)
        sources = self._sources(names, mirror, cache)
        if get_query_payload:
            return sources.payload(request)
        return sources.planes(request, on_missing)

    @answering_each
    def get_cutouts(
        self,
        coordinates: Positions,
        size: ByRow[Size] = DEFAULT_SIZE,
        *,
        ra: str | None = None,
        dec: str | None = None,
        name: str | None = None,
        bands: Bands | None = None,
        products: Products = ("image",),
        release: ByRow[str] | None = None,
        region: ByRow[Region] = "auto",
        layer: str | Sequence[str] | None = None,
        pixel_scale: ByRow[Angle] | None = None,
        wcs: ByRow[WCS | Header] | None = None,
        rotation: ByRow[Angle] | None = None,
        wise_grid: Literal["native", "optical"] = "native",
        source: str | Sequence[str] = "auto",
        mirror: Mirror | None = None,
        on_missing: OnMissing = "raise",
        convert_flux: bool | None = None,
        allow_unknown_layer: bool = False,
        cache: bool | None = None,
        get_query_payload: bool = False,
    ) -> list[HDUList | None] | list[Payload]:
        """Cut a box round each of several positions.

        Parameters
        ----------
        coordinates : `~astropy.coordinates.SkyCoord`, `~astropy.table.Table` or sequence
            The positions, as for `download_cutouts`.
        ra, dec, name : str, optional
            Columns of a table, as for `download_cutouts`.
        size, release, region, pixel_scale, wcs, rotation : optional
            As for `get_cutout`, or by row, as for `download_cutouts`.
        bands, products, layer, wise_grid, source, mirror, on_missing, convert_flux, \
allow_unknown_layer, cache, get_query_payload : optional
            As for `get_cutout`.

        Returns
        -------
        list of `~astropy.io.fits.HDUList`
            In the order of ``coordinates``, and `None` for a row without a position; with
            ``get_query_payload=True`` a list of dict.

        Raises
        ------
        LegacySurveyError
            The first failure, as `get_cutout` raises it.

        Warns
        -----
        CoverageWarning
            If rows have no position.

        Examples
        --------
        >>> from astropy.coordinates import SkyCoord
        >>> from astroquery_lis import LegacySurvey, sandbox
        >>> targets = SkyCoord([45.09, 45.13], [0.062, 0.005], unit='deg')
        >>> with sandbox.serve() as sky:
        ...     cutouts = LegacySurvey.get_cutouts(targets, 32, bands='r')
        >>> len(cutouts)
        2
        """
        make = partial(survey.request.cutout_request, default_release=self.release)
        options = options_of(locals(), survey.request.CUTOUT_OPTIONS)
        sources = self._sources(as_sources(source, images.sources.SOURCES), mirror, cache)
        targets = as_targets(coordinates, Columns(ra, dec, name), "coordinates")
        # Refused before the first is fetched.
        whole = requests_by_row(make, targets, options)
        targets.warn_of_unplaced("no cutout")
        answer = sources.payload if get_query_payload else partial(_planes, sources, on_missing)
        return [at and answer(whole.request(i)) for i, at in enumerate(targets.places())]

    get_images = get_cutouts
    """Astroquery's name for it."""

    def get_image_list(
        self,
        coordinates: Positions,
        size: ByRow[Size] = DEFAULT_SIZE,
        *,
        ra: str | None = None,
        dec: str | None = None,
        name: str | None = None,
        bands: Bands | None = None,
        products: Products = ("image",),
        release: ByRow[str] | None = None,
        region: ByRow[Region] = "auto",
        layer: str | Sequence[str] | None = None,
        pixel_scale: ByRow[Angle] | None = None,
        source: str | Sequence[str] = "auto",
        mirror: Mirror | None = None,
    ) -> list[str]:
        """Return the URLs of what the cutouts are made of.

        Parameters
        ----------
        coordinates, size, ra, dec, name, release, region, pixel_scale : optional
            As for `get_cutouts`.
        bands, products, layer, source, mirror : optional
            As for `get_cutout`.

        Returns
        -------
        list of str
            Each once; of the files on the first mirror, or of the viewer.

        Examples
        --------
        >>> from astropy.coordinates import SkyCoord
        >>> from astroquery_lis import LegacySurvey
        >>> target = SkyCoord(190.1086, 1.2005, unit='deg')
        >>> urls = LegacySurvey.get_image_list(target, bands='gr', release='dr10', mirror='nersc')
        >>> len(urls)
        2
        """
        sources = self._sources(as_sources(source, images.sources.SOURCES), mirror, cache=None)
        make = partial(survey.request.cutout_request, default_release=self.release)
        options = options_of(locals(), survey.request.CUTOUT_OPTIONS)
        targets = as_targets(coordinates, Columns(ra, dec, name), "coordinates")
        targets.warn_of_unplaced("no address")
        whole = requests_by_row(make, targets, options)
        requests = [whole.request(i) for i in np.flatnonzero(targets.placed).tolist()]
        return list(dict.fromkeys(url for request in requests for url in sources.urls(request)))

    @answering
    @in_time
    def get_psf(
        self,
        coordinates: Coordinates,
        *,
        bands: Bands | None = None,
        release: str | None = None,
        region: Region = "auto",
        to_sky: bool = False,
        source: str | Sequence[str] = "auto",
        mirror: Mirror | None = None,
        on_missing: OnMissing = "raise",
        cache: bool | None = None,
        get_query_payload: bool = False,
    ) -> HDUList | Payload:
        """Return the point spread functions of the coadds at a position.

        Parameters
        ----------
        coordinates : `~astropy.coordinates.SkyCoord` or str
            One position.
        bands, release, region, on_missing, mirror, cache
            As for `get_cutout`.
        to_sky : bool, optional
            Whether to turn the PSF from the axes of the CCD to north up, east left, on pixels of
            0.262 arcsec, with its centroid in the middle pixel.
        source : {'auto', 'viewer', 'bricks'} or sequence of them, optional
            ``'viewer'``: the PSF of the exposures, averaged.  ``'bricks'``: a round Moffat model
            with the width of the ``psfsize`` map, flagged as a model in the header; always on the
            sky's axes.  ``'auto'`` takes the viewer, then the model.
        get_query_payload : bool, optional
            Return what the first source would be asked, as `get_cutout` does.

        Returns
        -------
        `~astropy.io.fits.HDUList`
            An empty primary HDU; then one image HDU per band, ``PSF_G`` and so on, of sum 1, whose
            header has ``PIXSCALE`` (arcsec: DECam 0.262, Mosaic-3 0.26, 90Prime 0.454), ``CAMERA``
            and ``ORIENT`` (``CCD`` or ``SKY``).

        Raises
        ------
        InvalidRequestError, NoCoverageError, MissingDataError, ServiceDownError
            As for `get_cutout`.

        Examples
        --------
        >>> from astroquery_lis import LegacySurvey, sandbox
        >>> with sandbox.serve() as sky:
        ...     psf = LegacySurvey.get_psf(sky.positions['star'], bands='r', to_sky=True)
        >>> psf['PSF_R'].shape, psf['PSF_R'].header['PIXSCALE']
        ((63, 63), 0.262)
        """
        names = as_sources(source, images.sources.SOURCES)
        make = partial(
            survey.request.psf_request,
            bands=bands,
            release=release,
            default_release=self.release,
            region=region,
            to_sky=to_sky,
        )
        request = request_at(coordinates, make)
        sources = self._sources(names, mirror, cache)
        if get_query_payload:
            return sources.payload(request)
        return sources.psfs(request, on_missing)

    @answering
    @in_time
    def get_picture(
        self,
        coordinates: Coordinates,
        size: Size = DEFAULT_SIZE,
        *,
        layer: str | None = None,
        bands: Bands | None = None,
        pixel_scale: Angle | None = None,
        cache: bool | None = None,
        get_query_payload: bool = False,
    ) -> ndarray | Payload:
        """Return the viewer's colour picture of a place.

        Parameters
        ----------
        coordinates : `~astropy.coordinates.SkyCoord` or str
            One position.
        size : int, `~astropy.units.Quantity` ['angle'] or str, optional
            As for `get_cutout`; 3000 pixels at most.
        layer : str, optional
            A layer (`list_layers`); by default that of `release`.
        bands : str or sequence of str, optional
            Bands to colour; by default the layer's.
        pixel_scale : `~astropy.units.Quantity` ['angle'] or str, optional
            By default the layer's native one.
        cache : bool, optional
            As for `get_cutout`.
        get_query_payload : bool, optional
            Return what the viewer would be asked, as `get_cutout` does.

        Returns
        -------
        `~numpy.ndarray` of uint8, shape (ny, nx, 3)
            Red, green, blue; north up, east left: the first row is the northernmost.

        Raises
        ------
        InvalidRequestError, NoCoverageError, ServiceDownError, UnexpectedContentError
            As for `get_cutout`.
        OptionalDependencyError
            If pillow is not installed.

        Examples
        --------
        >>> from astropy.coordinates import SkyCoord
        >>> from astroquery_lis import LegacySurvey
        >>> target = SkyCoord(190.1086, 1.2005, unit='deg')
        >>> query = LegacySurvey.get_picture(target, 64, layer='ls-dr10', get_query_payload=True)
        >>> query['params']['layer']
        'ls-dr10'
        """
        shown = self._layer(layer)
        make = partial(
            survey.request.cutout_request,
            size=size,
            bands=bands,
            layer=shown,
            pixel_scale=pixel_scale,
        )
        request = request_at(coordinates, make)
        parameters = images.renderings.Rendering(request).all_parameters()
        if len(parameters) > 1:
            refuse("size", size, ": the viewer's pictures are of 3000 pixels at most.")
        service = self._viewer(cache)
        if get_query_payload:
            return {"service": f"{service.url}/cutout.jpg", "params": parameters[0]}
        return images.renderings.viewer_picture(request, service)

    def _sources(
        self, names: tuple[str, ...], mirror: Mirror | None, cache: bool | None
    ) -> Sources:
        mirrors = self._mirrors(mirror)
        return images.sources.Sources(
            names,
            images.sources.BrickFiles(partial(self._reader, mirrors, cache), mirrors[0]),
            partial(self._viewer, cache),
            partial(self._is_same_sky, "viewer_url", mirrors),
        )


def _planes(sources: Sources, on_missing: str, request: CutoutRequest) -> HDUList:
    with within():
        return sources.planes(request, on_missing)
