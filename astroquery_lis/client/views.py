"""The methods that show what the viewer has: pictures and layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from astropy.table import Table

from .. import images, survey
from .._conf import setting
from .._typing import answering
from ..exceptions import refuse
from ..survey.pixel_grids import DEFAULT_SIZE
from .base import SurveyBase, in_time
from .inputs import as_position

if TYPE_CHECKING:
    from numpy import ndarray

    from .._typing import Angle, Bands, Coordinates, Payload, Size
    from ..survey.layers import Layer


class ViewMethods(SurveyBase):
    """Pictures and layers of the viewer."""

    def _layer(self, name: str | None) -> Layer:
        """Return the layer of a name, or that of the release."""
        layers = survey.layers
        return layers.layer_of(self.release) if name is None else layers.get_layer(name)

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
        position = as_position(coordinates)
        request = survey.request.cutout_request(
            position, size, bands=bands, layer=shown, pixel_scale=pixel_scale
        )
        parameters = images.renderings.Rendering(request).all_parameters()
        if len(parameters) > 1:
            refuse("size", size, ": the viewer's pictures are of 3000 pixels at most.")
        service = self._viewer(cache)
        if get_query_payload:
            return {"service": f"{service.url}/cutout.jpg", "params": parameters[0]}
        return images.renderings.viewer_picture(request, service)

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
        shown = self._layer(layer)
        ra_deg, dec_deg = as_position(coordinates)
        root = setting("viewer_url").rstrip("/")
        return f"{root}?ra={ra_deg:.6f}&dec={dec_deg:.6f}&layer={shown.name}&zoom={zoom}"

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
        names = (
            *("name", "survey", "bands", "default_bands", "pixel_scale_arcsec", "product"),
            *("release", "region", "fits", "invvar", "maskbits", "unit", "note"),
        )
        rows = [
            [_cell(getattr(layer, name)) for name in names]
            for layer in survey.layers.LAYERS.values()
        ]
        table = Table(rows=rows, names=names)
        table.rename_columns(["name", "pixel_scale_arcsec"], ["layer", "pixel_scale"])
        table["pixel_scale"].unit = "arcsec"
        return table


def _cell(value: object) -> object:
    return ",".join(value) if isinstance(value, tuple) else "" if value is None else value
