"""What the package takes for granted of the live services: the table ``data/assumptions.toml``."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..images.viewer_service import BLANK, MAX_REQUEST_PIX
from ..survey.layers import INVVAR_LIMIT_ARCSEC
from . import questions

SERVICES = ("mirrors", "viewer", "tap", "mast", "crds", "sesame")


@dataclass(frozen=True)
class Assumption:
    """One thing that the package takes for granted of a service."""

    name: str
    service: str
    assumed: str
    evidence: str
    ask: Callable[..., questions.Answer]
    """Asks once; of mirrors each is asked."""
    affects: str
    """What in the package depends on it."""
    only_first: bool = False
    """Whether the first mirror is asked for all, not to ask too much."""


def _assumption(row: dict[str, Any]) -> Assumption:
    assumed = row.pop("assumed").format(
        BLANK=BLANK,
        INVVAR_LIMIT_ARCSEC=INVVAR_LIMIT_ARCSEC,
        MAX_REQUEST_PIX=MAX_REQUEST_PIX,
        TAP_TABLE=questions.TAP_TABLE,
    )
    return Assumption(assumed=assumed, ask=getattr(questions, row.pop("ask")), **row)


_TABLE = Path(__file__).with_name("data") / "assumptions.toml"

ASSUMPTIONS = tuple(
    map(_assumption, tomllib.loads(_TABLE.read_text(encoding="utf-8"))["assumption"])
)
