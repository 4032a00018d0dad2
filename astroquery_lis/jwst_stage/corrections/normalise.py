"""From what a user writes to `Correction`: everything is checked before anything runs."""

from __future__ import annotations

import inspect
import json
import os
import re
import sys
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import FunctionType
from typing import Any, NoReturn

from ...exceptions import InvalidRequestError, OptionalDependencyError, meant
from ...io.whole_files import sha256_of
from .correction import (
    IN_STEP,
    POINTS,
    Correction,
    function_digest,
    json_digest,
    module_digest,
)

RESERVED = ("point", "suffix", "only")
"""Parameters that are about the correction, and do not reach its function."""

Rule = Callable[[str, str, Any], object]
"""Gives a parameter as it is written down, of a correction's name, its own and its value."""

# ---- checks of parameters: a message gives the value and what is allowed ------------------------


def refuse(name: str, key: str, value: object, allowed: str) -> NoReturn:
    """Raise the error of a wrong parameter of a correction."""
    msg = f"{name}: {key}={value!r} must be {allowed}."
    raise InvalidRequestError(msg, parameter=key, value=value)


def number(low: float, high: float) -> Rule:
    """Return the rule for a finite number within bounds, themselves allowed: a float."""
    return _within(low, high, float, f"a number from {low:g} to {high:g}")


def whole(low: int, high: int) -> Rule:
    """Return the rule for a whole number within bounds, themselves allowed."""
    return _within(low, high, int, f"a whole number from {low} to {high}")


def _within(low: float, high: float, kind: type, allowed: str) -> Rule:
    def rule(name: str, key: str, value: Any) -> float:
        is_number = isinstance(value, (int, kind)) and not isinstance(value, bool)
        if not is_number or not low <= value <= high:
            refuse(name, key, value, allowed)
        return kind(value)

    return rule


def choice(*allowed: object) -> Rule:
    """Return the rule for one of a few values."""

    def rule(name: str, key: str, value: Any) -> object:
        if type(value) not in map(type, allowed) or value not in allowed:
            refuse(name, key, value, f"one of {', '.join(map(repr, allowed))}")
        return value

    return rule


def paths_of(name: str, key: str, value: Any) -> str | dict[str, str]:
    """Return one file for all exposures, or files by words such as 'NRCA3/F200W', as absolute."""
    if isinstance(value, str):
        return _existing(name, key, value)
    paths = value.values() if isinstance(value, dict) else ()
    if not paths or not all(isinstance(path, str) for path in paths):
        refuse(name, key, value, "a file, or files by detector: {'NRCA3': 'a3.fits'}")
    return {words.upper(): _existing(name, key, path) for words, path in value.items()}


def _existing(name: str, key: str, path: str) -> str:
    path = os.path.abspath(os.path.expanduser(path))
    if not os.path.isfile(path):
        refuse(name, key, path, "a file that exists")
    return path


# ---- the table ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Builtin:
    """A correction of this package: a function of `builtin`, or a switch of the pipeline's steps.

    ``parameters`` are its keyword arguments, each with what refuses wrong values; ``points`` are
    where it may be, the default first; ``steps`` gives what it asks of the pipeline's own steps;
    ``file_parameter`` names its files, and has to be given.
    """

    parameters: Mapping[str, Rule]
    points: tuple[str, ...] = POINTS[1:]
    steps: Callable[[dict], dict] = lambda parameters: {}
    file_parameter: str = ""
    imaging: bool = True

    def check(self, name: str, values: Mapping[str, object]) -> dict:
        """Return parameters as they are written down; what is `None` is left out."""
        for key, value in values.items():
            if key not in self.parameters:
                msg = (
                    f"{name}: {key!r} is not one of its parameters "
                    f"{', '.join([*self.parameters, *RESERVED])}.{meant(key, self.parameters)}"
                )
                raise InvalidRequestError(msg, parameter=key, value=value)
        checked = {
            key: self.parameters[key](name, key, _plain(name, key, value))
            for key, value in values.items()
            if value is not None
        }
        if self.file_parameter and self.file_parameter not in checked:
            refuse(name, self.file_parameter, None, "given: a FITS file, or files by detector")
        return checked

    def files(self, parameters: dict) -> dict[str, str]:
        """Return the files among the parameters by the exposures that they are for."""
        return _by_words(parameters[self.file_parameter]) if self.file_parameter else {}


