"""ADQL as Astro Data Lab takes it, turned into the SQL of sqlite.

What is refused is what that service is reported to refuse: the geometry functions of ADQL, a Q3C
cone that is not compared with ``'t'``, ``LIMIT`` instead of ``TOP``, and reserved words as names
without quotes.
"""

import re
from typing import NamedTuple

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
_FUNCTIONS = {"LOG": "ADQL_LOG", "TRUNCATE": "TRUNC"}
_REFUSED = ("LIMIT", "OFFSET", "PRAGMA", "ATTACH", "GLOB", "REGEXP", "MATCH")
# Columns that are reserved words: without quotes they are names to nobody.
_RESERVED = ("BY", "SIZE")


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
    _check_words(tokens, has_q3c)
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


def _check_words(tokens: _Tokens, has_q3c: bool) -> None:
    for place, token in enumerate(tokens):
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
        is_clause = token.word == "BY" and tokens.at(place - 1).word in ("GROUP", "ORDER")
        if token.word in _REFUSED or (token.word in _RESERVED and not is_clause):
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
    limits: dict[int, str] = {}
    depth = 0
    for place, token in enumerate(tokens):
        before = tokens.at(place - 1)
        if before.word == "TOP" and limits.get(depth) == token.text:
            continue
        if token.word == "TOP" and before.word in ("SELECT", "DISTINCT", "ALL"):
            limits[depth] = tokens.at(place + 1).text
            if not limits[depth].isdigit():
                raise _unexpected(tokens[place].text)
            continue
        if token.text == ")":
            if depth in limits:
                parts.append(f"LIMIT {limits.pop(depth)}")
            depth -= 1
        depth += token.text == "("
        if token.kind == "quoted":
            # Between these it is a name or an error; in quotes sqlite would take it for a string.
            parts.append(f"[{token.name.replace(']', '')}]")
        else:
            is_called = tokens.at(place + 1).text == "("
            parts.append(_FUNCTIONS.get(token.word, token.text) if is_called else token.text)
    if 0 in limits:
        parts.append(f"LIMIT {limits[0]}")
    return " ".join(parts)
