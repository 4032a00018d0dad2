"""Which task may begin now: the order of a plan, the memory there is, and what failed before."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ...io import jobs

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from ..tasks import Task

WAITING, RUNNING, DONE, CACHED = "waiting", "running", "done", "cached"
FAILED, SKIPPED = "failed", "skipped"

_GB = 1 << 30
_CGROUP = Path("/sys/fs/cgroup")


class Schedule:
    """The tasks of a run and how far they are. Knows nothing of processes."""

    def __init__(
        self,
        tasks: Sequence[Task],
        *,
        done: Collection[str] = (),
        workers: int = 1,
        memory_gb: float = float("inf"),
        partial: bool = False,
    ) -> None:
        self._tasks = {task.name: task for task in tasks}
        self.states = {name: CACHED if name in done else WAITING for name in self._tasks}
        self.messages: dict[str, list[str]] = {name: [] for name in self._tasks}
        self._workers, self._memory_gb, self._partial = workers, memory_gb, partial
        self._running: dict[str, tuple[Task, bool]] = {}
        self._alone: list[Task] = []

    @property
    def finished(self) -> bool:
        """Whether nothing runs and nothing waits."""
        return not any(state in (WAITING, RUNNING) for state in self.states.values())

    def begin(self) -> Task | None:
        """Return the next task to begin, as begun; `None` if none may begin now."""
        self._skip()
        if self._alone and not self._running:
            return self._start(self._alone.pop(0), alone=True)
        one_is_alone = any(alone for _, alone in self._running.values())
        if self._alone or one_is_alone or len(self._running) >= self._workers:
            return None
        for name, state in self.states.items():
            task = self._tasks[name]
            if state == WAITING and self._is_ready(task) and self._fits(task):
                if lost := self._missing(task):
                    self.messages[name].append(f"made without {', '.join(sorted(set(lost)))}")
                # `_skip` gave up what cannot be reduced.
                return self._start(self._reduced(task) or task)
        return None

    def end(self, name: str, state: str) -> None:
        """Note how a task ended."""
        self._running.pop(name)
        self.states[name] = state

    def again_alone(self, name: str, why: str) -> None:
        """Put a task, which was begun, back: it is begun again when nothing else runs."""
        task, _ = self._running.pop(name)
        self.messages[name].append(f"Begun again, alone, since {why}.")
        self.states[name] = WAITING
        self._alone.append(task)

    def is_alone(self, name: str) -> bool:
        """Return True if a task that runs has the machine for itself."""
        return self._running[name][1]

    def _start(self, task: Task, *, alone: bool = False) -> Task:
        self.states[task.name] = RUNNING
        self._running[task.name] = (task, alone)
        return task

    def _skip(self) -> None:
        """Give up what cannot be made any more."""
        for name, state in self.states.items():
            if state != WAITING or not self._is_ready(self._tasks[name]):
                continue
            lost = self._missing(self._tasks[name])
            if lost and self._reduced(self._tasks[name]) is None:
                self.states[name] = SKIPPED
                self.messages[name].append(f"not made: {', '.join(lost)} failed")

    def _is_ready(self, task: Task) -> bool:
        return not any(self.states.get(name) in (WAITING, RUNNING) for name in task.inputs)

    def _missing(self, task: Task) -> list[str]:
        return [name for name in task.inputs if self.states.get(name) in (FAILED, SKIPPED)]

    def _reduced(self, task: Task) -> Task | None:
        lost = set(self._missing(task))
        if not lost:
            return task
        members = tuple(member for member in task.members if member.input not in lost)
        if not self._partial or task.stage != 3:
            return None
        if not any(member.exptype == "science" for member in members):
            return None
        inputs = tuple(name for name in task.inputs if name not in lost)
        return replace(task, members=members, inputs=inputs)

    def _fits(self, task: Task) -> bool:
        in_use = sum(running.estimate.memory_gb for running, _ in self._running.values())
        return not self._running or in_use + task.estimate.memory_gb <= self._memory_gb


def available_gb() -> float:
    """Return the memory that processes can still take: of the machine, or of its container."""
    return min(_of_machine(), _of_cgroup())


def cores() -> int:
    """Return the number of cores that this process may use."""
    allowed = jobs.cores()
    with suppress(OSError, ValueError):
        quota, period = (_CGROUP / "cpu.max").read_text().split()
        allowed = min(allowed, max(int(quota) // int(period), 1))
    return max(allowed, 1)


def kills() -> int:
    """Return how many processes the system has ended for want of memory since it started."""
    for path in (_CGROUP / "memory.events", Path("/proc/vmstat")):
        with suppress(OSError, ValueError):
            for line in path.read_text().splitlines():
                name, _, value = line.partition(" ")
                if name == "oom_kill":
                    return int(value)
    return 0


def _of_machine() -> float:
    with suppress(OSError, ValueError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            name, _, value = line.partition(":")
            if name == "MemAvailable":
                return int(value.split()[0]) * 1024 / _GB
    with suppress(OSError, ValueError, AttributeError):
        # macOS does not tell what is free; half of what there is has proved to be.
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / _GB / 2
    return float("inf")


def _of_cgroup() -> float:
    for limit, usage, stat, cached in (
        ("memory.max", "memory.current", "memory.stat", "inactive_file"),
        (
            "memory/memory.limit_in_bytes",
            "memory/memory.usage_in_bytes",
            "memory/memory.stat",
            "total_inactive_file",
        ),
    ):
        with suppress(OSError, ValueError):
            limit_bytes = int((_CGROUP / limit).read_text())
            in_use = int((_CGROUP / usage).read_text())
            for line in (_CGROUP / stat).read_text().splitlines():
                name, _, value = line.partition(" ")
                # Pages of files that were read are given back when they are needed.
                in_use -= int(value) if name == cached else 0
            return max(limit_bytes - in_use, 0) / _GB
    return float("inf")
