"""Settings, cache and connections of the query class, and the lists of what there is."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from astropy.table import Table
from astroquery import cache_conf
from astroquery.query import BaseQuery

from .._conf import conf, setting
from .._packages import package_version
from ..catalogs.catalog_files import FileFinder
from ..catalogs.tractor_file import OpenTables
from ..exceptions import InvalidRequestError
from ..images.reader import OpenImages, SectionReader
from ..images.viewer_service import ViewerService, viewer_client
from ..io.http import HttpClient
from ..io.places import resolve_mirrors
from ..survey.paths import COADD_PRODUCTS
from ..survey.releases import REGIONS, RELEASES, get_release
from ..survey.request import as_region

if TYPE_CHECKING:
    from .._typing import Region


__all__ = ["QueryBase", "SurveyBase"]


class QueryBase(BaseQuery):
    """How long to wait for a service, and where the cache is."""

    def __init__(self):
        super().__init__()
        self._timeout = None

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


class SurveyBase(QueryBase):
    """What every method stands on: settings, cache, connections."""

    def __init__(self):
        super().__init__()
        self._session.headers["User-Agent"] += f" astroquery_lis/{package_version()}"
        self._release = self._mirror = None
        self._images = OpenImages()
        self._tables = OpenTables()
        self._cone_refused = set()
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

    # ---- what there is --------------------------------------------------------------------------

    def list_releases(self) -> Table:
        """Return the data releases: bands, regions, products, notes.

        Returns
        -------
        `~astropy.table.Table`
            One row per release: ``release``, ``regions``, ``bands_north``, ``bands_south``,
            ``products``, ``note``.

        Examples
        --------
        >>> from astroquery_lis import LegacySurvey
        >>> print(*LegacySurvey.list_releases()['release'])
        dr5 dr6 dr7 dr8 dr9 dr10 dr11
        """
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

    def list_bands(self, *, release: str | None = None, region: Region = "auto") -> list[str]:
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

        Examples
        --------
        >>> from astroquery_lis import LegacySurvey
        >>> LegacySurvey.list_bands(release='dr10', region='north')
        ['g', 'r', 'z']
        """
        found = get_release(self.release if release is None else release)
        as_region(region, found.name)
        return list(found.bands if region == "auto" else found.trees[region].bands)

    def list_products(self, *, release: str | None = None) -> Table:
        """Return a `~astropy.table.Table` of the coadd products of a release.

        Parameters
        ----------
        release : str, optional
            By default `release`.

        Returns
        -------
        `~astropy.table.Table`
            Columns ``product``, ``per_band``, ``unit``, ``description``.

        Examples
        --------
        >>> from astroquery_lis import LegacySurvey
        >>> print(*LegacySurvey.list_products(release='dr9')['product'][:3])
        image invvar model
        """
        found = get_release(self.release if release is None else release)
        chosen = (COADD_PRODUCTS[name] for name in found.products)
        rows = [(p.name, p.per_band, p.unit, p.description) for p in chosen]
        return Table(rows=rows, names=("product", "per_band", "unit", "description"))

    # ---- inner ----------------------------------------------------------------------------------

    def _reader(self, mirrors, cache):
        use_cache = cache_conf.cache_active if cache is None else cache
        location = self.cache_location if use_cache else None
        return SectionReader(self._client(), mirrors, location, self._images)

    def _finder(self, mirror, cache):
        use_cache = cache_conf.cache_active if cache is None else cache
        mirrors = resolve_mirrors(self.mirror if mirror is None else mirror)
        return FileFinder(self._client(), mirrors, self.cache_location if use_cache else None)

    def _client(self, make=HttpClient, **extra):
        """Return the HTTP client of one kind for the settings in force."""
        options = {**self._client_options(), **extra}
        key = make, tuple(options.items())
        with self._lock:
            if key not in self._clients:
                # One of each kind: what was made for other settings is of no more use.
                self._clients = {k: c for k, c in self._clients.items() if k[0] is not make}
                self._clients[key] = make(**options)
            return self._clients[key]

    def _client_options(self):
        return {
            "timeout_s": float(self.timeout),
            "retries": conf.retries,
            "max_connections": conf.max_workers,
            "max_retry_after_s": conf.max_retry_after,
            "user_agent": self._session.headers["User-Agent"],
        }

    def _viewer_matches(self, mirrors):
        """Tell whether the viewer shows the same sky as the mirrors, so that it may stand in."""
        own = setting("viewer_url") != type(conf).viewer_url.defaultvalue
        return own or all(mirror.official for mirror in mirrors)

    def _viewer(self, cache):
        """Return the viewer's service for the settings in force."""
        use_cache = cache_conf.cache_active if cache is None else cache
        return ViewerService(
            self._client(viewer_client, timeout_is_set=self._timeout is not None),
            setting("viewer_url"),
            self.cache_location if use_cache else None,
            cache_conf.cache_timeout,
        )
