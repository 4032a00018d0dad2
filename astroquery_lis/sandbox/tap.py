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
from dataclasses import dataclass
from urllib.parse import parse_qsl
from xml.sax.saxutils import escape, quoteattr

import numpy as np
from astropy.io.votable import from_table
from astropy.io.votable.tree import Info
from astropy.table import MaskedColumn, Table

from .adql_sqlite import AdqlError, translate
from .tap_schema import TapColumn, describe_tables, open_database, result_columns
from .web import VOTABLE, Request, Response, document, error_document, error_page


@dataclass
class _Job:
    parameters: dict[str, str]
    phase: str = "PENDING"
    result: Response | None = None
    error: str | None = None

    def describe(self, job_id: str, url: str) -> Response:
        """Return the document of the job at ``url``."""
        result = f'<uws:result id="result" xlink:href="{url}/results/result"/>'
        error = (
            '<uws:errorSummary type="fatal" hasDetail="true">'
            f"<uws:message>{escape(self.error or '')}</uws:message></uws:errorSummary>"
        )
        return document(
            "job.xml",
            id=job_id,
            phase=self.phase,
            parameters="".join(
                f"<uws:parameter id={quoteattr(name.lower())}>{escape(value)}</uws:parameter>"
                for name, value in self.parameters.items()
            ),
            results=result if self.phase == "COMPLETED" else "",
            error="" if self.error is None else error,
        )


# What there is to fetch of a job that has ended.
_RESULTS = {"COMPLETED": "results/result", "ERROR": "error"}


class JobList:
    """The jobs of a service, each done when the request that starts it is answered.

    ``run`` gives the answer to parameters, and a message if it failed.
    """

    def __init__(
        self,
        url: Callable[[], str],
        run: Callable[[dict[str, str]], tuple[Response, str | None]],
    ) -> None:
        self._url, self._run = url, run
        self._jobs: dict[str, _Job] = {}

    def answer(self, path: str, request: Request, parameters: dict[str, str]) -> Response:
        """Return the answer to a request for what follows the address of the list."""
        job_id, _, what = path.strip("/").partition("/")
        if request.method == "POST" and not job_id:
            job = _Job({name: text for name, text in parameters.items() if name != "PHASE"})
            job_id = uuid.uuid4().hex[:16]
            self._jobs[job_id] = job
            return self._change(job_id, parameters)
        if job_id not in self._jobs:
            return error_page(404, "There is no such job.")
        job = self._jobs[job_id]
        if request.method == "DELETE" or parameters.get("ACTION") == "DELETE":
            self._jobs.pop(job_id, None)
            return Response(303, {"Location": self._url()})
        if request.method == "POST":
            is_phase = what == "phase"
            return self._change(job_id, parameters) if is_phase else error_page(400, "Only phases.")
        if what == "phase":
            return Response(200, {"Content-Type": "text/plain; charset=utf-8"}, job.phase.encode())
        if not what:
            return job.describe(job_id, f"{self._url()}/{job_id}")
        if job.result is None or what != _RESULTS[job.phase]:
            return error_page(404, "The job does not have that.")
        return job.result

    def _change(self, job_id: str, parameters: dict[str, str]) -> Response:
        """Let a job that has not begun run or end, as ``PHASE`` says."""
        job, phase = self._jobs[job_id], parameters.get("PHASE")
        if job.phase == "PENDING" and phase == "ABORT":
            job.phase = "ABORTED"
        if job.phase == "PENDING" and phase == "RUN":
            job.phase = "EXECUTING"
            result, job.error = self._run(job.parameters)
            job.phase = "COMPLETED" if job.error is None else "ERROR"
            job.result = result
        return Response(303, {"Location": f"{self._url()}/{job_id}"})


