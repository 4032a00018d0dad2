"""ADQL as Astro Data Lab takes it, turned into the SQL of sqlite.

What is refused is what that service is reported to refuse: the geometry functions of ADQL, a Q3C
cone that is not compared with ``'t'``, ``LIMIT`` in place of ``TOP``, and reserved words as names
without quotes.
"""

import re
from typing import NamedTuple

__all__ = ["AdqlError", "Translation", "translate"]

_TOKEN = re.compile(
    r"""(?P<space>\s+|--[^\n]*)
    |(?P<string>'(?:[^']|'')*')
    |(?P<quoted>"(?:[^"]|"")*")
    |(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)
    |(?P<word>[A-Za-z_][A-Za-z_0-9]*)
    |(?P<operator><=|>=|<>|!=|\|\||[-+*/%=<>(),.])""",
    re.VERBOSE,
)
_GEOMETRY = {
    "AREA",
    "BOX",
    "CENTROID",
    "CIRCLE",
    "CONTAINS",
    "COORD1",
    "COORD2",
    "COORDSYS",
    "DISTANCE",
    "INTERSECTS",
    "POINT",
    "POLYGON",
    "REGION",
}
_CONE = {"Q3C_RADIAL_QUERY", "Q3C_JOIN"}
_TRUE = {"'t'", "'true'"}
# Known to sqlite, where they mean another thing, or nothing.
_FUNCTIONS = {"LOG": "ADQL_LOG", "TRUNCATE": "TRUNC"}
_REFUSED = {"LIMIT", "OFFSET", "PRAGMA", "ATTACH", "GLOB", "REGEXP", "MATCH"}
# Columns that are reserved words: without quotes they are names to nobody.
_RESERVED = {"BY", "SIZE"}
_CLAUSES = {
    "WHERE",
    "GROUP",
    "HAVING",
    "ORDER",
    "UNION",
    "INTERSECT",
    "EXCEPT",
    "ON",
    "USING",
    "JOIN",
    "INNER",
    "LEFT",
    "RIGHT",
    "FULL",
    "CROSS",
    "NATURAL",
    "OUTER",
    "AS",
}


class AdqlError(Exception):
    """A query that the service does not take; the message is the service's."""


class _Token(NamedTuple):
    kind: str
    text: str

    @property
    def word(self):
        """The word in upper case; empty for what is no word."""
        return self.text.upper() if self.kind == "word" else ""

    @property
    def name(self):
        """The name that a word or a quoted name is; empty for others."""
        if self.kind == "word":
            return self.text.lower()
        return self.text[1:-1].replace('""', '"') if self.kind == "quoted" else ""


class Translation(NamedTuple):
    """A query as sqlite takes it.

    Attributes
    ----------
    sql : str
        The statement.
    tables : dict of str to str
        Name of the table (``schema.table``) by alias and by its own name.
    items : list of (str, str, str)
        For each item of the selection: its name in the result, and where it is a column the
        qualifier (or empty) and the column (``'*'`` for all); empty for an expression.
    """

    sql: str
    tables: dict
    items: list


def _tokens(query):
    found, place = [], 0
    while place < len(query):
        match = _TOKEN.match(query, place)
        if match is None:
            msg = f'ADQL syntax error at or near "{query[place : place + 12]}"'
            raise AdqlError(msg)
        place = match.end()
        if match.lastgroup != "space":
            found.append(_Token(match.lastgroup, match[0]))
    return found


def translate(query, columns, *, has_q3c=True):
    """Return a query as sqlite takes it.

    Parameters
    ----------
    query : str
        ADQL.
    columns : mapping of str to iterable of str
        The columns of each table (``schema.table``, lower case).
    has_q3c : bool, default: True
        Whether the functions of Q3C are known.

    Returns
    -------
    Translation

    Raises
    ------
    AdqlError
        If the service would not take it.
    """
    tokens = _tokens(query)
    if not tokens or tokens[0].word != "SELECT":
        msg = "Only SELECT statements are allowed"
        raise AdqlError(msg)
    _check_words(tokens, has_q3c)
    tokens = _with_plain_cones(tokens)
    tables = _tables(tokens, columns)
    return Translation(_to_sql(tokens), tables, _items(tokens))


def _check_words(tokens, has_q3c):
    nothing = _Token("", "")
    around = zip([nothing, *tokens], tokens, [*tokens[1:], nothing], strict=False)
    for before, token, following in around:
        if token.word in _GEOMETRY and following.text == "(":
            msg = f"function {token.text.lower()} is not translated: geometry is not supported"
            raise AdqlError(msg)
        if token.word.startswith("Q3C_") and not has_q3c:
            msg = f"No such function known: {token.text.lower()}"
            raise AdqlError(msg)
        is_clause = token.word == "BY" and before.word in ("GROUP", "ORDER")
        if token.word in _REFUSED or (token.word in _RESERVED and not is_clause):
            msg = f'ADQL syntax error at or near "{token.text}"'
            raise AdqlError(msg)


def _closing(tokens, opening):
    """Return the place of the parenthesis that closes the one at ``opening``."""
    depth = 0
    for place in range(opening, len(tokens)):
        depth += {"(": 1, ")": -1}.get(tokens[place].text, 0)
        if depth == 0:
            return place
    msg = "ADQL syntax error: a parenthesis is not closed"
    raise AdqlError(msg)


