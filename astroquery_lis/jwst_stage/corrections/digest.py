"""Digests of code: the same as long as the code does the same, however it is laid out.

Of a function in a module its definition counts and whatever it uses of its own module, or of others
that are neither of Python nor installed; comments, layout and docstrings do not.
"""

import ast
import hashlib
import inspect
import json
import sysconfig
import textwrap
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from types import FunctionType

from ...exceptions import InvalidRequestError

__all__ = ["file_digest", "function_digest", "json_digest", "module_digest"]

_INSTALLED = tuple(
    Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "purelib", "platlib")
)
_PLAIN = (bool, int, float, complex, str, bytes, tuple, type(None))


def file_digest(path):
    """Return the sha256 of the content of a file.

    Parameters
    ----------
    path : path-like
        The file.

    Returns
    -------
    str
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def module_digest(module, name):
    """Return the digest of a function or class of a module, without importing the module.

    Parameters
    ----------
    module : str
        Full name of the module.
    name : str
        What is defined there.

    Returns
    -------
    str
        sha256.

    Raises
    ------
    InvalidRequestError
        If there is no such module or it does not define the name.
    """
    parts = {}
    if not _collect(module, name, parts, module.partition(".")[0]):
        msg = f"corrections: there is no {name!r} in the source of a module {module!r}."
        raise InvalidRequestError(msg, parameter="corrections", value=f"{module}:{name}")
    return json_digest(sorted(parts.items()))


def function_digest(function):
    """Return the digest of a function that is in no module: of a notebook, a script, a lambda.

    Parameters
    ----------
    function : function
        The function.

    Returns
    -------
    str
        sha256.
    """
    parts = []
    _collect_function(function, parts, set())
    return json_digest(parts)


def json_digest(parts):
    """Return the digest of a value of JSON types.

    Parameters
    ----------
    parts : object
        The value.

    Returns
    -------
    str
        sha256.
    """
    text = json.dumps(parts, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _source_path(module):
    try:
        spec = find_spec(module)
    except (ImportError, ValueError, AttributeError):
        return None
    if spec is None or not spec.origin or not spec.origin.endswith(".py"):
        return None
    return Path(spec.origin)


def _is_own(module, package):
    """Tell whether a change of a module is a change of the user's code."""
    if module.partition(".")[0] == package:
        return True
    path = _source_path(module)
    return path is not None and not any(path.resolve().is_relative_to(p) for p in _INSTALLED)


def _collect(module, name, parts, package):
    """Put the definition of a name and all that it uses into ``parts``; return whether it is."""
    path = _source_path(module)
    if path is None:
        return False
    tree = ast.parse(path.read_text(encoding="utf-8"))
    defined = {}
    for statement in tree.body:
        for bound in _bound(statement):
            defined.setdefault(bound, []).append(statement)
    if name not in defined:
        return False
    wanted, seen = [name], set()
    while wanted:
        current = wanted.pop()
        if current in seen or current not in defined:
            continue
        seen.add(current)
        key = f"{module}:{current}"
        if key in parts:
            continue
        parts[key] = ""
        for statement in defined[current]:
            if isinstance(statement, (ast.Import, ast.ImportFrom)):
                _follow(module, statement, current, parts, package, path.name == "__init__.py")
            else:
                parts[key] += _dump(statement)
                wanted += [node.id for node in ast.walk(statement) if isinstance(node, ast.Name)]
                for inner in ast.walk(statement):
                    if isinstance(inner, (ast.Import, ast.ImportFrom)):
                        for bound in _bound(inner):
                            _follow(module, inner, bound, parts, package, False)
    return True


def _follow(module, statement, bound, parts, package, is_package):
    """Go on in another module that a name comes from, if it is the user's."""
    for alias in statement.names:
        if bound != (alias.asname or alias.name.partition(".")[0]):
            continue
        if isinstance(statement, ast.Import):
            other, name = alias.name, None
        else:
            base = module.split(".")
            keep = len(base) - statement.level + (1 if is_package else 0)
            start = base[:keep] if statement.level else []
            other, name = ".".join([*start, *filter(None, [statement.module])]), alias.name
        if not _is_own(other, package):
            continue
        if name is None or not _collect(other, name, parts, package):
            whole = other if name is None else f"{other}.{name}"
            path = _source_path(whole)
            if path is not None:
                parts[whole] = _dump(ast.parse(path.read_text(encoding="utf-8")))


def _bound(statement):
    """Return the names that a statement of a module gives a value."""
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return [statement.name]
    if isinstance(statement, (ast.Import, ast.ImportFrom)):
        return [alias.asname or alias.name.partition(".")[0] for alias in statement.names]
    bound = [
        node.id
        for node in ast.walk(statement)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    ]
    for inner in ast.iter_child_nodes(statement):
        if isinstance(inner, (ast.stmt, ast.excepthandler)):
            bound += _bound(inner)
    return list(dict.fromkeys(bound))


def _dump(tree):
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if (
            isinstance(body, list)
            and body
            and isinstance(body[0], ast.Expr)
            and isinstance(body[0].value, ast.Constant)
            and isinstance(body[0].value.value, str)
        ):
            node.body = body[1:]
    return ast.dump(tree)


def _collect_function(function, parts, seen):
    if id(function) in seen:
        return
    seen.add(id(function))
    parts.append(_text(function))
    parts.append(repr((function.__defaults__, function.__kwdefaults__)))
    captured = dict(inspect.getclosurevars(function).nonlocals)
    code = function.__code__
    for name in _names(code):
        if name in function.__globals__:
            captured.setdefault(name, function.__globals__[name])
    for name, value in sorted(captured.items()):
        if isinstance(value, FunctionType):
            if value.__module__ == function.__module__ or _is_own(value.__module__ or "", ""):
                _collect_function(value, parts, seen)
        elif isinstance(value, _PLAIN):
            parts.append(f"{name}={value!r}")


def _names(code):
    """Return the names that code uses, also in functions inside it."""
    names = set(code.co_names)
    for constant in code.co_consts:
        if hasattr(constant, "co_names"):
            names |= _names(constant)
    return names


def _text(function):
    # The source of a lambda is that of its line, where another one may be.
    if function.__name__ != "<lambda>":
        with suppress(OSError, TypeError, SyntaxError):
            return _dump(ast.parse(textwrap.dedent(inspect.getsource(function))))
    return _bytecode(function.__code__)


def _bytecode(code):
    constants = [
        _bytecode(value) if hasattr(value, "co_code") else repr(value) for value in code.co_consts
    ]
    return f"{code.co_code.hex()} {code.co_names} {code.co_varnames} {constants}"
