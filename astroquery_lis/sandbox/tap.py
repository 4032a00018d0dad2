"""TAP as the simulated service has it: synchronous queries, and jobs (UWS) to what pyvo needs."""

from __future__ import annotations

import io
import math
import re
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from email.parser import BytesParser
from email.policy import HTTP
from urllib.parse import parse_qsl
from xml.sax.saxutils import escape, quoteattr

import numpy as np
from astropy.io.votable import from_table
from astropy.io.votable.tree import Info
from astropy.table import MaskedColumn, Table

from .adql_sqlite import AdqlError, Translation, translate
from .tap_schema import TapColumn, all_tables, describe_tables, open_database
from .web import VOTABLE, Request, Response, document, error_document, error_page

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


DEFAULT_ROWS = 5000
_LONGEST_QUERY_S = 20.0
_STEPS_BETWEEN_LOOKS = 100_000
_READING = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION}
_FORMATS = {
    "votable": "binary2",
    "votable/b2": "binary2",
    "votable/td": "tabledata",
    VOTABLE: "binary2",
    f"{VOTABLE};serialization=binary2": "binary2",
    f"{VOTABLE};serialization=tabledata": "tabledata",
    "csv": "csv",
    "text/csv": "csv",
}
_OVERFLOW = b'<INFO name="QUERY_STATUS" value="OVERFLOW"/>'


def _distance_deg(ra1_deg: float, dec1_deg: float, ra2_deg: float, dec2_deg: float) -> float:
    dec1, dec2 = math.radians(dec1_deg), math.radians(dec2_deg)
    across = math.sin(math.radians(ra1_deg - ra2_deg) / 2) ** 2
    along = math.sin((dec1 - dec2) / 2) ** 2
    square = along + math.cos(dec1) * math.cos(dec2) * across
    return math.degrees(2 * math.asin(min(1.0, math.sqrt(square))))


def _is_within(
    ra1_deg: float, dec1_deg: float, ra2_deg: float, dec2_deg: float, radius_deg: float
) -> str:
    return "t" if _distance_deg(ra1_deg, dec1_deg, ra2_deg, dec2_deg) <= radius_deg else "f"


def _or_null(function: Callable[..., float | str]) -> Callable[..., float | str | None]:
    """Return a function of SQL: NULL for NULL."""
    return lambda *values: None if None in values else function(*values)


# By name: how many arguments it takes, and what it does.
_FUNCTIONS: dict[str, tuple[int, Callable[..., float | str]]] = {
    "q3c_radial_query": (5, _is_within),
    "q3c_join": (5, _is_within),
    "q3c_dist": (4, _distance_deg),
    "adql_log": (1, math.log),
    "power": (2, math.pow),
    "mod": (2, math.fmod),
    "ceiling": (1, math.ceil),
    "atan2": (2, math.atan2),
    "pi": (0, lambda: math.pi),
}
_SAME_NAME = re.compile("log10|exp|sqrt|floor|trunc|degrees|radians|a?sin|a?cos|a?tan")
_FUNCTIONS |= {n: (1, f) for n, f in vars(math).items() if _SAME_NAME.fullmatch(n)}


def _only_reading(action: int, table: str | None, *_: object) -> int:
    """Let sqlite read the service's tables, and do nothing else."""
    own = (table or "").lower().startswith(("sqlite_", "pragma_"))
    allowed = action in _READING and not (action == sqlite3.SQLITE_READ and own)
    allowed |= action == sqlite3.SQLITE_RECURSIVE
    return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY


class TapService:
    """Answers the requests below the address of the service.

    Attributes
    ----------
    url : str
        Address of the service; set when it is known.
    default_rows : int
        How many rows are given at most where the request names no ``MAXREC``.
    has_q3c : bool
        Whether the functions of Q3C are known; not every TAP service has them.
    """

    def __init__(self, prefix: str) -> None:
        self.url = prefix
        self.default_rows = DEFAULT_ROWS
        self.has_q3c = True
        self._prefix = prefix
        self._lock = threading.Lock()
        self._database: sqlite3.Connection | None = None
        self._deadline = 0.0
        self._jobs = JobList(lambda: f"{self.url}/async", self._run)

    def __call__(self, request: Request) -> Response:
        """Return the `Response` to a `Request`."""
        path = request.path[len(self._prefix) :].strip("/")
        try:
            parameters = _parameters(request)
        except ValueError as err:
            return error_document(f"The request cannot be read: {err}", 400)
        if path == "sync":
            return self._run(parameters)[0]
        if path == "async" or path.startswith("async/"):
            return self._jobs.answer(path[len("async") :], request, parameters)
        if path == "capabilities":
            return document("capabilities.xml", url=self.url, default_rows=self.default_rows)
        if path == "availability":
            return document("availability.xml")
        if path == "tables" or path.startswith("tables/"):
            return describe_tables(path[len("tables/") :], parameters.get("DETAIL", "max"))
        return error_page(404, "Nothing is served here.")

    def _run(self, parameters: dict[str, str]) -> tuple[Response, str | None]:
        """Return the `Response` to a query, and the message if it went wrong."""
        try:
            return self._answer(parameters), None
        except AdqlError as err:
            message = str(err)
        except sqlite3.Error as err:
            message = f"ADQL error: {err}"
        return error_document(message), message

    def _answer(self, parameters: dict[str, str]) -> Response:
        get = parameters.get
        name = get("RESPONSEFORMAT") or get("FORMAT") or "votable"
        form = _FORMATS.get(name.replace(" ", "").lower())
        limit = get("MAXREC") or str(self.default_rows)
        for is_wrong, msg in (
            (get("REQUEST", "doQuery") != "doQuery", f"REQUEST={get('REQUEST')} is not supported"),
            (get("LANG", "ADQL")[:4].upper() != "ADQL", f"LANG={get('LANG')} is not supported"),
            ("UPLOAD" in parameters, "UPLOAD is not supported"),
            (form is None, f"FORMAT={name} is not supported"),
            (not limit.isdigit(), f"MAXREC={limit} is not a number of rows"),
        ):
            if is_wrong:
                raise AdqlError(msg)
        query = get("QUERY", "").strip()
        table, is_cut = self._query(query, int(limit))
        if form != "csv":
            return Response(200, {"Content-Type": VOTABLE}, _votable(table, query, is_cut, form))
        text = io.StringIO()
        table.write(text, format="ascii.csv")
        return Response(200, {"Content-Type": "text/csv"}, text.getvalue().encode())

    def _query(self, query: str, limit: int) -> tuple[Table, bool]:
        with self._lock:
            if self._database is None:
                self._database = self._open()
            known = {name: [c.name for c in table.columns] for name, table in all_tables().items()}
            translation = translate(query, known, has_q3c=self.has_q3c)
            self._deadline = time.monotonic() + _LONGEST_QUERY_S
            cursor = self._database.execute(translation.sql)
            rows = cursor.fetchmany(limit + 1)
            names = [entry[0] for entry in cursor.description]
            cursor.close()
        columns = _result_columns(translation, names, rows)
        return _make_table(columns, rows[:limit]), len(rows) > limit

    def _open(self) -> sqlite3.Connection:
        database = open_database()
        for name, (count, function) in _FUNCTIONS.items():
            database.create_function(name, count, _or_null(function), deterministic=True)
        database.execute("PRAGMA case_sensitive_like = ON")
        database.set_authorizer(_only_reading)
        # Or a join of everything with everything would keep the others waiting.
        database.set_progress_handler(self._is_late, _STEPS_BETWEEN_LOOKS)
        return database

    def _is_late(self) -> bool:
        return time.monotonic() > self._deadline

    def close(self) -> None:
        """Forget the tables."""
        with self._lock:
            if self._database is not None:
                self._database.close()
            self._database = None


