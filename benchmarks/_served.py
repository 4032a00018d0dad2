"""The embedded sky behind every link, in a process of its own, so that it takes no client's turn.

On standard output one JSON line says where everything is.  Each line on standard input is answered
by one with the requests and bytes since the last.
"""

import asyncio
import json
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

from _link import PROFILES, Link

from astroquery_lis import sandbox

__all__ = ["Served", "served"]


def main():
    """Serve until standard input ends."""
    with sandbox.serve(configure=False) as sky:
        links = {name: Link(profile, _port(sky.url)) for name, profile in PROFILES.items()}
        loop = asyncio.new_event_loop()
        threading.Thread(target=loop.run_forever, daemon=True).start()
        for link in links.values():
            asyncio.run_coroutine_threadsafe(link.start(), loop).result()
        places = {name: (place.ra.deg, place.dec.deg) for name, place in sky.positions.items()}
        mirrors = {
            name: f"http://127.0.0.1:{link.port}/legacysurvey" for name, link in links.items()
        }
        print(json.dumps({"root": str(sky.root), "mirrors": mirrors, "places": places}), flush=True)
        for _ in sys.stdin:
            records = list(sky.requests)
            sky.requests.clear()
            sent = sum(record.bytes_sent for record in records)
            print(json.dumps({"requests": len(records), "bytes": sent}), flush=True)


def _port(url):
    return int(url.rpartition(":")[2])


class Served:
    """A running `main`: ``mirrors`` by profile, ``places``, ``root`` and what was asked."""

    def __init__(self, process):
        self._process = process
        said = json.loads(process.stdout.readline())
        self.root, self.mirrors, self.places = said["root"], said["mirrors"], said["places"]

    def counts(self):
        """Return (requests, bytes) since the last call."""
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        said = json.loads(self._process.stdout.readline())
        return said["requests"], said["bytes"]


@contextmanager
def served():
    """Run the server meanwhile."""
    process = subprocess.Popen(
        [sys.executable, __file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parent,
    )
    try:
        yield Served(process)
    finally:
        process.stdin.close()
        process.wait(30)


if __name__ == "__main__":
    main()
