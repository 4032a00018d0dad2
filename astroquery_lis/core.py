"""The query class: arguments in, products out."""

import threading
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
from astropy.table import Table
from astroquery import cache_conf
from astroquery.query import BaseQuery
from astroquery.utils import parse_coordinates

from ._conf import conf, setting
from .exceptions import InvalidRequestError
from .products.coadds import coadd_cutout, coadd_cutout_paths
from .products.reader import OpenImages, SectionReader
from .survey.layout import COADD_PRODUCTS
from .survey.releases import RELEASES, get_release
from .survey.request import (
    CutoutRequest,
    as_bands,
    as_choice,
    as_products,
    as_region,
    as_size,
)
from .transfer.mirrors import REGISTERED, resolve_mirrors
from .transfer.session import HttpClient
from .transfer.store import cache_usage, clear_stores

__all__ = ["LegacySurvey", "LegacySurveyClass"]

SOURCES = ("auto", "bricks")


class LegacySurveyClass(BaseQuery):
    """Images of the DESI Legacy Imaging Surveys, DR5 to DR11.

    Use the instance `~astroquery_lis.LegacySurvey`.  Its attributes ``release``, ``mirror`` and
    ``timeout`` stand above ``conf`` and below the arguments of a call.  An instance may be shared
    among threads and can be pickled.

    Examples
    --------
    >>> from astropy.coordinates import SkyCoord
    >>> from astroquery_lis import LegacySurvey, sandbox
    >>> with sandbox.serve() as sky:
    ...     hdul = LegacySurvey.get_cutout(sky.positions['star'], 64, bands='r')
    >>> hdul['IMAGE_R'].data.shape
    (64, 64)
    """

    def __init__(self):
        super().__init__()
        self._session.headers["User-Agent"] += f" astroquery_lis/{_version()}"
        self._release = self._mirror = self._timeout = None
        self._images = OpenImages()
        self._clients = {}
        self._lock = threading.Lock()

    def __getstate__(self):
        return {**self.__dict__, "_lock": None, "_clients": {}}

    def __setstate__(self, state):
        self.__dict__.update(state)
        self._lock = threading.Lock()

    # ---- settings -------------------------------------------------------------------------------

    @property
    def release(self):
        """Release used when a call names none; ``conf.release`` unless it was set."""
        return get_release(setting("release", self._release)).name

    @release.setter
    def release(self, value):
        self._release = None if value is None else get_release(value).name

    @property
    def mirror(self):
        """Mirror, or sequence of them in order, used when a call names none.

        It is ``conf.mirror`` unless it was set.
        """
        return setting("mirror", self._mirror)

    @mirror.setter
    def mirror(self, value):
        if value is not None:
            resolve_mirrors(value)
        self._mirror = value

    @property
    def timeout(self):
        """Seconds without an answer before a request is given up; ``conf.timeout`` unless set."""
        return setting("timeout", self._timeout)

    @timeout.setter
    def timeout(self, value):
        if value is not None and not (isinstance(value, (int, float)) and 0 < value < np.inf):
            msg = f"timeout={value!r} must be a positive number of seconds."
            raise InvalidRequestError(msg, parameter="timeout", value=value)
        self._timeout = None if value is None else float(value)

    @property
    def cache_location(self):
        """Folder of the cache: the one that was set, else ``conf.cache_dir``, else astroquery's."""
        chosen = setting("cache_dir", self._cache_location) or None
        if chosen is None:
            return super().cache_location
        return Path(chosen).expanduser()

    @cache_location.setter
    def cache_location(self, location):
        self._cache_location = Path(location)

    # ---- cutouts --------------------------------------------------------------------------------

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

    # ---- what there is --------------------------------------------------------------------------

    def list_releases(self):
        """Return a `~astropy.table.Table` of the data releases: bands, regions, products, notes."""
        rows = [
            (
                release.name,
                ",".join(release.regions),
                *(",".join(release.trees[r].bands) if r in release.trees else "" for r in _REGIONS),
                ",".join(release.products),
                release.note,
            )
            for release in RELEASES.values()
        ]
        names = ("release", "regions", "bands_north", "bands_south", "products", "note")
        return Table(rows=rows, names=names)

    def list_bands(self, *, release=None, region="auto"):
        """Return the optical bands of a release, blue to red.

        Parameters
        ----------
        release : str, optional
            By default `release`.
        region : {'auto', 'north', 'south'}, optional
            ``'auto'`` for those that either region has.

        Returns
        -------
        list of str
        """
        found = get_release(self.release if release is None else release)
        as_region(region, found.name)
        return list(found.bands if region == "auto" else found.trees[region].bands)

    def list_products(self, *, release=None):
        """Return a `~astropy.table.Table` of the coadd products of a release.

        Parameters
        ----------
        release : str, optional
            By default `release`.

        Returns
        -------
        `~astropy.table.Table`
            Columns ``product``, ``per_band``, ``unit``, ``description``.
        """
        found = get_release(self.release if release is None else release)
        chosen = (COADD_PRODUCTS[name] for name in found.products)
        rows = [(p.name, p.per_band, p.unit, p.description) for p in chosen]
        return Table(rows=rows, names=("product", "per_band", "unit", "description"))

    def list_mirrors(self):
        """Return a `~astropy.table.Table` of the registered mirrors and whether each is in use."""
        used = {mirror.name for mirror in resolve_mirrors(self.mirror)}
        rows = [(m.name, m.template, m.description, m.name in used) for m in REGISTERED.values()]
        return Table(rows=rows, names=("name", "address", "description", "in_use"))

    # ---- cache ----------------------------------------------------------------------------------

    def cache_info(self):
        """Return what the cache holds.

        Returns
        -------
        dict
            ``location``, and under ``stores`` for each root (``official``, or one per custom
            mirror) the number and bytes of whole files and of parts of files.
        """
        return {"location": str(self.cache_location), "stores": cache_usage(self.cache_location)}

    def clear_cache(self):
        """Remove everything that this class has cached, images and responses."""
        self._images.clear()
        clear_stores(self.cache_location)
        for response in Path(self.cache_location).glob("*.pickle"):
            response.unlink()

    # ---- inner ----------------------------------------------------------------------------------

    def _cutout_request(self, coordinates, size, bands, products, release, region):
        release = get_release(self.release if release is None else release).name
        region = as_region(region, release)
        bands = as_bands(bands, release, region)
        products = as_products(products, release)
        ny, nx = as_size(size)
        ra_deg, dec_deg = _position(coordinates)
        return CutoutRequest(ra_deg, dec_deg, ny, nx, products, bands, release, region)

    def _reader(self, mirrors, cache):
        use_cache = cache_conf.cache_active if cache is None else cache
        location = self.cache_location if use_cache else None
        return SectionReader(self._client(), mirrors, location, self._images)

    def _client(self):
        """Return the HTTP client for the settings in force."""
        options = {
            "timeout_s": float(self.timeout),
            "retries": conf.retries,
            "max_connections": conf.max_workers,
            "max_retry_after_s": conf.max_retry_after,
            "user_agent": self._session.headers["User-Agent"],
        }
        key = tuple(options.values())
        with self._lock:
            if key not in self._clients:
                self._clients = {key: HttpClient(**options)}
            return self._clients[key]


_REGIONS = ("north", "south")


def _position(coordinates):
    """Return RA and Dec, ICRS degrees, of one position."""
    try:
        position = parse_coordinates(coordinates)
    except TypeError as error:
        msg = f"coordinates={coordinates!r} must be a SkyCoord, or a string that it understands."
        raise InvalidRequestError(msg, parameter="coordinates", value=coordinates) from error
    if not position.isscalar:
        msg = f"coordinates has shape {position.shape}; one position is due: see get_cutouts."
        raise InvalidRequestError(msg, parameter="coordinates", value=coordinates)
    icrs = position.transform_to("icrs")
    ra_deg, dec_deg = float(icrs.ra.deg), float(icrs.dec.deg)
    if not (np.isfinite(ra_deg) and np.isfinite(dec_deg)):
        msg = f"coordinates={coordinates!r} is not finite."
        raise InvalidRequestError(msg, parameter="coordinates", value=coordinates)
    return ra_deg, dec_deg


def _version():
    try:
        return version("astroquery_lis")
    except PackageNotFoundError:
        return "unknown"


LegacySurvey = LegacySurveyClass()
