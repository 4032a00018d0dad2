"""The methods that return cutouts."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from astropy.coordinates import SkyCoord

from ..exceptions import InvalidRequestError
from ..images import cutouts
from ..images.coadds import coadd_cutout, coadd_cutout_paths
from ..images.derived import derive, expand
from ..images.viewer import VIEWER_PRODUCTS, viewer_cutout
from ..images.viewer_native import ViewerSections
from ..images.wise import split_wise, wise_request
from ..io.places import resolve_mirrors
from ..survey.layers import get_layer
from ..survey.pixel_grids import SkyGrid, as_wcs_text, rotated_wcs_text
from ..survey.releases import PIXEL_SCALE_ARCSEC, get_release
from ..survey.request import (
    CutoutRequest,
    as_bands,
    as_choice,
    as_layer_bands,
    as_names,
    as_pixel_scale,
    as_products,
    as_region,
    as_rotation,
    as_size,
    refuse_beside_layer,
)
from .base import SurveyBase
from .inputs import as_coordinates, as_position

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from .._typing import (
        WCS,
        Angle,
        Bands,
        Coordinates,
        HDUList,
        Header,
        Mirror,
        OnMissing,
        Positions,
        Products,
        Region,
        Size,
    )


__all__ = ["ImageMethods"]

DEFAULT_SIZE = 256


class ImageMethods(SurveyBase):
    """Cutouts."""

    def get_cutout(
        self,
        coordinates: Coordinates,
        size: Size = DEFAULT_SIZE,
        *,
        bands: Bands | None = None,
        products: Products = ("image",),
        release: str | None = None,
        region: Region = "auto",
        layer: str | None = None,
        pixel_scale: Angle | None = None,
        wcs: WCS | Header | None = None,
        rotation: Angle | None = None,
        wise_grid: str = "native",
        source: str | Sequence[str] = "auto",
        mirror: Mirror | None = None,
        on_missing: OnMissing = "raise",
        convert_flux: bool | None = None,
        allow_unknown_layer: bool = False,
        cache: bool | None = None,
        get_query_payload: bool = False,
    ) -> HDUList | Any:
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
        layer : str, optional
            A layer of the viewer (`list_layers`) in place of ``release`` and ``region``.
        pixel_scale : `~astropy.units.Quantity` ['angle'] or str, optional
            Size of the result's pixels; by default the native one.
        wcs : `~astropy.wcs.WCS` or `~astropy.io.fits.Header`, optional
            Grid of the result, with its size, in place of ``size`` and ``pixel_scale``.
        rotation : `~astropy.units.Quantity` ['angle'] or str, optional
            Position angle of the result's y axis, from north towards east.
        wise_grid : {'native', 'optical'}, optional
            Whether WISE bands come on their own pixels of 2.75 arcsec or on those of the others.
        source : {'auto', 'bricks', 'viewer'} or sequence of them, optional
            What to cut from, in the order to try.  ``'auto'`` takes the bricks for a release of
            the Legacy Surveys at its own pixels, then the viewer; the viewer for all else.
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
            Return the list of URLs (bricks) or the viewer's parameters (dict) in place of the
            cutout; nothing is fetched.

        Returns
        -------
        `~astropy.io.fits.HDUList`
            An empty primary HDU whose header tells the request and where the pixels came from; then
            one 2-D image HDU of shape ``(ny, nx)`` per product and band, named ``IMAGE_G``,
            ``INVVAR_G``, ``MASKBITS`` and so on, north up, east left, with WCS, ``BUNIT``
            (nanomaggy, AB zero point 22.5, for images; 1/nanomaggy^2 for inverse variances) and
            ``BAND``. Unobserved pixels hold 0 and have invvar 0; where no brick is, images hold
            NaN, MASKBITS is NPRIMARY, and the rest 0.

        Raises
        ------
        InvalidRequestError
            If an argument is wrong; nothing was sent.
        NoCoverageError
            If the release has nothing at the target.
        MissingDataError
            If the target's brick lacks a band or product that was named.
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
        are.  If the box reaches beyond that brick's image, the rest is taken from the bricks that
        own it: image, model and blobmodel interpolated by Lanczos-3, everything else from the
        nearest pixel.  Only the compressed tiles that the box touches are fetched.

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
        as_choice("on_missing", on_missing, ("raise", "warn"))
        as_choice("wise_grid", wise_grid, ("native", "optical"))
        plan = self._plan(
            coordinates,
            size,
            bands=bands,
            products=products,
            release=release,
            region=region,
            layer=None if layer is None else get_layer(layer, allow_unknown=allow_unknown_layer),
            pixel_scale=pixel_scale,
            wcs=wcs,
            rotation=rotation,
            on_optical=wise_grid == "optical",
            convert_flux=convert_flux,
        )
        mirrors = resolve_mirrors(self.mirror if mirror is None else mirror)
        attempts = []
        if plan.request.bands != ():
            attempts = cutouts.attempts(source, plan, allow_unknown_layer=allow_unknown_layer)
        if source == "auto" and not self._viewer_matches(mirrors):
            attempts = [a for a in attempts if a[0] == "bricks"] or attempts
        if get_query_payload:
            return self._payload(plan, attempts, mirrors[0])
        if plan.wise is not None:
            wise = self._from_bricks(mirrors, cache, on_missing, plan.wise)
            wise = derive(wise, plan.wise_wanted)
            if not attempts:
                return wise
        calls = {
            "bricks": partial(self._from_bricks, mirrors, cache, on_missing),
            "native": partial(self._from_viewer_pixels, cache, on_missing),
            "viewer": partial(self._from_viewer, cache, on_missing, allow_unknown_layer),
        }
        hdul = cutouts.first_answer([(name, partial(calls[name], r)) for name, r in attempts])
        hdul = derive(hdul, plan.wanted)
        if plan.wise is not None:
            hdul.extend(wise[1:])
        if plan.with_psf:
            chosen = [hdu.header["BAND"] for hdu in hdul if hdu.header.get("BAND", "W")[0] != "W"]
            found = self.get_psf(
                coordinates,
                bands=list(dict.fromkeys(chosen)) or bands,
                release=plan.release,
                region=plan.region,
                to_sky=True,
                mirror=mirror,
                on_missing=on_missing,
                cache=cache,
            )
            hdul.extend(found[1:])
        return hdul

    @staticmethod
    def _payload(plan, attempts, mirror):
        """Return what a cutout would ask for."""
        if attempts and attempts[0][0] != "bricks":
            return cutouts.viewer_parameters(attempts[0][1])
        requests = [request for _, request in attempts[:1]]
        requests += [] if plan.wise is None else [plan.wise]
        paths = (path for request in requests for path in coadd_cutout_paths(request))
        return [str(mirror.locate(path)) for path in paths]

    def _from_viewer_pixels(self, cache, on_missing, request):
        return coadd_cutout(request, ViewerSections(self._viewer(cache)), on_missing=on_missing)

    def _from_viewer(self, cache, on_missing, allow_unknown_layer, request):
        return viewer_cutout(
            request,
            self._viewer(cache),
            on_missing=on_missing,
            allow_unknown_layer=allow_unknown_layer,
        )

    def get_cutouts(
        self, coordinates: Positions, size: Size = 256, **kwargs: Any
    ) -> list[HDUList] | Any:
        """Cut a box round each of several positions.

        Parameters
        ----------
        coordinates : `~astropy.coordinates.SkyCoord`, `~astropy.table.Table` or sequence
            The positions; a table as for `download_cutouts`.
        size : int, `~astropy.units.Quantity` ['angle'] or str, optional
            As for `get_cutout`.
        **kwargs
            As for `get_cutout`.

        Returns
        -------
        list of `~astropy.io.fits.HDUList`
            In the order of ``coordinates``; with ``get_query_payload=True`` a list of lists of
            URLs.

        Raises
        ------
        LegacySurveyError
            The first failure, as `get_cutout` raises it.

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
        positions = as_coordinates(coordinates).ravel()
        return [self.get_cutout(position, size, **kwargs) for position in positions]

    def get_images(self, coordinates: Positions, size: Size = 256, **kwargs: Any) -> list[HDUList]:
        """Cut a box round one or several positions: astroquery's name for `get_cutouts`.

        Parameters
        ----------
        coordinates, size, **kwargs
            As for `get_cutouts`.

        Returns
        -------
        list of `~astropy.io.fits.HDUList`

        Examples
        --------
        >>> from astroquery_lis import LegacySurvey, sandbox
        >>> with sandbox.serve() as sky:
        ...     images = LegacySurvey.get_images(sky.positions['star'], 32, bands='r')
        >>> len(images)
        1
        """
        return self.get_cutouts(coordinates, size, **kwargs)

    def get_image_list(self, coordinates: Positions, size: Size = 256, **kwargs: Any) -> list[str]:
        """Return the URLs of the files that the cutouts are made of.

        Parameters
        ----------
        coordinates, size, **kwargs
            As for `get_cutouts`.

        Returns
        -------
        list of str
            Each once; of the first mirror.

        Examples
        --------
        >>> from astropy.coordinates import SkyCoord
        >>> from astroquery_lis import LegacySurvey
        >>> target = SkyCoord(190.1086, 1.2005, unit='deg')
        >>> urls = LegacySurvey.get_image_list(target, bands='gr', release='dr10', mirror='nersc')
        >>> len(urls)
        2
        """
        lists = self.get_cutouts(coordinates, size, **{**kwargs, "get_query_payload": True})
        return list(dict.fromkeys(url for urls in lists for url in urls))

    # ---- inner ----------------------------------------------------------------------------------

    def _plan(
        self,
        coordinates,
        size,
        *,
        bands,
        products,
        release,
        region,
        layer,
        pixel_scale,
        wcs,
        rotation,
        on_optical,
        convert_flux,
    ):
        """Return the `~astroquery_lis.images.cutouts.CutoutPlan` of checked arguments."""
        products = (products,) if isinstance(products, str) else products
        with_psf = isinstance(products, (tuple, list)) and "psf" in products
        if with_psf:
            products = [name for name in products if name != "psf"] or ["image"]
        wanted, wise = (), ()
        native = PIXEL_SCALE_ARCSEC if layer is None else layer.pixel_scale_arcsec
        if layer is None:
            release = get_release(self.release if release is None else release).name
            region = as_region(region, release)
            bands, wise = split_wise(bands, release)
            bands = () if wise and not bands else as_bands(bands, release, region)
            wanted, products = expand(as_names(products), release)
            products = as_products(products, release, planes=True)
        else:
            _refuse_beside_layer(release, region, products, with_psf)
            bands = as_layer_bands(bands, layer.bands, layer.name)
            products = tuple(dict.fromkeys(products))
            release, region = layer.release or "", layer.region or "auto"
        scale = as_pixel_scale(pixel_scale, native_arcsec=native)
        if wcs is not None:
            grid, ny, nx = _given_grid(wcs, size, pixel_scale, rotation)
            middle = _middle(grid, ny, nx) if coordinates is None else coordinates
            ra_deg, dec_deg = as_position(middle)
        else:
            ny, nx = as_size(size, pixel_scale_arcsec=scale)
            ra_deg, dec_deg = as_position(coordinates)
            angle_deg, grid = as_rotation(rotation), ""
            if angle_deg:
                grid = rotated_wcs_text(ra_deg, dec_deg, ny, nx, scale, angle_deg)
        request = CutoutRequest(ra_deg, dec_deg, ny, nx, products, bands, release, region)
        is_native = scale == native and not grid
        plan = cutouts.CutoutPlan(
            request, layer, scale, is_native, convert_flux, with_psf, wanted, grid
        )
        if not wise:
            return plan
        given = replace(request, wcs=grid)
        found, mine = wise_request(given, wise, wanted, scale_arcsec=scale, on_optical=on_optical)
        return replace(plan, wise=found, wise_wanted=mine)


