"""Parameters of the steps: what exists, whether what was asked is allowed, and for which task.

The specifications are those of the installed `jwst`, read once per version in another process;
values go through the validator that stpipe itself uses.

A set of parameters is a dictionary ``{step: {parameter: value}}``.  A step's parameter may be
written ``'resample.pixel_scale'``.  Steps may stand below a selector: a pipeline (``'image2'``), or
in upper case an instrument, a channel, a detector, or a filter or pupil; of several that are right
for an exposure the last one in this order has its way.
"""

import difflib
import json
import os
from contextlib import suppress
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

from ...exceptions import InvalidRequestError, StageWarning, warn
from ...io.store import write_bytes
from ..pipeline import ask, require_jwst
from ..resume.records import cache_folder

__all__ = ["OWNED", "check", "for_task", "pipeline_names", "specs", "step_defaults"]

_PLACES = "the plan decides on names and places of products"
OWNED = {
    "output_dir": _PLACES,
    "output_file": _PLACES,
    "output_ext": _PLACES,
    "output_use_model": _PLACES,
    "output_use_index": _PLACES,
    "search_output_file": _PLACES,
    "input_dir": _PLACES,
    "suffix": _PLACES,
    "name": _PLACES,
    "class": "the pipeline decides on the classes of its steps",
    "config_file": "give the file as recipe=, so that its values are checked and recorded",
    "maximum_cores": "one process works on each exposure; set max_workers= of run instead",
    "pre_hooks": "use corrections=, which are recorded and enter the fingerprint",
    "post_hooks": "use corrections=, which are recorded and enter the fingerprint",
}
"""Parameters that are not the user's here, and why."""

# The least specific first.
_SELECTORS = ("instrument", "channel", "detector", "filter")
_WORDS = {"instrument": ("name",), "filter": ("filter", "pupil")}
_FILE_PARAMETERS = ("abs_refcat", "catfile")


class _Checked(dict):
    """Parameters by selector and step that `check` has seen."""


def specs():
    """Return the specifications of all parameters of the installed `jwst`.

    Returns
    -------
    dict
        ``pipelines``: by class name, ``alias``, ``own`` and ``steps``, of which a parameter has the
        text of its specification; ``words``: allowed instruments, detectors, filters, ...

    Raises
    ------
    OptionalDependencyError
        If `jwst` is not installed.
    """
    require_jwst()
    return _specs(version("jwst"), version("stpipe"))


@lru_cache(maxsize=4)
def _specs(jwst_version, stpipe_version):
    path = cache_folder() / f"specs-{jwst_version}-{stpipe_version}.json"
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        pass
    found = ask("refs.answers:specs", {})
    with suppress(OSError):  # They are known all the same.
        write_bytes(path, json.dumps(found).encode())
    return found


def check(steps, pipelines=(), *, parameter="steps"):
    """Check parameters against the specifications; everything that is wrong is told at once.

    Parameters
    ----------
    steps : dict
        As described above.
    pipelines : sequence of str, optional
        Class names of the pipelines of the plan: parameters of steps of which none has any are
        warned about.  By default those of `jwst.pipeline`.
    parameter : str, optional
        What to call ``steps`` in an error.

    Returns
    -------
    dict
        ``{selector: {step: {parameter: value}}}``, the selector empty where there is none; numbers
        and booleans as stpipe takes them, paths absolute.

    Raises
    ------
    InvalidRequestError
        Lists every fault, with what may have been meant.

    Warns
    -----
    StageWarning
        If a step is of none of ``pipelines``, so that nothing comes of its parameters.
    """
    if not steps:
        return _Checked()
    known = specs()
    faults, entries = [], []
    for selector, step, name, value in _flat(steps, known["words"], faults, parameter):
        where = ".".join(part for part in (selector, step, name) if part)
        value = _checked(where, selector, step, name, value, pipelines, faults)
        entries.append((selector, step, name, value))
    if faults:
        listed = "".join(f"\n- {fault}" for fault in faults)
        plural = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        msg = f"{parameter} has {plural}:{listed}"
        raise InvalidRequestError(msg, parameter=parameter, value=steps)
    checked = _Checked()
    for selector, step, name, value in entries:
        checked.setdefault(selector, {}).setdefault(step, {})[name] = value
    _warn_of_idle(checked, known["pipelines"], pipelines, parameter)
    return checked


