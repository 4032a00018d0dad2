"""A name resolver for the simulated sky, in the plain format of Sesame."""

from urllib.parse import unquote

from . import sky
from .files import Response

__all__ = ["NAMES", "NameResolver"]

NAMES = {"NGC 1": "field", "NGC 2": "split", "HD 1": "star", "HD 2": "bright", "Abell 1": "clump"}
"""Invented names, and the named places of the scene that they stand for."""


def _key(name):
    return "".join(name.lower().split())


class NameResolver:
    """Answers requests like ``/sesame/SNV?NGC%201``.

    It knows the `NAMES` and the scene's own names of places, in upper or lower case, with or
    without spaces.
    """

    def __init__(self):
        self._places = {_key(name): (name, at) for name, at in sky.POSITIONS_DEG.items()}
        for name, place in NAMES.items():
            self._places[_key(name)] = name, sky.POSITIONS_DEG[place]

    def __call__(self, request):
        """Return the `Response` to a `Request`."""
        asked = unquote(request.query.replace("+", " "))
        lines = [f"# {asked}\t#Q1"]
        found = self._places.get(_key(asked))
        if found is None:
            lines += ["#!SNV=Simulated: Nothing found", "#!  *** Nothing found ***"]
        else:
            name, (ra, dec) = found
            lines += ["#=S=Simulated: 1", f"%J {ra:.8f} {dec:+.8f} = ", f"%I.0 {name}"]
        lines += ["#====Done===="]
        body = "\n".join(lines) + "\n\n"
        return Response(200, {"Content-Type": "text/plain; charset=utf-8"}, body.encode())
