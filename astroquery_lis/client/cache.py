"""The cache and the mirrors, and an audit of files: whole in themselves, right by the lists."""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from astropy import units as u
from astropy.table import Table

from .. import io, survey
from .._conf import conf
from ..exceptions import ChecksumError, NotFoundError, TransferError, refuse
from ..io.bounds import Threads
from ..survey.releases import get_release
from .base import SurveyBase
from .inputs import as_path

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .._typing import CacheInfo, FilePath, Mirror, Quantity, Time
    from ..io.http import HttpClient
    from ..io.mirrors import Mirror as Place


PROBE_PATH = "dr10/survey-bricks.fits.gz"


class CacheMethods(SurveyBase):
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
        cache = Path(self.cache_location).absolute()
        tree = as_path("tree", tree) or cache
        if not tree.is_dir() and tree != cache:
            refuse("tree", str(tree), "is not a directory that exists.")
        mirrors: tuple = ()
        if repair or mirror is not None:
            mirrors = self._mirrors(mirror)
        self._images.clear()
        client = io.http.shared_client(self._client_options())
        return audit(tree, client, mirrors, repair=repair, show_progress=show_progress)

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
        mirrors = list({m.name: m for m in (*io.mirrors.REGISTERED.values(), *used)}.values())
        if probe:
            io.mirrors.HEALTH.probe(
                mirrors, io.http.shared_client(self._client_options()), PROBE_PATH
            )
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
        stores = io.store.cache_usage(self.cache_location)
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
        before_s = math.inf if older_than is None else time.time() - _seconds(older_than)
        name = None if release is None else get_release(release).name
        self._images.clear()
        io.store.clear_stores(self.cache_location, used_before_s=before_s, release=name)
        if older_than is None and release is None:
            for response in Path(self.cache_location).glob("*.pickle"):
                response.unlink()

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
    try:
        is_delta = isinstance(older_than, timedelta)
        time_s = older_than.total_seconds() if is_delta else u.Quantity(older_than).to_value(u.s)
        seconds = float(time_s)
    except (TypeError, ValueError, u.UnitsError):
        seconds = np.nan
    if not np.isfinite(seconds):
        refuse("older_than", older_than, "must be a Quantity of time or a timedelta, and finite.")
    return seconds


def _health_of(mirror: Place) -> tuple[str, float, str, str]:
    """Return (status, latency_s, ranges, last error) of a mirror."""
    if mirror.is_local:
        here = os.path.isdir(mirror.template)
        return ("up" if here else "unknown"), float("nan"), "yes" if here else "unknown", ""
    host = io.mirrors.HEALTH.of(mirror)
    states = {
        "resting": io.mirrors.HEALTH.is_resting(mirror),
        "failing": bool(host.failures),
        "up": host.latency_s is not None or bool(host.answers),
        "unknown": True,
    }
    status = next(state for state, holds in states.items() if holds)
    ranges = {None: "unknown", True: "yes", False: "no"}[host.ranges]
    latency_s = float("nan") if host.latency_s is None else host.latency_s
    return status, latency_s, ranges, host.error


NOT_AUDITED = (".part", ".part.json", ".sha256sum")
THREADS = 4


@dataclass(frozen=True)
class _Finding:
    """What was found out about one file."""

    path: Path
    status: str
    message: str = ""
    size: int = 0
    sha256: str = ""
    expected: str | None = None


def audit(
    tree: Path,
    client: HttpClient,
    mirrors: Sequence[Place],
    *,
    repair: bool = False,
    show_progress: bool = False,
) -> Table:
    """Check every file of a tree laid out like the survey, or of a cache location.

    The mirrors, if any, are asked for lists that the tree lacks and for files instead of bad ones.
    """
    stores = io.store.all_stores(tree)
    findings: list[_Finding] = []
    for root in stores or [tree]:
        sources = [mirror for mirror in mirrors if _may_mend(mirror, root, tree, bool(stores))]
        job = _Audit(root, client, sources, is_store=bool(stores), repair=repair)
        findings += job.run(show_progress)
    rows = [(str(f.path), f.status, f.message, f.size, f.sha256) for f in findings]
    names = ("Local Path", "Status", "Message", "bytes", "sha256")
    return Table(rows=rows, names=names, dtype=(str, str, str, np.int64, str))


def _may_mend(mirror: Place, root: Path, tree: Path, is_store: bool) -> bool:
    """Return True if a mirror may have what a root lacks: another place, with the same sky."""
    if is_store:
        return mirror.root_name == root.name and not mirror.is_local
    return not mirror.is_local or Path(mirror.template) != tree.resolve()


