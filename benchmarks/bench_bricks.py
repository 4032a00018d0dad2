"""Positions to bricks: a million at once, against desiutil."""

import numpy as np
from _report import median_seconds, options, report
from desiutil.brick import Bricks

from astroquery_lis.survey.bricks import brick_id, brick_name

N = 1_000_000


def main():
    chosen = options(__doc__)
    rng = np.random.default_rng(1)
    ra = rng.uniform(0, 360, N)
    dec = np.degrees(np.arcsin(rng.uniform(-1, 1, N)))
    desi = Bricks(0.25)
    assert np.array_equal(brick_id(ra, dec), desi.brickid(ra, dec))
    ours = median_seconds(lambda: brick_id(ra, dec), chosen.runs)
    theirs = median_seconds(lambda: desi.brickid(ra, dec), chosen.runs)
    names = median_seconds(lambda: brick_name(ra, dec), chosen.runs)
    their_names = median_seconds(lambda: desi.brickname(ra, dec), chosen.runs)
    rows = [
        ("ids of 10^6 positions", 1e3 * ours, "ms"),
        ("the same by desiutil, relative", theirs / ours, "x"),
        ("names of 10^6 positions", 1e3 * names, "ms"),
        ("the same by desiutil, relative", their_names / names, "x"),
    ]
    report("Brick lookup", rows, chosen)


if __name__ == "__main__":
    main()
