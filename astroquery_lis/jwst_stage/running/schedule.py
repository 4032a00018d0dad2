"""Which task may begin now: the order of a plan, its memory, and what failed before."""

from dataclasses import replace

__all__ = ["Schedule"]

WAITING, RUNNING, DONE, FAILED, SKIPPED = "waiting", "running", "done", "failed", "skipped"


class Schedule:
    """The tasks of a run and how far they are.  Knows nothing of processes.

    Parameters
    ----------
    tasks : sequence of Task
        In topological order.
    done : collection of str
        Names of those that need not be done again.
    workers : int
        How many may run at once.
    memory_gb : float
        What they may take together.
    partial : bool, optional
        Whether a task of stage 3 goes on with the rest of its members if some failed.
    """

    def __init__(self, tasks, *, done=(), workers=1, memory_gb=float("inf"), partial=False):
        self._tasks = {task.name: task for task in tasks}
        self.states = {name: DONE if name in done else WAITING for name in self._tasks}
        self.reasons = {}
        self._workers, self._memory_gb, self._partial = workers, memory_gb, partial
        self._running = {}
        self._alone = []

    @property
    def finished(self):
        """Whether nothing runs and nothing waits."""
        return not any(state in (WAITING, RUNNING) for state in self.states.values())

    def begin(self):
        """Return the next task to begin, as begun; `None` if none may begin now.

        Returns
        -------
        Task or None
            Without the members that failed, where the run goes on without them.
        """
        self._skip()
        if self._alone and not self._running:
            return self._start(self._alone.pop(0), alone=True)
        one_is_alone = any(alone for _, alone in self._running.values())
        if self._alone or one_is_alone or len(self._running) >= self._workers:
            return None
        for name, state in self.states.items():
            task = self._tasks[name]
            if state == WAITING and self._is_ready(task) and self._fits(task):
                return self._start(self._reduced(task))
        return None

    def end(self, name, state):
        """Note how a task ended.

        Parameters
        ----------
        name : str
            The task.
        state : {'done', 'failed'}
            How.
        """
        self._running.pop(name)
        self.states[name] = state

    def again_alone(self, name):
        """Put a task, which was begun, back: it is begun again when nothing else runs.

        Parameters
        ----------
        name : str
            The task.
        """
        task, _ = self._running.pop(name)
        self.states[name] = WAITING
        self._alone.append(task)

    def is_alone(self, name):
        """Tell whether a task that runs has the machine for itself."""
        return self._running[name][1]

    def _start(self, task, *, alone=False):
        self.states[task.name] = RUNNING
        self._running[task.name] = (task, alone)
        return task

    def _skip(self):
        """Give up what cannot be made any more."""
        for name, state in self.states.items():
            if state != WAITING or not self._is_ready(self._tasks[name]):
                continue
            lost = self._missing(self._tasks[name])
            if lost and self._reduced(self._tasks[name]) is None:
                self.states[name] = SKIPPED
                self.reasons[name] = f"not made: {', '.join(lost)} failed"

    def _is_ready(self, task):
        return not any(self.states.get(name) in (WAITING, RUNNING) for name in task.inputs)

    def _missing(self, task):
        return [name for name in task.inputs if self.states.get(name) in (FAILED, SKIPPED)]

    def _reduced(self, task):
        lost = set(self._missing(task))
        if not lost:
            return task
        members = tuple(member for member in task.members if member.input not in lost)
        if not self._partial or task.stage != 3:
            return None
        if not any(member.exptype == "science" for member in members):
            return None
        self.reasons[task.name] = f"made without {', '.join(sorted(lost))}"
        inputs = tuple(name for name in task.inputs if name not in lost)
        return replace(task, members=members, inputs=inputs)

    def _fits(self, task):
        taken = sum(running.estimate.memory_gb for running, _ in self._running.values())
        return not self._running or taken + task.estimate.memory_gb <= self._memory_gb
