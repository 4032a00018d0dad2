"""Pixels of the whole sky: HEALPix (Gorski et al. 2005) and HTM (Kunszt et al. 2001) indices."""

import numpy as np

__all__ = ["healpix_nested", "healpix_ring", "htm"]

# The octahedron of HTM: corners, and the three of each of its faces, S0 to S3 and N0 to N3.
_CORNERS = np.array(
    [[0, 0, 1], [1, 0, 0], [0, 1, 0], [-1, 0, 0], [0, -1, 0], [0, 0, -1]], dtype=float
)
_FACES = (
    (1, 5, 2),
    (2, 5, 3),
    (3, 5, 4),
    (4, 5, 1),
    (1, 0, 4),
    (4, 0, 3),
    (3, 0, 2),
    (2, 0, 1),
)


def _quarters(ra_deg, dec_deg):
    """Return sin(dec) and RA in units of 90 deg, [0, 4)."""
    return np.sin(np.radians(dec_deg)), (np.asarray(ra_deg, float) % 360.0) / 90.0


def _diagonals(nside, z, turn):
    """Return the numbers of the ascending and descending edge lines next to a place."""
    along, across = nside * (0.5 + turn), nside * 0.75 * z
    belt = np.floor(along - across).astype(np.int64), np.floor(along + across).astype(np.int64)
    part = turn - np.floor(turn)
    width = nside * np.sqrt(np.maximum(3 * (1 - np.abs(z)), 0))
    cap = [np.minimum((share * width).astype(np.int64), nside - 1) for share in (part, 1 - part)]
    return belt, cap


def healpix_nested(nside, ra_deg, dec_deg):
    """Return HEALPix indices in nested order.

    Parameters
    ----------
    nside : int
        A power of two.
    ra_deg, dec_deg : `~numpy.ndarray` of float
        Degrees.

    Returns
    -------
    `~numpy.ndarray` of int
    """
    z, turn = _quarters(ra_deg, dec_deg)
    (up, down), (cap_up, cap_down) = _diagonals(nside, z, turn)
    up_face, down_face = up // nside, down // nside
    face = np.where(up_face < down_face, up_face % 4, down_face % 4 + 8)
    face = np.where(up_face == down_face, up_face % 4 + 4, face)
    x, y = down % nside, nside - up % nside - 1
    quarter = np.floor(turn).astype(np.int64)
    north, south = z > 2 / 3, z < -2 / 3
    face = np.select([north, south], [quarter, quarter + 8], face)
    x = np.select([north, south], [nside - cap_down - 1, cap_up], x)
    y = np.select([north, south], [nside - cap_up - 1, cap_down], y)
    index = face * nside**2
    for bit in range(int(nside).bit_length() - 1):
        index += ((x >> bit & 1) << 2 * bit) + ((y >> bit & 1) << 2 * bit + 1)
    return index


def healpix_ring(nside, ra_deg, dec_deg):
    """Return HEALPix indices in ring order.

    Parameters
    ----------
    nside, ra_deg, dec_deg
        As for `healpix_nested`.

    Returns
    -------
    `~numpy.ndarray` of int
    """
    z, turn = _quarters(ra_deg, dec_deg)
    (up, down), (cap_up, cap_down) = _diagonals(nside, z, turn)
    ring = nside + 1 + up - down
    place = ((up + down - nside + 2 - ring % 2) // 2) % (4 * nside)
    belt = 2 * nside * (nside - 1) + (ring - 1) * 4 * nside + place
    ring = cap_up + cap_down + 1
    place = (turn * ring).astype(np.int64) % (4 * ring)
    north = 2 * ring * (ring - 1) + place
    south = 12 * nside**2 - 2 * ring * (ring + 1) + place
    return np.select([z > 2 / 3, z < -2 / 3], [north, south], belt)


def htm(level, ra_deg, dec_deg):
    """Return the indices of the triangles of the Hierarchical Triangular Mesh.

    Parameters
    ----------
    level : int
        How often the octahedron was divided.
    ra_deg, dec_deg : `~numpy.ndarray` of float
        Degrees.

    Returns
    -------
    `~numpy.ndarray` of int
        From ``8 * 4**level`` to below ``16 * 4**level``.
    """
    ra, dec = np.radians(ra_deg), np.radians(dec_deg)
    places = np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=-1)
    triangles = np.broadcast_to(_CORNERS[np.array(_FACES)], (len(places), 8, 3, 3))
    everyone = np.arange(len(places))
    index = np.ones(len(places), np.int64)
    for step in range(level + 1):
        # On an edge rounding may leave a place outside of every triangle: the nearest is taken.
        number = np.argmax(_depth(triangles, places[:, None]), axis=1)
        index = index * (8 if step == 0 else 4) + number
        triangles = _quarter(triangles[everyone, number])
    return index


def _depth(triangles, places):
    """Return how far places are inside triangles; negative outside."""
    edges = np.cross(triangles, np.roll(triangles, -1, axis=-2))
    edges /= np.linalg.norm(edges, axis=-1, keepdims=True)
    return (edges * places[..., None, :]).sum(axis=-1).min(axis=-1)


def _quarter(triangles):
    """Return the four triangles in each: (N, 3, 3) to (N, 4, 3, 3)."""
    first, second, third = np.moveaxis(triangles, 1, 0)
    middles = np.stack([second + third, first + third, first + second])
    w0, w1, w2 = middles / np.linalg.norm(middles, axis=-1, keepdims=True)
    children = ((first, w2, w1), (second, w0, w2), (third, w1, w0), (w0, w1, w2))
    return np.stack([np.stack(corners, axis=1) for corners in children], axis=1)
