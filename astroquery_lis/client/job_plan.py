"""Many targets put into jobs: grouped by brick, tested against the footprint, without a request."""

from dataclasses import dataclass

import numpy as np

from ..catalogs.footprint import holds
from ..images.save import CutoutJob
from ..survey.bricks import brick_id, region_of_brick
from ..survey.releases import PIXEL_SCALE_ARCSEC, get_release

__all__ = ["BulkPlan", "job_bounds", "plan_cutouts"]

MAX_TARGETS_PER_JOB = 512
"""A brick with more is shared among jobs, each a band of declination."""

SAMPLE_STEP_DEG = 0.2
"""Boxes are sampled more densely than bricks are wide, so that no brick is passed over."""

POLE_DEG = 85.0
"""Beyond this declination the footprint is not asked; the files decide."""


@dataclass(frozen=True, eq=False)
class BulkPlan:
    """What is to be done for many targets.

    Attributes
    ----------
    ids : `~numpy.ndarray`
        What the user calls the targets.
    ra_deg, dec_deg : `~numpy.ndarray` of float
        ICRS, of every target.
    no_data : `~numpy.ndarray` of int
        Rows of which the release has no brick.
    order : `~numpy.ndarray` of int
        The other rows, by brick, and within a brick by declination.
    bounds : list of int
        Where in ``order`` each job begins, and the end.
    """

    ids: np.ndarray
    ra_deg: np.ndarray
    dec_deg: np.ndarray
    no_data: np.ndarray
    order: np.ndarray
    bounds: list

    def jobs(self):
        """Yield a `CutoutJob` for each piece of the work."""
        for start, stop in zip(self.bounds, self.bounds[1:], strict=False):
            rows = self.order[start:stop]
            yield CutoutJob(rows, self.ids[rows], self.ra_deg[rows], self.dec_deg[rows])


def plan_cutouts(
    ids,
    ra_deg,
    dec_deg,
    rows,
    *,
    shape,
    release,
    region,
    footprint,
    partial=False,
    targets_per_job=1,
    max_targets=MAX_TARGETS_PER_JOB,
):
    """Put targets into jobs.

    Parameters
    ----------
    ids : `~numpy.ndarray`, shape (n,)
        What the user calls the targets.
    ra_deg, dec_deg : `~numpy.ndarray` of float, shape (n,)
        ICRS.
    rows : `~numpy.ndarray` of int
        Those that are to be done; finite.
    shape : tuple of int
        ``(ny, nx)`` of the cutouts.
    release, region : str
        As in `~astroquery_lis.survey.request.CutoutRequest`.
    footprint : mapping of str to `~numpy.ndarray`
        For each region, the sorted ids of the bricks that it has; a region that is not in it may
        have any.
    partial : bool, optional
        Whether a target counts as long as some brick of its box is there, and not only its own.
    targets_per_job : int, optional
        Bricks with fewer targets share a job, next to one another.
    max_targets : int, optional
        Bricks with more are split.

    Returns
    -------
    BulkPlan
    """
    ra, dec = ra_deg[rows], dec_deg[rows]
    brick = brick_id(ra, dec)
    covered = _covered(brick, release, region, footprint)
    if partial and not covered.all():
        lost = np.flatnonzero(~covered)
        covered[lost] = _touches(ra[lost], dec[lost], shape, release, region, footprint)
    no_data = np.sort(rows[~covered])
    rows, dec, brick = rows[covered], dec[covered], brick[covered]
    by_brick = np.lexsort((dec, brick))
    sizes = np.diff(np.flatnonzero(np.diff(brick[by_brick], prepend=-1, append=-1)))
    bounds = job_bounds(sizes, targets_per_job, max_targets)
    return BulkPlan(ids, ra_deg, dec_deg, no_data, rows[by_brick], bounds)


def _covered(brick, release, region, footprint):
    """Tell which bricks the region that is official for each, or was named, has."""
    unique, inverse = np.unique(brick, return_inverse=True)
    if region == "auto":
        regions = region_of_brick(unique, get_release(release).name)
    else:
        regions = np.full(unique.shape, region)
    found = np.ones(unique.shape, bool)
    for name, ids in footprint.items():
        mine = regions == name
        found[mine] = holds(ids, unique[mine])
    return found[inverse.reshape(brick.shape)]


def _touches(ra, dec, shape, release, region, footprint):
    """Tell which boxes touch a brick that is there."""
    half_y, half_x = (0.5 * n * PIXEL_SCALE_ARCSEC / 3600 for n in shape)
    shrink = np.cos(np.radians(np.minimum(np.abs(dec) + half_y, POLE_DEG)))
    touched = np.abs(dec) + half_y >= POLE_DEG
    for y in _samples(half_y):
        for x in _samples(half_x):
            brick = brick_id(ra + x / shrink, np.clip(dec + y, -90, 90))
            touched |= _covered(brick, release, region, footprint)
    return touched


def _samples(half_deg):
    return np.linspace(-half_deg, half_deg, 2 + int(2 * half_deg / SAMPLE_STEP_DEG))


def job_bounds(sizes, least, most):
    """Return where jobs begin in a row of groups, and the end.

    Parameters
    ----------
    sizes : array_like of int
        Targets of each group.
    least, most : int
        Groups are joined until a job has ``least`` targets; a group that has more than ``most`` is
        cut into equal parts.

    Returns
    -------
    list of int

    Examples
    --------
    >>> from astroquery_lis.client.job_plan import job_bounds
    >>> job_bounds([1, 2, 30, 1, 900], 3, 512)
    [0, 3, 33, 34, 484, 934]
    """
    bounds, end = [0], 0
    for size in np.asarray(sizes).tolist():
        if size > most:
            if end > bounds[-1]:
                bounds.append(end)
            parts = -(-size // most)
            bounds += [end + size * (i + 1) // parts for i in range(parts)]
        elif end + size - bounds[-1] >= least:
            bounds.append(end + size)
        end += size
    if end > bounds[-1]:
        bounds.append(end)
    return bounds
