"""What is said of a call that does not fit its method, and what was meant."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from difflib import get_close_matches
from numbers import Real
from typing import Any

from ..exceptions import ArgumentError, LegacySurveyError

_WRITERS = {"HDUList": "writeto()", "Table": "write()"}
_MEANT = {
    "radius": "radius size",
    "size": "size radius width",
    "width": "width size radius",
    "height": "height size radius",
    "fov": "size radius",
    "npix pixels": "size",
    "filter filters": "bands column_filters",
    "band": "bands",
    "survey surveys": "release layer",
    "dr data_release version": "release",
    "pixscale scale": "pixel_scale",
    "hemisphere": "region",
    "product invvar": "products",
    "path": "download_dir output_dir WRITE",
    "filename save_path output_file": "WRITE",
    "download_dir": "output_dir WRITE",
    "output_dir": "download_dir WRITE",
    "proposal_id proposal": "program",
    "outdir savedir folder directory": "download_dir output_dir",
    "fields cols": "columns",
    "where constraints": "column_filters",
    "limit row_limit top": "maxrec",
    "timeout": "LegacySurvey.timeout",
    "verbose progress": "show_progress",
    "format": "output",
    "workers n_jobs": "executor",
}
"""What other packages call it, and what it may be here; WRITE is a method of what is returned."""

MEANT = {word: names.split() for words, names in _MEANT.items() for word in words.split()}
"""What may be meant by a word; the first that the method has is."""


def explained(
    error: TypeError, method: Callable, args: tuple, options: dict[str, Any]
) -> LegacySurveyError | None:
    """Return the error of ours for a call that does not fit, or `None` for one from within."""
    trace = error.__traceback__
    if isinstance(error, LegacySurveyError) or trace is None or trace.tb_next is not None:
        return None
    return _argument_error(method, args, options, error)


def _argument_error(
    method: Callable[..., Any], args: tuple, options: dict[str, Any], error: TypeError
) -> ArgumentError:
    """Return the error that says which argument a method does not know, and what was meant."""
    name = f"{type(args[0] if args else None).__name__.removesuffix('Class')}.{method.__name__}"
    parameters = list(inspect.signature(method).parameters.values())[1:]
    words = [p.name for p in parameters if p.kind is not p.VAR_KEYWORD]
    positional = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    unknown = [word for word in options if word not in words]
    if unknown:
        writer = _WRITERS.get(str(inspect.signature(method).return_annotation).partition(" ")[0])
        meant = _meant(unknown[0], words, positional, writer)
        hint = f"did you mean {meant}?" if meant else f"it has: {', '.join(words)}."
        msg = f"{name}() has no argument {unknown[0]}=; {hint}"
        return ArgumentError(msg, parameter=unknown[0], value=options[unknown[0]])
    if "positional argument" in str(error) and "missing" not in str(error):
        named = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
        return ArgumentError(f"{name}() {_too_many(args, positional, named)}", parameter=name)
    text = str(error).partition(") ")[2] or str(error)
    return ArgumentError(f"{name}() {text}: it takes {', '.join(words)}.", parameter=name)


def _too_many(args: tuple, positional: list[str], named: list[str]) -> str:
    """Return what is said of more arguments without a name than a method takes."""
    limit = f"only {' and '.join(positional)}" if positional else "no argument"
    msg = f"takes {limit} without a name"
    if all(isinstance(value, Real) for value in args[1:3]) and len(args) > 2:
        msg += "; RA and Dec are one argument, such as (190.1, 1.2)"
    elif named:
        msg += f"; name the others: {', '.join(f'{word}=' for word in named[:8])}"
    return f"{msg}{', ...' if len(named) > 8 else '.'}"


def _meant(word: str, words: list[str], positional: list[str], writer: str | None) -> str | None:
    for candidate in MEANT.get(word.lower(), ()):
        if candidate in words:
            return f"{candidate}="
        if candidate == "WRITE":
            return f"the method {writer} of what is returned" if writer else None
        if not candidate.isidentifier():
            return candidate
    if word.lower() in ("ra", "dec") and "coordinates" in words:
        return "coordinates=(ra, dec), in degrees"
    if word.lower() in ("coord", "coords", "position", "positions", "ra", "target", "coordinates"):
        return f"{positional[0]}=" if positional else None
    near = get_close_matches(word.lower(), words, 1, 0.6)
    return f"{near[0]}=" if near else None
