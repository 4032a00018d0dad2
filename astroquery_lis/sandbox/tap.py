"""The TAP service of the simulated survey: sync and async queries, run by sqlite.

It behaves as Astro Data Lab's is known to; see `~.adql` for the dialect.
"""

import io
import math
import sqlite3
import threading
import time
from email.parser import BytesParser
from email.policy import HTTP
from urllib.parse import parse_qsl

from . import vosi
from .adql import AdqlError, translate
from .files import Response, error_page
from .tap_schema import TapColumn, open_database, schema_tables, tap_tables
from .uws import JobList
from .votable import CONTENT_TYPE, error_document, make_table, table_document

__all__ = ["TapService"]

DEFAULT_ROWS = 5000
_LONGEST_QUERY_S = 20.0
_STEPS_BETWEEN_LOOKS = 100_000
_READING = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION}
_FORMATS = {
    "votable": "binary",
    "application/x-votable+xml": "binary",
    "votable/b2": "binary",
    "application/x-votable+xml;serialization=binary2": "binary",
    "votable/td": "tabledata",
    "application/x-votable+xml;serialization=tabledata": "tabledata",
    "csv": "csv",
    "text/csv": "csv",
}
_METADATA = ("capabilities", "availability", "tables")


def _distance_deg(ra1_deg, dec1_deg, ra2_deg, dec2_deg):
    if None in (ra1_deg, dec1_deg, ra2_deg, dec2_deg):
        return None
    dec1, dec2 = math.radians(dec1_deg), math.radians(dec2_deg)
    across = math.sin(math.radians(ra1_deg - ra2_deg) / 2) ** 2
    along = math.sin((dec1 - dec2) / 2) ** 2
    square = along + math.cos(dec1) * math.cos(dec2) * across
    return math.degrees(2 * math.asin(min(1.0, math.sqrt(square))))


def _is_within(ra1_deg, dec1_deg, ra2_deg, dec2_deg, radius_deg):
    distance = _distance_deg(ra1_deg, dec1_deg, ra2_deg, dec2_deg)
    if distance is None or radius_deg is None:
        return None
    return "t" if distance <= radius_deg else "f"


def _or_null(function):
    """Return a function of SQL: NULL for NULL."""

    def call(*values):
        return None if None in values else function(*values)

    return call


_FUNCTIONS = {
    "q3c_radial_query": (5, _is_within),
    "q3c_join": (5, _is_within),
    "q3c_dist": (4, _distance_deg),
    "adql_log": (1, _or_null(math.log)),
    "log10": (1, _or_null(math.log10)),
    "exp": (1, _or_null(math.exp)),
    "sqrt": (1, _or_null(math.sqrt)),
    "power": (2, _or_null(math.pow)),
    "mod": (2, _or_null(math.fmod)),
    "floor": (1, _or_null(math.floor)),
    "ceiling": (1, _or_null(math.ceil)),
    "trunc": (1, _or_null(math.trunc)),
    "degrees": (1, _or_null(math.degrees)),
    "radians": (1, _or_null(math.radians)),
    "sin": (1, _or_null(math.sin)),
    "cos": (1, _or_null(math.cos)),
    "tan": (1, _or_null(math.tan)),
    "asin": (1, _or_null(math.asin)),
    "acos": (1, _or_null(math.acos)),
    "atan": (1, _or_null(math.atan)),
    "atan2": (2, _or_null(math.atan2)),
    "pi": (0, lambda: math.pi),
}


def _only_reading(action, table, *_):
    """Let sqlite read the service's tables, and do nothing else."""
    own = action == sqlite3.SQLITE_READ and table.lower().startswith(("sqlite_", "pragma_"))
    allowed = (action in _READING and not own) or action == sqlite3.SQLITE_RECURSIVE
    return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY


