"""One cutout of 256 pixels, g r z, image and invvar, over links, beside what people use instead.

For each link: the first cutout with nothing cached, and a second one elsewhere in the same files.
The floor of the first is a handshake and two dependent requests, four round trips, and the bytes;
that of the second one round trip and its bytes: those that our own client asks for.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from _link import PROFILES
from _report import parser, report
from _rivals import RIVALS
from _served import served
from astropy.coordinates import SkyCoord

from astroquery_lis import LegacySurveyClass

ASKED = {"size": 256, "bands": "grz", "products": ("image", "invvar")}
COLD_ROUND_TRIPS, SECOND_ROUND_TRIPS = 4, 1
SLOW = ("whole files + Cutout2D", "astropy + fsspec, defaults", "astrocut")


def measure(name, mirror, urls, places, sky):
    """Return [(seconds, requests, bytes)] of the two cutouts, made in a fresh process."""
    asked = json.dumps({"mirror": mirror, "urls": urls, "places": places})
    # Astrocut keeps what it downloads in astropy's cache: nobody may begin with another's.
    caches = tempfile.mkdtemp()
    Path(caches, "astropy").mkdir()
    process = subprocess.Popen(
        [sys.executable, "_rivals.py", name, asked],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parent,
        env={**os.environ, "XDG_CACHE_HOME": caches},
    )
    found = []
    sky.counts()
    for _ in places:
        process.stdin.write("\n")
        process.stdin.flush()
        said = json.loads(process.stdout.readline() or '{"error": "it ended"}')
        if "error" in said:
            process.kill()
            raise RuntimeError(f"{name}: {said['error']}")
        assert said["planes"] == len(urls), (name, said)
        found.append((said["seconds"], *sky.counts()))
    process.stdin.close()
    process.wait(60)
    shutil.rmtree(caches, ignore_errors=True)
    return found


def main():
    arguments = parser(__doc__)
    arguments.add_argument(
        "--profile", action="append", choices=PROFILES, help="only this link; may be repeated"
    )
    arguments.add_argument("--rival", action="append", choices=RIVALS, help="only these, likewise")
    chosen = arguments.parse_args()
    rows = []
    with served() as sky:
        places = [sky.places["field"], sky.places["star"]]
        survey = LegacySurveyClass()
        for profile_name in chosen.profile or PROFILES:
            profile, mirror = PROFILES[profile_name], sky.mirrors[profile_name]
            survey.mirror = mirror
            where = SkyCoord(*places[0], unit="deg")
            urls = survey.get_cutout(where, **ASKED, get_query_payload=True)["urls"]
            floors = None
            for name in chosen.rival or RIVALS:
                runs = 1 if name in SLOW and profile.bytes_per_s else chosen.runs
                found = [measure(name, mirror, urls, places, sky) for _ in range(runs)]
                medians = [
                    [median(run[number][part] for run in found) for part in range(3)]
                    for number in range(len(places))
                ]
                if floors is None:
                    floors = [
                        profile.floor_s(trips, medians[number][2])
                        for number, trips in enumerate((COLD_ROUND_TRIPS, SECOND_ROUND_TRIPS))
                    ]
                for (seconds, requests, sent), which, floor in zip(
                    medians, ("first", "second"), floors, strict=True
                ):
                    label = f"{profile_name} | {name} | {which}"
                    rows.append((f"{label}: time", seconds, "s"))
                    if floor:
                        rows.append((f"{label}: over the floor", seconds / floor, "x"))
                    rows.append((f"{label}: requests", requests, ""))
                    rows.append((f"{label}: bytes", sent / 1e6, "MB"))
    report("One cutout over links", rows, chosen)


if __name__ == "__main__":
    main()
