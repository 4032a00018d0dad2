"""The layers that the simulated viewer knows, and what lies behind each of them.

All releases are drawn from the same bricks: a layer differs by its bands, by the trees that it
looks into and by what it says in the header.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from ..survey import bricks
from ..survey.bricks import Brick
from . import sky

_TREES = {"north": ("dr9", "north"), "south": ("dr10", "south")}

_ALIASES = {
    "hsc": "hsc-dr2",
    "hsc2": "hsc-dr2",
    "sdss2": "sdss",
    "sdssco": "sdss",
    "vlass": "vlass1.2",
}
with open(Path(__file__).parent / "data" / "viewer_layers.csv", newline="") as _file:
    _ROWS = list(csv.DictReader(_file))
# Layers that exist but whose data are not simulated: a request for one fails.
NO_DATA = frozenset(row["name"] for row in _ROWS if not row["product"])

# Those of them that are of a part of the sky, off which the simulated one lies.
_SURVEYS = ("act", "decaps", "des", "hsc", "ps1", "sdss", "vlass")
LIMITED = frozenset(name for name in NO_DATA if name.startswith(_SURVEYS))


@dataclass(frozen=True)
class ViewerLayer:
    """One layer."""

    name: str
    bands: str
    product: str
    # The (release, region) of what it shows, north first; none of a misspelt layer, which is zero.
    trees: tuple[tuple[str, str], ...]
    survey: str
    version: str

    @property
    def lost(self) -> bool:
        """Whether there is nothing behind the name."""
        return not self.trees

    @property
    def is_split(self) -> bool:
        """Whether north and south are joined."""
        return len(self.trees) == 2

    def tree_at(self, ra_deg: float, dec_deg: float) -> tuple[str, str]:
        """Return the tree that a position is served from."""
        last = -1 if self.is_split and not bricks.is_north(ra_deg, dec_deg) else 0
        return self.trees[last]

    def bricks_of(self, tree: tuple[str, str]) -> list[Brick]:
        """Return the bricks of a tree, in the order of the survey's table."""
        ids = sorted(bricks.parse_brick_name(name) for name in sky.BRICKS[tree])
        return [bricks.get_brick(number) for number in ids]


def _layer(row: dict[str, str]) -> ViewerLayer:
    trees = tuple(_TREES[region] for region in row.pop("trees").split("+") if region)
    return ViewerLayer(**row, trees=trees)


# The layers that are drawn, by name, with the misspelt ones that are answered all the same.
LAYERS = MappingProxyType({row["name"]: _layer(row) for row in _ROWS if row["product"]})


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
