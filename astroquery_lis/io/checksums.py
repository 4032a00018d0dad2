"""The survey's lists of digests: read, fetched once, and kept beside the files."""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from .._forks import new_lock
from ..exceptions import NotFoundError, UnexpectedContentError
from .mirrors import Mirror
from .places import ask_in_turn
from .store import keep_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .http import HttpClient

HEX_DIGITS = 64
LIST_LIMIT_BYTES = 16e6
"""Largest list that is read; the sweeps' have 200 kB."""


def parse_checksums(text: str, where: str | Path) -> dict[str, str]:
    """Return the digests of a ``.sha256sum`` file."""
    digests = {}
    for line in text.splitlines():
        if not line.strip():
            continue
        digest, _, name = line.strip().partition(" ")
        name = name.strip().removeprefix("*").rpartition("/")[2]
        if len(digest) != HEX_DIGITS or not name or set(digest.lower()) - set("0123456789abcdef"):
            msg = f"{where} is not a list of sha256 digests; it has the line {line[:80]!r}."
            raise UnexpectedContentError(msg, url=str(where))
        digests[name] = digest.lower()
    return digests


class ChecksumLists:
    """The lists that one job needs, each fetched at most once. Safe to share among threads."""

    def __init__(self, client: HttpClient, mirrors: Sequence[Mirror]) -> None:
        self._client, self._mirrors = client, mirrors
        self._lock = new_lock()
        self._locks: dict[str, threading.Lock] = {}
        self._lists: dict[str, tuple[dict[str, str] | None, bool]] = {}

    def get(
        self, path: str, copy: Path | None = None, *, again: bool = False
    ) -> dict[str, str] | None:
        """Return the digests of one list."""
        with self._lock:
            lock = self._locks.setdefault(path, new_lock())
        with lock:
            digests, is_fresh = self._lists.get(path, (None, False))
            if path not in self._lists or (again and not is_fresh):
                digests = None if again or copy is None else _read(copy)
                if digests is None:
                    digests, is_fresh = self._fetch(path, copy), True
                self._lists[path] = digests, is_fresh
            return digests

    def _fetch(self, path: str, copy: Path | None) -> dict[str, str] | None:
        def ask(mirror: Mirror) -> tuple[dict[str, str], str]:
            place = mirror.locate(path)
            if isinstance(place, Path):
                text = _read_text(place)
            else:
                text = self._client.read(place, LIST_LIMIT_BYTES).decode("utf-8", "replace")
            return parse_checksums(text, place), text

        answer = ask_in_turn(self._mirrors, ask, path)
        if answer.value is None:
            return None
        digests, text = answer.value
        if copy is not None:
            with suppress(OSError):  # The digests are known all the same.
                keep_bytes(copy, text.encode())
        return digests


def _read_text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError as error:
        msg = f"{path} cannot be read: {error}."
        raise NotFoundError(msg, url=str(path), cause=error) from error


def _read(path: Path) -> dict[str, str] | None:
    try:
        return parse_checksums(path.read_text(errors="replace"), path)
    except (OSError, UnexpectedContentError):
        return None
