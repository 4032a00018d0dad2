"""Boxes of the pixels of the simulated bricks, read from their files and kept for a while."""

import threading
from collections import OrderedDict
from pathlib import Path

import numpy as np
from astropy.io import fits

from .._codecs import decoding
from ..survey import bricks, paths, releases

__all__ = ["PlaneStore"]

SIZE_PIX = bricks.IMAGE_SIZE_PIX
_BLOCK_PIX = 400
_MAX_BLOCKS = 120
"""At most 77 MB of pixels are kept."""


class PlaneStore:
    """Reads coadds block by block.

    Parameters
    ----------
    root : path-like
        Folder of the tree.
    """

    def __init__(self, root):
        self._root = Path(root)
        self._blocks = OrderedDict()
        self._lock = threading.Lock()

    def path(self, tree, product, brick, band=None):
        """Return the file of a product.

        Parameters
        ----------
        tree : tuple of (str, str)
            Release and region.
        product, brick : str
            As for `~..survey.paths.file_path`.
        band : str, optional
            Left out for maskbits.

        Returns
        -------
        `~pathlib.Path` or None
            `None` if there is no such file.
        """
        if band is not None and band not in releases.get_tree(*tree).bands:
            return None
        path = self._root / paths.file_path(product, *tree, brick=brick, band=band)
        return path if path.is_file() else None

    def read(self, path, box):
        """Return a box of the first image of a file.

        Parameters
        ----------
        path : `~pathlib.Path`
            The file.
        box : `~..survey.pixel_grids.Box`
            Inside the brick.

        Returns
        -------
        `~numpy.ndarray`
            Of the box's shape.
        """
        rows = range(box.y0 // _BLOCK_PIX, -(-box.y1 // _BLOCK_PIX))
        columns = range(box.x0 // _BLOCK_PIX, -(-box.x1 // _BLOCK_PIX))
        blocks = self._get(path, [(row, column) for row in rows for column in columns])
        first_y, first_x = rows[0] * _BLOCK_PIX, columns[0] * _BLOCK_PIX
        joined = np.concatenate(
            [np.concatenate([blocks[row, column] for column in columns], axis=1) for row in rows]
        )
        return joined[box.moved(-first_y, -first_x).slices]

    def _get(self, path, keys):
        found = {}
        with self._lock:
            for key in keys:
                block = self._blocks.get((path, key))
                if block is not None:
                    self._blocks.move_to_end((path, key))
                    found[key] = block
        missing = [key for key in keys if key not in found]
        if missing:
            with fits.open(path) as hdul, decoding(hdul[1]):
                section = hdul[1].section
                for key in missing:
                    y0, x0 = key[0] * _BLOCK_PIX, key[1] * _BLOCK_PIX
                    found[key] = section[y0 : y0 + _BLOCK_PIX, x0 : x0 + _BLOCK_PIX]
            with self._lock:
                self._blocks.update({(path, key): found[key] for key in missing})
                while len(self._blocks) > _MAX_BLOCKS:
                    self._blocks.popitem(last=False)
        return found
