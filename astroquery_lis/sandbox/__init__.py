"""A small simulated sky, served on this computer in the survey's own formats.

Some hundred stars and galaxies of known position, shape and flux, on bricks of DR10 (south) and
DR9 (north), in files with the survey's names, codecs and headers, behind a real HTTP server that
can be told to misbehave.  Tests of your own code run on it without a network::

    from astroquery_lis import LegacySurvey, sandbox

    with sandbox.serve() as sky:
        hdul = LegacySurvey.get_cutout(sky.positions['field'], bands='grz')
        print(sky.truth['ra', 'dec', 'flux_r'][:3], len(sky.requests))

Each file is made when it is first asked for, and kept in astropy's cache; `build` makes all.
"""

from .mast import serve_mast
from .server import Sandbox, serve
from .tree import build, write_reduction

__all__ = ["Sandbox", "build", "serve", "serve_mast", "write_reduction"]
