"""What is made once and kept in astropy's cache: folders and files that appear whole."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import IO, Any, BinaryIO

from astropy.config import get_cache_dir

from . import sky

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

_PARTIAL = ".partial"


def cache_folder() -> Path:
    """Return where everything is kept that is made once: in astropy's cache."""
    return Path(get_cache_dir()) / "astroquery_lis" / "sandbox"


def digest_of(sources: Iterable[str]) -> str:
    """Return a key that changes with the scene and with modules that make files of it."""
    digest = hashlib.sha256(sky.SCENE_VERSION.encode())
    for name in sources:
        digest.update((Path(__file__).parent / name).read_bytes())
    return digest.hexdigest()[:12]


@contextmanager
def lock(path: Path) -> Iterator[bool]:
    """Hold a lock that dies with the process, threads apart; yield whether it could be had."""
    if fcntl is None:
        yield False
        return
    with open(path.parent / f".{path.name}.lock", "w") as file, _locked(file) as alone:
        yield alone


@contextmanager
def _locked(file: IO[Any]) -> Iterator[bool]:
    """Lock an open file, and unlock it: a process that was forked meanwhile has it open too."""
    alone = False
    if fcntl is not None:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)
            alone = True
    try:
        yield alone
    finally:
        if fcntl is not None and alone:
            fcntl.flock(file, fcntl.LOCK_UN)


def make_once(root: Path, make: Callable[[Path], None]) -> None:
    """Make a folder with ``make(folder)`` unless it is there; it appears whole or not at all."""
    if root.is_dir():
        return
    root.parent.mkdir(parents=True, exist_ok=True)
    with lock(root) as alone:
        if root.is_dir():
            return
        if alone:
            # Nobody else is making it, so what lies there was left by a process that was killed.
            for leftover in root.parent.glob(f".{root.name}.*{_PARTIAL}"):
                shutil.rmtree(leftover, ignore_errors=True)
        partial = tempfile.mkdtemp(prefix=f".{root.name}.", suffix=_PARTIAL, dir=root.parent)
        try:
            make(Path(partial))
            # mkdtemp makes folders that only their owner can read.
            os.chmod(partial, 0o755)
            _move(partial, root)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def _move(partial: str, root: Path) -> None:
    try:
        os.replace(partial, root)
    except OSError:
        # Another process, with no lock between us, may have been first: its folder is the same.
        if not root.is_dir():
            raise


def write_whole(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Let ``write`` fill a file that takes its place when it is whole, with what leads there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=_PARTIAL, dir=path.parent)
    partial = Path(name)
    try:
        with ExitStack() as held:
            if fcntl is not None:  # `remove_leftovers` leaves alone what somebody writes
                held.enter_context(_locked(held.enter_context(open(name, "rb"))))
            with os.fdopen(handle, "wb") as file:
                write(file)
        # mkstemp makes files that only their owner can read.
        partial.chmod(0o644)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def remove_leftovers(path: Path) -> None:
    """Remove what processes that were killed left of a file, and nothing that is being written."""
    for leftover in path.parent.glob(f".{path.name}.*{_PARTIAL}"):
        with suppress(OSError), open(leftover, "rb") as stream:
            if fcntl is not None:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            leftover.unlink(missing_ok=True)