class TapService:
    """Answers the requests below the address of the service.

    Parameters
    ----------
    prefix : str
        Path of the service, without a slash at the end.

    Attributes
    ----------
    url : str
        Address of the service; set when it is known.
    default_rows : int
        How many rows are given at most where the request names no ``MAXREC``.
    has_q3c : bool
        Whether the functions of Q3C are known; not every TAP service has them.
    """

    def __init__(self, prefix):
        self.url = prefix
        self.default_rows = DEFAULT_ROWS
        self.has_q3c = True
        self._prefix = prefix
        self._lock = threading.Lock()
        self._database = None
        self._tables = None
        self._deadline = 0.0
        self._jobs = JobList(lambda: f"{self.url}/async", self._run)

    def __call__(self, request):
        """Return the `Response` to a `Request`."""
        path = request.path[len(self._prefix) :].strip("/")
        try:
            parameters = _parameters(request)
        except ValueError as err:
            return error_document(f"The request cannot be read: {err}", 400)
        if path == "sync":
            response, _ = self._run(parameters)
            return response
        if path == "async" or path.startswith("async/"):
            return self._jobs.answer(path[len("async") :], request, parameters)
        if path.split("/")[0] in _METADATA:
            return vosi.answer(path, parameters, url=self.url, default_rows=self.default_rows)
        return error_page(404, "Nothing is served here.")

    def _run(self, parameters):
        """Return the `Response` to a query, and the message if it went wrong."""
        try:
            return self._answer(parameters), None
        except AdqlError as err:
            return error_document(str(err)), str(err)
        except sqlite3.Error as err:
            message = f"ADQL error: {err}"
            return error_document(message), message

    def _answer(self, parameters):
        if parameters.get("REQUEST", "doQuery") != "doQuery":
            msg = f"REQUEST={parameters['REQUEST']} is not supported"
            raise AdqlError(msg)
        if not parameters.get("LANG", "ADQL").upper().startswith("ADQL"):
            msg = f"LANG={parameters['LANG']} is not supported"
            raise AdqlError(msg)
        if "UPLOAD" in parameters:
            msg = "UPLOAD is not supported"
            raise AdqlError(msg)
        wanted = parameters.get("RESPONSEFORMAT") or parameters.get("FORMAT") or "votable"
        form = _FORMATS.get(wanted.replace(" ", "").lower())
        if form is None:
            msg = f"FORMAT={wanted} is not supported"
            raise AdqlError(msg)
        query = parameters.get("QUERY", "").strip()
        limit = parameters.get("MAXREC", "")
        if limit and not limit.isdigit():
            msg = f"MAXREC={limit} is not a number of rows"
            raise AdqlError(msg)
        table, overflow = self._query(query, int(limit) if limit else self.default_rows)
        if form == "csv":
            text = io.StringIO()
            table.write(text, format="ascii.csv")
            return Response(200, {"Content-Type": "text/csv"}, text.getvalue().encode())
        body = table_document(table, query=query, overflow=overflow, binary=form == "binary")
        return Response(200, {"Content-Type": CONTENT_TYPE}, body)

    def _query(self, query, limit):
        with self._lock:
            self._open()
            made = translate(query, self._tables, has_q3c=self.has_q3c)
            self._deadline = time.monotonic() + _LONGEST_QUERY_S
            cursor = self._database.execute(made.sql)
            rows = cursor.fetchmany(limit + 1)
            names = [entry[0] for entry in cursor.description]
            cursor.close()
        columns = self._result_columns(made, names, rows)
        return make_table(columns, rows[:limit]), len(rows) > limit

    def _open(self):
        """Open the database at the first query; the caller holds the lock."""
        if self._database is not None:
            return
        known = {**tap_tables(), **schema_tables()}
        self._tables = {
            name: [column.name for column in table.columns] for name, table in known.items()
        }
        database = open_database()
        for name, (count, function) in _FUNCTIONS.items():
            database.create_function(name, count, function, deterministic=True)
        database.execute("PRAGMA case_sensitive_like = ON")
        database.set_authorizer(_only_reading)
        # Or a join of everything with everything would keep the others waiting.
        database.set_progress_handler(self._is_late, _STEPS_BETWEEN_LOOKS)
        self._database = database

    def _is_late(self):
        return time.monotonic() > self._deadline

    def _result_columns(self, made, names, rows):
        known = {**tap_tables(), **schema_tables()}
        found = []
        for name, qualifier, column in made.items:
            tables = [made.tables[qualifier]] if qualifier in made.tables else []
            if not qualifier:
                tables = list(dict.fromkeys(made.tables.values()))
            if column == "*":
                found += [entry for table in tables for entry in known[table].columns]
                continue
            types = [e for t in tables for e in known[t].columns if e.name == column.lower()]
            if types:
                found.append(types[0]._replace(name=name))
            else:
                found.append(TapColumn(name, ""))
        if len(found) != len(names):
            found = [TapColumn(name, "") for name in names]
        return [
            column if column.kind else column._replace(kind=_kind_of(row[i] for row in rows))
            for i, column in enumerate(found)
        ]

    def close(self):
        """Forget the tables."""
        with self._lock:
            if self._database is not None:
                self._database.close()
            self._database = None


def _kind_of(values):
    """Return the type of a computed column."""
    kinds = {type(value) for value in values} - {type(None)}
    if kinds and kinds <= {int}:
        return "i8"
    return "f8" if kinds <= {int, float} else "S64"


def _parameters(request):
    """Return the parameters of a request, names in upper case, from its query and its body."""
    found = dict(parse_qsl(request.query, keep_blank_values=True))
    kind = request.headers.get("Content-Type") or ""
    if request.method == "POST" and kind.startswith("multipart/form-data"):
        head = f"Content-Type: {kind}\r\n\r\n".encode()
        message = BytesParser(policy=HTTP).parsebytes(head + request.body)
        for part in message.iter_parts():
            name = part.get_param("name", header="content-disposition")
            if name:
                found[name] = (part.get_payload(decode=True) or b"").decode("utf-8", "replace")
    elif request.method == "POST":
        found |= dict(parse_qsl(request.body.decode("utf-8"), keep_blank_values=True))
    return {name.upper(): value for name, value in found.items()}
