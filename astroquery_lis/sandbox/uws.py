"""Asynchronous jobs, after the Universal Worker Service pattern of the IVOA (UWS 1.1)."""

import threading
import uuid
from datetime import UTC, datetime, timedelta
from xml.sax.saxutils import escape, quoteattr

from .files import Response, error_page

__all__ = ["JobList"]

_ACTIVE = ("PENDING", "QUEUED", "EXECUTING")
_NAMESPACES = (
    'xmlns:uws="http://www.ivoa.net/xml/UWS/v1.0" xmlns:xlink="http://www.w3.org/1999/xlink" '
    'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'
)
_LONGEST_WAIT_S = 30.0


def _xml(text):
    body = f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n'
    return Response(200, {"Content-Type": "text/xml; charset=utf-8"}, body.encode())


def _text(text):
    return Response(200, {"Content-Type": "text/plain; charset=utf-8"}, text.encode())


def _stamp(moment):
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ") if moment else ""


class _Job:
    def __init__(self, parameters):
        self.id = uuid.uuid4().hex[:16]
        self.parameters = dict(parameters)
        self.phase = "PENDING"
        self.created = datetime.now(UTC)
        self.started = self.ended = None
        self.destruction = self.created + timedelta(days=1)
        self.duration_s = 3600
        self.result = None
        self.error = None


