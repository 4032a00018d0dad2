"""What the tests of whole files have in common."""

import hashlib
from pathlib import Path

from astropy.coordinates import SkyCoord

BRICK = "0451p000"
HERE = SkyCoord(45.1312, 0.0047, unit="deg")
SMALL = {"products": ("nexp", "maskbits"), "bands": "gr"}
FOLDER = f"dr10/south/coadd/045/{BRICK}/legacysurvey-{BRICK}"
COLUMNS = [
    "Local Path",
    "Status",
    "Message",
    "URL",
    "id",
    "product",
    "release",
    "region",
    "bands",
    "seconds",
    "bytes",
    "sha256",
]


def assert_right(sky, table):
    """Every file that the table names is the one of the tree."""
    for row in table:
        path = Path(row["Local Path"])
        whole = next(sky.root.rglob(path.name)) if row["region"] == "" else None
        for tree in ("dr10/south", "dr9/north"):
            if tree in str(path):
                whole = next((sky.root / tree).rglob(path.name))
        assert path.read_bytes() == whole.read_bytes()
        assert row["bytes"] == whole.stat().st_size
        if row["sha256"]:
            assert row["sha256"] == hashlib.sha256(whole.read_bytes()).hexdigest()


def change(tree, pattern):
    """Damage a file without a trace in its structure; return its path."""
    path = next(tree.rglob(pattern))
    raw = bytearray(path.read_bytes())
    raw[-100] ^= 0xFF
    path.write_bytes(raw)
    return path