DEFAULT_ROWS = 5000
_LONGEST_QUERY_S = 20.0
_STEPS_BETWEEN_LOOKS = 100_000
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
        query = request.query
        if request.method == "POST":
            if request.headers.get_content_maintype() == "multipart":
                return error_document("UPLOAD is not supported")
            query += "&" + request.body.decode("utf-8", "replace")
        fields = parse_qsl(query, keep_blank_values=True)
        parameters = {name.upper(): value for name, value in fields}
        if path == "sync":
            return self._run(parameters)[0]
        if path == "async" or path.startswith("async/"):
            return self._jobs.answer(path[len("async") :], request, parameters)
        if path == "capabilities":
            return document("capabilities.xml", url=self.url, default_rows=self.default_rows)
        if path == "availability":
            return document("availability.xml")
        if path == "tables":
            return describe_tables()
        return error_page(404, "Nothing is served here.")

    def _run(self, parameters: dict[str, str]) -> tuple[Response, str | None]:
        """Return the `Response` to a query, and the message if it went wrong."""
        try:
            return self._answer(parameters), None
        except AdqlError as err:
            message = str(err)
        except sqlite3.Error as err:
            name = str(err).partition("no such table: ")[2]
            message = f'relation "{name}" does not exist' if name else str(err)
            message = f"ADQL error: {message}"
        return error_document(message), message

    def _answer(self, parameters: dict[str, str]) -> Response:
        get = parameters.get
        name = get("RESPONSEFORMAT") or get("FORMAT") or "votable"
        limit = get("MAXREC") or str(self.default_rows)
        for is_wrong, msg in (
            (get("REQUEST", "doQuery") != "doQuery", f"REQUEST={get('REQUEST')} is not supported"),
            (get("LANG", "ADQL")[:4].upper() != "ADQL", f"LANG={get('LANG')} is not supported"),
            ("UPLOAD" in parameters, "UPLOAD is not supported"),
            (name.lower() not in ("votable", VOTABLE), f"FORMAT={name} is not supported"),
            (not limit.isdigit(), f"MAXREC={limit} is not a number of rows"),
        ):
            if is_wrong:
                raise AdqlError(msg)
        query = get("QUERY", "").strip()
        table, is_cut = self._query(query, int(limit))
        return Response(200, {"Content-Type": VOTABLE}, _votable(table, query, is_cut))

    def _query(self, query: str, limit: int) -> tuple[Table, bool]:
        sql = translate(query, has_q3c=self.has_q3c)
        with self._lock:
            if self._database is None:
                self._database = self._open()
            self._deadline = time.monotonic() + _LONGEST_QUERY_S
            cursor = self._database.execute(sql)
            rows = cursor.fetchmany(limit + 1)
            cursor.close()
            columns = result_columns(self._database, sql)
        return _make_table(columns, rows[:limit]), len(rows) > limit

    def _open(self) -> sqlite3.Connection:
        database = open_database()
        for name, (count, function) in _FUNCTIONS.items():
            database.create_function(name, count, _or_null(function), deterministic=True)
        database.execute("PRAGMA case_sensitive_like = ON")
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
        kind = column.kind or _kind_of(raw)
        if kind[0] == "S":
            values = np.array(["" if value is None else str(value) for value in raw], "S")
            values = values.astype(f"S{max(values.dtype.itemsize, 1)}")
        else:
            values = np.array([0 if value is None else value for value in raw], kind)
            if kind[0] == "f":
                values[missing | ~np.isfinite(values)] = np.nan
                missing[:] = False
        table[column.name] = MaskedColumn(values, mask=missing) if missing.any() else values
        table[column.name].unit = column.unit or None
    return table


def _votable(table: Table, query: str, is_cut: bool) -> bytes:
    """Return a result as a VOTable document."""
    votable = from_table(table)
    resource = votable.resources[0]
    resource.type = "results"
    resource.infos.extend([Info(name="QUERY_STATUS", value="OK"), Info(name="QUERY", value=query)])
    file = io.BytesIO()
    votable.to_xml(file, tabledata_format="binary2")
    head, end, tail = file.getvalue().rpartition(b"</TABLE>")
    # After the table, where astropy writes nothing and readers look last.
    return head + end + (_OVERFLOW if is_cut else b"") + tail