def _with_plain_cones(tokens):
    """Return the tokens with every cone compared with 't'; refuse other uses of it."""
    changed = list(tokens)
    for place, token in enumerate(tokens):
        if token.word not in _CONE:
            continue
        if place + 1 == len(tokens) or tokens[place + 1].text != "(":
            msg = f'ADQL syntax error at or near "{token.text}"'
            raise AdqlError(msg)
        end = _closing(tokens, place + 1)
        if place >= 2 and _is_true(tokens[place - 1], tokens[place - 2]):
            changed[place - 2] = _Token("string", "'t'")
        elif end + 2 < len(tokens) and _is_true(tokens[end + 1], tokens[end + 2]):
            changed[end + 2] = _Token("string", "'t'")
        else:
            name = token.text.lower()
            msg = (
                f"ADQL syntax error: function {name} used as a condition; "
                f"expected 't' = {name}(...)"
            )
            raise AdqlError(msg)
    return changed


def _is_true(operator, value):
    return operator.text == "=" and value.text.lower() in _TRUE


def _tables(tokens, columns):
    """Return the tables that the query names, by alias and by name."""
    found = {}
    for place, token in enumerate(tokens):
        follows = tokens[place - 1].text if place else ""
        if token.kind not in ("word", "quoted") or follows == ".":
            continue
        dotted = [part.name for part in tokens[place : place + 3]]
        if len(dotted) == 3 and tokens[place + 1].text == ".":
            name = f"{dotted[0]}.{dotted[2]}"
            if name.lower() in columns:
                found[dotted[2]] = found[name] = name.lower()
                alias = _alias(tokens, place + 3)
                if alias:
                    found[alias] = name.lower()
        if token.word in ("FROM", "JOIN") and place + 1 < len(tokens):
            _check_table(tokens, place + 1, columns)
    return found


def _check_table(tokens, place, columns):
    """Refuse a name after FROM or JOIN that is no table."""
    if tokens[place].text == "(":
        return
    parts = [tokens[place].name]
    while place + 2 < len(tokens) and tokens[place + 1].text == ".":
        place += 2
        parts.append(tokens[place].name)
    name = ".".join(parts)
    if name.lower() not in columns:
        msg = f'relation "{name}" does not exist'
        raise AdqlError(msg)


def _alias(tokens, place):
    if place < len(tokens) and tokens[place].word == "AS":
        place += 1
    if place < len(tokens) and tokens[place].name and tokens[place].word not in _CLAUSES:
        return tokens[place].name
    return ""


def _to_sql(tokens):
    """Return the statement, each TOP put at the end of its selection."""
    out, limits, depth = [], {}, 0
    skip = 0
    for place, token in enumerate(tokens):
        if skip:
            skip -= 1
            continue
        if token.text == ")":
            if depth in limits:
                out.append(f"LIMIT {limits.pop(depth)}")
            depth -= 1
        if token.text == "(":
            depth += 1
        if token.word == "TOP" and place and _starts_selection(tokens, place):
            count = tokens[place + 1] if place + 1 < len(tokens) else _Token("", "")
            if not count.text.isdigit():
                msg = 'ADQL syntax error at or near "TOP"'
                raise AdqlError(msg)
            limits[depth] = count.text
            skip = 1
            continue
        following = tokens[place + 1].text if place + 1 < len(tokens) else ""
        called = token.word in _FUNCTIONS and following == "("
        if token.kind == "quoted":
            # Between these it is a name or an error; in quotes sqlite would take it for a string.
            out.append(f"[{token.name.replace(']', '')}]")
        else:
            out.append(_FUNCTIONS[token.word] if called else token.text)
    if 0 in limits:
        out.append(f"LIMIT {limits[0]}")
    return " ".join(out)


def _starts_selection(tokens, place):
    return tokens[place - 1].word in ("SELECT", "DISTINCT", "ALL")


def _items(tokens):
    """Return what the outermost selection selects."""
    place = 1
    if place < len(tokens) and tokens[place].word in ("DISTINCT", "ALL"):
        place += 1
    if place < len(tokens) and tokens[place].word == "TOP":
        place += 2
    found, item, depth = [], [], 0
    for token in tokens[place:]:
        depth += {"(": 1, ")": -1}.get(token.text, 0)
        if depth == 0 and token.word == "FROM":
            break
        if depth == 0 and token.text == ",":
            found.append(_item(item, len(found)))
            item = []
        else:
            item.append(token)
    return [*found, _item(item, len(found))]


def _item(tokens, number):
    if not tokens:
        msg = 'ADQL syntax error at or near ","'
        raise AdqlError(msg)
    alias = ""
    if len(tokens) > 2 and tokens[-2].word == "AS":
        alias, tokens = tokens[-1].name, tokens[:-2]
    elif len(tokens) > 1 and tokens[-1].name and _ends_value(tokens[-2]):
        alias, tokens = tokens[-1].name, tokens[:-1]
    names = tokens[::2]
    dotted = all(token.text == "." for token in tokens[1::2])
    if len(tokens) % 2 and dotted and all(token.name or token.text == "*" for token in names):
        column = names[-1].name or "*"
        qualifier = ".".join(token.name for token in names[:-1])
        return alias or column, qualifier, column
    if tokens[0].kind == "word" and len(tokens) > 1 and tokens[1].text == "(":
        return alias or tokens[0].name, "", ""
    return alias or f"column_{number + 1}", "", ""


def _ends_value(token):
    """Tell whether a name that follows is the name of what is before."""
    return token.kind != "operator" or token.text == ")"
