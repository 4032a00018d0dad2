"""From what a user writes to `Correction`: everything is checked before anything runs."""

from __future__ import annotations

import inspect
import json
import os
import re
import sys
from base64 import b64encode
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING, Any

from ...exceptions import InvalidRequestError, OptionalDependencyError, meant
from ...io.whole_files import sha256_of
from .builtin import BUILTIN, builtin_digest
from .correction import (
    IN_STEP,
    POINTS,
    RESERVED,
    Correction,
    function_digest,
    json_digest,
    module_digest,
    refuse,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

_SUFFIX = re.compile(r"[a-z0-9]+")
# What the chain makes itself, and what Stage 1 to 3 would take for their own.
_TAKEN = frozenset(
    {"uncal", "rate", "rateints", "cal", "calints", "crf", "crfints", "i2d", "s2d", "x1d", "asn"}
    | {"dark", "cat", "segm", "jump", "ramp"}
)


def normalise(corrections: Any) -> tuple[Correction, ...]:
    """Return corrections as the plan takes them, in the order in which they are given.

    Each is a name, a pair of what it is and a dictionary of its parameters, a `Correction`, a
    function, a class or instance of `stpipe.Step`, or ``"module:name"`` of one of these.
    """
    if corrections is None:
        return ()
    if _is_one(corrections):
        corrections = [corrections]
    by_suffix: dict[str, Correction] = {}
    for entry in corrections:
        one = _one(entry)
        if by_suffix.setdefault(one.suffix, one) is not one:
            msg = (
                f"corrections: {one.suffix!r} is the suffix of two of them, and what is known by "
                "one suffix is applied once; give one another: (..., {'suffix': '...'})."
            )
            raise InvalidRequestError(msg, parameter="corrections", value=corrections)
    return tuple(by_suffix.values())


def correction(what: Any, /, **parameters: Any) -> Correction:
    """Return one correction; besides its own parameters ``point``, ``suffix`` and ``only``."""
    return _one((what, parameters))


def switches(corrections: Iterable[Correction]) -> dict:
    """Return what corrections ask of the pipeline's own steps, as `~.parameters.check` takes it."""
    merged: dict[str, dict] = {}
    for one in corrections:
        for selector, steps in one.steps.items():
            for step, values in steps.items():
                merged.setdefault(selector, {}).setdefault(step, {}).update(values)
    return merged


def _is_one(entry: Any) -> bool:
    if isinstance(entry, (str, Correction)) or callable(entry) or _is_step(entry):
        return True
    return isinstance(entry, tuple) and _is_pair(entry) and not isinstance(entry[0], tuple)


def _is_pair(entry: tuple | list) -> bool:
    return len(entry) == 2 and isinstance(entry[1], dict)


def _one(entry: Any) -> Correction:
    if isinstance(entry, Correction):
        return entry
    what, parameters = entry, {}
    if isinstance(entry, (tuple, list)) and _is_pair(entry):
        what, parameters = entry
    about = {name: parameters[name] for name in RESERVED if name in parameters}
    parameters = {name: value for name, value in parameters.items() if name not in RESERVED}
    result = _about(_of(what, parameters, about), about)
    source = "pickle" if result.source.startswith("pickle:") else result.source
    parts = [source, result.code, result.parameters, result.steps, result.point, result.suffix]
    return replace(result, digest=json_digest([*parts, result.files]))


def _of(what: Any, parameters: dict, about: dict) -> Correction:
    """Return a correction by its kind."""
    if isinstance(what, str):
        is_own = ":" not in what
        return _builtin(what, parameters, about) if is_own else _by_name(what, parameters)
    if _is_step(what):
        return _step(what, parameters)
    if isinstance(what, FunctionType):
        return _function(what, parameters)
    msg = (
        f"corrections: {what!r} must be a name out of {', '.join(BUILTIN)}, a function, a "
        "class or instance of stpipe.Step, or 'module:name'; with parameters a pair "
        "(what, {...})."
    )
    raise InvalidRequestError(msg, parameter="corrections", value=what)


def _about(result: Correction, about: dict) -> Correction:
    """Return a correction at its point, with its suffix, for the exposures that it is for."""
    point, suffix = about.get("point", result.point), about.get("suffix", result.suffix)
    _check_point(result, point)
    if not isinstance(suffix, str) or not _SUFFIX.fullmatch(suffix) or suffix in _TAKEN:
        own = ", ".join(sorted(_TAKEN))
        allowed = f"of lower-case letters and digits and not one of the pipeline's own ({own})"
        refuse(result.name, "suffix", suffix, allowed)
    only = _words(result, about.get("only"))
    if not only:
        # Its own restriction stays, such as to detectors that there are templates of.
        return replace(result, point=point, suffix=suffix)
    if result.steps:
        if any("/" in entry for entry in only) or set(result.steps) != {""}:
            refuse(result.name, "only", only, "single words, since it switches steps")
        result = replace(result, steps=dict.fromkeys(only, result.steps[""]))
    if result.only:
        only = _both(result.only, only)
    return replace(result, point=point, suffix=suffix, only=only)


def _check_point(result: Correction, point: Any) -> None:
    """Refuse a point in the chain where a correction cannot be applied."""
    allowed = BUILTIN[result.name].points if result.source.startswith("builtin:") else POINTS
    if not result.source:
        allowed = (IN_STEP,)
    if point not in allowed:
        refuse(result.name, "point", point, f"one of {', '.join(allowed)}")
    if result.steps and result.source and point != "after_rate":
        refuse(result.name, "point", point, "after_rate: it replaces a step of stage 2")


def _words(result: Correction, only: Any) -> tuple[str, ...]:
    """Return the words that say which exposures a correction is for."""
    if only is None:
        return ()
    is_several = isinstance(only, Iterable) and not isinstance(only, str)
    words = tuple(only) if is_several else (only,)
    if not all(isinstance(word, str) and word for word in words):
        refuse(result.name, "only", words, "words such as 'NRCA3', 'F200W', 'NRCA3/F200W'")
    return tuple(word.upper() for word in words)


def _both(first: Sequence[str], second: Sequence[str]) -> tuple[str, ...]:
    """Return the words that are right where one of each of two lists is."""
    pairs = ([*a.split("/"), *b.split("/")] for a in first for b in second)
    return tuple("/".join(dict.fromkeys(pair)) for pair in pairs)


def _builtin(name: str, parameters: dict, about: dict) -> Correction:
    if name not in BUILTIN:
        msg = (
            f"corrections: {name!r} is not one of {', '.join(BUILTIN)}; a function of a module is "
            f"'module:name'.{meant(name, BUILTIN)}"
        )
        raise InvalidRequestError(msg, parameter="corrections", value=name)
    kind = BUILTIN[name]
    unknown = [key for key in parameters if key not in kind.parameters]
    if unknown:
        msg = (
            f"{name}: {unknown[0]!r} is not one of its parameters "
            f"{', '.join([*kind.parameters, *RESERVED])}.{meant(unknown[0], kind.parameters)}"
        )
        raise InvalidRequestError(msg, parameter=unknown[0], value=parameters[unknown[0]])
    parameters = kind.check(name, {key: _plain(name, key, v) for key, v in parameters.items()})
    files = kind.files(parameters)
    is_switch = kind.function is None
    return Correction(
        name=name,
        point=about.get("point", kind.points[0]),
        suffix=name.replace("_", ""),
        source="" if is_switch else f"builtin:{name}",
        parameters=parameters,
        steps=kind.steps(parameters) if kind.steps else {},
        only=() if "" in files else tuple(files),
        imaging=kind.imaging and not is_switch,
        files={path: sha256_of(path) for path in files.values()},
        code=builtin_digest(),
    )


def _by_name(what: str, parameters: dict) -> Correction:
    module, _, name = what.partition(":")
    code = module_digest(module, name)
    return _users(name, f"import:{module}:{name}", parameters, code)


def _step(what: Any, parameters: dict) -> Correction:
    cls = what if isinstance(what, type) else type(what)
    if cls is not what:
        usual = cls().get_pars()
        own = {name: v for name, v in what.get_pars().items() if usual.get(name) != v}
        parameters = {**own, **parameters}
    if cls.__module__ == "__main__" or "<locals>" in cls.__qualname__:
        msg = (
            f"corrections: the class {cls.__qualname__} is in no module that another process could "
            "import; put it into a module."
        )
        raise InvalidRequestError(msg, parameter="corrections", value=what)
    code = module_digest(cls.__module__, cls.__qualname__)
    return _users(cls.__name__, f"import:{cls.__module__}:{cls.__qualname__}", parameters, code)


def _function(function: FunctionType, parameters: dict) -> Correction:
    name = function.__name__ if function.__name__ != "<lambda>" else "function"
    try:
        inspect.signature(function).bind(object(), **parameters)
    except TypeError as error:
        msg = f"corrections: {name}(datamodel, **parameters) cannot be called: {error}."
        raise InvalidRequestError(msg, parameter="corrections", value=parameters) from None
    module, qualname = function.__module__, function.__qualname__
    if module != "__main__" and qualname.isidentifier() and _is_reachable(function):
        code = module_digest(module, qualname)
        return _users(name, f"import:{module}:{qualname}", parameters, code)
    code = function_digest(function)
    return _users(name, f"pickle:{_pickled(function, name)}", parameters, code)


def _is_reachable(function: FunctionType) -> bool:
    loaded = sys.modules.get(function.__module__)
    is_there = getattr(loaded, function.__qualname__, None) is function
    return is_there and getattr(loaded, "__file__", None) is not None


def _pickled(function: FunctionType, name: str) -> str:
    try:
        import cloudpickle
    except ImportError as error:
        msg = (
            f"corrections: {name} is defined in a notebook, a script or another function; to carry "
            "it to another process takes the package 'cloudpickle', which is not installed. "
            "Put the function into a module, or pip install cloudpickle."
        )
        raise OptionalDependencyError(msg, cause=error) from None
    try:
        return b64encode(cloudpickle.dumps(function)).decode()
    # Whatever it refers to may refuse, each in its own way.
    except Exception as error:
        msg = (
            f"corrections: {name} cannot be carried to another process "
            f"({type(error).__name__}: {error}); put it into a module."
        )
        raise InvalidRequestError(msg, parameter="corrections", value=function) from error


def _users(name: str, source: str, parameters: dict, code: str) -> Correction:
    parameters = {key: _plain(name, key, value) for key, value in parameters.items()}
    suffix = re.sub(r"[^a-z0-9]", "", name.lower()) or "function"
    if suffix in _TAKEN:
        suffix += "corr"
    paths = [v for v in parameters.values() if _is_file(v)]
    return Correction(
        name=name,
        point="after_rate",
        suffix=suffix,
        source=source,
        parameters=parameters,
        files={path: sha256_of(path) for path in paths},
        code=code,
    )


def _is_file(value: object) -> bool:
    return isinstance(value, str) and os.path.isabs(value) and os.path.isfile(value)


def _is_step(what: Any) -> bool:
    stpipe = sys.modules.get("stpipe")
    if stpipe is None:
        return False
    return isinstance(what, stpipe.Step) or (
        isinstance(what, type) and issubclass(what, stpipe.Step)
    )


def _key(key: object) -> str:
    # Observations of the sandbox, and people, write ('NRCA3', 'F200W').
    return "/".join(map(str, key)) if isinstance(key, tuple) else str(key)


def _plain(name: str, key: str, value: Any) -> object:
    """Return a parameter as JSON types."""
    if isinstance(value, Path):
        return str(value.expanduser().absolute())
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        value = value.item()
    if isinstance(value, dict):
        value = {_key(k): _plain(name, key, v) for k, v in value.items()}
    elif isinstance(value, (list, tuple)):
        value = [_plain(name, key, v) for v in value]
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        msg = (
            f"{name}: {key}={value!r} of type {type(value).__name__} cannot be written down; give "
            "numbers, strings, lists, dictionaries, or the path of a file."
        )
        raise InvalidRequestError(msg, parameter=key, value=value) from None
    return value
