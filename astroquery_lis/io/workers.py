"""Processes that neither the main script nor a Ctrl-C reaches, and pools of them.

A process that is spawned runs the main script again, which an unguarded script or a notebook does
not survive, so the main module is hidden from it.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import types
from multiprocessing import resource_tracker
from multiprocessing.connection import wait
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.context import BaseContext
    from multiprocessing.popen_spawn_posix import Popen
    from multiprocessing.process import BaseProcess
    from types import FrameType

STARTING = threading.RLock()


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Start a process that knows nothing of the main module, and leaves Ctrl-C to this one."""
    with STARTING, _without_interrupts():
        main = sys.modules["__main__"]
        sys.modules["__main__"] = types.ModuleType("__main__")
        try:
            yield
        finally:
            sys.modules["__main__"] = main


@contextlib.contextmanager
def _without_interrupts() -> Iterator[None]:
    """Let no interrupt reach a process that is started meanwhile, ever."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    # Whoever starts this process lets interrupts pass again.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def interrupts_held() -> Iterator[None]:
    """Hold a Ctrl-C back until the end: a pool that is half started can hang."""
    before = signal.getsignal(signal.SIGINT)
    if not callable(before) or threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[tuple[int, FrameType | None]] = []
    # A mask would not do: any other thread would take the signal for this one.
    signal.signal(signal.SIGINT, lambda *arguments: held.append(arguments))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if held:
            before(*held[0])


class _ProcessWithoutMain(SpawnProcess):
    @staticmethod
    def _Popen(process_obj: BaseProcess) -> Popen:
        with _alone():
            return SpawnProcess._Popen(process_obj)


class _ContextWithoutMain(SpawnContext):
    Process = _ProcessWithoutMain


WITHOUT_MAIN = _ContextWithoutMain()
"""A context of `multiprocessing` whose processes do not run the main script again."""


if sys.platform == "linux":
    from multiprocessing import forkserver
    from multiprocessing.context import ForkServerContext, ForkServerProcess
    from multiprocessing.popen_forkserver import Popen as ForkServerPopen

    class _ForkedProcessWithoutMain(ForkServerProcess):
        @staticmethod
        def _Popen(process_obj: BaseProcess) -> ForkServerPopen:
            with _alone():
                return ForkServerProcess._Popen(process_obj)

    class _ForkingContextWithoutMain(ForkServerContext):
        Process = _ForkedProcessWithoutMain


def workers_context(module: str) -> BaseContext:
    """Return a context for a pool of workers that need a module of this package.

    On Linux they are forked by a server that has imported it, and that stays for the next pool: to
    import it takes each worker most of a second.
    """
    if sys.platform == "linux":
        context = _ForkingContextWithoutMain()
        if module.startswith(f"{__name__.partition('.')[0]}."):
            # The process has one list for all its pools, and no way to ask for it: what others
            # put there stays.
            server = getattr(forkserver, "_forkserver", None)
            modules = list(getattr(server, "_preload_modules", ()))
            if module not in modules:
                last = f"{__package__}.interrupts"
                others = [name for name in modules if name != last]
                context.set_forkserver_preload([*others, module, last])
        return context
    return WITHOUT_MAIN


def begin_worker(environment: dict[str, str]) -> None:
    """Begin a worker of a pool, with the variables of the process that asked for it."""
    # The server that it was forked from has those that were set when the first pool was made.
    os.environ.clear()
    os.environ.update(environment)
    # The parent decides what a Ctrl-C ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    watch_parent()


def watch_parent() -> None:
    """Let this process end when the one that asked for it is gone."""
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