def _by_words(paths: str | dict[str, str]) -> dict[str, str]:
    """Return files by the exposures that they are for, under '' for all."""
    return paths if isinstance(paths, dict) else {"": paths}


def _flat_steps(parameters: dict) -> dict:
    """Return what `flat` asks of the pipeline's own flat: with 'replace', to be skipped."""
    if parameters.get("mode") != "replace":
        return {}
    skipped = _by_words(parameters["flat"])
    if any("/" in words for words in skipped):
        allowed = "files by single words such as 'NRCA3', since the pipeline's flat is skipped"
        refuse("flat", "flat", parameters["flat"], allowed)
    return {words: {"flat_field": {"skip": True}} for words in skipped}


_MASK: dict[str, Rule] = {"sigma": number(0.5, 100), "grow_pix": whole(0, 50)}
_FIT: dict[str, Rule] = {
    "fit_method": choice("median", "fft"),
    "fit_by_channel": choice(True, False),
}

BUILTIN = {
    # Large cosmic-ray events are flagged.
    "snowballs": Builtin(
        {
            "min_jump_area": number(1, 1e6),
            "expand_factor": number(1, 1e6),
            "edge_size": whole(0, 10_000),
        },
        (IN_STEP,),
        lambda parameters: {"": {"jump": {"expand_large_events": True, **parameters}}},
        imaging=False,
    ),
    # 1/f noise is taken out of the groups.
    "clean_flicker_noise": Builtin(
        {**_FIT, "mask_science_regions": choice(True, False)},
        (IN_STEP,),
        lambda parameters: {"": {"clean_flicker_noise": {"skip": False, **parameters}}},
        imaging=False,
    ),
    "flicker": Builtin(
        {
            "n_sigma": number(0.5, 100),
            **_FIT,
            "background_method": choice("median", "model"),
            "background_box_pix": whole(2, 2048),
        },
    ),
    "wisp": Builtin(
        {
            "templates": paths_of,
            "scale": number(0, 1e30),
            "minimum_snr": number(0, 1e6),
            **_MASK,
            "fill_pix": whole(0, 50),
        },
        file_parameter="templates",
    ),
    # Also of spectra, of which it may replace the pipeline's.
    "flat": Builtin(
        {"flat": paths_of, "mode": choice("divide", "replace")},
        steps=_flat_steps,
        file_parameter="flat",
        imaging=False,
    ),
    "sky": Builtin(
        {"order": whole(0, 3), "estimator": choice("clipped", "mode"), **_MASK},
        ("after_cal", "after_rate", "before_stage3"),
    ),
}
"""What ``corrections=`` takes by name."""

_MODULE = f"{__package__}.builtin"
_POINTS = {f"import:{_MODULE}:{name}": kind.points for name, kind in BUILTIN.items()}
_POINTS[""] = (IN_STEP,)

# ---- what a user writes -------------------------------------------------------------------------

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
    if isinstance(entry, tuple):
        return _is_pair(entry) and not isinstance(entry[0], tuple)
    return isinstance(entry, (str, Correction)) or callable(entry) or _is_step(entry)


def _is_pair(entry: Any) -> bool:
    """Return True for what a correction is and a dictionary of its parameters."""
    return isinstance(entry, (tuple, list)) and len(entry) == 2 and isinstance(entry[1], dict)


def _one(entry: Any) -> Correction:
    if isinstance(entry, Correction):
        return entry
    what, values = entry if _is_pair(entry) else (entry, {})
    about = {name: values[name] for name in RESERVED if name in values}
    parameters = {name: value for name, value in values.items() if name not in RESERVED}
    result = _about(_of(what, parameters), about)
    source = "pickle" if result.source.startswith("pickle:") else result.source
    parts = [source, result.code, result.parameters, result.steps, result.point, result.suffix]
    return replace(result, digest=json_digest([*parts, result.files]))


def _of(what: Any, parameters: dict) -> Correction:
    """Return a correction by its kind."""
    if isinstance(what, str):
        return _by_name(what, parameters) if ":" in what else _builtin(what, parameters)
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
    _check_suffix(result.name, suffix)
    result = replace(result, point=point, suffix=suffix)
    only = _words(result.name, about.get("only"))
    return _limited(result, only) if only else result


def _limited(result: Correction, only: tuple[str, ...]) -> Correction:
    """Return a correction for fewer exposures.

    Its own restriction stays, such as to detectors that there are templates of.
    """
    steps = result.steps
    if steps:
        if any("/" in entry for entry in only) or set(steps) != {""}:
            refuse(result.name, "only", only, "single words, since it switches steps")
        steps = dict.fromkeys(only, steps[""])
    return replace(result, steps=steps, only=_both(result.only, only) if result.only else only)


