"""The viewer's layers: which there are, what each can serve truthfully, and which names are traps.

A name that the viewer does not know is not always refused by it: some return zeros, and some spoil
the answers to other names until the server is restarted.  So nothing but the names below is ever
sent.  Read off the viewer's own code (legacysurvey/imagine, August 2026).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import partial
from types import MappingProxyType
from typing import Any

from ..exceptions import InvalidRequestError, refuse
from .releases import (
    PIXEL_SCALE_ARCSEC,
    RELEASES,
    WISE_BANDS,
    NamedPlanes,
    Tree,
    band_names,
    checked_bands,
    get_release,
    listed,
    spelled,
)

__all__ = ["ALIASES", "LAYERS", "Layer", "get_layer", "layer_of"]

INVVAR_LIMIT_ARCSEC = 2 * PIXEL_SCALE_ARCSEC
"""Largest pixel scale at which the viewer still sends invvar and maskbits."""

UNWISE_BANDS = ("1", "2")
"""What the layers of unWISE call W1 and W2."""

LAYER_PRODUCTS = ("image", "invvar", "maskbits")
"""What a layer of the viewer can be asked for; ``image`` is whatever the layer shows."""


@dataclass(frozen=True)
class Layer:
    """One layer of the viewer.

    Attributes
    ----------
    name : str
        As in the viewer's addresses.
    survey : str
        Whose data it shows.
    bands : tuple of str
        What can be asked for.
    default_bands : tuple of str
        What comes when nothing is asked for.
    pixel_scale_arcsec : float
        Native pixel scale.
    product : str
        ``'image'``, ``'model'`` or ``'resid'``.
    release : str or None
        Release of the Legacy Surveys that it shows; `None` for others.
    region : str or None
        ``'north'``, ``'south'``, or ``'auto'`` where it is put together from both.
    fits, invvar, maskbits : bool
        What it serves truthfully; a picture comes from every layer.
    unit : str
        Unit of the pixels where it is known.
    note : str
        What a user should know, or empty.

    Examples
    --------
    >>> from astroquery_lis.survey.layers import LAYERS
    >>> LAYERS['ls-dr9'].bands, LAYERS['ls-dr9'].maskbits
    (('g', 'r', 'z'), True)
    """

    name: str
    survey: str
    bands: tuple[str, ...]
    default_bands: tuple[str, ...]
    pixel_scale_arcsec: float
    product: str = "image"
    release: str | None = None
    region: str | None = None
    fits: bool = True
    invvar: bool = False
    maskbits: bool = False
    unit: str = ""
    note: str = ""

    @property
    def trees(self) -> list[Tree]:
        """The regions whose bricks it is put together from, as far as they are known."""
        if self.release is None or self.region is None:
            return []
        trees = RELEASES[self.release].trees
        return [trees[region] for region in trees if self.region in (region, "auto")]


_ENDINGS = {"image": "", "model": "-model", "resid": "-resid"}
_ALL = tuple(_ENDINGS)
_NOTES = {"resid": "the viewer's invvar and maskbits of this layer are wrong"}

# Name, release, region, products, sets of bands: those with a hyphen are part of the name.
_TREES: tuple[tuple[str, str | None, str | None, tuple[str, ...], str], ...] = (
    ("ls-dr11", "dr11", "auto", _ALL, "grz"),
    ("ls-dr11-south", "dr11", "south", _ALL, "grz"),
    ("ls-dr11-north", "dr11", "north", _ALL, "grz"),
    # The viewer's only way to the i band of DR11.
    ("ls-dr11-south", "dr11", "south", _ALL, "-griz"),
    ("ls-dr11-south", "dr11", "south", ("image",), "-gri"),
    ("ls-dr10-south", "dr10", "south", ("image",), "-gri"),
    ("ls-dr10", "dr10", "auto", ("image",), "-gri"),
    ("ls-dr10", "dr10", "auto", _ALL, "griz -grz"),
    ("ls-dr10-south", "dr10", "south", _ALL, "griz -grz"),
    ("ls-dr10-mid", "dr10", "auto", _ALL, "griz -grz"),
    ("ls-dr9", "dr9", "auto", _ALL, "grz"),
    ("ls-dr9-north", "dr9", "north", _ALL, "grz"),
    ("ls-dr9-south", "dr9", "south", _ALL, "grz"),
    ("ls-dr9-mid", "dr9", "auto", _ALL, "grz"),
    ("ls-dr8", "dr8", "auto", _ALL, "grz"),
    ("ls-dr8-north", "dr8", "north", _ALL, "grz"),
    ("ls-dr8-south", "dr8", "south", _ALL, "grz"),
    ("ls-dr8-mid", "dr8", "auto", _ALL, "grz"),
    ("ls-dr9.1.1", "dr9", None, _ALL, "grz"),
    # DR6 in the north and DR7 in the south: no one release, so no brick file answers for it.
    ("ls-dr67", None, "auto", ("image",), "grz"),
    ("ls-dr67-mid", None, "auto", ("image",), "grz"),
    ("decals-dr7", "dr7", "south", _ALL, "grz"),
    ("mzls+bass-dr6", "dr6", "north", _ALL, "grz"),
    ("decals-dr5", "dr5", "south", _ALL, "grz"),
)


def _variants(
    base: str, release: str | None, region: str | None, products: tuple[str, ...], bands: str
) -> Iterator[Layer]:
    """Yield the layers of one tree: its products, each with each set of bands."""
    for product, word in itertools.product(products, bands.split()):
        shown, suffix = word.removeprefix("-"), word if word.startswith("-") else ""
        notes = [_NOTES[product]] if product in _NOTES else []
        if suffix == "-gri" or (suffix and release == "dr11"):
            notes.append("served, but not in the viewer's own list")
        yield Layer(
            base + _ENDINGS[product] + suffix,
            "Legacy Surveys",
            tuple(shown),
            tuple(shown),
            PIXEL_SCALE_ARCSEC,
            product,
            release,
            region,
            invvar=product not in _NOTES,
            maskbits=product not in _NOTES,
            unit="nanomaggy",
            note="; ".join(notes),
        )


def _decaps() -> Iterator[Layer]:
    for word, default in (("grz", "grz"), ("-riy", "riY")):
        for layer in _variants("decaps2", None, None, _ALL, word):
            own = replace(layer, survey="DECaPS2", bands=tuple("grizY"), note="")
            yield replace(own, default_bands=tuple(default))


def _others() -> Iterator[Layer]:
    rows = (
        ("sdss", "SDSS", "gri", 0.396, "nanomaggy", ""),
        ("galex", "GALEX", "nf", 1.5, "", ""),
        ("wssa", "WISE 12 micron dust", "x", 5.625, "", ""),
        ("unwise-neo4", "unWISE", "12", 2.75, "Vega nanomaggy", ""),
        ("unwise-neo6", "unWISE", "12", 2.75, "Vega nanomaggy", ""),
        ("unwise-neo7", "unWISE", "12", 2.75, "Vega nanomaggy", ""),
        ("unwise-neo11", "unWISE", "12", 2.75, "Vega nanomaggy", ""),
        ("unwise-cat-model", "unWISE", "12", 2.75, "Vega nanomaggy", "model of the catalogue"),
        ("hsc-dr2", "HSC", "grz", 0.168, "", "zero point 27.0"),
        ("hsc-dr3", "HSC", "grz", 0.168, "", "zero point 27.0"),
        ("vlass1.2", "VLASS", "1", 1.0, "", ""),
        ("des-dr1", "DES", "grz", PIXEL_SCALE_ARCSEC, "", ""),
        ("ps1", "Pan-STARRS", "gri", 0.25, "", ""),
    )
    for name, survey, bands, scale, unit, note in rows:
        yield Layer(name, survey, tuple(bands), tuple(bands), scale, unit=unit, note=note)
    note = "the map of f090, whatever the name says"
    yield Layer("act-dr6-f150", "ACT", ("f090",), ("f090",), PIXEL_SCALE_ARCSEC, note=note)
    for name, survey in (("sfd", "SFD dust"), ("halpha", "H-alpha")):
        yield Layer(name, survey, (), (), PIXEL_SCALE_ARCSEC, fits=False, note="pictures only")


LAYERS = MappingProxyType(
    {
        layer.name: layer
        for layer in itertools.chain(
            itertools.chain.from_iterable(itertools.starmap(_variants, _TREES)),
            _decaps(),
            _others(),
        )
    }
)
"""The 87 public layers, and six that the viewer serves without listing them, by name."""

ALIASES = MappingProxyType(
    {
        "hsc": "hsc-dr2",
        "hsc2": "hsc-dr2",
        "vlass": "vlass1.2",
        "sdss2": "sdss",
        "sdssco": "sdss",
        **{name[3:]: name for name in LAYERS if name.startswith("ls-dr8")},
    }
)
"""Old names that the viewer still takes, and what they stand for."""


def _why_refused(name: str) -> str:
    """Return what is known of a name that is no public layer, behind a colon."""
    if name.endswith(("-grz-model", "-grz-resid")):
        base, _, product = name.rpartition("-grz-")
        return (
            f": the order is {base}-{product}-grz; this one would return zeros and spoil the "
            "server's answers to others"
        )
    if name in ("", "ls-dr9-grz", "ls-dr8-grz", "ls-dr11-grz"):
        return ": the viewer would answer it with an image of zeros"
    if name in ("ls-dr11-griz", "ls-dr11-gri"):
        return f": the viewer has no such layer; ls-dr11-south-{name.rpartition('-')[2]} it has"
    return ""


def get_layer(name: str | Layer, *, allow_unknown: bool = False) -> Layer:
    """Return the `Layer` called ``name``.

    Parameters
    ----------
    name : str or Layer
        Name or alias; a space counts as ``+``, as in the viewer.  A layer is returned as it is.
    allow_unknown : bool, optional
        Whether to take a name that is not in the list, as a layer of unknown bands.

    Returns
    -------
    Layer

    Raises
    ------
    InvalidRequestError
        If it is not a public layer; the message says what is near, and why a known trap is one.

    Examples
    --------
    >>> from astroquery_lis.survey.layers import get_layer
    >>> get_layer('dr8-south').name
    'ls-dr8-south'
    """
    if isinstance(name, Layer):
        return name
    text = name.strip().replace(" ", "+") if isinstance(name, str) else ""
    text = spelled(text, (*ALIASES, *LAYERS))
    text = ALIASES.get(text, text)
    if text in LAYERS:
        return LAYERS[text]
    if allow_unknown and text:
        return Layer(text, "unknown", (), (), PIXEL_SCALE_ARCSEC, note="not a public layer")
    near = get_close_matches(text.lower(), [*LAYERS, *ALIASES], n=3, cutoff=0.6)
    hint = f" Did you mean {', '.join(near)}?" if near else ""
    msg = f"layer={name!r} is not a public layer of the viewer{_why_refused(text)}.{hint}"
    msg += " LegacySurvey.list_layers() has them all."
    raise InvalidRequestError(msg, parameter="layer", value=name)


def layers_with(band: str, name: str) -> tuple[str, ...]:
    """Return the names of layers that show a band of the same release and product as another."""
    layer = LAYERS.get(name)
    if layer is None or layer.release is None:
        return ()
    same = [other for other in LAYERS.values() if other.release == layer.release]
    return tuple(o.name for o in same if o.product == layer.product and band in o.bands)


_BASES = {
    "dr5": "decals-dr5",
    "dr6": "mzls+bass-dr6",
    "dr7": "decals-dr7",
    **{name: f"ls-{name}" for name in RELEASES if RELEASES[name].is_split},
}


def layer_of(release: str, region: str = "auto", product: str = "image") -> Layer:
    """Return the layer that shows a region of a release.

    Parameters
    ----------
    release : str
        Release name.
    region : {'auto', 'north', 'south'}, optional
        ``'auto'`` for the layer that is put together from both.
    product : {'image', 'model', 'resid'}, optional
        What it shows.

    Returns
    -------
    Layer

    Examples
    --------
    >>> from astroquery_lis.survey.layers import layer_of
    >>> layer_of('dr10', 'north').name
    'ls-dr9-north'
    """
    base = _BASES[release]
    if region != "auto" and RELEASES[release].is_split:
        tree = RELEASES[release].trees[region]
        base = f"{_BASES[tree.release]}-{region}"
    return LAYERS[base + _ENDINGS[product]]


# ---- names that users give beside a layer ------------------------------------------------------


def planes_of_layers(
    layer: Any, bands: Any, products: Any, *, allow_unknown: bool
) -> list[NamedPlanes]:
    """Return what names mean of each layer that is named, in order of preference."""
    try:
        names = [layer] if isinstance(layer, (str, Layer)) else list(layer)
    except TypeError:
        names = []
    if not names:
        refuse("layer", layer, "must be the name of a layer, or a sequence of names.")
    layers = dict.fromkeys(get_layer(name, allow_unknown=allow_unknown) for name in names)
    return [
        NamedPlanes(
            _layer_products(products),
            as_layer_bands(bands, layer.bands, layer.name),
            None if layer.release is None else get_release(layer.release),
            layer.region or "auto",
            layer,
        )
        for layer in layers
    ]


def _layer_products(products: Any) -> tuple[str, ...]:
    """Return what is asked of a layer; refuse what no layer has."""
    names = tuple(listed(products, LAYER_PRODUCTS))
    if not names or not set(names) <= set(LAYER_PRODUCTS):
        must = (
            f": a layer has {', '.join(LAYER_PRODUCTS)}, where image is what it shows; psf goes "
            "with a release."
        )
        refuse("products", products, must)
    return names


def refuse_beside_layer(release: str | None, region: str) -> None:
    """Refuse what a layer of the viewer has of its own."""
    for name, value, default in (("release", release, None), ("region", region, "auto")):
        if not isinstance(value, type(default)) or value != default:
            refuse(name, value, "cannot be given beside layer, which has its own.")


def as_layer_bands(bands: Any, allowed: tuple[str, ...], layer: str) -> tuple[str, ...] | None:
    """Return bands of a layer of the viewer as a tuple without repeats, or `None`."""
    if bands is None:
        return None
    if allowed == UNWISE_BANDS:
        bands = [name.upper().removeprefix("W") for name in band_names(bands, WISE_BANDS)]
    others = partial(layers_with, name=layer)
    return checked_bands(bands, allowed, f"layer {layer}", others=others)
