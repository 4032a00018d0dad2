"""The method that fetches the exposures behind the coadds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from astropy.table import Row, Table
from astroquery import cache_conf

from ..exceptions import InvalidRequestError, LegacySurveyWarning, warn
from ..io.jobs import manifest
from ..survey.releases import get_release
from ..survey.request import as_bands, as_choice, as_region
from .base import SurveyBase
from .exposure_files import EXPOSURE_PRODUCTS, as_exposures, fetch_exposures, plan_exposures

if TYPE_CHECKING:
    from typing import Any

    from .._typing import Bands, Coordinates, FilePath, Products, Region


__all__ = ["ExposureMethods"]


class ExposureMethods(SurveyBase):
    """Single exposures as files."""

    def get_exposure_files(
        self,
        exposures_or_coordinates: Coordinates | Table,
        *,
        bands: Bands | None = None,
        products: Products = ("image", "invvar", "dq"),
        release: str | None = None,
        region: Region = "auto",
        download_dir: FilePath | None = None,
        cache: bool | None = None,
        get_query_payload: bool = False,
    ) -> Table | Any:
        """Fetch whole CCDs of exposures from the viewer and tell what became of each file.

        Parameters
        ----------
        exposures_or_coordinates : `~astropy.table.Table`, `~astropy.table.Row`, \
`~astropy.coordinates.SkyCoord` or str
            The table that `query_exposures` returns, or rows of it; or one position, for all CCDs
            that cover it.
        bands : str or sequence of str, optional
            Only these.
        products : str or sequence of str, default: ('image', 'invvar', 'dq')
            What to fetch of each CCD: its counts, their inverse variance, its data quality.
        release : str, optional
            ``'dr5'`` to ``'dr11'``; by default that of the table, else `release`.
        region : {'auto', 'north', 'south'}, optional
            ``'auto'`` takes that of the table; without one, the south for DECam and the north for
            the other cameras.
        download_dir : path-like, optional
            Folder for the files; by default one in the cache for each layer of the viewer.
        cache : bool, optional
            Whether to keep and use files on disk; by default astroquery's ``cache_conf``.  Without
            a cache ``download_dir`` is needed.
        get_query_payload : bool, optional
            Return a dict of ``service``, the viewer, and ``urls`` instead of the files.  For a
            position the brick's table of CCDs is still read.

        Returns
        -------
        `~astropy.table.Table`
            One row per file: ``Local Path``, ``Status``, ``Message``, ``URL``, ``id`` (camera,
            exposure and CCD), ``product``, ``release``, ``region``, ``bands``, ``seconds``,
            ``bytes`` and ``sha256``.  The status is COMPLETE (fetched), CACHED (was here), NODATA
            (the viewer does not list the CCD) or ERROR.

        Raises
        ------
        InvalidRequestError
            If an argument is wrong; nothing was sent.

        Warns
        -----
        CoverageWarning
            If the release has no brick at the position.
        LegacySurveyWarning
            If files could not be had.

        Notes
        -----
        A file, ``decam-410003-N4-image.fits.gz``, appears in its place when it is whole, could be
        unpacked and holds FITS.  Four are fetched at a time; the same call again fetches what is
        missing.

        Examples
        --------
        >>> from astroquery_lis import LegacySurvey, sandbox
        >>> with sandbox.serve() as sky:
        ...     payload = LegacySurvey.get_exposure_files(
        ...         sky.positions['star'], bands='r', products='image', get_query_payload=True)
        >>> len(payload['urls']) > 0
        True
        """
        products = _as_products(products)
        use_cache = cache_conf.cache_active if cache is None else cache
        if download_dir is None and not use_cache and not get_query_payload:
            msg = "download_dir=None needs the cache: name a folder, or leave cache as it is."
            raise InvalidRequestError(msg, parameter="download_dir", value=None)
        if isinstance(exposures_or_coordinates, (Table, Row)):
            table = as_exposures(exposures_or_coordinates)
        else:
            table = self.query_exposures(
                exposures_or_coordinates, bands=bands, release=release, region=region, cache=cache
            )
        if release is None:
            release = table.meta.get("release", self.release)
        release = get_release(release).name
        if region == "auto":
            region = table.meta.get("region", region)
        region = as_region(region, release)
        files = plan_exposures(table, products, as_bands(bands, release, region), release, region)
        service = self._viewer(use_cache)
        if get_query_payload:
            urls = [f"{service.url}/{file.path}" for file in files]
            return {"service": service.url, "urls": urls}
        folder = None
        if download_dir is not None:
            folder = Path(download_dir).expanduser().absolute()
        results = fetch_exposures(files, service, folder)
        failed = [result for result in results if result.status == "ERROR"]
        if failed:
            msg = (
                f"{len(failed)} of {len(files)} file(s) could not be had; the same call again "
                f"tries those. {failed[0].message}"
            )
            warn(msg, LegacySurveyWarning)
        listed = manifest(results)
        column = np.array([file.product for file in files], str)
        listed.add_column(column, listed.colnames.index("id") + 1, name="product")
        return listed


def _as_products(products):
    """Return names of products as a tuple without repeats."""
    try:
        names = (products,) if isinstance(products, str) else tuple(dict.fromkeys(products))
    except TypeError:
        names = ()
    if not names:
        msg = f"products={products!r} must name some of {', '.join(EXPOSURE_PRODUCTS)}."
        raise InvalidRequestError(msg, parameter="products", value=products)
    for name in names:
        as_choice("products", name, tuple(EXPOSURE_PRODUCTS))
    return names
