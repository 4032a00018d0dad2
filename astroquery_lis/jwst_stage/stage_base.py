"""Settings of the JWST class: where references are, how long to wait, where the cache is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..client.base import QueryBase
from ..exceptions import refuse
from .refs.crds_cache import crds_environment

if TYPE_CHECKING:
    from .._typing import FilePath
    from .refs.crds_cache import CrdsEnvironment


class StageBase(QueryBase):
    """What every method of the JWST class stands on."""

    def __init__(self) -> None:
        super().__init__()
        self._crds_path: str | None = None
        self._crds_context: str | None = None
        self._crds_server_url: str | None = None

    @property
    def crds_path(self) -> str:
        """Directory of the reference files; ``conf.crds_path``, ``$CRDS_PATH`` unless set."""
        return self._environment().path

    @crds_path.setter
    def crds_path(self, value: FilePath | None) -> None:
        self._crds_path = None if value is None else str(value)

    @property
    def crds_context(self) -> str:
        """CRDS context; ``conf.crds_context``, ``$CRDS_CONTEXT``, the newest unless set."""
        return self._environment().context

    @crds_context.setter
    def crds_context(self, value: str | None) -> None:
        if value and not str(value).endswith(".pmap"):
            refuse("crds_context", value, "must be the name of a .pmap, or None for the newest.")
        self._crds_context = value or None

    @property
    def crds_server_url(self) -> str:
        """CRDS server; ``conf.crds_server_url``, ``$CRDS_SERVER_URL``, none unless set."""
        return self._environment().server_url

    @crds_server_url.setter
    def crds_server_url(self, value: str | None) -> None:
        self._crds_server_url = value or None

    def _environment(self, *, offline: bool = False) -> CrdsEnvironment:
        return crds_environment(
            path=self._crds_path,
            context=self._crds_context,
            server_url=self._crds_server_url,
            offline=offline,
        )
