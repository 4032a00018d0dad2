"""TAP as the simulated service has it: queries in ADQL, at once or as jobs (UWS) for pyvo.

What is refused is what Astro Data Lab is reported to refuse: the geometry functions of ADQL, a Q3C
cone that is not compared with ``'t'``, ``LIMIT`` instead of ``TOP``, and reserved words as names
without quotes.
"""

from __future__ import annotations

import io
import math
import re
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import parse_qsl
from xml.sax.saxutils import escape, quoteattr

import numpy as np
from astropy.io.votable import from_table
from astropy.io.votable.tree import Info
from astropy.table import MaskedColumn, Table

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
            job_id, what = self._add(parameters), "phase"
        if job_id not in self._jobs:
            return error_page(404, "There is no such job.")
        if request.method == "DELETE" or parameters.get("ACTION") == "DELETE":
            self._jobs.pop(job_id, None)
            return Response(303, {"Location": self._url()})
        if request.method != "POST":
            return self._show(job_id, what)
        if what != "phase":
            return error_page(400, "Only phases.")
        return self._change(job_id, parameters)

    def _add(self, parameters: dict[str, str]) -> str:
        """Take in a job that has not begun, and return its id."""
        job_id = uuid.uuid4().hex[:16]
        self._jobs[job_id] = _Job({k: text for k, text in parameters.items() if k != "PHASE"})
        return job_id

    def _show(self, job_id: str, what: str) -> Response:
        """Return what there is of a job."""
        job = self._jobs[job_id]
        plain = {"Content-Type": "text/plain; charset=utf-8"}
        answers: dict[str | None, Response | None] = {
            "": job.describe(job_id, f"{self._url()}/{job_id}"),
            "phase": Response(200, plain, job.phase.encode()),
            _RESULTS.get(job.phase): job.result,
        }
        return answers.get(what) or error_page(404, "The job does not have that.")

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
        first, _, rest = path.partition("/")
        if first == "async":
            return self._jobs.answer(rest, request, parameters)
        answers = {
            "sync": lambda: self._run(parameters)[0],
            "capabilities": lambda: document(
                "capabilities.xml", url=self.url, default_rows=self.default_rows
            ),
            "availability": lambda: document("availability.xml"),
            "tables": describe_tables,
        }
        return answers.get(path, lambda: error_page(404, "Nothing is served here."))()

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


def _make_table(columns: list[TapColumn], rows: list) -> Table:
    """Return rows of the database as a table."""
    table = Table()
    for number, column in enumerate(columns):
        entries = [row[number] for row in rows]
        table[column.name] = _values(entries, column.kind or _kind_of(entries))
        table[column.name].unit = column.unit or None
    return table


def _kind_of(entries: list) -> str:
    """Return the type of a computed column."""
    kinds = {type(value) for value in entries} - {type(None)}
    if kinds == {int}:
        return "i8"
    return "f8" if kinds <= {int, float} else "S"


def _values(entries: list, kind: str) -> np.ndarray:
    """Return values of the database, where infinity stands for NaN."""
    missing = np.array([value is None for value in entries], bool)
    fill = {"S": "", "f": np.nan}.get(kind[0], 0)
    # Texts as long as they have to be.
    kind = "S" if kind[0] == "S" else kind
    values = np.array([fill if value is None else value for value in entries], kind)
    if kind[0] == "f":
        values[~np.isfinite(values)] = np.nan
    elif missing.any():
        return MaskedColumn(values, mask=missing)
    return values


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


_TOKEN = re.compile(
    r"""(?P<space>\s+|--[^\n]*)
    |(?P<string>'(?:[^']|'')*')
    |(?P<quoted>"(?:[^"]|"")*")
    |(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)
    |(?P<word>[A-Za-z_][A-Za-z_0-9]*)
    |(?P<operator><=|>=|<>|!=|\|\||[-+*/%=<>(),.])""",
    re.VERBOSE,
)
_GEOMETRY = re.compile(
    "AREA|BOX|CENTROID|CIRCLE|CONTAINS|COORD1|COORD2|COORDSYS|DISTANCE|INTERSECTS|POINT|POLYGON"
    "|REGION"
)
_CONE = ("Q3C_RADIAL_QUERY", "Q3C_JOIN")
# Known to sqlite, where they mean another thing, or nothing.
_RENAMED = {"LOG": "ADQL_LOG", "TRUNCATE": "TRUNC"}
# The last two are columns: reserved words are names to nobody without quotes.
_REFUSED = ("LIMIT", "OFFSET", "PRAGMA", "ATTACH", "GLOB", "REGEXP", "MATCH", "BY", "SIZE")


class AdqlError(Exception):
    """A query that the service does not take; the message is the service's."""


