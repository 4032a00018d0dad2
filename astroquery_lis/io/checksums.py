"""The survey's own lists of sha256 digests: one per folder, fetched once."""

import threading
from contextlib import suppress

from ..exceptions import NotFoundError, UnexpectedContentError
from .places import ask_in_turn
from .store import write_bytes

__all__ = ["ChecksumLists", "parse_checksums"]

HEX_DIGITS = 64


def parse_checksums(text, where):
    """Return the digests of a ``.sha256sum`` file.

    Parameters
    ----------
    text : str
        Lines of a digest, two spaces (or a space and an asterisk) and a file name.
    where : str
        What to name in an error.

    Returns
    -------
    dict of str to str
        By file name, without folders; lower case.

    Raises
    ------
    UnexpectedContentError
        If a line is not of that form.
    """
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
    """The lists that one job needs, each fetched at most once.  Safe to share among threads.

    Parameters
    ----------
    client : HttpClient
        Makes the requests.
    mirrors : sequence of Mirror
        In the order to ask.
    """

    def __init__(self, client, mirrors):
        self._client, self._mirrors = client, mirrors
        self._lock = threading.Lock()
        self._locks = {}
        self._known = {}

    def get(self, path, copy=None, *, again=False):
        """Return the digests of one list.

        Parameters
        ----------
        path : str
            Of the list, relative to the survey's root.
        copy : `~pathlib.Path`, optional
            Where it is kept on disk; read if it is there, written if it can be.
        again : bool, optional
            Whether to ask the mirrors even if the list is on disk: it may have been replaced.

        Returns
        -------
        dict of str to str or None
            By file name; `None` if no mirror has the list.

        Raises
        ------
        TransferError
            If no mirror could say.
        """
        with self._lock:
            lock = self._locks.setdefault(path, threading.Lock())
        with lock:
            digests, asked = self._known.get(path, (None, False))
            if path not in self._known or (again and not asked):
                digests = None if again or copy is None else _read(copy)
                if digests is None:
                    digests, asked = self._fetch(path, copy), True
                self._known[path] = digests, asked
            return digests

    def _fetch(self, path, copy):
        def ask(mirror):
            place = mirror.locate(path)
            text = _read_text(place) if mirror.is_local else self._client.fetch(place, _take)
            return parse_checksums(text, place), text

        answer = ask_in_turn(self._mirrors, ask, path)
        if answer.value is None:
            return None
        digests, text = answer.value
        if copy is not None:
            with suppress(OSError):  # The digests are known all the same.
                write_bytes(copy, text.encode())
        return digests


def _take(response):
    return response.read().decode("utf-8", "replace")


def _read_text(path):
    try:
        return path.read_text(errors="replace")
    except OSError as error:
        msg = f"{path} cannot be read: {error}."
        raise NotFoundError(msg, url=str(path), cause=error) from error


def _read(path):
    try:
        return parse_checksums(path.read_text(errors="replace"), path)
    except (OSError, UnexpectedContentError):
        return None
