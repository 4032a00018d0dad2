"""The methods that show what the viewer has: PSFs, pictures, layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from astropy.table import Table

from .._conf import setting
from ..exceptions import InvalidRequestError
from ..images import cutouts, psf
from ..images.viewer import ViewerRequest
from ..images.viewer_picture import viewer_picture
from ..io.places import resolve_mirrors
from ..survey.bricks import brick_id
from ..survey.layers import LAYERS, get_layer, layer_of
from ..survey.releases import get_release
from ..survey.request import (
    CutoutRequest,
    as_bands,
    as_choice,
    as_layer_bands,
    as_pixel_scale,
    as_products,
    as_region,
    as_size,
)
from .base import SurveyBase
from .inputs import as_position

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from numpy import ndarray

    from .._typing import Angle, Bands, Coordinates, HDUList, Mirror, OnMissing, Region, Size


__all__ = ["ViewMethods"]


class ViewMethods(SurveyBase):
    """PSFs, pictures, layers."""

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
    ) -> HDUList | Any:
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
            Return the viewer's parameters; nothing is fetched.

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
        as_choice("on_missing", on_missing, ("raise", "warn"))
        release = get_release(self.release if release is None else release).name
        region = as_region(region, release)
        wanted = as_bands(bands, release, region)
        ra_deg, dec_deg = as_position(coordinates)
        request = CutoutRequest(ra_deg, dec_deg, 1, 1, ("psfsize",), wanted, release, region)
        mirrors = resolve_mirrors(self.mirror if mirror is None else mirror)
        layer = layer_of(release, psf.psf_region(request, int(brick_id(ra_deg, dec_deg))))
        if get_query_payload:
            chosen = "".join(wanted or layer.bands)
            return {"ra": ra_deg, "dec": dec_deg, "layer": layer.name, "bands": chosen}
        names = cutouts.as_sources(source)
        names = ("viewer", "bricks") if names == ("auto",) else names
        if names[0] == "bricks" or len(names) == 1:
            as_products("psfsize" if "bricks" in names else "image", release)
        elif "psfsize" not in get_release(release).products:
            names = ("viewer",)

        def from_viewer():
            service = self._viewer(cache)
            return psf.viewer_psf(request, service, layer, on_missing=on_missing, sky=to_sky)

        def from_bricks():
            hdul = self._from_bricks(mirrors, cache, on_missing, request)
            return psf.model_psf(request, hdul)

        calls = {"viewer": from_viewer, "bricks": from_bricks}
        return cutouts.first_answer([(name, calls[name]) for name in names])

    def get_picture(
        self,
        coordinates: Coordinates,
        size: Size = 256,
        *,
        layer: str | None = None,
        bands: Bands | None = None,
        pixel_scale: Angle | None = None,
        cache: bool | None = None,
        get_query_payload: bool = False,
    ) -> ndarray | Any:
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
            Return the viewer's parameters; nothing is fetched.

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
        >>> query['layer']
        'ls-dr10'
        """
        found = layer_of(self.release) if layer is None else get_layer(layer)
        scale = as_pixel_scale(pixel_scale, native_arcsec=found.pixel_scale_arcsec)
        ny, nx = as_size(size, pixel_scale_arcsec=scale)
        ra_deg, dec_deg = as_position(coordinates)
        names = as_layer_bands(bands, found.bands, found.name)
        request = ViewerRequest(ra_deg, dec_deg, ny, nx, found.name, ("image",), names, scale)
        if len(list(request.parts())) > 1:
            msg = f"size={size!r}: the viewer's pictures are of 3000 pixels at most."
            raise InvalidRequestError(msg, parameter="size", value=size)
        if get_query_payload:
            return cutouts.viewer_parameters(request)
        return viewer_picture(request, self._viewer(cache))

    def viewer_url(
        self, coordinates: Coordinates, *, layer: str | None = None, zoom: int = 15
    ) -> str:
        """Return the address of the viewer's page at a position, to be opened in a browser.

        Parameters
        ----------
        coordinates : `~astropy.coordinates.SkyCoord` or str
            One position.
        layer : str, optional
            By default that of `release`.
        zoom : int, optional
            14 is 0.262 arcsec per screen pixel; one more halves it.

        Returns
        -------
        str

        Examples
        --------
        >>> from astropy.coordinates import SkyCoord
        >>> from astroquery_lis import LegacySurvey
        >>> url = LegacySurvey.viewer_url(SkyCoord(190.1086, 1.2005, unit='deg'), layer='ls-dr10')
        >>> url.rpartition('?')[2]
        'ra=190.108600&dec=1.200500&layer=ls-dr10&zoom=15'
        """
        found = layer_of(self.release) if layer is None else get_layer(layer)
        ra_deg, dec_deg = as_position(coordinates)
        root = setting("viewer_url").rstrip("/")
        return f"{root}?ra={ra_deg:.6f}&dec={dec_deg:.6f}&layer={found.name}&zoom={zoom}"

    def list_layers(self) -> Table:
        """Return the viewer's layers and what each can serve.

        Returns
        -------
        `~astropy.table.Table`
            One row per layer: ``layer``, ``survey``, ``bands``, its native pixel scale, and what it
            serves truthfully.

        Examples
        --------
        >>> from astroquery_lis import LegacySurvey
        >>> layers = LegacySurvey.list_layers()
        >>> 'ls-dr10' in layers['layer']
        True
        """
        rows = [
            (
                layer.name,
                layer.survey,
                ",".join(layer.bands),
                ",".join(layer.default_bands),
                layer.pixel_scale_arcsec,
                layer.product,
                layer.release or "",
                layer.region or "",
                layer.fits,
                layer.invvar,
                layer.maskbits,
                layer.unit,
                layer.note,
            )
            for layer in LAYERS.values()
        ]
        names = (
            *("layer", "survey", "bands", "default_bands", "pixel_scale", "product", "release"),
            *("region", "fits", "invvar", "maskbits", "unit", "note"),
        )
        table = Table(rows=rows, names=names)
        table["pixel_scale"].unit = "arcsec"
        return table
