"""The layers that the simulated viewer knows, and what lies behind each of them.

All releases are drawn from the same bricks: a layer differs by its bands, by the trees that it
looks into and by what it says in the header.
"""

from dataclasses import dataclass, replace
from types import MappingProxyType

from ..survey import bricks
from . import sky

__all__ = ["LAYERS", "NORTH", "NO_DATA", "SOUTH", "SPOILERS", "ViewerLayer", "find_layer"]

NORTH = ("dr9", "north")
SOUTH = ("dr10", "south")

_ALIASES = {
    "hsc": "hsc-dr2",
    "hsc2": "hsc-dr2",
    "sdss2": "sdss",
    "sdssco": "sdss",
    "vlass": "vlass1.2",
}
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
"""Layers that exist but whose data are not simulated: a request for one fails."""

SPOILERS = MappingProxyType({"ls-dr10-grz-model": "ls-dr10-grz"})
"""Names that spoil another layer for whoever asks next."""


@dataclass(frozen=True)
class ViewerLayer:
    """One layer.

    Attributes
    ----------
    name : str
        As in an address.
    bands : str
        What is served unless other bands are asked for.
    available : str
        What can be asked for.
    product : str
        ``'image'``, ``'model'`` or ``'resid'``.
    north, south : tuple of (str, str) or None
        Trees, as release and region; a layer with both is split by declination.
    survey, version : str
        Cards of the header.
    lost : bool
        Whether the layer looks into a folder without coadds: zeros everywhere.
    """

    name: str
    bands: str
    available: str
    product: str = "image"
    north: tuple | None = None
    south: tuple | None = SOUTH
    survey: str = "LegacySurvey"
    version: str = ""
    lost: bool = False

    @property
    def is_split(self):
        """Whether north and south are joined."""
        return self.north is not None and self.south is not None

    @property
    def trees(self):
        """The trees that there are, north first."""
        return tuple(tree for tree in (self.north, self.south) if tree is not None)

    def tree_at(self, ra_deg, dec_deg):
        """Return the tree that a position is served from."""
        if self.is_split:
            return self.north if bool(bricks.is_north(ra_deg, dec_deg)) else self.south
        return self.trees[0]

    def bricks_of(self, tree):
        """Return the bricks of a tree, in the order of the survey's table."""
        ids = sorted(bricks.parse_brick_name(name) for name in sky.BRICKS[tree])
        return [bricks.get_brick(number) for number in ids]


def _products(layer, suffix=""):
    for product in ("image", "model", "resid"):
        part = "" if product == "image" else f"-{product}"
        yield replace(layer, name=f"{layer.name}{part}{suffix}", product=product)


def _make():
    def layer(name, bands, version, **kwargs):
        kwargs.setdefault("survey", "DECaLS")
        return ViewerLayer(name, bands, bands, version=version, **kwargs)

    both = {"north": NORTH, "south": SOUTH, "survey": "LegacySurvey"}
    north = {"north": NORTH, "south": None}
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


LAYERS = MappingProxyType({layer.name: layer for layer in _make()})
"""The layers that are drawn, by name, with the misspelt ones that are answered all the same."""


def clean_name(name):
    """Return the name of a layer as the viewer understands it.

    Parameters
    ----------
    name : str
        The value of ``layer=``.

    Returns
    -------
    str
    """
    # A plus sign in an address is a space.
    name = name.replace(" ", "+")
    if name == "dr8" or name.startswith("dr8-"):
        name = f"ls-{name}"
    return _ALIASES.get(name, name)


def find_layer(name):
    """Return the layer called ``name``.

    Parameters
    ----------
    name : str
        The value of ``layer=``.

    Returns
    -------
    ViewerLayer, str or None
        The name itself for a layer of `NO_DATA`; `None` if there is no such layer.
    """
    name = clean_name(name)
    return name if name in NO_DATA else LAYERS.get(name)