class _Audit:
    """The audit of one tree."""

    def __init__(
        self,
        root: Path,
        client: HttpClient,
        mirrors: Sequence[Place],
        *,
        is_store: bool,
        repair: bool,
    ) -> None:
        self.root, self.client, self.mirrors = root, client, mirrors
        self.store = io.store.Store(root) if is_store else None
        self.repair = repair
        self.lists = io.delivery.ChecksumLists(client, mirrors)
        self.listed: dict[Path, dict[str, str]] = {}

    def run(self, show_progress: bool) -> list[_Finding]:
        """Return the findings, in the order of the paths."""
        files = sorted(self._files())
        folders = sorted({path.parent for path in files})
        progress = io.jobs.Progress(
            sum(path.stat().st_size for path in files),
            show=show_progress,
            label=str(self.root),
            unit="B",
        )
        findings = []
        try:
            with Threads(THREADS, "astroquery_lis-audit") as pool:
                self.listed = dict(zip(folders, pool.map(self._digests, folders), strict=True))
                for finding in pool.map(self._check_and_mend, files):
                    findings.append(finding)
                    progress.update(finding.size)
        finally:
            progress.close()
        return findings + self._runs()

    def _files(self) -> Iterator[Path]:
        """Yield the whole files that are the survey's."""
        for folder, names, files in os.walk(self.root):
            names[:] = [name for name in names if not name.startswith(".")]
            for name in files:
                ours = not name.startswith(".") and not name.endswith(NOT_AUDITED)
                if ours and (self.store is not None or Path(folder) != self.root):
                    yield Path(folder, name)

    def _digests(self, folder: Path) -> dict[str, str]:
        """Return the digests of the files of a folder, as far as lists are to be had."""
        digests: dict[str, str] = {}
        for path in sorted(folder.glob("*.sha256sum")):
            try:
                digests |= io.delivery.parse_checksums(path.read_text(errors="replace"), path)
            except (OSError, TransferError):
                continue
        if digests or not self.mirrors:
            return digests
        name = survey.paths.checksum_path(folder.relative_to(self.root).as_posix())
        copy = self.root / name if self.repair else None
        try:
            return self.lists.get(name, copy) or {}
        except TransferError:
            return {}

    def _check_and_mend(self, path: Path) -> _Finding:
        finding = self._check(path)
        if self.repair and finding.status in ("DAMAGED", "MISMATCH"):
            return self._mend(finding)
        return finding

    def _check(self, path: Path) -> _Finding:
        expected = self.listed[path.parent].get(path.name)
        finding = partial(_Finding, path, expected=expected)
        try:
            size = path.stat().st_size
            with path.open("rb") as stream:
                digest = io.whole_files.check_whole(path, stream, path)
        except TransferError as error:
            return finding("DAMAGED", str(error), size)
        except OSError as error:
            return finding("DAMAGED", f"{path} cannot be read: {error}.")
        finding = partial(finding, size=size, sha256=digest)
        if expected is not None:
            if digest == expected:
                return finding("GOOD")
            return finding("MISMATCH", f"the list says {expected}")
        origin = self.store.origin(self._relative(path)) if self.store is not None else None
        if origin is None:
            return finding("UNLISTED")
        if digest == origin.sha256:
            return finding("GOOD", "in no list, but as it came")
        return finding("DAMAGED", f"its sha256 was {origin.sha256} when it came")

    def _relative(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def _mend(self, finding: _Finding) -> _Finding:
        """Fetch a file again, and tell how it went."""
        relative = self._relative(finding.path)
        if self.store is not None and not self.mirrors:
            self.store.forget(relative)
            return replace(finding, status="REMOVED")
        try:
            answer = io.places.ask_in_turn(
                self.mirrors, lambda mirror: self._fetch(mirror, relative, finding), relative
            )
        except (TransferError, OSError) as error:
            reason = str(error)
        else:
            if answer.value is not None:
                return answer.value
            names = ", ".join(mirror.name for mirror in answer.missing)
            reason = f"{relative} does not exist at {names}"
        return replace(finding, message=f"{finding.message}; {reason}")

    def _fetch(self, mirror: Place, relative: str, finding: _Finding) -> _Finding:
        """Put a good file in place of a bad one."""
        place = mirror.locate(relative)
        try:
            if isinstance(place, Path):
                size, digest = self._copied(place, finding)
            else:
                size, digest = self._downloaded(place, relative, finding)
        except ChecksumError as error:
            if error.found != finding.sha256:
                raise
            message = f"{finding.message}; {place} is the same: the list may be stale"
            return replace(finding, message=message)
        return replace(finding, status="REPAIRED", message=str(place), size=size, sha256=digest)

    def _downloaded(self, url: str, relative: str, finding: _Finding) -> tuple[int, str]:
        """Fetch a file; return its size and digest."""
        expected = finding.expected
        fetch = partial(io.download.download, self.client, url, finding.path, replace=True)
        try:
            done = fetch(sha256=expected)
        except ChecksumError as error:
            if finding.status != "DAMAGED":
                raise
            # A sound file that its list does not know is better than a damaged one.
            good = {str(expected), str(error.found)}
            done = fetch(sha256=good)
        if self.store is not None:
            self.store.remember(relative, io.store.Origin(url, done.version, done.sha256 or ""))
        return done.size, done.sha256 or ""

    def _copied(self, place: Path, finding: _Finding) -> tuple[int, str]:
        """Copy a file; return its size and digest."""
        try:
            digest = io.whole_files.sha256_of(place)
        except OSError as error:
            msg = f"{place} cannot be read: {error.strerror or error}."
            raise NotFoundError(msg, url=str(place), cause=error) from error
        if finding.expected not in (None, digest) and finding.status != "DAMAGED":
            msg = f"{place} has sha256 {digest}; its list says {finding.expected}."
            raise ChecksumError(msg, url=str(place), found=digest)
        io.whole_files.copy_whole(place, finding.path)
        return finding.path.stat().st_size, digest

    def _runs(self) -> list[_Finding]:
        """Return the findings about files that are here in parts."""
        if self.store is None:
            return []
        findings = []
        for entry in io.store.cache_entries(self.root.parent):
            if entry.is_whole or entry.root != self.root:
                continue
            bad = io.store.damaged_runs(entry)
            path = self.root / entry.relative
            finding = _Finding(path, "GOOD", "in parts", entry.size)
            if bad:
                message = f"{len(bad)} of its parts are damaged"
                finding = replace(finding, status="DAMAGED", message=message)
                if self.repair:
                    for part in bad:
                        part.unlink(missing_ok=True)
                    finding = replace(finding, status="REMOVED")
            findings.append(finding)
        return sorted(findings, key=lambda finding: finding.path)
