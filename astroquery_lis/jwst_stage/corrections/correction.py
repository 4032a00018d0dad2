"""What a correction is: a named change of the pixels at a fixed point of the chain, written down.

A correction is a dictionary when it travels: into a plan, to the process that works, into the
fingerprint of a product.  Its digest covers the code, the parameters and the content of the files
that the parameters name.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from importlib.util import find_spec
from types import CodeType, FunctionType
from typing import TYPE_CHECKING, Any, NoReturn

from ...exceptions import InvalidRequestError
from ...io.whole_files import sha256_of
from ..planning.pipelines import IMAGING

if TYPE_CHECKING:
    from ..planning.exposures import Exposure

POINTS = ("after_jump", "after_rate", "after_cal", "before_stage3")
"""Where it may be: inside stage 1, on its product, on that of stage 2, and last of all."""

IN_STEP = "in_step"
"""The point of a correction that is a step of the pipeline itself, switched on or off."""

RESERVED = ("point", "suffix", "only")
"""Parameters that are about the correction, and do not reach its function."""

MARK = "corrected: "
"""What the HISTORY of a corrected product begins with."""

OPTICAL_WORDS = ("instrument", "channel", "detector", "filter", "pupil")
"""Attributes of an exposure whose values choose what a correction, or one of its files, is for."""

Rule = Callable[[str, str, Any], object]
"""Gives a parameter as it is written down, of a correction's name, its own and its value."""


@dataclass(frozen=True, slots=True)
class Correction:
    """One correction with its parameters.

    Attributes
    ----------
    name : str
        Of a correction of this package, or of the function or class.
    point : str
        One of `POINTS`, or `IN_STEP`.
    suffix : str
        What its product is called by; also what it is known by in HISTORY.
    source : str
        Where the code is: ``"builtin:name"``, ``"import:module:name"``, ``"pickle:..."`` with the
        function itself, or empty for a step of the pipeline.
    parameters : dict
        Keyword arguments of the function; JSON types only.
    steps : dict
        What it asks of the pipeline's own steps: ``{selector: {step: {parameter: value}}}``, the
        selector empty for all exposures.
    only : tuple of str
        Exposures that it is for: words in upper case, such as 'NRCA3', 'F200W' or 'NRCA3/F200W', of
        which one has to be right.  Empty for all.
    imaging : bool
        Whether it is for images only.
    files : dict of str to str
        sha256 of the content of each file among the parameters, by path.
    code : str
        sha256 of the code alone.
    digest : str
        sha256 of code, parameters and files.
    """

    name: str
    point: str
    suffix: str
    source: str = ""
    parameters: dict = field(default_factory=dict)
    steps: dict = field(default_factory=dict)
    only: tuple = ()
    imaging: bool = False
    files: dict = field(default_factory=dict)
    code: str = ""
    digest: str = ""

    def applies(self, exposure: Exposure) -> bool:
        """Return True if an exposure is among those that the correction is for."""
        if self.imaging and exposure.exp_type not in IMAGING:
            return False
        words = {getattr(exposure, name) for name in OPTICAL_WORDS}
        return not self.only or any(set(entry.split("/")) <= words for entry in self.only)

    def to_dict(self) -> dict:
        """Return the correction as JSON and TOML types."""
        values = asdict(self)
        return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}

    @classmethod
    def from_dict(cls, values: dict) -> Correction:
        """Return the correction that `to_dict` wrote."""
        names = {f.name for f in fields(cls)}
        values = {name: value for name, value in values.items() if name in names}
        return cls(**{**values, "only": tuple(values.get("only", ()))})


def mark(correction: Correction) -> str:
    """Return the line of HISTORY by which it is known that a correction was applied: one card."""
    return f"{MARK}{correction.suffix} ({correction.name})"[:72]


# ---- checks of parameters: a message gives the value and what is allowed ------------------------