def _check_point(result: Correction, point: Any) -> None:
    """Refuse a point in the chain where a correction cannot be applied."""
    allowed = _POINTS.get(result.source, POINTS)
    if point not in allowed:
        refuse(result.name, "point", point, f"one of {', '.join(allowed)}")
    if result.steps and point not in (IN_STEP, "after_rate"):
        refuse(result.name, "point", point, "after_rate: it replaces a step of stage 2")


def _check_suffix(name: str, suffix: Any) -> None:
    if not isinstance(suffix, str) or not _SUFFIX.fullmatch(suffix) or suffix in _TAKEN:
        own = ", ".join(sorted(_TAKEN))
        allowed = f"of lower-case letters and digits and not one of the pipeline's own ({own})"
        refuse(name, "suffix", suffix, allowed)


def _words(name: str, only: Any) -> tuple[str, ...]:
    """Return the words that say which exposures a correction is for."""
    if only is None:
        return ()
    words = (only,) if isinstance(only, str) or not isinstance(only, Iterable) else tuple(only)
    if not all(isinstance(word, str) and word for word in words):
        refuse(name, "only", words, "words such as 'NRCA3', 'F200W', 'NRCA3/F200W'")
    return tuple(map(str.upper, words))


def _both(first: Sequence[str], second: Sequence[str]) -> tuple[str, ...]:
    """Return the words that are right where one of each of two lists is."""
    pairs = ([*a.split("/"), *b.split("/")] for a in first for b in second)
    return tuple("/".join(dict.fromkeys(pair)) for pair in pairs)


def _builtin(name: str, parameters: dict) -> Correction:
    if name not in BUILTIN:
        msg = (
            f"corrections: {name!r} is not one of {', '.join(BUILTIN)}; a function of a module is "
            f"'module:name'.{meant(name, BUILTIN)}"
        )
        raise InvalidRequestError(msg, parameter="corrections", value=name)
    kind = BUILTIN[name]
    parameters = kind.check(name, parameters)
    files = kind.files(parameters)
    is_switch = kind.points == (IN_STEP,)
    return Correction(
        name=name,
        point=kind.points[0],
        suffix=name.replace("_", ""),
        source="" if is_switch else f"import:{_MODULE}:{name}",
        parameters=parameters,
        steps=kind.steps(parameters),
        only=() if "" in files else tuple(files),
        imaging=kind.imaging,
        files={path: sha256_of(path) for path in files.values()},
        code="" if is_switch else module_digest(_MODULE, name),
    )


def _by_name(what: str, parameters: dict) -> Correction:
    module, _, name = what.partition(":")
    code = module_digest(module, name)
    return _users(name, f"import:{module}:{name}", parameters, code)


def _class_of(what: Any) -> type:
    return what if isinstance(what, type) else type(what)


def _step(what: Any, parameters: dict) -> Correction:
    cls = _class_of(what)
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
    return Correction(
        name=name,
        point="after_rate",
        suffix=suffix,
        source=source,
        parameters=parameters,
        files={str(path): sha256_of(str(path)) for path in filter(_is_file, parameters.values())},
        code=code,
    )


def _is_file(value: object) -> bool:
    return isinstance(value, str) and os.path.isabs(value) and os.path.isfile(value)


def _is_step(what: Any) -> bool:
    stpipe = sys.modules.get("stpipe")
    return stpipe is not None and issubclass(_class_of(what), stpipe.Step)


def _key(key: object) -> str:
    # Observations of the sandbox, and people, write ('NRCA3', 'F200W').
    return "/".join(map(str, key)) if isinstance(key, tuple) else str(key)


def _plain(name: str, key: str, value: Any) -> object:
    """Return a parameter as JSON types."""
    if isinstance(value, dict):
        return {_key(k): _plain(name, key, v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(name, key, v) for v in value]
    return _scalar(name, key, value)


def _scalar(name: str, key: str, value: Any) -> object:
    if isinstance(value, Path):
        return str(value.expanduser().absolute())
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        value = value.item()
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        msg = (
            f"{name}: {key}={value!r} of type {type(value).__name__} cannot be written down; give "
            "numbers, strings, lists, dictionaries, or the path of a file."
        )
        raise InvalidRequestError(msg, parameter=key, value=value) from None
    return value