def _result_columns(translation: Translation, names: list[str], rows: list) -> list[TapColumn]:
    """Return the columns of a result, those of an expression with the type of its values."""
    columns: list[TapColumn] = []
    for name, qualifier, column in translation.items:
        tables = set(translation.tables.values())
        if qualifier:
            tables &= {translation.tables.get(qualifier, "")}
        there = [entry for table in sorted(tables) for entry in all_tables()[table].columns]
        if column == "*":
            columns += there
        else:
            same = [entry for entry in there if entry.name == column.lower()]
            columns.append(same[0]._replace(name=name) if same else TapColumn(name, ""))
    if len(columns) != len(names):
        columns = [TapColumn(name, "") for name in names]
    return [
        column if column.kind else column._replace(kind=_kind_of(row[i] for row in rows))
        for i, column in enumerate(columns)
    ]


def _kind_of(values: Iterable[object]) -> str:
    """Return the type of a computed column."""
    kinds = {type(value) for value in values} - {type(None)}
    if kinds and kinds <= {int}:
        return "i8"
    return "f8" if kinds <= {int, float} else "S64"


def _make_table(columns: list[TapColumn], rows: list) -> Table:
    """Return rows of the database, where infinity stands for NaN, as a table."""
    table = Table()
    for number, column in enumerate(columns):
        raw = [row[number] for row in rows]
        missing = np.array([value is None for value in raw], bool)
        if column.kind[0] == "S":
            values = np.array(["" if value is None else str(value) for value in raw], "S")
            values = values.astype(f"S{max(values.dtype.itemsize, 1)}")
        else:
            values = np.array([0 if value is None else value for value in raw], column.kind)
            if column.kind[0] == "f":
                values[missing | ~np.isfinite(values)] = np.nan
                missing[:] = False
        name = column.name
        while name in table.colnames:
            name += "_"
        data = MaskedColumn(values, mask=missing) if missing.any() else values
        table[name] = data
        table[name].unit = column.unit or None
    return table


def _votable(table: Table, query: str, is_cut: bool, form: str | None) -> bytes:
    """Return a result as a VOTable document."""
    votable = from_table(table)
    resource = votable.resources[0]
    resource.type = "results"
    resource.infos.extend([Info(name="QUERY_STATUS", value="OK"), Info(name="QUERY", value=query)])
    file = io.BytesIO()
    votable.to_xml(file, tabledata_format=form)
    head, end, tail = file.getvalue().rpartition(b"</TABLE>")
    # After the table, where astropy writes nothing and readers look last.
    return head + end + (_OVERFLOW if is_cut else b"") + tail


def _parameters(request: Request) -> dict[str, str]:
    """Return the parameters of a request, names in upper case, from its query and its body."""
    parameters = dict(parse_qsl(request.query, keep_blank_values=True))
    kind = request.headers.get("Content-Type") or ""
    if request.method == "POST" and kind.startswith("multipart/form-data"):
        head = f"Content-Type: {kind}\r\n\r\n".encode()
        message = BytesParser(policy=HTTP).parsebytes(head + request.body)
        for part in message.iter_parts():
            name = part.get_param("name", header="content-disposition")
            if name:
                payload = part.get_payload(decode=True)
                text = payload.decode("utf-8", "replace") if isinstance(payload, bytes) else ""
                parameters[str(name)] = text
    elif request.method == "POST":
        parameters |= dict(parse_qsl(request.body.decode("utf-8"), keep_blank_values=True))
    return {name.upper(): value for name, value in parameters.items()}
