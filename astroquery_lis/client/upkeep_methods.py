"""The methods that audit files, and look after the mirrors and the cache."""

from __future__ import annotations

import os
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from astropy import units as u
from astropy.table import Table

from .. import io
from .._conf import conf
from ..exceptions import InvalidRequestError, refuse
from ..io.mirrors import REGISTERED
from ..survey.releases import get_release
from .base import SurveyBase

if TYPE_CHECKING:
    from .._typing import CacheInfo, FilePath, Mirror, Quantity, Time
    from ..io.mirrors import Mirror as Place

PROBE_PATH = "dr10/survey-bricks.fits.gz"


class UpkeepMethods(SurveyBase):
    """What there is on disk and on the mirrors."""

    def verify(
        self,
        tree: FilePath | None = None,
        *,
        repair: bool = False,
        mirror: Mirror | None = None,
        show_progress: bool = True,
    ) -> Table:
        """Audit the files of a local tree, or of the cache.

        Parameters
        ----------
        tree : path-like, optional
            A folder laid out like the survey; by default the cache.
        repair : bool, optional
            Whether to fetch bad files again.  A file of the cache whose mirror is not in use is
            removed instead, to be fetched when it is needed.
        mirror : str, path-like, or sequence of them, optional
            Where to fetch from, and whom to ask for checksum lists that the tree lacks; by default
            `mirror` if ``repair``, else nobody is asked.
        show_progress : bool, optional
            Whether to show a bar, where tqdm is installed, in terminals and notebooks.

        Returns
        -------
        `~astropy.table.Table`
            One row per file: ``Local Path``, ``Status``, ``Message``, ``bytes`` and ``sha256``.
            The status is GOOD (as its list says), UNLISTED (sound, but no list has it), MISMATCH
            (sound, but another sha256 than in the list), DAMAGED, REPAIRED or REMOVED.

        Raises
        ------
        InvalidRequestError
            If there is no such folder.

        Examples
        --------
        >>> from astroquery_lis import LegacySurvey, sandbox
        >>> with sandbox.serve() as sky:
        ...     table = LegacySurvey.verify(sky.root / 'dr9' / 'north' / 'coadd' / '180')
        >>> 'Status' in table.colnames
        True
        """
        from .audit import audit

        cache = Path(self.cache_location).absolute()
        tree = cache if tree is None else Path(tree).expanduser().absolute()
        if not tree.is_dir() and tree != cache:
            refuse("tree", str(tree), "is not a directory that exists.")
        mirrors: tuple = ()
        if repair or mirror is not None:
            mirrors = self._mirrors(mirror)
        self._images.clear()
        return audit(tree, self._client(), mirrors, repair=repair, show_progress=show_progress)

    # ---- mirrors --------------------------------------------------------------------------------

    def list_mirrors(self, *, probe: bool = False) -> Table:
        """Return the registered mirrors, those in use, and how they are doing.

        Parameters
        ----------
        probe : bool, optional
            Whether to ask each of them for a few bytes now.

        Returns
        -------
        `~astropy.table.Table`
            Columns ``name``, ``address``, ``description``, ``in_use``, and what this process knows
            of each: ``status`` (``'unknown'``, ``'up'``, ``'failing'`` or ``'resting'``, which is
            asked last for a while), ``latency`` in seconds, NaN if not known, ``ranges``
            (``'yes'``, ``'no'`` or ``'unknown'``), and ``last_error``.

        Examples
        --------
        >>> from astroquery_lis import LegacySurvey
        >>> print(*LegacySurvey.list_mirrors()['name'][:3])
        nersc nadc nadc-flat
        """
        used = self._mirrors(None)
        mirrors = list({m.name: m for m in (*REGISTERED.values(), *used)}.values())
        if probe:
            io.places.HEALTH.probe(mirrors, self._client(), PROBE_PATH)
        rows = [(m.name, m.template, m.description, m in used, *_health_of(m)) for m in mirrors]
        names = ("name", "address", "description", "in_use", "status", "latency", "ranges")
        table = Table(rows=rows, names=(*names, "last_error"))
        table["latency"].unit = u.s
        return table

    # ---- cache ----------------------------------------------------------------------------------

    def cache_info(self) -> CacheInfo:
        """Return what the cache holds.

        Returns
        -------
        dict
            ``location``; ``bytes`` in all and ``limit_bytes`` (0 for none); and under ``stores``
            for each root (``official``, or one per custom mirror) the number and bytes of whole
            files and of parts of files.

        Examples
        --------
        >>> from astroquery_lis import LegacySurvey
        >>> sorted(LegacySurvey.cache_info())
        ['bytes', 'limit_bytes', 'location', 'stores']
        """
        stores = io.upkeep.cache_usage(self.cache_location)
        total = sum(count["file_bytes"] + count["part_bytes"] for count in stores.values())
        return {
            "location": str(self.cache_location),
            "bytes": total,
            "limit_bytes": int(conf.cache_size * 1e9),
            "stores": stores,
        }

    def clear_cache(
        self, *, older_than: Quantity | Time | None = None, release: str | None = None
    ) -> None:
        """Remove what this class has cached, or a part of it.

        Parameters
        ----------
        older_than : `~astropy.units.Quantity` ['time'] or `~datetime.timedelta`, optional
            Only files that were not used for so long.
        release : str, optional
            Only files in the folder of this release.

        Examples
        --------
        >>> from astroquery_lis import LegacySurvey, sandbox
        >>> with sandbox.serve() as sky:
        ...     hdul = LegacySurvey.get_cutout(sky.positions['star'], 32, bands='r')
        ...     LegacySurvey.clear_cache()
        ...     left = LegacySurvey.cache_info()['bytes']
        >>> left
        0
        """
        if older_than is None and release is None:
            self._images.clear()
            io.upkeep.clear_stores(self.cache_location)
            for response in Path(self.cache_location).glob("*.pickle"):
                response.unlink()
            return
        before_s = None if older_than is None else time.time() - _seconds(older_than)
        name = None if release is None else get_release(release).name
        self._images.clear()
        io.upkeep.clear_stores(self.cache_location, used_before_s=before_s, release=name)

    def verify_cache(self, *, repair: bool = False) -> Table:
        """Audit the cache: `verify` without a tree.

        Parameters
        ----------
        repair : bool, optional
            As for `verify`.

        Returns
        -------
        `~astropy.table.Table`
            As for `verify`.

        Examples
        --------
        >>> from astroquery_lis import LegacySurvey, sandbox
        >>> with sandbox.serve() as sky:
        ...     hdul = LegacySurvey.get_cutout(sky.positions['star'], 32, bands='r')
        ...     table = LegacySurvey.verify_cache()
        >>> set(table['Status'].tolist())
        {'GOOD'}
        """
        return self.verify(repair=repair)


def _seconds(older_than: Quantity | Time) -> float:
    if isinstance(older_than, timedelta):
        return older_than.total_seconds()
    try:
        return float(u.Quantity(older_than).to_value(u.s))
    except (TypeError, ValueError, u.UnitsError) as error:
        msg = f"older_than={older_than!r} must be a Quantity of time or a timedelta."
        raise InvalidRequestError(msg, parameter="older_than", value=older_than) from error


def _health_of(mirror: Place) -> tuple[str, float, str, str]:
    """Return (status, latency_s, ranges, last error) of a mirror."""
    if mirror.is_local:
        here = os.path.isdir(mirror.template)
        return ("up" if here else "unknown"), float("nan"), "yes" if here else "unknown", ""
    host = io.places.HEALTH.of(mirror)
    if io.places.HEALTH.is_resting(mirror):
        status = "resting"
    elif host.failures:
        status = "failing"
    else:
        status = "up" if host.latency_s is not None or host.answers else "unknown"
    ranges = {None: "unknown", True: "yes", False: "no"}[host.ranges]
    latency_s = float("nan") if host.latency_s is None else host.latency_s
    return status, latency_s, ranges, host.error
