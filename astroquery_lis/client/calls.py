"""Calls that a method does not know: what was meant, in one sentence."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

from ..exceptions import ArgumentError

__all__ = ["argument_error"]

# What other packages call it; the first that the method has is meant.
MEANT = {
    "radius": ("radius", "size"),
    "size": ("size", "radius", "width"),
    "width": ("width", "size", "radius"),
    "height": ("height", "size", "radius"),
    "fov": ("size", "radius"),
    "npix": ("size",),
    "pixels": ("size",),
    "filter": ("bands", "column_filters"),
    "filters": ("bands", "column_filters"),
    "band": ("bands",),
    "survey": ("release", "layer"),
    "surveys": ("release", "layer"),
    "dr": ("release",),
    "data_release": ("release",),
    "version": ("release",),
    "pixscale": ("pixel_scale",),
    "scale": ("pixel_scale",),
    "hemisphere": ("region",),
    "product": ("products",),
    "invvar": ("products",),
    "path": ("download_dir", "output_dir"),
    "outdir": ("download_dir", "output_dir"),
    "savedir": ("download_dir", "output_dir"),
    "folder": ("download_dir", "output_dir"),
    "directory": ("download_dir", "output_dir"),
    "fields": ("columns",),
    "cols": ("columns",),
    "where": ("column_filters",),
    "constraints": ("column_filters",),
    "limit": ("maxrec",),
    "row_limit": ("maxrec",),
    "top": ("maxrec",),
    "timeout": ("LegacySurvey.timeout",),
    "verbose": ("show_progress",),
    "progress": ("show_progress",),
    "format": ("output",),
    "workers": ("executor",),
    "n_jobs": ("executor",),
}


def argument_error(
    owner: object, method: Callable[..., Any], options: dict[str, Any], error: TypeError
) -> ArgumentError:
    """Return the error that says which argument a method does not know, and what was meant."""
    name = f"{type(owner).__name__.removesuffix('Class')}.{method.__name__}"
    parameters = list(inspect.signature(method).parameters.values())[1:]
    words = [p.name for p in parameters if p.kind is not p.VAR_KEYWORD]
    positional = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    unknown = [word for word in options if word not in words]
    if unknown:
        meant = _meant(unknown[0], words, positional)
        hint = f"did you mean {meant}?" if meant else f"it has: {', '.join(words)}."
        msg = f"{name}() has no argument {unknown[0]}=; {hint}"
        return ArgumentError(msg, parameter=unknown[0], value=options[unknown[0]])
    if "positional argument" in str(error) and "missing" not in str(error):
        named = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
        msg = (
            f"{name}() takes {', '.join(positional) or 'nothing'} as positional arguments; name "
            f"the others: {', '.join(f'{word}=' for word in named[:8])}"
        )
        return ArgumentError(f"{msg}{', ...' if len(named) > 8 else '.'}", parameter=name)
    text = str(error).partition(") ")[2] or str(error)
    return ArgumentError(f"{name}() {text}: it takes {', '.join(words)}.", parameter=name)


def _meant(word: str, words: list[str], positional: list[str]) -> str | None:
    for candidate in MEANT.get(word.lower(), ()):
        if candidate in words or "." in candidate:
            return candidate if "." in candidate else f"{candidate}="
    if word.lower() in ("coord", "coords", "position", "positions", "ra", "target", "coordinates"):
        return f"{positional[0]}=" if positional else None
    near = get_close_matches(word.lower(), words, 1, 0.6)
    return f"{near[0]}=" if near else None
