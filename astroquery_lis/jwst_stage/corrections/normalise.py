"""From what a user writes to `Correction`: everything is checked before anything runs."""

import difflib
import inspect
import json
import os
import re
import sys
from base64 import b64encode
from dataclasses import replace
from pathlib import Path
from types import FunctionType

from ...exceptions import InvalidRequestError, OptionalDependencyError
from .base import IN_STEP, POINTS, RESERVED, Correction
from .builtin import BUILTIN
from .digest import file_digest, function_digest, json_digest, module_digest

__all__ = ["correction", "normalise", "switches"]

DEFAULT_POINT = "after_rate"
"""Where a function or a step of the user is put."""

_SUFFIX = re.compile(r"[a-z0-9]+")
# What the chain makes itself, and what Stage 1 to 3 would take for their own.
_TAKEN = frozenset(
    {"uncal", "rate", "rateints", "cal", "calints", "crf", "crfints", "i2d", "s2d", "x1d", "asn"}
    | {"dark", "cat", "segm", "jump", "ramp"}
)


def normalise(corrections):
    """Return corrections as the plan takes them.

    Parameters
    ----------
    corrections : sequence
        Each a name, a pair of what it is and a dictionary of its parameters, a `Correction`, a
        function, a class or instance of `stpipe.Step`, or ``"module:name"`` of one of these.

    Returns
    -------
    tuple of Correction
        In the order given.

    Raises
    ------
    InvalidRequestError
        If a correction is unknown, a parameter is wrong, or two make the same product.
    OptionalDependencyError
        If a function is in no module, and `cloudpickle` is not installed.
    """
    if corrections is None:
        return ()
    if _is_one(corrections):
        corrections = [corrections]
    done, known = [], {}
    for given in corrections:
        made = _one(given)
        other = known.setdefault(made.suffix, made)
        if other is not made:
            msg = (
                f"corrections: {made.suffix!r} is the suffix of two of them, and what is known by "
                "one suffix is applied once; give one another: (..., {'suffix': '...'})."
            )
            raise InvalidRequestError(msg, parameter="corrections", value=corrections)
        done.append(made)
    return tuple(done)


def correction(what, /, **parameters):
    """Return one correction.

    Parameters
    ----------
    what : str, function, or class or instance of `stpipe.Step`
        A name, the code itself, or ``"module:name"``.
    **parameters
        Of the correction; and ``point``, ``suffix`` and ``only``, see `Correction`.

    Returns
    -------
    Correction

    Raises
    ------
    InvalidRequestError
        As for `normalise`.
    OptionalDependencyError
        As for `normalise`.
    """
    return _one((what, parameters))


def switches(corrections):
    """Return what corrections ask of the pipeline's own steps.

    Parameters
    ----------
    corrections : sequence of Correction
        In their order.

    Returns
    -------
    dict
        ``{selector: {step: {parameter: value}}}``, as `~.parameters.check` takes it.
    """
    merged = {}
    for one in corrections:
        for selector, steps in one.steps.items():
            for step, values in steps.items():
                merged.setdefault(selector, {}).setdefault(step, {}).update(values)
    return merged


def _is_one(given):
    if isinstance(given, (str, Correction)) or callable(given) or _is_step(given):
        return True
    return (
        isinstance(given, tuple)
        and len(given) == 2
        and isinstance(given[1], dict)
        and not isinstance(given[0], tuple)
    )


def _one(given):
    if isinstance(given, Correction):
        return given
    what, parameters = given, {}
    if isinstance(given, (tuple, list)) and len(given) == 2 and isinstance(given[1], dict):
        what, parameters = given
    if isinstance(what, Correction):
        msg = f"corrections: {what.name} has its parameters already."
        raise InvalidRequestError(msg, parameter="corrections", value=given)
    about = {name: parameters[name] for name in RESERVED if name in parameters}
    parameters = {name: value for name, value in parameters.items() if name not in RESERVED}
    if isinstance(what, str) and ":" not in what:
        made = _builtin(what, parameters, about)
    elif isinstance(what, str):
        made = _by_name(what, parameters)
    elif _is_step(what):
        made = _step(what, parameters)
    elif isinstance(what, FunctionType):
        made = _function(what, parameters)
    else:
        msg = (
            f"corrections: {what!r} must be a name out of {', '.join(BUILTIN)}, a function, a "
            "class or instance of stpipe.Step, or 'module:name'; with parameters a pair "
            "(what, {...})."
        )
        raise InvalidRequestError(msg, parameter="corrections", value=what)
    made = _about(made, about)
    source = "pickle" if made.source.startswith("pickle:") else made.source
    parts = [source, made.code, made.parameters, made.steps, made.point, made.suffix]
    return replace(made, digest=json_digest([*parts, made.files]))


