"""Images held open between requests, and local files looked at before they are opened."""

import os
import threading
from collections import OrderedDict
from dataclasses import dataclass, field

from ..exceptions import UnexpectedContentError
from ..io.download import check_fits_head
from ..io.ranges import FIRST_RANGE_BYTES
from .tiles import ImageMap, MoreNeeded, OpenImage

__all__ = ["KnownImage", "OpenImages", "check_whole"]


@dataclass(eq=False)
class KnownImage:
    """An image that is held open, and what is known of its file."""

    image: OpenImage
    stamp: object
    map: ImageMap | None = None
    file: object = None
    prefix: bytes = b""
    runs: object = None
    lock: threading.Lock = field(default_factory=threading.Lock)


class OpenImages:
    """The images used last, held open so that headers and tile tables are parsed once."""

    def __init__(self, limit=64):
        self._limit = limit
        self._begin()

    def _begin(self):
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._images = OrderedDict()

    def __getstate__(self):
        return {"_limit": self._limit}

    def __setstate__(self, state):
        self.__init__(state["_limit"])

    def get(self, key, stamp=None):
        """Return the image held under ``key``, if it is of the state ``stamp``."""
        if self._pid != os.getpid():
            self._begin()
        with self._lock:
            known = self._images.get(key)
            if known is None or (stamp is not None and known.stamp != stamp):
                return None
            self._images.move_to_end(key)
            return known

    def put(self, key, known):
        """Hold an image; the one used longest ago is let go."""
        with self._lock:
            self._images[key] = known
            self._images.move_to_end(key)
            while len(self._images) > self._limit:
                self._images.popitem(last=False)

    def drop(self, key):
        """Let an image go."""
        with self._lock:
            self._images.pop(key, None)

    def clear(self):
        """Let every image go."""
        with self._lock:
            self._images.clear()


def check_whole(path, size):
    """Refuse a local file that ends before its pixels do; astropy would only warn."""
    with open(path, "rb") as stream:
        head = stream.read(FIRST_RANGE_BYTES)
        check_fits_head(path, head, path)
        if str(path).endswith(".gz"):
            return None
        while True:
            try:
                image_map = ImageMap.parse(head, url=path)
                break
            except MoreNeeded as more:
                rest = stream.read(more.stop - len(head))
                if not rest:
                    msg = f"{path} ends before its header or its tile table does."
                    raise UnexpectedContentError(msg, url=str(path)) from None
                head += rest
    if image_map.stops.max() > size:
        msg = f"{path} has {size} bytes; its image needs {image_map.stops.max()}."
        raise UnexpectedContentError(msg, url=str(path))
    return image_map
