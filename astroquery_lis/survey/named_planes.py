"""The names that users give to planes: products, bands, region, release and layer, checked.

They are resolved here, once; inside travel the release and the layer themselves.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache, partial
from typing import Any, NamedTuple

from ..exceptions import meant, refuse
from .layers import Layer, get_layer, layers_with
from .paths import COADD_PRODUCTS
from .releases import (
    WISE_BANDS,
    WISE_PRODUCTS,
    DataRelease,
    as_region,
    band_names,
    checked_bands,
    get_release,
    listed,
)

UNWISE_BANDS = ("1", "2")
"""What the layers of unWISE call W1 and W2."""

LAYER_PRODUCTS = ("image", "invvar", "maskbits")
"""What a layer of the viewer can be asked for; ``image`` is whatever the layer shows."""

DERIVED = {
    "resid": ("image", "model"),
    "snr": ("image", "invvar"),
    "sigma": ("invvar",),
}
"""Planes made of others: image - model, image sqrt(invvar), 1 / sqrt(invvar)."""


class NamedPlanes(NamedTuple):
    """What is asked of each pixel, and of whom."""

    products: tuple[str, ...]
    bands: tuple[str, ...] | None
    release: DataRelease | None
    region: str
    layer: Layer | None = None


def sources_of(products: tuple[str, ...]) -> tuple[str, ...]:
    """Return the products of files that planes are made of."""
    return tuple(dict.fromkeys(base for name in products for base in DERIVED.get(name, (name,))))


def wise_products(products: tuple[str, ...]) -> tuple[str, ...]:
    """Return the planes that WISE bands have; refuse where they have none."""
    names = tuple(name for name in products if name in WISE_PRODUCTS or name in DERIVED)
    if not names:
        must = f": the WISE bands have {', '.join((*WISE_PRODUCTS, *DERIVED))}."
        refuse("products", products, must)
    return names


# Calls in a loop name the same.
@lru_cache(maxsize=128, typed=True)
def planes_of_release(release: Any, region: Any, bands: Any, products: Any) -> NamedPlanes:
    """Return what the names of a release, a region, bands and products mean."""
    data = get_release(release)
    region = as_region(region, data.name)
    if bands is not None:
        bands = _survey_bands(bands, data, region, data.wise_bands)
    return NamedPlanes(_cutout_products(products, data), bands, data, region)


def _cutout_products(products: Any, release: DataRelease) -> tuple[str, ...]:
    """Return names of planes of a cutout: of files, made of those, and PSFs."""
    files = (*release.products, *release.mask_planes)
    allowed = (*files, *DERIVED, "psf")
    names = listed(products, (*allowed, "all"))
    if "all" in names:
        # Everything of the survey's own, and the residuals beside the model.
        after, at = files.index("model") + 1, names.index("all")
        every = (*files[:after], "resid", *files[after:])
        names = list(dict.fromkeys((*names[:at], *every, *names[at + 1 :])))
    needed = [base for name in names for base in (name, *DERIVED.get(name, ()))]
    _check_products(products, needed, allowed, release)
    # A PSF goes with planes; alone it is asked by `psf_request`.
    return ("image", "psf") if names == ["psf"] else tuple(names)


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
    layers = dict.fromkeys(
        name if isinstance(name, Layer) else get_layer(name, allow_unknown=allow_unknown)
        for name in names
    )
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


def as_products(products: Any, release: str, *, planes: bool = False) -> tuple[str, ...]:
    """Return names of coadd products, and of mask planes if asked, as a tuple without repeats."""
    data = get_release(release)
    allowed = (*data.products, *data.mask_planes) if planes else data.products
    names = tuple(listed(products, allowed))
    _check_products(products, names, allowed, data)
    return names


_SYNONYMS = {"ivar": "invvar", "weight": "invvar", "mask": "maskbits", "residual": "resid"}


def _check_products(
    products: Any, names: Collection[str], allowed: tuple[str, ...], release: DataRelease
) -> None:
    """Refuse names that are not allowed, or none."""
    if not names:
        refuse("products", products, f"names no product; allowed: {', '.join(allowed)}.")
    for name in names:
        if name not in allowed:
            is_old = name in COADD_PRODUCTS
            reason = f"is not in {release.name}" if is_old else "is not a product"
            near = meant(_SYNONYMS.get(name, name), allowed)
            refuse("products", name, f"{reason}; allowed: {', '.join(allowed)}.{near}")


def as_bands(bands: Any, release: str, region: str = "auto") -> tuple[str, ...] | None:
    """Return bands as a tuple without repeats, or `None`."""
    if bands is None:
        return None
    return _survey_bands(bands, get_release(release), region)


def _survey_bands(
    bands: Any, release: DataRelease, region: str, more: tuple[str, ...] = ()
) -> tuple[str, ...]:
    whose = release.name if region == "auto" else f"{release.name} {region}"
    return checked_bands(bands, (*release.bands_in[region], *more), whose)


def as_layer_bands(bands: Any, allowed: tuple[str, ...], layer: str) -> tuple[str, ...] | None:
    """Return bands of a layer of the viewer as a tuple without repeats, or `None`."""
    if bands is None:
        return None
    if allowed == UNWISE_BANDS:
        bands = [name.upper().removeprefix("W") for name in band_names(bands, WISE_BANDS)]
    others = partial(layers_with, name=layer)
    return checked_bands(bands, allowed, f"layer {layer}", others=others)