def for_task(steps, pipeline, exposures):
    """Return the parameters that one pipeline gets for some exposures.

    Parameters
    ----------
    steps : dict or sequence of dict
        Parameters, checked or not, or several sets of them of which a later one has its way
        whatever the selectors of an earlier one.
    pipeline : str
        Class name in `jwst.pipeline`; parameters of other pipelines' steps are left out.
    exposures : sequence
        Objects with ``instrument``, ``channel``, ``detector``, ``filter`` and ``pupil``; a selector
        counts if it is right for all of them.

    Returns
    -------
    dict
        ``{step: {parameter: value}}``.
    """
    known = specs()["pipelines"]
    if pipeline not in known:
        return {}
    present = known[pipeline]["steps"]
    chosen = {}
    for layer in [steps] if isinstance(steps, dict) else steps:
        checked = layer if isinstance(layer, _Checked) else check(layer)
        order = {s: _rank(s, exposures, known[pipeline]["alias"]) for s in checked}
        for selector in sorted((s for s in order if order[s] is not None), key=order.get):
            for step, values in checked[selector].items():
                if step in present:
                    mine = {name: value for name, value in values.items() if name in present[step]}
                    chosen.setdefault(step, {}).update(mine)
    return {step: values for step, values in chosen.items() if values}


def pipeline_names():
    """Return the selectors of the pipelines.

    Returns
    -------
    dict of str to str
        By class name: ``'Image2Pipeline': 'image2'``, ...
    """
    known = specs()["pipelines"]
    names = {name: spec["alias"].removeprefix("calwebb_") for name, spec in known.items()}
    # A step that is a stage of its own is called by its name as a step.
    return {n: alias for n, alias in names.items() if alias not in known[n]["steps"]}


def step_defaults(pipeline):
    """Return the defaults that stpipe has for the steps of a pipeline.

    Parameters
    ----------
    pipeline : str
        Class name in `jwst.pipeline`.

    Returns
    -------
    dict
        ``{step: {parameter: value}}``, without those of `OWNED`.
    """
    validator = _validator()
    return {
        step: {
            name: validator.get_default_value(text)
            for name, text in section.items()
            if name not in OWNED
        }
        for step, section in specs()["pipelines"][pipeline]["steps"].items()
    }


def _flat(steps, words, faults, parameter):
    """Yield selector, step, parameter and value of everything that was asked."""
    if not isinstance(steps, dict):
        msg = f"{parameter}={steps!r} must be a dictionary of the form {{step: {{name: value}}}}."
        raise InvalidRequestError(msg, parameter=parameter, value=steps)
    for key, section in steps.items():
        pipeline, _, rest = key.partition(".") if isinstance(key, str) else ("", "", "")
        if not isinstance(key, str):
            faults.append(f"{key!r} is not the name of a step.")
        elif pipeline in pipeline_names().values():
            yield from _flat_steps({rest: section} if rest else section, pipeline, faults)
        elif key == "" or (key == key.upper() and isinstance(section, dict)):
            if key and not _kinds(key, words):
                every = [word for kind in words.values() for word in kind]
                faults.append(
                    f"{key!r} is not an instrument, channel, detector, filter or pupil of JWST."
                    + _meant(key, every)
                )
            yield from _flat_steps(section, key, faults)
        else:
            yield from _flat_steps({key: section}, "", faults)


def _flat_steps(steps, selector, faults):
    if not isinstance(steps, dict):
        faults.append(f"{selector}={steps!r} must be a dictionary of steps.")
        return
    for key, section in steps.items():
        step, dot, name = key.partition(".")
        where = f"{selector}.{key}" if selector else key
        if dot:
            yield selector, step, name, section
        elif isinstance(section, dict):
            for inner, value in section.items():
                yield selector, step, str(inner), value
        else:
            faults.append(f"{where}={section!r} must be a dictionary of parameters.")


