"""Recipes: parameters of steps in a TOML file, or in the files that stpipe itself writes.

A recipe has a table per step, and below selectors the same again::

    [jump]
    rejection_threshold = 4.5

    [image3.resample]
    pixel_scale = 0.03

    [F200W.tweakreg]
    snr_threshold = 20.0

The word ``'None'`` stands for no value, which TOML cannot say.
"""

import tomllib
from pathlib import Path

from ...exceptions import InvalidRequestError, OptionalDependencyError
from ...io.store import write_bytes
from ..pipeline import ask
from .parameters import OWNED, check, pipeline_names

__all__ = ["read_recipe", "write_recipe"]

_STPIPE = (".asdf", ".cfg")


def read_recipe(path):
    """Return the parameters of a recipe.

    Parameters
    ----------
    path : path-like
        A ``.toml`` recipe, or an ``.asdf`` (or ``.cfg``) file of stpipe, of a pipeline or a step.

    Returns
    -------
    dict
        ``{selector: {step: {parameter: value}}}``, checked (see `~.parameters.check`).  A file of
        stpipe has its way over CRDS with every value that it has, as in ``strun``; those of
        `~.parameters.OWNED` are passed over.

    Raises
    ------
    InvalidRequestError
        If it cannot be read, or a parameter is wrong; all that is wrong is told at once.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        msg = f"recipe={str(path)!r} is not a file."
        raise InvalidRequestError(msg, parameter="recipe", value=str(path))
    if path.suffix == ".toml":
        return check(_read_toml(path), parameter=f"the recipe {path.name}")
    if path.suffix in _STPIPE:
        return check(_read_stpipe(path), parameter=f"the recipe {path.name}")
    msg = f"recipe={str(path)!r} must be a .toml, .asdf or .cfg file."
    raise InvalidRequestError(msg, parameter="recipe", value=str(path))


def write_recipe(path, steps):
    """Write parameters as a recipe.

    Parameters
    ----------
    path : path-like
        A ``.toml`` file, which is replaced.
    steps : dict
        As for `~.parameters.check`, and checked like there.

    Raises
    ------
    InvalidRequestError
        If a parameter is wrong.
    CacheError
        If the file cannot be written.
    """
    path = Path(path).expanduser()
    if path.suffix != ".toml":
        msg = f"path={str(path)!r} must end in .toml."
        raise InvalidRequestError(msg, parameter="path", value=str(path))
    document = {}
    for selector, section in check(steps).items():
        target = document.setdefault(selector, {}) if selector else document
        for step, values in section.items():
            target[step] = {n: "None" if v is None else v for n, v in values.items()}
    write_bytes(path, _toml(document).encode())


def _read_toml(path):
    try:
        return tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        msg = f"recipe={str(path)!r} is not TOML: {error}."
        raise InvalidRequestError(msg, parameter="recipe", value=str(path)) from error


def _toml(document):
    try:
        import tomli_w
    except ImportError as error:
        msg = (
            "Writing recipes needs tomli_w; install the extra: pip install 'astroquery_lis[jwst]'."
        )
        raise OptionalDependencyError(msg) from error
    return tomli_w.dumps(document)


def _read_stpipe(path):
    """Return the parameters of a file of stpipe, as checked ones have to be written."""
    found = ask("refs.answers:read_config", {"path": str(path.absolute())})
    name = found["class"].rpartition(".")[2]
    own = found["parameters"]
    if "steps" in own:
        alias = pipeline_names().get(name)
        steps = {step: _allowed(values) for step, values in own["steps"].items()}
        return {alias: steps} if alias else steps
    return {found["step"]: _allowed(own)}


def _allowed(values):
    """Return the values that are the user's."""
    return {name: value for name, value in values.items() if name not in OWNED}