def refuse(name: str, key: str, value: object, allowed: str) -> NoReturn:
    """Raise the error of a wrong parameter of a correction."""
    msg = f"{name}: {key}={value!r} must be {allowed}."
    raise InvalidRequestError(msg, parameter=key, value=value)


def number(low: float, high: float) -> Rule:
    """Return the rule for a finite number within bounds, themselves allowed: a float."""

    def rule(name: str, key: str, value: Any) -> float:
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not is_number or not low <= value <= high:
            refuse(name, key, value, f"a number from {low:g} to {high:g}")
        return float(value)

    return rule


def whole(low: int, high: int) -> Rule:
    """Return the rule for a whole number within bounds, themselves allowed."""

    def rule(name: str, key: str, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            refuse(name, key, value, f"a whole number from {low} to {high}")
        return value

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
    if (
        not isinstance(value, dict)
        or not value
        or not all(isinstance(path, str) for path in value.values())
    ):
        refuse(name, key, value, "a file, or files by detector: {'NRCA3': 'a3.fits'}")
    return {words.upper(): _existing(name, key, path) for words, path in value.items()}


def path_of(paths: str | dict[str, str], instrument: Any) -> str | None:
    """Return the file for the ``meta.instrument`` of a model: the one named by most words."""
    if isinstance(paths, str):
        return paths
    words = {str(getattr(instrument, name, None) or "") for name in ("name", *OPTICAL_WORDS[1:])}
    right = [entry for entry in paths if set(entry.split("/")) <= words]
    return paths[max(right, key=lambda entry: entry.count("/"))] if right else None


def _existing(name: str, key: str, path: str) -> str:
    path = os.path.abspath(os.path.expanduser(path))
    if not os.path.isfile(path):
        refuse(name, key, path, "a file that exists")
    return path


# ---- digests ------------------------------------------------------------------------------------

_PLAIN = (bool, int, float, complex, str, bytes, tuple, type(None))


def json_digest(parts: object) -> str:
    """Return the sha256 of a value of JSON types."""
    return hashlib.sha256(json.dumps(parts, separators=(",", ":")).encode()).hexdigest()


def module_digest(module: str, name: str) -> str:
    """Return the sha256 of the file of a module, which has to define the name; without import."""
    try:
        spec = find_spec(module)
    except (ImportError, ValueError, AttributeError):
        spec = None
    path = spec.origin if spec is not None and spec.origin else ""
    if path.endswith(".py"):
        with open(path, encoding="utf-8") as file:
            names = compile(file.read(), path, "exec", dont_inherit=True).co_names
        if name.partition(".")[0] in names:
            return sha256_of(path)
    msg = f"corrections: there is no {name!r} in the source of a module {module!r}."
    raise InvalidRequestError(msg, parameter="corrections", value=f"{module}:{name}")


def function_digest(function: FunctionType) -> str:
    """Return the sha256 of the source of a function of no module, and of values that it uses."""
    parts: list[list] = []
    queue, visited = [function], set()
    while queue:
        current = queue.pop()
        if current in visited:
            continue
        visited.add(current)
        variables = inspect.getclosurevars(current)
        values = {**variables.globals, **variables.nonlocals}
        plain = sorted((n, repr(v)) for n, v in values.items() if isinstance(v, _PLAIN))
        defaults = repr((current.__defaults__, current.__kwdefaults__))
        parts.append([_source(current), defaults, plain])
        functions = (value for value in values.values() if isinstance(value, FunctionType))
        queue.extend(f for f in functions if f.__module__ == function.__module__)
    return json_digest(parts)


def _source(function: FunctionType) -> str:
    # The source of a lambda is that of its line, where another one may be.
    if function.__name__ != "<lambda>":
        try:
            return inspect.getsource(function)
        except (OSError, TypeError):
            pass
    return _bytecode(function.__code__)


def _bytecode(code: CodeType) -> str:
    constants = [_bytecode(c) if isinstance(c, CodeType) else repr(c) for c in code.co_consts]
    return f"{code.co_code.hex()} {code.co_names} {code.co_varnames} {constants}"
