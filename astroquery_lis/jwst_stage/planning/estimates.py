"""What a task will need: seconds on one core, memory, disk.

The figures are fits to measurements of jwst 3.0 on full frames (2048 by 2048 pixels); seconds
depend on the machine and serve for comparison, memory is what a scheduler has to keep free.
"""

import math

from ..tasks import Estimate

__all__ = ["image3_memory_gb", "stage1", "stage1_memory_gb", "stage2", "stage3"]

_FULL = 2048 * 2048
_RATE_BYTES = 20
"""Per pixel of a rate file: SCI, ERR, DQ and two variances."""
_CAL_BYTES = 28
"""Per pixel of a cal, crf or i2d file."""
_SEGMENT_BYTES = 4
_INTERPRETER_GB = 0.4


def stage1_memory_gb(uncal_bytes, dark_bytes=0):
    """Return the highest memory of stage 1: the jump step's, or that of a long dark.

    Parameters
    ----------
    uncal_bytes : int
        Size of the uncal file.
    dark_bytes : int, optional
        Size of the dark reference file; 0, the default, where it is not known yet.

    Returns
    -------
    float
    """
    return _INTERPRETER_GB + max(30 * uncal_bytes, dark_bytes + 10 * uncal_bytes) / 1e9


def stage1(exposure, *, dark_bytes=0):
    """Return what stage 1 of an exposure needs.

    Parameters
    ----------
    exposure : `~.exposures.Exposure`
        The uncal file.
    dark_bytes : int, optional
        Size of the dark reference file; 0, the default, where it is not known yet.

    Returns
    -------
    Estimate
    """
    frames = math.prod(exposure.shape) / _FULL
    images = 1 + (exposure.n_ints if exposure.n_ints > 1 else 0)
    return Estimate(
        seconds=round(5 + (15 + 3.3 * exposure.n_groups * exposure.n_ints) * frames, 1),
        memory_gb=round(stage1_memory_gb(exposure.size_bytes, dark_bytes), 3),
        disk_gb=round(images * _RATE_BYTES * math.prod(exposure.shape) / 1e9, 4),
    )


def stage2(exposure, *, resample=True, integrations=False):
    """Return what stage 2 of an exposure needs.

    Parameters
    ----------
    exposure : `~.exposures.Exposure`
        One file of the exposure.
    resample : bool, optional
        Whether a rectified image is made too, as the pipeline does by default.
    integrations : bool, optional
        Whether every integration is calibrated for itself; `False` by default.

    Returns
    -------
    Estimate
    """
    images = exposure.n_ints if integrations else 1
    pixels = math.prod(exposure.shape)
    cal_gb = images * _CAL_BYTES * pixels / 1e9
    resample = resample and not integrations
    return Estimate(
        seconds=round(2 + (3 + 12 * resample) * images * pixels / _FULL, 1),
        memory_gb=round(_INTERPRETER_GB + (5 if resample else 1.5) * cal_gb, 3),
        disk_gb=round((1 + resample) * cal_gb, 4),
    )


def image3_memory_gb(n_exposures, pixels, output_pixels, *, on_disk=False):
    """Return the highest memory of a mosaic.

    Parameters
    ----------
    n_exposures : int
        How many files go in.
    pixels : int
        Of one of them.
    output_pixels : int
        Of the mosaic.
    on_disk : bool, optional
        Whether the exposures stay on disk (``in_memory=False``); `False` by default.

    Returns
    -------
    float
    """
    if on_disk:
        return 0.5 + (125 * output_pixels + 2 * _CAL_BYTES * pixels) / 1e9
    return 0.5 + (1.3 * n_exposures * _CAL_BYTES * pixels + 75 * output_pixels) / 1e9


def stage3(exposures, *, output_pixels=None):
    """Return what stage 3 of a group of exposures needs, held in memory.

    Parameters
    ----------
    exposures : sequence of `~.exposures.Exposure`
        All members.
    output_pixels : int, optional
        Of the mosaic; by default a little more than one exposure has.

    Returns
    -------
    Estimate
    """
    pixels = max(math.prod(e.shape) for e in exposures)
    n = sum(e.n_ints if e.is_tso else 1 for e in exposures)
    output_pixels = output_pixels or round(1.3 * pixels)
    frames = pixels / _FULL
    return Estimate(
        seconds=round(5 + (30 * n + 0.3 * n**2) * frames, 1),
        memory_gb=round(image3_memory_gb(n, pixels, output_pixels), 3),
        disk_gb=round(
            (n * _CAL_BYTES * pixels + (_CAL_BYTES + _SEGMENT_BYTES) * output_pixels) / 1e9, 4
        ),
    )
