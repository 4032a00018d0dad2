"""The rules of CRDS on disk: which mappings a context needs, and which of them are there.

A context (``.pmap``) names a mapping per instrument (``.imap``), which names one per type of
reference (``.rmap``).  CRDS reads all those of an instrument whatever type is asked for.
"""

import ast
import hashlib
import os
import re
from pathlib import Path

from ...exceptions import CrdsUnavailable

__all__ = ["CONTEXT_NAME", "closure", "mapping_path", "read_server_config", "server_config_path"]

CONTEXT_NAME = re.compile(r"jwst_\w+\.pmap")
_NOT_A_FILE = ("N/A", "TEXT", "OMIT")


def server_config_path(cache):
    """Return where CRDS keeps what its server last said of itself.

    Parameters
    ----------
    cache : path-like
        The CRDS cache.

    Returns
    -------
    `~pathlib.Path`
    """
    return Path(cache) / "config" / "jwst" / "server_config"


def read_server_config(cache):
    """Return what the CRDS server last said of itself.

    Parameters
    ----------
    cache : path-like
        The CRDS cache.

    Returns
    -------
    dict or None
        `None` where there is none that can be read.
    """
    try:
        values = ast.literal_eval(server_config_path(cache).read_text())
    except (OSError, ValueError, SyntaxError):
        return None
    return values if isinstance(values, dict) else None


def mapping_path(cache, name):
    """Return where a mapping is kept.

    Parameters
    ----------
    cache : path-like
        The CRDS cache.
    name : str
        Of the mapping.

    Returns
    -------
    `~pathlib.Path`
    """
    return Path(cache) / "mappings" / "jwst" / name


def closure(cache, context, instruments):
    """Find the mappings that decide on the references of some instruments.

    Parameters
    ----------
    cache : path-like
        The CRDS cache.
    context : str
        Name of the ``.pmap`` file.
    instruments : collection of str
        Upper case.

    Returns
    -------
    needed : list of str
        Names, as far as they can be told from those that are there.
    missing : dict of str to str
        Those that are not there, or damaged, and which of the two.

    Raises
    ------
    CrdsUnavailable
        If the context does not know an instrument.
    """
    needed, missing = [], {}
    selector = _selector(cache, context, needed, missing)
    if selector is None:
        return needed, missing
    for instrument in sorted(instruments):
        name = selector.get(instrument)
        if name is None or name in _NOT_A_FILE:
            msg = (
                f"The CRDS context {context} has no rules for the instrument {instrument!r}; it "
                f"has them for {', '.join(sorted(selector))}."
            )
            raise CrdsUnavailable(msg)
        rules = _selector(cache, name, needed, missing)
        for rule in (rules or {}).values():
            if rule not in _NOT_A_FILE:
                _selector(cache, rule, needed, missing)
    return needed, missing


def _selector(cache, name, needed, missing):
    """Return a mapping's selector, `None` if it cannot be had; note the mapping down."""
    needed.append(name)
    path = mapping_path(cache, name)
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        missing[name] = "missing" if isinstance(error, FileNotFoundError) else "damaged"
        return None
    try:
        values = _assigned(text, whole=not name.endswith(".rmap"))
    except (ValueError, SyntaxError):
        missing[name] = "damaged"
        return None
    if not _ignores_checksums() and values["header"].get("sha1sum") not in (None, _sha1(text)):
        missing[name] = "damaged"
        return None
    return values.get("selector", {})


def _assigned(text, *, whole):
    """Return the dictionaries that a mapping consists of."""
    found = {}
    for node in ast.parse(text).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
            # The selector of an rmap is made of calls, which only CRDS reads.
            if name == "header" or (whole and name == "selector"):
                found[name] = ast.literal_eval(node.value)
    if "header" not in found:
        msg = "A mapping has a header."
        raise ValueError(msg)
    return found


def _sha1(text):
    lines = (line for line in text.splitlines(keepends=True) if "sha1sum" not in line)
    return hashlib.sha1("".join(lines).encode(), usedforsecurity=False).hexdigest()


def _ignores_checksums():
    value = os.environ.get("CRDS_IGNORE_MAPPING_CHECKSUM", "")
    return value.lower() in ("1", "true", "t", "yes", "y")
