"""Where the processes of tasks are started: on this machine, or by the workers of an executor."""

from .forkserver import processes, single

__all__ = ["Here", "There"]

_WORK = "astroquery_lis.jwst_stage.running.work:work"
_WARM = "astroquery_lis.jwst_stage.running.warm:warm"


def _in_worker(function, job, folder, environment):
    """Do a task from a worker of an executor: in a process of its own there."""
    return single(function, job, folder, environment=environment)


class Here:
    """Processes on this machine, from a server that is replaced if it dies.

    Parameters
    ----------
    environment : dict of str to (str or None)
        Variables to set, or with `None` to remove.
    pipelines : sequence of str, optional
        Those that the tasks will use, to be made ready before the first.
    configurations : sequence of dict, optional
        CRDS parameters of the exposures, likewise.
    """

    def __init__(self, environment, *, pipelines=(), configurations=()):
        self._environment = environment
        about = {"pipelines": list(pipelines), "configurations": list(configurations)}
        self._warm = (_WARM, about)
        self._server = None

    def submit(self, job, folder):
        """Start a task; return the future of how it ends."""
        if self._server is None:
            self._server = processes(environment=self._environment, warm=self._warm)
        return self._server.submit(_WORK, job, folder)

    def lost(self):
        """Let go of a server that has died."""
        # Every task of a server tells that it is gone; there may be a new one meanwhile.
        if self._server is not None and self._server.is_closed:
            self.close()

    def close(self):
        """Stop whatever runs."""
        if self._server is not None:
            self._server.close()
            self._server = None


class There:
    """Processes that an executor's workers start.

    Parameters
    ----------
    executor : `~concurrent.futures.Executor`
        Not shut down.
    environment : dict of str to (str or None)
        Variables to set, or with `None` to remove.
    """

    def __init__(self, executor, environment):
        self._executor, self._environment = executor, environment

    def submit(self, job, folder):
        """Start a task; return the future of how it ends."""
        return self._executor.submit(_in_worker, _WORK, job, str(folder), self._environment)

    def lost(self):
        """Do nothing: workers are the executor's."""

    def close(self):
        """Do nothing: what has begun there ends by itself."""
