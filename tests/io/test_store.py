"""What must hold of files that several processes write."""

import io

import pytest

from astroquery_lis.io.store import close_unlocked, lock

fcntl = pytest.importorskip("fcntl")


class _Watched(io.FileIO):
    """A file that notes of each write whether another could have locked it."""

    def __init__(self, path):
        super().__init__(path, "w")
        self.was_locked = []

    def write(self, data):
        with open(self.name, "rb") as other:
            try:
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self.was_locked.append(False)
            except BlockingIOError:
                self.was_locked.append(True)
        return super().write(data)


def test_all_is_written_before_another_may_lock_the_file(tmp_path):
    raw = _Watched(tmp_path / "file")
    stream = io.BufferedWriter(raw)
    lock(stream)
    stream.write(b"the end")
    close_unlocked(stream)
    assert raw.was_locked == [True]
    assert stream.closed
    with (tmp_path / "file").open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert other.read() == b"the end"
