"""A sign of life while a step of the demo takes its time."""

from __future__ import annotations

import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from tqdm.auto import tqdm

_TICK_S = 0.5
_LINE_S = 2.0


class Heartbeat:
    """Says lines, and in a ``with`` block how long the next is waited for.

    That is a bar that moves, in terminals and notebooks where tqdm is installed, and a line of text
    every two seconds elsewhere.
    """

    def __init__(self, say: Callable[[str], object]) -> None:
        self._say = say
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._since = self._said = time.monotonic()
        self._bar = _bar()

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._ended.set()
        self._thread.join()
        if self._bar is not None:
            self._bar.close()

    def __call__(self, text: str) -> None:
        """Say a line."""
        with self._lock:
            if self._bar is not None:
                self._bar.clear()
            self._say(text)
            self._since = self._said = time.monotonic()

    def _beat(self) -> None:
        # Whoever says the next line meets the same error, as of a closed pipe, and tells of it.
        with suppress(OSError):
            while not self._ended.wait(_TICK_S):
                with self._lock:
                    self._tell(time.monotonic())

    def _tell(self, now: float) -> None:
        """Say how long the step has taken, if it is time to."""
        if self._bar is not None:
            self._bar.set_description_str(f"at work for {now - self._since:.0f} s")
            # It fills, and begins again.
            self._bar.n = (self._bar.n + 1) % self._bar.total
            self._bar.refresh()
        elif now - self._said >= _LINE_S - _TICK_S:
            self._say(f"  at work for {now - self._since:.0f} s")
            self._said = now


def _bar() -> tqdm | None:
    """Return a bar without an end where somebody sees it."""
    if not (sys.stderr.isatty() or "ipykernel" in sys.modules):
        return None
    try:
        from tqdm.auto import tqdm
    except ImportError:
        return None
    return tqdm(leave=False, bar_format="{desc} {bar:10}", total=20)
