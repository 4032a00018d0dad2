"""An audit of files on disk: whole by their own bytes, and right by the survey's lists."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from astropy.table import Table

from ..exceptions import CacheError, ChecksumError, NotFoundError, TransferError
from ..io.checksums import ChecksumLists, parse_checksums
from ..io.content import check_structure
from ..io.download import download
from ..io.places import HEALTH
from ..io.runs import Progress
from ..io.store import Origin, Store, copy_whole
from ..io.upkeep import cache_entries, damaged_runs, survey_stores
from ..survey.paths import checksum_path
from .brick_files import sha256_of

__all__ = ["AUDIT_STATUSES", "audit"]

AUDIT_STATUSES = ("GOOD", "UNLISTED", "MISMATCH", "DAMAGED", "REPAIRED", "REMOVED")
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


def audit(tree, client, mirrors, *, repair=False, show_progress=False):
    """Check every file of a tree laid out like the survey, or of a cache location.

    Parameters
    ----------
    tree : `~pathlib.Path`
        The folder.
    client : `~astroquery_lis.io.http.HttpClient`
        Makes the requests.
    mirrors : sequence of Mirror
        Who is asked for lists that the tree lacks and for files in place of bad ones; may be empty.
    repair : bool, optional
        Whether to fetch bad files again.
    show_progress : bool, optional
        Whether to show a bar.

    Returns
    -------
    `~astropy.table.Table`
        ``Local Path``, ``Status`` (one of `AUDIT_STATUSES`), ``Message``, ``bytes``, ``sha256``.
    """
    stores = survey_stores(tree)
    findings = []
    for root in stores or [tree]:
        mine = [m for m in mirrors if not stores or (m.root_name == root.name and not m.is_local)]
        mine = [m for m in mine if not m.is_local or Path(m.template) != Path(tree).resolve()]
        job = _Audit(root, client, mine, is_store=bool(stores), repair=repair)
        findings += job.run(show_progress)
    table = Table()
    table["Local Path"] = np.array([str(f.path) for f in findings], str)
    table["Status"] = np.array([f.status for f in findings], str)
    table["Message"] = np.array([f.message for f in findings], str)
    table["bytes"] = np.array([f.size for f in findings], np.int64)
    table["sha256"] = np.array([f.sha256 for f in findings], str)
    return table


class _Audit:
    """The audit of one tree."""

    def __init__(self, root, client, mirrors, *, is_store, repair):
        self.root, self.client, self.mirrors = Path(root), client, mirrors
        self.store = Store(root) if is_store else None
        self.repair = repair
        self.lists = ChecksumLists(client, mirrors)
        self.listed = {}

    def run(self, show_progress):
        """Return the findings, in the order of the paths."""
        files = sorted(self._files())
        folders = sorted({path.parent for path in files})
        progress = Progress(
            sum(path.stat().st_size for path in files),
            show=show_progress,
            label=str(self.root),
            unit="B",
        )
        findings = []
        try:
            with ThreadPoolExecutor(THREADS, "astroquery_lis-audit") as pool:
                self.listed = dict(zip(folders, pool.map(self._digests, folders), strict=True))
                for finding in pool.map(self._check_and_mend, files):
                    findings.append(finding)
                    progress.update(finding.size)
        finally:
            progress.close()
        return findings + self._runs()

    def _files(self):
        """Yield the whole files that are the survey's."""
        for folder, names, found in os.walk(self.root):
            names[:] = [name for name in names if not name.startswith(".")]
            for name in found:
                ours = not name.startswith(".") and not name.endswith(NOT_AUDITED)
                if ours and Path(folder) != self.root:
                    yield Path(folder, name)

    def _digests(self, folder):
        """Return the digests of the files of a folder, as far as lists are to be had."""
        digests = {}
        for path in sorted(folder.glob("*.sha256sum")):
            try:
                digests |= parse_checksums(path.read_text(errors="replace"), path)
            except (OSError, TransferError):
                continue
        if digests or not self.mirrors:
            return digests
        path = checksum_path(folder.relative_to(self.root).as_posix())
        copy = self.root / path if self.repair else None
        try:
            return self.lists.get(path, copy) or {}
        except TransferError:
            return {}

    def _check_and_mend(self, path):
        finding = self._check(path)
        if self.repair and finding.status in ("DAMAGED", "MISMATCH"):
            return self._mend(finding)
        return finding

    def _check(self, path):
        expected = self.listed[path.parent].get(path.name)
        found = partial(_Finding, path, expected=expected)
        try:
            size = path.stat().st_size
            with path.open("rb") as stream:
                check_structure(path, stream, path)
            digest = sha256_of(path)
        except TransferError as error:
            return found("DAMAGED", str(error), size)
        except OSError as error:
            return found("DAMAGED", f"{path} cannot be read: {error}.")
        found = partial(found, size=size, sha256=digest)
        if expected is not None:
            if digest == expected:
                return found("GOOD")
            return found("MISMATCH", f"the list says {expected}")
        origin = self.store.origin(self._relative(path)) if self.store is not None else None
        if origin is None:
            return found("UNLISTED")
        if digest == origin.sha256:
            return found("GOOD", "in no list, but as it came")
        return found("DAMAGED", f"its sha256 was {origin.sha256} when it came")

    def _relative(self, path):
        return path.relative_to(self.root).as_posix()

    def _mend(self, finding):
        """Fetch a file again, and tell how it went."""
        relative = self._relative(finding.path)
        if self.store is not None and not self.mirrors:
            self.store.forget(relative)
            return replace(finding, status="REMOVED")
        told = []
        for mirror in HEALTH.ordered(self.mirrors):
            place = mirror.locate(relative)
            try:
                size, digest = self._fetch(mirror, place, relative, finding)
            except (TransferError, CacheError, OSError) as error:
                told.append(str(error))
                same = isinstance(error, ChecksumError) and error.found == finding.sha256
                if same:
                    message = f"{place} is the same: the list may be stale"
                    return replace(finding, message=f"{finding.message}; {message}")
                continue
            return replace(finding, status="REPAIRED", message=str(place), size=size, sha256=digest)
        message = "; ".join([finding.message, *told])
        return replace(finding, message=message)

    def _fetch(self, mirror, place, relative, finding):
        """Put a good file in place of a bad one; return its size and digest."""
        if mirror.is_local:
            return self._copy(place, finding)
        wanted = finding.expected
        try:
            done = download(self.client, place, finding.path, sha256=wanted, replace=True)
        except ChecksumError as error:
            if finding.status != "DAMAGED":
                raise
            # A sound file that its list does not know is better than a damaged one.
            wanted = (wanted, error.found)
            done = download(self.client, place, finding.path, sha256=wanted, replace=True)
        if self.store is not None:
            self.store.remember(relative, Origin(place, done.version, done.sha256))
        return done.size, done.sha256

    def _copy(self, place, finding):
        try:
            digest = sha256_of(place)
        except OSError as error:
            msg = f"{place} cannot be read: {error.strerror or error}."
            raise NotFoundError(msg, url=str(place), cause=error) from error
        if finding.expected not in (None, digest) and finding.status != "DAMAGED":
            msg = f"{place} has sha256 {digest}; its list says {finding.expected}."
            raise ChecksumError(msg, url=str(place), found=digest)
        copy_whole(place, finding.path)
        return finding.path.stat().st_size, digest

    def _runs(self):
        """Return the findings about files that are here in parts."""
        if self.store is None:
            return []
        findings = []
        for entry in cache_entries(self.root.parent):
            if entry.is_whole or entry.root != self.root:
                continue
            bad = damaged_runs(entry)
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
