"""The embedded sky behind every link, in a process of its own, so that it takes no client's turn.

On standard output one JSON line says where everything is.  Each line on standard input is answered
by one with the requests and bytes since the last, and how many of them a fault has hit; it holds
the fault that goes wrong from then on in place of the one before, as JSON, or nothing.  After a
``+`` comes one more fault, and the answer is an empty object.
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

_BYTES = ("content", "start", "chunk")


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
        urls = {name: getattr(sky, f"{name}_url") for name in ("mirror", "viewer", "tap")}
        about = {"root": str(sky.root), "mirrors": mirrors, "places": places, "urls": urls}
        print(json.dumps(about), flush=True)
        fault = None
        for line in sys.stdin:
            if line.startswith("+"):
                sky.faults.add(**_options(line[1:]))
                print("{}", flush=True)
                continue
            records = list(sky.requests)
            sky.requests.clear()
            sent = sum(record.bytes_sent for record in records)
            said = {"requests": len(records), "bytes": sent, "hits": fault.hits if fault else 0}
            sky.faults.clear()
            fault = sky.faults.add(**_options(line)) if line.strip() else None
            print(json.dumps(said), flush=True)


def _options(line):
    """Return the options of a fault, in which text stands for bytes."""
    return {
        name: value.encode("latin-1") if name in _BYTES and isinstance(value, str) else value
        for name, value in json.loads(line).items()
    }


def _port(url):
    return int(url.rpartition(":")[2])


class Served:
    """A running `main`: ``mirrors`` by profile, ``urls``, ``places``, ``root``, what was asked."""

    def __init__(self, process):
        self._process = process
        self.pid = process.pid
        said = json.loads(process.stdout.readline())
        self.root, self.mirrors, self.places = said["root"], said["mirrors"], said["places"]
        self.urls = said["urls"]

    def counts(self):
        """Return (requests, bytes) since the last call."""
        said = self.fail()
        return said["requests"], said["bytes"]

    def fail(self, **fault):
        """Let something go wrong from now on, or nothing; return what happened until now."""
        return self._asked(json.dumps(fault) if fault else "")

    def also(self, **fault):
        """Let something else go wrong too, where what `fail` named does not."""
        self._asked(f"+{json.dumps(fault)}")

    def _asked(self, line):
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


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
