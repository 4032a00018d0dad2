"""A server that sends just the bytes that it is told to, as slowly as it is told to."""

import contextlib
import socket
import threading

__all__ = ["OK", "RawServer"]

OK = b"HTTP/1.1 200 OK\r\n"


class RawServer:
    """Sends the same for every request, a byte at a time from some point on."""

    def __init__(self, answer, *, at_once, wait_s=0.05):
        self.answer, self.at_once, self.wait_s = answer, at_once, wait_s
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}/x.fits"
        self.over = threading.Event()
        self.threads = [threading.Thread(target=self._accept)]
        self.threads[0].start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.socket.accept()
                self.threads.append(threading.Thread(target=self._serve, args=(connection,)))
                self.threads[-1].start()

    def _serve(self, connection):
        with contextlib.suppress(OSError), connection:
            connection.recv(65536)
            connection.sendall(self.answer[: self.at_once])
            for byte in self.answer[self.at_once :]:
                if self.over.wait(self.wait_s):
                    return
                connection.sendall(bytes([byte]))

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.over.set()
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        for thread in self.threads:
            thread.join()
