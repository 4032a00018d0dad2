"""An audit of files on disk: whole by their own bytes, and right by the survey's lists."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from astropy.table import Table

from ..exceptions import ChecksumError, NotFoundError, TransferError
from ..io.bounds import Threads
from ..io.checks import check_whole, sha256_of
from ..io.checksums import ChecksumLists, parse_checksums
from ..io.download import download
from ..io.jobs import Progress
from ..io.places import ask_in_turn
from ..io.store import Origin, Store, copy_whole
from ..io.upkeep import all_stores, cache_entries, damaged_runs
from ..survey.paths import checksum_path

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ..io.http import HttpClient
    from ..io.mirrors import Mirror

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
    mirrors: Sequence[Mirror],
    *,
    repair: bool = False,
    show_progress: bool = False,
) -> Table:
    """Check every file of a tree laid out like the survey, or of a cache location.

    The mirrors, if any, are asked for lists that the tree lacks and for files instead of bad ones.
    """
    stores = all_stores(tree)
    findings: list[_Finding] = []
    for root in stores or [tree]:
        sources = [
            mirror
            for mirror in mirrors
            if not stores or (mirror.root_name == root.name and not mirror.is_local)
            if not mirror.is_local or Path(mirror.template) != tree.resolve()
        ]
        job = _Audit(root, client, sources, is_store=bool(stores), repair=repair)
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

    def __init__(
        self,
        root: Path,
        client: HttpClient,
        mirrors: Sequence[Mirror],
        *,
        is_store: bool,
        repair: bool,
    ) -> None:
        self.root, self.client, self.mirrors = root, client, mirrors
        self.store = Store(root) if is_store else None
        self.repair = repair
        self.lists = ChecksumLists(client, mirrors)
        self.listed: dict[Path, dict[str, str]] = {}

    def run(self, show_progress: bool) -> list[_Finding]:
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
                digests |= parse_checksums(path.read_text(errors="replace"), path)
            except (OSError, TransferError):
                continue
        if digests or not self.mirrors:
            return digests
        name = checksum_path(folder.relative_to(self.root).as_posix())
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
                digest = check_whole(path, stream, path)
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
            answer = ask_in_turn(
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

    def _fetch(self, mirror: Mirror, relative: str, finding: _Finding) -> _Finding:
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
        try:
            done = download(self.client, url, finding.path, sha256=expected, replace=True)
        except ChecksumError as error:
            if finding.status != "DAMAGED":
                raise
            # A sound file that its list does not know is better than a damaged one.
            good = {str(expected), str(error.found)}
            done = download(self.client, url, finding.path, sha256=good, replace=True)
        if self.store is not None and done.version is not None:
            self.store.remember(relative, Origin(url, done.version, done.sha256 or ""))
        return done.size, done.sha256 or ""

    def _copied(self, place: Path, finding: _Finding) -> tuple[int, str]:
        """Copy a file; return its size and digest."""
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

    def _runs(self) -> list[_Finding]:
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
