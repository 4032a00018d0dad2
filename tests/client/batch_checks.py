"""What the tests of long lists of cutouts have in common."""

from collections import Counter
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.table import Table

OPTIONS = {"bands": "gr", "products": ("image", "invvar")}


def make_targets(sky, n=24, width_deg=0.05, seed=0):
    """Targets in the fully observed brick, at a corner of four, and where there is nothing."""
    rng = np.random.default_rng(seed)
    field, corner = sky.positions["field"], sky.positions["corner"]
    near = [field] * (n - n // 4 - 2) + [corner] * (n // 4)
    ra = [p.ra.deg + rng.uniform(-0.5, 0.5) * width_deg * (1 if p is field else 0.3) for p in near]
    dec = [
        p.dec.deg + rng.uniform(-0.5, 0.5) * width_deg * (1 if p is field else 0.3) for p in near
    ]
    table = Table({"ra": [*ra, 95.0, np.nan], "dec": [*dec, 10.0, 0.0]})
    table["name"] = [f"T{i:03d}" for i in range(n)]
    return table[rng.permutation(n)]


def file_states(folder):
    """Return the state of every finished file."""
    return {
        path.name: (path.stat().st_ino, path.stat().st_mtime_ns)
        for path in Path(folder).glob("*.fits")
    }


def contents(manifest):
    return {
        row["id"]: (row["Status"], row["Local Path"] and Path(row["Local Path"]).read_bytes())
        for row in manifest
    }


def check_manifest(manifest, n):
    """Every row has one final status, and every file is whole."""
    assert len(manifest) == n
    counts = Counter(manifest["Status"].tolist())
    assert counts == {"COMPLETE": n - 2, "NODATA": 1, "SKIPPED": 1}
    for row in manifest[manifest["Status"] == "COMPLETE"]:
        path = Path(row["Local Path"])
        assert path.stat().st_size == row["bytes"] > 0
        with fits.open(path) as hdul:
            assert [hdu.name for hdu in hdul[1:]] == ["IMAGE_G", "IMAGE_R", "INVVAR_G", "INVVAR_R"]
