"""The user's MAST token: found, kept out of sight, and explained when it is refused."""

import json
import os
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import urlsplit

from ...exceptions import InvalidRequestError, LegacySurveyError

__all__ = ["Token", "find_token", "refusal"]

VARIABLE = "MAST_API_TOKEN"
KEYRING = ("astroquery:mast.stsci.edu.token", "masttoken")
"""Service and user under which astroquery keeps the token."""

NEW_TOKEN = "https://auth.mast.stsci.edu/token"
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True, repr=False)
class Token:
    """A token; its text appears in no message, log or representation.

    Attributes
    ----------
    text : str
        The token itself.
    source : str
        Where it is from, in words.
    """

    text: str
    source: str

    def __repr__(self):
        return f"<MAST token from {self.source}>"

    __str__ = __repr__


def find_token(token, server):
    """Return the user's token: the argument, the environment's, or that of the keyring.

    Parameters
    ----------
    token : str or None
        The argument.
    server : str
        Where it would be sent.

    Returns
    -------
    Token or None

    Raises
    ------
    InvalidRequestError
        If it cannot be a token, or would travel in the clear.
    """
    text, source = token, "the argument token"
    if text is None:
        text, source = os.environ.get(VARIABLE), f"${VARIABLE}"
    if not text:
        # A computer without a keyring has errors of its own for that.
        with suppress(Exception):
            import keyring

            text, source = keyring.get_password(*KEYRING), "the keyring"
    if not text and token is None:
        return None
    text = text.strip() if isinstance(text, str) else ""
    if not text or not text.isascii() or not text.isprintable() or " " in text or ";" in text:
        msg = f"{source} cannot be a MAST token; make one at {NEW_TOKEN}."
        raise InvalidRequestError(msg, parameter="token")
    parts = urlsplit(server)
    if parts.scheme != "https" and parts.hostname not in _LOOPBACK:
        msg = f"The MAST token is not sent to {server}, which is not an https address."
        raise InvalidRequestError(msg, parameter="token")
    return Token(text, source)


def refusal(client, server, token, file):
    """Return why a file was refused, in words.

    Parameters
    ----------
    client : `~astroquery_lis.io.http.HttpClient`
        Makes the request.
    server : str
        Address of MAST.
    token : Token or None
        What was sent.
    file : str
        Name of the file.

    Returns
    -------
    str
    """
    if token is None:
        return (
            f"MAST gives {file} only to those who may see it, and no MAST token was sent. Give "
            f"token=..., set ${VARIABLE}, or store one with astroquery.mast's login; make one at "
            f"{NEW_TOKEN}."
        )
    name = _whose(client, server, token)
    if name is None:
        return f"MAST refused {file}, although the MAST token from {token.source} was sent."
    if name == "":
        return (
            f"MAST does not accept the MAST token from {token.source} (any more): it has expired "
            f"or is not whole. Make a new one at {NEW_TOKEN}."
        )
    return (
        f"MAST refused {file}: the MAST token from {token.source} is valid, and its owner "
        f"({name}) has no access to this program."
    )


@lru_cache(maxsize=16)
def _whose(client, server, token):
    """Return whose token it is, empty for nobody's, `None` if MAST does not tell."""

    def consume(response):
        return json.loads(response.read(1 << 20))

    # The cookie is what astroquery's client sends to this address.
    headers = {"Accept": "application/json", "Cookie": f"mast_token={token.text}"}
    try:
        info = client.fetch(f"{server}/whoami", consume, headers=lambda: headers)
        if info["anon"]:
            return ""
        return str(info.get("attrib", {}).get("display_name") or "unnamed")
    except (LegacySurveyError, ValueError, KeyError, TypeError, AttributeError):
        return None
