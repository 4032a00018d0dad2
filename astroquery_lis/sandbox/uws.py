"""Asynchronous jobs: as much of the Universal Worker Service pattern (UWS 1.1) as pyvo uses."""

import threading
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from xml.sax.saxutils import escape, quoteattr

from .web import Request, Response, document, error_page

_ACTIVE = ("PENDING", "QUEUED", "EXECUTING")
_LONGEST_WAIT_S = 30.0
_LIFETIME = timedelta(days=1)


def _stamp(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _text(text: str) -> Response:
    return Response(200, {"Content-Type": "text/plain; charset=utf-8"}, text.encode())


class _Job:
    def __init__(self, parameters: dict[str, str]) -> None:
        self.id = uuid.uuid4().hex[:16]
        self.parameters = dict(parameters)
        self.phase = "PENDING"
        self.created = datetime.now(UTC)
        self.started: datetime | None = None
        self.ended: datetime | None = None
        self.destruction = self.created + _LIFETIME
        self.duration_s = 3600
        self.result: Response | None = None
        self.error: str | None = None

    def describe(self, url: str) -> Response:
        """Return the document of the job whose list is at ``url``."""
        times = {"startTime": self.started, "endTime": self.ended}
        result = f'<uws:result id="result" xlink:href="{url}/{self.id}/results/result"/>'
        error = (
            '<uws:errorSummary type="fatal" hasDetail="true">'
            f"<uws:message>{escape(self.error or '')}</uws:message></uws:errorSummary>"
        )
        return document(
            "job.xml",
            id=self.id,
            phase=self.phase,
            created=_stamp(self.created),
            times="".join(f"<uws:{n}>{_stamp(t)}</uws:{n}>" for n, t in times.items() if t),
            duration=self.duration_s,
            destruction=_stamp(self.destruction),
            parameters="".join(
                f"<uws:parameter id={quoteattr(name.lower())}>{escape(value)}</uws:parameter>"
                for name, value in self.parameters.items()
            ),
            results=result if self.phase == "COMPLETED" else "",
            error="" if self.error is None else error,
        )


class JobList:
    """The jobs of a service; ``run`` gives the answer to parameters, and a message if it failed."""

    def __init__(
        self,
        url: Callable[[], str],
        run: Callable[[dict[str, str]], tuple[Response, str | None]],
    ) -> None:
        self._url, self._run = url, run
        self._jobs: dict[str, _Job] = {}
        self._changed = threading.Condition()

    def answer(self, path: str, request: Request, parameters: dict[str, str]) -> Response:
        """Return the answer to a request for what follows the address of the list."""
        job_id, *parts = path.strip("/").split("/")
        if not job_id:
            return self._list() if request.method != "POST" else self._create(parameters)
        with self._changed:
            job = self._jobs.get(job_id)
        if job is None:
            return error_page(404, "There is no such job.")
        what = "/".join(parts)
        try:
            if request.method == "DELETE" or parameters.get("ACTION") == "DELETE":
                return self._delete(job)
            if request.method == "POST":
                return self._change(job, what, parameters)
            return self._show(job, what, parameters)
        except ValueError as err:
            return error_page(400, escape(str(err)))

    def _see(self, job_id: str = "") -> Response:
        return Response(303, {"Location": f"{self._url()}/{job_id}".rstrip("/")}, b"")

    def _list(self) -> Response:
        with self._changed:
            jobs = list(self._jobs.values())
        rows = [
            f'<uws:jobref id="{job.id}" xlink:href="{self._url()}/{job.id}">'
            f"<uws:phase>{job.phase}</uws:phase></uws:jobref>"
            for job in jobs
        ]
        return document("jobs.xml", jobs="".join(rows))

    def _create(self, parameters: dict[str, str]) -> Response:
        job = _Job({name: value for name, value in parameters.items() if name != "PHASE"})
        with self._changed:
            self._jobs[job.id] = job
        if parameters.get("PHASE") == "RUN":
            self._start(job)
        return self._see(job.id)

    def _start(self, job: _Job) -> None:
        with self._changed:
            if job.phase != "PENDING":
                return
            job.phase, job.started = "EXECUTING", datetime.now(UTC)
            self._changed.notify_all()
        threading.Thread(target=self._work, args=(job,), daemon=True).start()

    def _work(self, job: _Job) -> None:
        response, error = self._run(job.parameters)
        with self._changed:
            if job.phase == "EXECUTING":
                job.result, job.error = response, error
            self._end(job, "COMPLETED" if error is None else "ERROR")

    def _end(self, job: _Job, phase: str) -> None:
        """End a job that has not ended; the caller holds the lock."""
        if job.phase in _ACTIVE:
            job.phase, job.ended = phase, datetime.now(UTC)
        self._changed.notify_all()

    def _delete(self, job: _Job) -> Response:
        with self._changed:
            self._jobs.pop(job.id, None)
            self._end(job, "ABORTED")
        return self._see()

    def _change(self, job: _Job, what: str, parameters: dict[str, str]) -> Response:
        if what == "phase" and parameters.get("PHASE") == "RUN":
            self._start(job)
        elif what == "phase" and parameters.get("PHASE") == "ABORT":
            with self._changed:
                self._end(job, "ABORTED")
        elif what == "executionduration":
            job.duration_s = int(parameters.get("EXECUTIONDURATION", ""))
        elif what == "destruction":
            moment = parameters.get("DESTRUCTION", "").rstrip("Z")
            job.destruction = datetime.fromisoformat(moment).replace(tzinfo=UTC)
        elif what != "parameters":
            return error_page(400, "That cannot be changed.")
        elif job.phase != "PENDING":
            return error_page(403, "The job has been started.")
        else:
            job.parameters.update(parameters)
        return self._see(job.id)

    def _show(self, job: _Job, what: str, parameters: dict[str, str]) -> Response:
        if not what:
            self._wait(job, parameters)
            return job.describe(self._url())
        texts = {
            "phase": job.phase,
            "executionduration": str(job.duration_s),
            "destruction": _stamp(job.destruction),
        }
        if what in texts:
            return _text(texts[what])
        there = {"COMPLETED": "results/result", "ERROR": "error"}.get(job.phase)
        if job.result is None or what != there:
            return error_page(404, "The job does not have that.")
        return job.result

    def _wait(self, job: _Job, parameters: dict[str, str]) -> None:
        """Hold the answer back until the phase changes, where the client asks for it."""
        if "WAIT" not in parameters or job.phase not in _ACTIVE:
            return
        seconds = float(parameters["WAIT"])
        limit = min(seconds, _LONGEST_WAIT_S) if seconds >= 0 else _LONGEST_WAIT_S
        before = parameters.get("PHASE", job.phase)
        with self._changed:
            self._changed.wait_for(lambda: job.phase != before, timeout=limit)