def _unexpected(text: str) -> AdqlError:
    return AdqlError(f'ADQL syntax error at or near "{text}"')


class _Token(NamedTuple):
    kind: str
    text: str

    @property
    def word(self) -> str:
        """The word in upper case; empty for what is no word."""
        return self.text.upper() if self.kind == "word" else ""

    @property
    def name(self) -> str:
        """The name that a word or a quoted name is; empty for others."""
        if self.kind == "word":
            return self.text.lower()
        return self.text[1:-1].replace('""', '"') if self.kind == "quoted" else ""

    def sql(self, *, is_called: bool) -> str:
        """Return the token as sqlite takes it."""
        if self.kind == "quoted":
            # Between these it is a name or an error; in quotes sqlite would take it for a string.
            return f"[{self.name.replace(']', '')}]"
        return _RENAMED.get(self.word, self.text) if is_called else self.text


class _Tokens(list[_Token]):
    def at(self, place: int) -> _Token:
        """Return a token; one without text beyond either end."""
        return self[place] if 0 <= place < len(self) else _Token("", "")


def translate(query: str, *, has_q3c: bool = True) -> str:
    """Return a query as sqlite takes it."""
    tokens = _tokens(query)
    if tokens.at(0).word != "SELECT":
        msg = "Only SELECT statements are allowed"
        raise AdqlError(msg)
    for place in range(len(tokens)):
        _check_word(tokens, place, has_q3c)
    _make_cones_plain(tokens)
    return _to_sql(tokens)


def _tokens(query: str) -> _Tokens:
    tokens, place = _Tokens(), 0
    while place < len(query):
        match = _TOKEN.match(query, place)
        if match is None:
            raise _unexpected(query[place : place + 12])
        place = match.end()
        if match.lastgroup != "space":
            tokens.append(_Token(str(match.lastgroup), match[0]))
    return tokens


def _check_word(tokens: _Tokens, place: int, has_q3c: bool) -> None:
    token, before = tokens[place], tokens.at(place - 1)
    if _GEOMETRY.fullmatch(token.word) and tokens.at(place + 1).text == "(":
        msg = f"function {token.text.lower()} is not translated: geometry is not supported"
        raise AdqlError(msg)
    if token.word.startswith("Q3C_") and not has_q3c:
        msg = f"No such function known: {token.text.lower()}"
        raise AdqlError(msg)
    if token.name.startswith(("sqlite_", "pragma_")):
        # Tables that are sqlite's own.
        msg = f'ADQL error: relation "{token.name}" does not exist'
        raise AdqlError(msg)
    is_clause = token.word == "BY" and before.word in ("GROUP", "ORDER")
    if token.word in _REFUSED and not is_clause:
        raise _unexpected(token.text)


def _closing(tokens: _Tokens, opening: int) -> int:
    """Return the place of the parenthesis that closes the one at ``opening``."""
    depth = 0
    for place in range(opening, len(tokens)):
        depth += {"(": 1, ")": -1}.get(tokens[place].text, 0)
        if depth == 0:
            return place
    msg = "ADQL syntax error: a parenthesis is not closed"
    raise AdqlError(msg)


def _make_cones_plain(tokens: _Tokens) -> None:
    """Compare every cone with 't', as sqlite's function answers; refuse other uses of it."""
    for place, token in enumerate(tokens):
        if token.word not in _CONE:
            continue
        if tokens.at(place + 1).text != "(":
            raise _unexpected(token.text)
        end = _closing(tokens, place + 1)
        for operator, value in ((place - 1, place - 2), (end + 1, end + 2)):
            is_true = tokens.at(value).text.lower() in ("'t'", "'true'")
            if is_true and tokens.at(operator).text == "=":
                tokens[value] = _Token("string", "'t'")
                break
        else:
            name = token.text.lower()
            msg = (
                f"ADQL syntax error: function {name} used as a condition; "
                f"expected 't' = {name}(...)"
            )
            raise AdqlError(msg)


def _to_sql(tokens: _Tokens) -> str:
    """Return the statement, each TOP put at the end of its selection."""
    parts: list[str] = []
    limits = [""]
    places = iter(range(len(tokens)))
    for place in places:
        token, after = tokens[place], tokens.at(place + 1)
        if token.word == "TOP" and tokens.at(place - 1).word in ("SELECT", "DISTINCT", "ALL"):
            if not after.text.isdigit():
                raise _unexpected(token.text)
            limits[-1] = f"LIMIT {after.text}"
            next(places)
            continue
        if token.text == "(":
            limits.append("")
        if token.text == ")" and len(limits) > 1:
            parts.append(limits.pop())
        parts.append(token.sql(is_called=after.text == "("))
    return " ".join([*parts, limits[0]])
