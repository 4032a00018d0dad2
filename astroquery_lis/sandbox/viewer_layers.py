"""The layers that the simulated viewer knows, and what lies behind each of them.

All releases are drawn from the same bricks: a layer differs by its bands, by the trees that it
looks into and by what it says in the header.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from ..survey import bricks
from ..survey.bricks import Brick
from . import sky

NORTH = ("dr9", "north")
SOUTH = ("dr10", "south")

_ALIASES = {
    "hsc": "hsc-dr2",
    "hsc2": "hsc-dr2",
    "sdss2": "sdss",
    "sdssco": "sdss",
    "vlass": "vlass1.2",
}
# Layers that exist but whose data are not simulated: a request for one fails.
NO_DATA = frozenset(
    {
        "act-dr6-f150",
        "des-dr1",
        "galex",
        "halpha",
        "hsc-dr2",
        "hsc-dr3",
        "ls-dr10-segmentation",
        "ps1",
        "sdss",
        "sfd",
        "vlass1.2",
        "wssa",
        "unwise-cat-model",
        *(f"unwise-neo{number}" for number in (4, 6, 7, 11)),
        *(
            f"decaps2{product}{bands}"
            for product in ("", "-model", "-resid")
            for bands in ("", "-riy")
        ),
    }
)

# Those of them that are of a part of the sky, off which the simulated one lies.
_SURVEYS = ("act", "decaps", "des", "hsc", "ps1", "sdss", "vlass")
LIMITED = frozenset(name for name in NO_DATA if name.startswith(_SURVEYS))

# Names that spoil another layer for whoever asks next.
SPOILERS = MappingProxyType({"ls-dr10-grz-model": "ls-dr10-grz"})


@dataclass(frozen=True)
class ViewerLayer:
    """One layer."""

    name: str
    bands: str
    available: str
    product: str = "image"
    north: tuple[str, str] | None = None
    south: tuple[str, str] | None = SOUTH
    survey: str = "LegacySurvey"
    version: str = ""
    lost: bool = False

    @property
    def is_split(self) -> bool:
        """Whether north and south are joined."""
        return self.north is not None and self.south is not None

    @property
    def trees(self) -> tuple[tuple[str, str], ...]:
        """The trees that there are, north first."""
        return tuple(tree for tree in (self.north, self.south) if tree is not None)

    def tree_at(self, ra_deg: float, dec_deg: float) -> tuple[str, str]:
        """Return the tree that a position is served from."""
        last = -1 if self.is_split and not bricks.is_north(ra_deg, dec_deg) else 0
        return self.trees[last]

    def bricks_of(self, tree: tuple[str, str]) -> list[Brick]:
        """Return the bricks of a tree, in the order of the survey's table."""
        ids = sorted(bricks.parse_brick_name(name) for name in sky.BRICKS[tree])
        return [bricks.get_brick(number) for number in ids]


def _products(layer: ViewerLayer, suffix: str = "") -> Iterator[ViewerLayer]:
    for product in ("image", "model", "resid"):
        part = "" if product == "image" else f"-{product}"
        yield replace(layer, name=f"{layer.name}{part}{suffix}", product=product)


def _make() -> Iterator[ViewerLayer]:
    def layer(name: str, bands: str, version: str, **kwargs: Any) -> ViewerLayer:
        kwargs.setdefault("survey", "DECaLS")
        return ViewerLayer(name, bands, bands, version=version, **kwargs)

    both: dict[str, Any] = {"north": NORTH, "south": SOUTH, "survey": "LegacySurvey"}
    north: dict[str, Any] = {"north": NORTH, "south": None}
    for number in (8, 9):
        for name in (f"ls-dr{number}", f"ls-dr{number}-mid"):
            yield from _products(layer(name, "grz", f"DR{number}", **both))
        yield from _products(layer(f"ls-dr{number}-south", "grz", f"DR{number}-south"))
        yield from _products(layer(f"ls-dr{number}-north", "grz", f"DR{number}-north", **north))
    for name, version, where in (
        ("ls-dr10", "DR10", both),
        ("ls-dr10-mid", "DR10", both),
        ("ls-dr10-south", "DR10-south", {}),
    ):
        yield from _products(layer(name, "griz", version, **where))
        yield from _products(layer(name, "grz", version, **where), "-grz")
        yield layer(f"{name}-gri", "gri", version, **where)
    yield from _products(layer("ls-dr11", "grz", "DR11", **both))
    yield from _products(layer("ls-dr11-south", "grz", ""))
    yield from _products(layer("ls-dr11-south", "griz", ""), "-griz")
    yield layer("ls-dr11-south-gri", "gri", "")
    yield from _products(layer("ls-dr11-north", "grz", "", **north))
    for name in ("ls-dr67", "ls-dr67-mid"):
        yield layer(name, "grz", "DR67", **both)
    # Layers of one folder each, which the viewer finds by name; it drops "-grz" from that.
    for name, version, where in (
        ("ls-dr9.1.1", "DR9.1.1", {}),
        ("decals-dr7", "DR7", {}),
        ("decals-dr5", "DR5", {}),
        ("mzls+bass-dr6", "DR6", north),
    ):
        yield from _products(layer(name, "grz", version, **where))
        yield layer(f"{name}-grz", "grz", version, **where)
    for number in (8, 9):
        yield layer(f"ls-dr{number}-south-grz", "grz", f"DR{number}-south")
        yield layer(f"ls-dr{number}-north-grz", "grz", f"DR{number}-north", **north)
    for name in ("", "ls-dr8-grz", "ls-dr9-grz", "ls-dr11-grz", *SPOILERS):
        yield layer(name, "grz", "", lost=True)


# The layers that are drawn, by name, with the misspelt ones that are answered all the same.
LAYERS = MappingProxyType({layer.name: layer for layer in _make()})


def clean_name(name: str) -> str:
    """Return the name of a layer as the viewer understands it."""
    # A plus sign in an address is a space.
    name = name.replace(" ", "+")
    if name == "dr8" or name.startswith("dr8-"):
        name = f"ls-{name}"
    return _ALIASES.get(name, name)


def find_layer(name: str) -> ViewerLayer | str | None:
    """Return the layer called ``name``."""
    name = clean_name(name)
    return name if name in NO_DATA else LAYERS.get(name)