class JobList:
    """The jobs of a service.

    Parameters
    ----------
    url : callable
        Returns the address of the list, without a slash at the end.
    run : callable
        Called with the parameters (a dict with upper-case names); returns a `~.files.Response`
        and, if the job went wrong, a message, otherwise `None`.
    """

    def __init__(self, url, run):
        self._url, self._run = url, run
        self._jobs = {}
        self._changed = threading.Condition()

    def answer(self, path, request, parameters):
        """Return the `Response` to a request.

        Parameters
        ----------
        path : str
            What follows the address of the list, without a slash in front.
        request : Request
            The request.
        parameters : dict of str to str
            Names in upper case.
        """
        parts = [part for part in path.split("/") if part]
        if not parts:
            if request.method != "POST":
                return self._list()
            job = _Job({k: v for k, v in parameters.items() if k != "PHASE"})
            with self._changed:
                self._jobs[job.id] = job
            if parameters.get("PHASE") == "RUN":
                self._start(job)
            return self._see(job)
        with self._changed:
            job = self._jobs.get(parts[0])
        if job is None:
            return error_page(404, "There is no such job.")
        if request.method == "DELETE":
            return self._change(job, [], {"ACTION": "DELETE"})
        try:
            if request.method == "POST":
                return self._change(job, parts[1:], parameters)
            return self._show(job, parts[1:], parameters)
        except ValueError as err:
            return error_page(400, escape(str(err)))

    def _see(self, job=None):
        target = self._url() + (f"/{job.id}" if job else "")
        return Response(303, {"Location": target}, b"")

    def _list(self):
        with self._changed:
            jobs = list(self._jobs.values())
        rows = "".join(
            f'<uws:jobref id="{job.id}" xlink:href="{self._url()}/{job.id}">'
            f"<uws:phase>{job.phase}</uws:phase>"
            f"<uws:creationTime>{_stamp(job.created)}</uws:creationTime></uws:jobref>"
            for job in jobs
        )
        return _xml(f'<uws:jobs {_NAMESPACES} version="1.1">{rows}</uws:jobs>')

    def _start(self, job):
        with self._changed:
            if job.phase != "PENDING":
                return
            job.phase, job.started = "EXECUTING", datetime.now(UTC)
            self._changed.notify_all()
        threading.Thread(target=self._work, args=(job,), daemon=True).start()

    def _work(self, job):
        response, error = self._run(job.parameters)
        with self._changed:
            if job.phase == "EXECUTING":
                job.phase = "COMPLETED" if error is None else "ERROR"
                job.result, job.error = response, error
                job.ended = datetime.now(UTC)
            self._changed.notify_all()

    def _change(self, job, parts, parameters):
        if parameters.get("ACTION") == "DELETE":
            with self._changed:
                self._jobs.pop(job.id, None)
                job.phase = "ABORTED"
                self._changed.notify_all()
            return self._see()
        what = parts[0] if parts else ""
        value = parameters.get({"phase": "PHASE", "destruction": "DESTRUCTION"}.get(what, ""), "")
        if what == "phase" and value == "RUN":
            self._start(job)
        elif what == "phase" and value == "ABORT":
            with self._changed:
                if job.phase in _ACTIVE:
                    job.phase, job.ended = "ABORTED", datetime.now(UTC)
                self._changed.notify_all()
        elif what == "parameters" or not what:
            if job.phase != "PENDING":
                return error_page(403, "The job has been started.")
            job.parameters.update(parameters)
        elif what == "executionduration":
            job.duration_s = int(parameters.get("EXECUTIONDURATION", job.duration_s))
        elif what == "destruction":
            job.destruction = datetime.fromisoformat(value.rstrip("Z")).replace(tzinfo=UTC)
        else:
            return error_page(400, "That cannot be changed.")
        return self._see(job)

    def _show(self, job, parts, parameters):
        if not parts:
            self._wait(job, parameters)
            return _xml(self._job(job))
        what = parts[0]
        simple = {
            "phase": job.phase,
            "executionduration": str(job.duration_s),
            "destruction": _stamp(job.destruction),
            "quote": _stamp(job.ended),
            "owner": "",
        }
        if what in simple:
            return _text(simple[what])
        if what == "parameters":
            return _xml(self._parameters(job, _NAMESPACES))
        if what == "results" and len(parts) == 1:
            return _xml(self._results(job, _NAMESPACES))
        if what == "results" and job.phase == "COMPLETED" and parts[1:] == ["result"]:
            return job.result
        if what == "error" and job.error is not None:
            return job.result
        return error_page(404, "The job does not have that.")

    def _wait(self, job, parameters):
        """Hold the answer back until the phase changes, where the client asks for it."""
        if "WAIT" not in parameters or job.phase not in _ACTIVE:
            return
        seconds = float(parameters["WAIT"])
        limit = min(seconds, _LONGEST_WAIT_S) if seconds >= 0 else _LONGEST_WAIT_S
        before = parameters.get("PHASE", job.phase)
        with self._changed:
            self._changed.wait_for(lambda: job.phase != before, timeout=limit)

    def _parameters(self, job, attributes=""):
        rows = "".join(
            f"<uws:parameter id={quoteattr(name.lower())}>{escape(value)}</uws:parameter>"
            for name, value in job.parameters.items()
        )
        return f"<uws:parameters {attributes}>{rows}</uws:parameters>"

    def _results(self, job, attributes=""):
        row = ""
        if job.phase == "COMPLETED":
            target = f"{self._url()}/{job.id}/results/result"
            row = f'<uws:result id="result" xlink:type="simple" xlink:href="{target}"/>'
        return f"<uws:results {attributes}>{row}</uws:results>"

    def _job(self, job):
        error = ""
        if job.error is not None:
            error = (
                '<uws:errorSummary type="fatal" hasDetail="true">'
                f"<uws:message>{escape(job.error)}</uws:message></uws:errorSummary>"
            )
        times = "".join(
            f"<uws:{name}>{_stamp(moment)}</uws:{name}>"
            if moment
            else f'<uws:{name} xsi:nil="true"/>'
            for name, moment in (
                ("quote", None),
                ("creationTime", job.created),
                ("startTime", job.started),
                ("endTime", job.ended),
            )
        )
        return (
            f'<uws:job {_NAMESPACES} version="1.1"><uws:jobId>{job.id}</uws:jobId>'
            f'<uws:ownerId xsi:nil="true"/><uws:phase>{job.phase}</uws:phase>{times}'
            f"<uws:executionDuration>{job.duration_s}</uws:executionDuration>"
            f"<uws:destruction>{_stamp(job.destruction)}</uws:destruction>"
            f"{self._parameters(job)}{self._results(job)}{error}</uws:job>"
        )