def _about(made, about):
    point = about.get("point", made.point)
    allowed = BUILTIN[made.name].points if made.source.startswith("builtin:") else POINTS
    if not made.source:
        allowed = (IN_STEP,)
    if point not in allowed:
        msg = f"{made.name}: point={point!r} must be one of {', '.join(allowed)}."
        raise InvalidRequestError(msg, parameter="point", value=point)
    if made.steps and made.source and point != "after_rate":
        msg = f"{made.name}: point={point!r} must be after_rate: it replaces a step of stage 2."
        raise InvalidRequestError(msg, parameter="point", value=point)
    suffix = about.get("suffix", made.suffix)
    if not isinstance(suffix, str) or not _SUFFIX.fullmatch(suffix) or suffix in _TAKEN:
        msg = (
            f"{made.name}: suffix={suffix!r} must be of lower-case letters and digits and not one "
            f"that the pipeline uses itself ({', '.join(sorted(_TAKEN))})."
        )
        raise InvalidRequestError(msg, parameter="suffix", value=suffix)
    only = about.get("only", made.only)
    only = (only,) if isinstance(only, str) else tuple(only)
    if not all(isinstance(entry, str) and entry for entry in only):
        msg = f"{made.name}: only={only!r} must be words such as 'NRCA3', 'F200W', 'NRCA3/F200W'."
        raise InvalidRequestError(msg, parameter="only", value=only)
    only = tuple(entry.upper() for entry in only)
    if made.steps and about.get("only"):
        if any("/" in entry for entry in only) or set(made.steps) != {""}:
            msg = f"{made.name}: only={only!r} must be single words, since it switches steps."
            raise InvalidRequestError(msg, parameter="only", value=only)
        made = replace(made, steps=dict.fromkeys(only, made.steps[""]))
    if made.only and about.get("only"):
        only = _both(made.only, only)
    return replace(made, point=point, suffix=suffix, only=only)


def _both(first, second):
    """Return the words that are right where one of each of two lists is."""
    pairs = ([*a.split("/"), *b.split("/")] for a in first for b in second)
    return tuple("/".join(dict.fromkeys(pair)) for pair in pairs)


def _builtin(name, parameters, about):
    if name not in BUILTIN:
        close = difflib.get_close_matches(name, BUILTIN, 1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        msg = (
            f"corrections: {name!r} is not one of {', '.join(BUILTIN)}; a function of a module is "
            f"'module:name'.{hint}"
        )
        raise InvalidRequestError(msg, parameter="corrections", value=name)
    kind = BUILTIN[name]
    allowed = list(inspect.signature(kind.function).parameters)[1:]
    unknown = [key for key in parameters if key not in allowed]
    if unknown:
        close = difflib.get_close_matches(unknown[0], allowed, 1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        msg = (
            f"{name}: {unknown[0]!r} is not one of its parameters "
            f"{', '.join([*allowed, *RESERVED])}.{hint}"
        )
        raise InvalidRequestError(msg, parameter=unknown[0], value=parameters[unknown[0]])
    parameters = kind.check({key: _plain(name, key, v) for key, v in parameters.items()})
    named = kind.files(parameters) if kind.files else {}
    only = () if "" in named else tuple(named)
    is_switch = kind.points == (IN_STEP,)
    module = kind.function.__module__
    return Correction(
        name=name,
        point=about.get("point", kind.points[0]),
        suffix=name.replace("_", ""),
        source="" if is_switch else f"builtin:{name}",
        parameters=parameters,
        steps=kind.steps(parameters) if kind.steps else {},
        only=only,
        imaging=kind.imaging and not is_switch,
        files={path: file_digest(path) for path in named.values()},
        code=module_digest(module, kind.function.__name__),
    )


def _by_name(what, parameters):
    module, _, name = what.partition(":")
    code = module_digest(module, name)
    return _users(name, f"import:{module}:{name}", parameters, code)


def _step(what, parameters):
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


def _function(function, parameters):
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


def _is_reachable(function):
    loaded = sys.modules.get(function.__module__)
    is_there = getattr(loaded, function.__qualname__, None) is function
    return is_there and getattr(loaded, "__file__", None) is not None


def _pickled(function, name):
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


def _users(name, source, parameters, code):
    parameters = {key: _plain(name, key, value) for key, value in parameters.items()}
    suffix = re.sub(r"[^a-z0-9]", "", name.lower()) or "function"
    if suffix in _TAKEN:
        suffix += "corr"
    paths = [v for v in parameters.values() if _is_file(v)]
    return Correction(
        name=name,
        point=DEFAULT_POINT,
        suffix=suffix,
        source=source,
        parameters=parameters,
        files={path: file_digest(path) for path in paths},
        code=code,
    )


def _is_file(value):
    return isinstance(value, str) and os.path.isabs(value) and os.path.isfile(value)


def _is_step(given):
    stpipe = sys.modules.get("stpipe")
    if stpipe is None:
        return False
    return isinstance(given, stpipe.Step) or (
        isinstance(given, type) and issubclass(given, stpipe.Step)
    )


def _key(key):
    # Observations of the sandbox, and people, write ('NRCA3', 'F200W').
    return "/".join(map(str, key)) if isinstance(key, tuple) else str(key)


def _plain(name, key, value):
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
