"""Settings, cache and connections of the query class, and the lists of what there is."""

import threading
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
from astropy.table import Table
from astroquery import cache_conf
from astroquery.query import BaseQuery
from astroquery.utils import parse_coordinates

from .._conf import conf, setting
from ..exceptions import InvalidRequestError
from ..products.reader import OpenImages, SectionReader
from ..survey.layout import COADD_PRODUCTS
from ..survey.releases import REGIONS, RELEASES, get_release
from ..survey.request import as_region
from ..transfer.mirrors import REGISTERED, resolve_mirrors
from ..transfer.session import HttpClient
from ..transfer.store import cache_usage, clear_stores

__all__ = ["SurveyBase", "as_position"]


class SurveyBase(BaseQuery):
    """What every method stands on: settings, cache, connections."""

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

    # ---- what there is --------------------------------------------------------------------------

    def list_releases(self):
        """Return a `~astropy.table.Table` of the data releases: bands, regions, products, notes."""
        rows = [
            (
                release.name,
                ",".join(release.regions),
                *(",".join(release.trees[r].bands) if r in release.trees else "" for r in REGIONS),
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


def as_position(coordinates):
    """Return RA and Dec of one position.

    Parameters
    ----------
    coordinates : `~astropy.coordinates.SkyCoord` or str
        In any frame; a string is a position in ICRS or an object's name.

    Returns
    -------
    ra_deg, dec_deg : float
        ICRS.

    Raises
    ------
    InvalidRequestError
        If it is not one finite position.
    """
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
