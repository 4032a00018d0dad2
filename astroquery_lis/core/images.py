"""The methods that return images."""

from ..products.coadds import coadd_cutout, coadd_cutout_paths
from ..survey.releases import get_release
from ..survey.request import (
    CutoutRequest,
    as_bands,
    as_choice,
    as_products,
    as_region,
    as_size,
)
from ..transfer.mirrors import resolve_mirrors
from .base import SurveyBase, as_position

__all__ = ["ImageMethods"]

SOURCES = ("auto", "bricks")


class ImageMethods(SurveyBase):
    """Cutouts."""

    def get_cutout(
        self,
        coordinates,
        size=256,
        *,
        bands=None,
        products=("image",),
        release=None,
        region="auto",
        source="auto",
        mirror=None,
        on_missing="raise",
        cache=None,
        get_query_payload=False,
    ):
        """Cut a box out of the survey's coadds, at their own pixels.

        Parameters
        ----------
        coordinates : `~astropy.coordinates.SkyCoord` or str
            One position, in any frame; a string is a position in ICRS or an object's name.
        size : int or `~astropy.units.Quantity` ['angle'], scalar or (2,) in (ny, nx), optional
            Pixels of 0.262 arcsec, or an angle, rounded to whole pixels.
        bands : str or sequence of str, optional
            For example ``'grz'``.  By default those that the brick of the target has.
        products : str or sequence of str, optional
            Any of ``image``, ``invvar``, ``model``, ``blobmodel``, ``chi2``, ``depth``,
            ``galdepth``, ``nexp``, ``psfsize``, ``maskbits``.
        release : str, optional
            ``'dr5'`` to ``'dr11'``; by default `release`.
        region : {'auto', 'north', 'south'}, optional
            ``'auto'`` takes the official one at each position.
        source : {'auto', 'bricks'}, optional
            What to cut from.
        mirror : str, path-like, or sequence of them, optional
            A registered name, a URL or template, or a directory; by default `mirror`.
        on_missing : {'raise', 'warn'}, optional
            Whether named data that the survey lacks there is an error, or a plane without values
            and a warning.
        cache : bool, optional
            Whether to keep and use files on disk; by default astroquery's ``cache_conf``.
        get_query_payload : bool, optional
            Return the list of URLs in place of the cutout; nothing is fetched.

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
            If another mirror than the first answered.

        Notes ----- The grid is the TAN projection of the brick that owns the target, whose pixels
        come as they are.  If the box reaches beyond that brick's image, the rest is taken from the
        bricks that own it: image, model and blobmodel interpolated by Lanczos-3, everything else
        from the nearest pixel.  Only the compressed tiles that the box touches are fetched.
        """
        request = self._cutout_request(coordinates, size, bands, products, release, region)
        as_choice("source", source, SOURCES)
        as_choice("on_missing", on_missing, ("raise", "warn"))
        mirrors = resolve_mirrors(self.mirror if mirror is None else mirror)
        if get_query_payload:
            return [str(mirrors[0].locate(path)) for path in coadd_cutout_paths(request)]
        with self._reader(mirrors, cache) as reader:
            return coadd_cutout(request, reader, on_missing=on_missing)

    def get_cutouts(self, coordinates, size=256, **kwargs):
        """Cut a box round each of several positions.

        Parameters
        ----------
        coordinates : `~astropy.coordinates.SkyCoord`, shape (n,), or sequence of str
            The positions.
        size : int or `~astropy.units.Quantity` ['angle'], optional
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
        """
        scalar = isinstance(coordinates, str) or getattr(coordinates, "isscalar", False)
        positions = [coordinates] if scalar else list(coordinates)
        return [self.get_cutout(position, size, **kwargs) for position in positions]

    def get_images(self, coordinates, size=256, **kwargs):
        """Cut a box round one or several positions: astroquery's name for `get_cutouts`.

        Parameters
        ----------
        coordinates, size, **kwargs
            As for `get_cutouts`.

        Returns
        -------
        list of `~astropy.io.fits.HDUList`
        """
        return self.get_cutouts(coordinates, size, **kwargs)

    def get_image_list(self, coordinates, size=256, **kwargs):
        """Return the URLs of the files that the cutouts are made of.

        Parameters
        ----------
        coordinates, size, **kwargs
            As for `get_cutouts`.

        Returns
        -------
        list of str
            Each once; of the first mirror.
        """
        lists = self.get_cutouts(coordinates, size, **{**kwargs, "get_query_payload": True})
        return list(dict.fromkeys(url for urls in lists for url in urls))

    def _cutout_request(self, coordinates, size, bands, products, release, region):
        release = get_release(self.release if release is None else release).name
        region = as_region(region, release)
        bands = as_bands(bands, release, region)
        products = as_products(products, release)
        ny, nx = as_size(size)
        ra_deg, dec_deg = as_position(coordinates)
        return CutoutRequest(ra_deg, dec_deg, ny, nx, products, bands, release, region)