def _given_grid(wcs, size, pixel_scale, rotation):
    """Return the grid of ``wcs`` as text, and its size; refuse what it excludes."""
    for name, value in (("pixel_scale", pixel_scale), ("rotation", rotation)):
        if value is not None:
            msg = f"{name}={value!r} cannot be given beside wcs, which has its own."
            raise InvalidRequestError(msg, parameter=name, value=value)
    text, ny, nx = as_wcs_text(wcs)
    as_size((ny, nx), parameter="wcs")
    if size is not DEFAULT_SIZE and as_size(size) != (ny, nx):
        msg = f"size={size!r} is not that of wcs, {(ny, nx)}; leave it out."
        raise InvalidRequestError(msg, parameter="size", value=size)
    return text, ny, nx


def _middle(grid, ny, nx):
    """Return the position in the middle of a grid."""
    ra, dec = SkyGrid(grid).to_sky((nx - 1) / 2, (ny - 1) / 2)
    return SkyCoord(ra, dec, unit="deg")


def _refuse_beside_layer(release, region, products, with_psf):
    """Refuse what a layer excludes."""
    refuse_beside_layer(release, region)
    try:
        unfit = [name for name in products if name not in VIEWER_PRODUCTS]
    except TypeError:
        unfit = [products]
    if unfit or not products or with_psf:
        msg = (
            f"products={products!r}: a layer has {', '.join(VIEWER_PRODUCTS)}, where image is "
            "what it shows; psf goes with a release."
        )
        raise InvalidRequestError(msg, parameter="products", value=products)
