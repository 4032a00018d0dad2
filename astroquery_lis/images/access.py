"""How workers get at the files and at the viewer, in whatever process they are."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

from ..io.http import HttpClient
from ..io.mirrors import Mirror
from .coadds import PixelReader
from .reader import Proof, SectionReader
from .sources import BrickFiles, Sources
from .strips import SharedFiles
from .tiles import OpenImages
from .viewer_service import ViewerService, viewer_client

Options = tuple[tuple[str, Any], ...]


@dataclass(frozen=True)
class Access:
    """The settings of a call, to be carried to workers; without a location nothing is kept."""

    mirrors: tuple[Mirror, ...]
    location: str | None
    client_options: Options  # of HttpClient, names and values
    viewer_url: str = ""
    viewer_options: Options = ()  # of viewer_client, beside those of HttpClient
    viewer_matches: bool = True  # whether the viewer shows the same sky as the mirrors
    max_age_s: float | None = None  # how long its answers are good
    proof: Proof | None = None  # refuses to take what folders lack for what the survey lacks

    def reader(self, shared: SharedFiles | None = None) -> SectionReader:
        """Return a reader of brick files, on the connections that jobs of a process share."""
        client = _client(HttpClient, self.client_options)
        images = OpenImages()
        return SectionReader(client, self.mirrors, self.location, images, shared, self.proof)

    def sources(
        self,
        names: tuple[str, ...],
        open_reader: Callable[[], AbstractContextManager[PixelReader]] | None = None,
    ) -> Sources:
        """Return the sources that a worker asks."""
        bricks = BrickFiles(self.reader if open_reader is None else open_reader, self.mirrors[0])
        matches = partial(bool, self.viewer_matches)
        # A mirror that fails in a long job must not bring thousands of requests on the viewer.
        return Sources(names, bricks, self._service, matches, stands_in=False)

    def _service(self) -> ViewerService:
        options = (*self.client_options, *self.viewer_options)
        client = _client(viewer_client, tuple(dict(options).items()))
        return ViewerService(client, self.viewer_url, self.location, self.max_age_s)


@lru_cache(maxsize=8)
def _client(make: Callable[..., HttpClient], options: Options) -> HttpClient:
    """Return this process's client for these settings, so that jobs share connections."""
    return make(**dict(options))
