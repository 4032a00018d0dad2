"""A small name resolver in the plain format of Sesame."""

from __future__ import annotations

from urllib.parse import unquote

from . import sky
from .web import Request, Response

# Invented names, and the named places of the scene that they stand for.
NAMES = {"NGC 1": "field", "NGC 2": "split", "HD 1": "star", "HD 2": "bright", "Abell 1": "clump"}


class NameResolver:
    """Answers requests like ``/sesame/SNV?NGC%201``, in the plain format of Sesame.

    It knows the `NAMES` and the scene's own names of places, in upper or lower case, with or
    without spaces.
    """

    def __call__(self, request: Request) -> Response:
        """Return the `Response` to a `Request`."""
        query = unquote(request.query.replace("+", " "))
        lines = [f"# {query}\t#Q1"]
        places = {name: name for name in sky.POSITIONS_DEG} | NAMES
        key = _compact(query)
        name = next((name for name in places if _compact(name) == key), None)
        if name is None:
            lines += ["#!SNV=Simulated: Nothing found", "#!  *** Nothing found ***"]
        else:
            ra, dec = sky.POSITIONS_DEG[places[name]]
            lines += ["#=S=Simulated: 1", f"%J {ra:.8f} {dec:+.8f} = ", f"%I.0 {name}"]
        body = "\n".join([*lines, "#====Done===="]) + "\n\n"
        return Response(200, {"Content-Type": "text/plain; charset=utf-8"}, body.encode())


def _compact(name: str) -> str:
    return "".join(name.lower().split())
