"""Files of a small local mirror, damaged in many ways and asked for: run as a process of its own.

``python damaged_files.py TREE KIND COUNT SEED`` prints how each call ended; what is neither right
nor an error of the package is printed with its traceback, and the exit code is 1.
"""

import collections
import faulthandler
import gzip
import random
import shutil
import sys
import tempfile
import traceback
import warnings
from pathlib import Path

import astropy.units as u
from astropy.coordinates import SkyCoord

from astroquery_lis import LegacySurveyClass, conf
from astroquery_lis.exceptions import LegacySurveyError

STAR = SkyCoord(45.1312, 0.0047, unit="deg")
FOLDER = "dr10/south/coadd/045/0451p000/legacysurvey-0451p000"
FILES = {
    "image": f"{FOLDER}-image-r.fits.fz",
    "nexp": f"{FOLDER}-nexp-r.fits.fz",
    "maskbits": f"{FOLDER}-maskbits.fits.fz",
    "tractor": "dr10/south/tractor/045/tractor-0451p000.fits",
    "ccds": f"{FOLDER}-ccds.fits",
    "bricks": "dr10/south/survey-bricks-dr10-south.fits.gz",
}
NUMBERS = ("0", "-1", "1", "2", "7", "8", "255", "65536", "2147483648", "-1099511627776", "1E30")
WORDS = ("'RICE_1'", "'HCOMPRESS_1'", "'PLIO_1'", "'X'", "T", "F", "'1PB(9)'", "'1D'", "''", "NaN")


def damaged_header(raw, chance):
    """Change, swap or blank cards, or bits of them."""
    data = bytearray(raw)
    header_end = min(len(data), 8640)
    for _ in range(chance.choice((1, 1, 1, 2, 5))):
        at = 80 * chance.randrange(header_end // 80)
        kind = chance.randrange(4)
        if kind == 0:
            value = chance.choice(NUMBERS + WORDS).encode()
            data[at + 8 : at + 80] = b"= " + value.rjust(20).ljust(70)
        elif kind == 1:
            other = 80 * chance.randrange(header_end // 80)
            data[at : at + 80], data[other : other + 80] = (
                data[other : other + 80],
                data[at : at + 80],
            )
        elif kind == 2:
            data[at : at + 80] = b" " * 80
        else:
            data[at + chance.randrange(80)] ^= 1 << chance.randrange(8)
    return bytes(data)


def damaged_data(raw, chance):
    """Change bytes behind the headers: tables of tiles, sizes in tiles, the tiles."""
    data = bytearray(raw)
    first = min(8640, len(data) // 2)
    for _ in range(chance.choice((1, 3, 30, 300))):
        at = chance.randrange(first, len(data))
        data[at : at + 1] = bytes([chance.randrange(256)])
    if chance.random() < 0.5:
        magic = data.find(b"\xdd\x99", first)
        if magic > 0:
            for at in (magic + 2, magic + 6):
                data[at : at + 4] = chance.randrange(1, 4000).to_bytes(4, "big")
    if chance.random() < 0.1:
        del data[chance.randrange(first, len(data)) :]
    return bytes(data)


def damaged(raw, damage, chance):
    """Return a damaged file; of one that is compressed, what is inside is damaged, or the whole."""
    if raw[:2] != b"\x1f\x8b" or chance.random() < 0.1:
        return damage(raw, chance)
    return gzip.compress(damage(gzip.decompress(raw), chance), 1)


def calls(survey, name):
    """Return what is asked of a file."""
    cut = {"bands": "r", "source": "bricks"}
    if name == "tractor":
        return [lambda: survey.query_tractor(STAR, radius=20 * u.arcsec, source="files")]
    if name == "bricks":
        return [lambda: survey.query_bricks(STAR, radius=1 * u.arcmin), lambda: survey.covers(STAR)]
    if name == "ccds":
        return [lambda: survey.query_exposures(STAR)]
    products = ("maskbits", "wisem1") if name == "maskbits" else (name,)
    return [lambda: survey.get_cutout(STAR, 200, products=products, **cut)]


def main(tree, kind, count, seed):
    """Ask for damaged files, and print how it went."""
    warnings.simplefilter("ignore")
    faulthandler.enable()
    damage = {"headers": damaged_header, "data": damaged_data}[kind]
    folder = Path(tempfile.mkdtemp())
    raws = {}
    for path in FILES.values():
        raws[path] = Path(tree, path).read_bytes()
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(raws[path])
    shutil.copy(Path(tree, "dr10/survey-bricks.fits.gz"), folder / "dr10")
    conf.cache_dir = tempfile.mkdtemp()
    endings, bad = collections.Counter(), 0
    for number in range(int(count)):
        chance = random.Random(f"{seed}-{number}")
        name = chance.choice(list(FILES))
        path = FILES[name]
        (folder / path).write_bytes(damaged(raws[path], damage, chance))
        survey = LegacySurveyClass()
        survey.mirror = folder
        for call in calls(survey, name):
            try:
                call()
                endings["answered"] += 1
            except LegacySurveyError as error:
                endings[type(error).__name__] += 1
            except Exception:
                bad += 1
                print(f"{seed}-{number} {name}")
                traceback.print_exc()
        (folder / path).write_bytes(raws[path])
    print(dict(endings))
    for made in (folder, conf.cache_dir):
        shutil.rmtree(made)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