def _checked(where, selector, step, name, value, planned, faults):
    """Return the value as the validator takes it; put what is wrong with it among the faults."""
    known = specs()["pipelines"]
    having = [p for p in known if step in known[p]["steps"]]
    if not having:
        every = {s for p in known.values() for s in p["steps"]}
        faults.append(f"{where}: there is no step {step!r}." + _meant(step, sorted(every)))
        return value
    named = [p for p, alias in pipeline_names().items() if alias == selector]
    if named and named[0] not in having:
        allowed = sorted(known[named[0]]["steps"])
        faults.append(f"{where}: {selector!r} has no step {step!r}." + _meant(step, allowed))
        return value
    if name in OWNED:
        faults.append(f"{where} cannot be set: {OWNED[name]}.")
        return value
    # Of the pipelines that have the step, the one that is named, else those that are planned.
    pipelines = named or [p for p in having if p in planned] or having
    texts = [known[p]["steps"][step].get(name) for p in pipelines]
    text = next((text for text in texts if text), None)
    if text is None:
        allowed = sorted({n for p in pipelines for n in known[p]["steps"][step]} - set(OWNED))
        fault = f"{where}: the step {step!r} has no parameter {name!r}."
        faults.append(fault + _meant(name, allowed))
        return value
    return _valid(where, name, value, text, faults)


def _valid(where, name, value, text, faults):
    from configobj.validate import ValidateError

    if isinstance(value, (Path, os.PathLike)):
        value = os.fspath(value)
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:
        value = value.item()
    if isinstance(value, tuple):
        value = list(value)
    if value == "None" and not text.startswith(("string", "is_string")):
        # TOML has no word for it.
        value = None
    if isinstance(value, dict):
        faults.append(f"{where}={value!r} must be a value, not a dictionary.")
        return value
    try:
        value = _validator().check(text, value)
    except ValidateError as error:
        kind = text.rstrip(",")
        faults.append(f"{where}={value!r} does not agree with {kind}: {str(error).rstrip('.')}.")
        return value
    if value and isinstance(value, str):
        if name.startswith("override_") and value.strip() != "N/A":
            if not Path(value).expanduser().is_file():
                faults.append(f"{where}={value!r} must be a reference file that exists, or 'N/A'.")
            else:
                value = str(Path(value).expanduser().absolute())
        elif name in _FILE_PARAMETERS and Path(value).expanduser().is_file():
            value = str(Path(value).expanduser().absolute())
    return value


@lru_cache(maxsize=1)
def _validator():
    """Return a validator with the same functions as that of `stpipe.config_parser`."""
    from configobj.validate import Validator, VdtTypeError

    def text(value):
        # Models in memory cannot go to another process.
        if not isinstance(value, str):
            raise VdtTypeError(value)
        return value

    return Validator(
        {
            "is_datamodel": text,
            "is_string_or_datamodel": text,
            "input_file": text,
            "output_file": text,
        }
    )


def _warn_of_idle(checked, known, planned, parameter):
    if not planned:
        return
    present = {step for name in planned if name in known for step in known[name]["steps"]}
    idle = sorted({step for section in checked.values() for step in section} - present)
    if idle:
        msg = (
            f"{parameter} has parameters of {', '.join(idle)}; no pipeline of this plan "
            f"({', '.join(planned)}) has such a step, and nothing comes of them."
        )
        warn(msg, StageWarning)


def _meant(word, allowed):
    """Return the end of a message: what may have been meant, else what is allowed."""
    close = difflib.get_close_matches(word, allowed, n=3, cutoff=0.6)
    if not close and len(word) >= 3:
        close = [name for name in allowed if word in name][:3]
    if close:
        return f" Did you mean {' or '.join(map(repr, close))}?"
    return f" Allowed: {', '.join(dict.fromkeys(allowed))}."


def _kinds(selector, words):
    """Return of which kinds of selector a word can be."""
    return [
        kind
        for kind in _SELECTORS
        if any(selector in words[word] for word in _WORDS.get(kind, (kind,)))
    ]


def _rank(selector, exposures, pipeline):
    """Return how specific a selector is, `None` where it is not right for all the exposures."""
    if not selector:
        return -2
    if selector in pipeline_names().values():
        return -1 if selector == pipeline.removeprefix("calwebb_") else None
    right = []
    for exposure in exposures:
        has = [
            index
            for index, kind in enumerate(_SELECTORS)
            if selector == str(getattr(exposure, kind, "")).upper()
            or (kind == "filter" and selector == str(getattr(exposure, "pupil", "")).upper())
        ]
        if not has:
            return None
        right.append(max(has))
    return min(right) if right else None
