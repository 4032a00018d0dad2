"""A slow link in front of a server on this machine: a TCP proxy with the delays of a network.

What it imitates, per connection: a handshake of two round trips (TCP and TLS 1.3), half a round
trip each way, slow start (an initial window of ten segments that grows by what is acknowledged, and
is small again after a second of silence).  All connections share one downlink.  There is no loss
and no jitter, and the uplink is as wide as it needs to be.
"""

import asyncio
from collections import deque
from dataclasses import dataclass

__all__ = ["PROFILES", "Link", "Profile"]

SEGMENT = 1460
INITIAL_WINDOW = 10 * SEGMENT  # RFC 6928
IDLE_S = 1.0
HANDSHAKE_ROUND_TRIPS = 2


@dataclass(frozen=True)
class Profile:
    """Round trip in seconds and downlink in bytes per second; zero for none and without a limit."""

    round_trip_s: float
    bytes_per_s: float

    def floor_s(self, round_trips, n_bytes):
        """Return the least time for dependent round trips and bytes."""
        line_s = n_bytes / self.bytes_per_s if self.bytes_per_s else 0.0
        return round_trips * self.round_trip_s + line_s


PROFILES = {
    "loopback": Profile(0.0, 0.0),
    "50 ms, 20 Mbit/s": Profile(0.050, 20e6 / 8),
    "150 ms, 50 Mbit/s": Profile(0.150, 50e6 / 8),
    "150 ms, 10 Mbit/s": Profile(0.150, 10e6 / 8),
}


class Link:
    """A proxy to a port of this machine; ``port`` is where it listens once it is started."""

    def __init__(self, profile, target_port):
        self.profile, self.target_port = profile, target_port
        self.port = None
        self._free_s = 0.0

    async def start(self):
        """Listen on a free port."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]

    def _reserve(self, n_bytes):
        """Return the time when the shared downlink has carried the bytes."""
        now = asyncio.get_running_loop().time()
        if not self.profile.bytes_per_s:
            return now
        self._free_s = max(now, self._free_s) + n_bytes / self.profile.bytes_per_s
        return self._free_s

    async def _serve(self, client_reader, client_writer):
        try:
            await asyncio.sleep(HANDSHAKE_ROUND_TRIPS * self.profile.round_trip_s)
            reader, writer = await asyncio.open_connection("127.0.0.1", self.target_port)
        except OSError:
            client_writer.close()
            return
        try:
            await asyncio.gather(self._up(client_reader, writer), self._down(reader, client_writer))
        except OSError:
            pass
        finally:
            writer.close()
            client_writer.close()

    async def _up(self, source, sink):
        half_s = self.profile.round_trip_s / 2
        while data := await source.read(1 << 16):
            if half_s:
                await asyncio.sleep(half_s)
            sink.write(data)
            await sink.drain()
        sink.close()

    async def _down(self, source, sink):
        if not self.profile.round_trip_s:
            while data := await source.read(1 << 18):
                sink.write(data)
                await sink.drain()
            sink.close()
            return
        window = _Window(self.profile.round_trip_s)
        arriving = asyncio.Queue()
        delivery = asyncio.create_task(self._deliver(arriving, sink))
        while data := await source.read(4 * SEGMENT):
            await window.admit(len(data))
            sent_s = self._reserve(len(data))
            window.send(len(data), sent_s)
            arriving.put_nowait((sent_s + self.profile.round_trip_s / 2, data))
            await _until(sent_s)
        arriving.put_nowait((0.0, b""))
        await delivery

    async def _deliver(self, arriving, sink):
        while True:
            when_s, data = await arriving.get()
            if not data:
                sink.close()
                return
            await _until(when_s)
            sink.write(data)
            await sink.drain()


class _Window:
    """The congestion window of one connection, in slow start."""

    def __init__(self, round_trip_s):
        self._round_trip_s = round_trip_s
        self._size = INITIAL_WINDOW
        self._flying = deque()
        self._flying_bytes = 0
        self._last_s = 0.0

    def _acknowledge(self, now):
        while self._flying and self._flying[0][0] <= now:
            _, n_bytes = self._flying.popleft()
            self._flying_bytes -= n_bytes
            self._size += n_bytes

    async def admit(self, n_bytes):
        """Wait until the window has room."""
        loop = asyncio.get_running_loop()
        self._acknowledge(loop.time())
        if not self._flying and loop.time() - self._last_s > IDLE_S:
            self._size = INITIAL_WINDOW
        while self._flying and self._flying_bytes + n_bytes > self._size:
            await _until(self._flying[0][0])
            self._acknowledge(loop.time())

    def send(self, n_bytes, sent_s):
        """Note bytes that leave the sender at ``sent_s``."""
        self._flying.append((sent_s + self._round_trip_s, n_bytes))
        self._flying_bytes += n_bytes
        self._last_s = sent_s


async def _until(when_s):
    delay_s = when_s - asyncio.get_running_loop().time()
    if delay_s > 0:
        await asyncio.sleep(delay_s)
