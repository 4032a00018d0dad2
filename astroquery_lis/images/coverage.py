"""What follows where nothing was observed: an error, or a warning and a plane left out or blank.

`LayerBricks` tells where that is of what the viewer renders.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from ..exceptions import (
    CacheError,
    CacheWarning,
    CoverageWarning,
    MissingDataError,
    NoCoverageError,
    TransferError,
    collected_notes,
    warn,
)
from ..io.places import Failovers
from ..survey.bricks import brick_grid, brick_id, is_north, name_of
from ..survey.layers import layer_of
from ..survey.owners import EDGE_PIX, images_over
from ..survey.pixel_grids import Box, depth_in
from ..survey.placement import cached_name
from .cutout_hdus import bricks_under

if TYPE_CHECKING:
    from astropy.io.fits import HDUList

    from ..survey.placement import Piece
    from ..survey.releases import Tree
    from .coadds import CoaddPlan, Plane, PlaneFiles
    from .reader import Section
    from .renderings import Rendering
    from .viewer_service import ViewerService

Files = Mapping["Plane", "PlaneFiles"]

KERNEL_PIX = 3
"""Pixels of a brick on either side that a rendered one is interpolated from, up to a scale."""


def no_data_at(what: str, ra_deg: float, dec_deg: float) -> str:
    """Return the beginning of what is said of a place without data."""
    return f"{what} has no data at RA {ra_deg:.6f}, Dec {dec_deg:+.6f}"


def settle(
    shares: Mapping[Plane, float],
    on_missing: str,
    place: str,
    nothing: str,
    other_bands: Callable[[], Iterable[str]],
    *,
    are_bands_named: bool,
) -> dict[Plane, float]:
    """Return the planes of the result with their shares; raise, or warn, where some have no data.

    ``shares`` tells the part of each plane that was observed, ``other_bands`` which bands that were
    not asked for have data in the box, which counts only where no other has; ``nothing`` is said if
    there is nothing at all in the place, such as "brick 0451p000 of dr10/south" or a layer.
    """
    if all(shares.values()):
        return dict(shares)
    present = _bands(plane for plane, share in shares.items() if share)
    if not any(shares.values()):
        present = list(other_bands())
        if not present:
            raise NoCoverageError(nothing)
    if not are_bands_named:
        shares = _of_bands(shares, present, place)
    lacking = ", ".join(str(plane) for plane, share in shares.items() if not share)
    if lacking:
        _leave_blank(f"No {lacking} in {place}; its bands are {', '.join(present)}.", on_missing)
    return dict(shares)


def _of_bands(
    shares: Mapping[Plane, float], present: list[str], place: str
) -> Mapping[Plane, float]:
    """Return the shares of planes of some bands, or of none; warn of the other bands."""
    absent = [band for band in _bands(shares) if band not in present]
    if absent:
        names, bands = ", ".join(absent), ", ".join(present)
        warn(f"No {names} in {place}; it has {bands}.", CoverageWarning)
    return {plane: share for plane, share in shares.items() if plane.band not in absent}


def _leave_blank(message: str, on_missing: str) -> None:
    """Warn of planes without values, or raise."""
    if on_missing == "raise":
        hint = "Leave that out, or take on_missing='warn' for planes without values."
        msg = f"{message} {hint}"
        raise MissingDataError(msg)
    warn(message, CoverageWarning)


def _bands(planes: Iterable[Plane]) -> list[str]:
    """Return the bands of planes, each once."""
    return list(dict.fromkeys(plane.band for plane in planes if plane.band))


def bands_with_data(cut: Callable[[], HDUList]) -> list[str]:
    """Return the bands of the planes of a cutout in which something was observed."""
    try:
        with collected_notes():
            planes = cut()[1:]
    except NoCoverageError:
        return []
    return [hdu.header["BAND"] for hdu in planes if hdu.header["OBSFRAC"]]


def warn_of_failures(answers: Sequence[Section]) -> None:
    """Say which mirrors failed before others answered, and what could not be kept."""
    failovers = Failovers()
    for section in answers:
        failovers.add(section.answer)
    failovers.warn()
    warn_of_cache(next(filter(None, (section.cache_error for section in answers)), None))


def warn_of_cache(error: CacheError | None) -> None:
    """Say why what was fetched could not be kept, if it could not."""
    if error is not None:
        warn(f"The result is not cached: {error}", CacheWarning)


def nothing(plan: CoaddPlan, files: Files) -> str:
    """Return what to say of a target without data."""
    request = plan.request
    msg = no_data_at(plan.release.name, request.ra_deg, request.dec_deg)
    if any(0 in of_plane.sections for of_plane in files.values()):
        return f"{msg}: nothing was observed in the box."
    tree = plan.owner_tree
    if set(plan.bands) & set(plan.all_bands):
        msg += f": brick {cached_name(plan.owner)} of {tree.folder} does not exist"
        msg += f", or has no {', '.join(request.bands)}." if request.bands else "."
    else:
        bands, all_bands = ", ".join(plan.bands), ", ".join(plan.all_bands)
        msg += f": {tree.folder} has no {bands}; its bands are {all_bands}."
    for other in {*plan.release.regions_of(request.region)} - {tree.region}:
        msg += f" The other region, region={other!r}, is not official there but may have it."
    return msg


def check_target(plan: CoaddPlan, files: Files) -> None:
    """Raise if files have a part of the box and none has the target."""
    has_owner = any(0 in of_plane.sections for of_plane in files.values())
    if has_owner or not any(f.sections for f in files.values()) or _has_target(plan, files):
        return
    hint = "Neighbouring bricks do cover part of the box: on_missing='warn' returns that part."
    msg = f"{nothing(plan, files)} {hint}"
    raise NoCoverageError(msg)


def _has_target(plan: CoaddPlan, files: Files) -> bool:
    """Return True if a file has the pixel of the target, or the target is not in the box."""
    box = plan.placement.box
    x, y = plan.placement.grid.to_pixel(plan.request.ra_deg, plan.request.dec_deg)
    # Half a sky away it is on no pixel, which is NaN.
    if not depth_in(box, y, x) > 0:
        return True
    row, column = (round(float(value)) for value in (y - box.y0, x - box.x0))
    target = Box(row, row + 1, column, column + 1)
    return any(f.placement.number_at(target) in f.sections for f in files.values())


def warn_of_absent_bands(bands: Sequence[str], release: str, tree: Tree) -> None:
    """Say which of the bands a region of a release never has, when the user named none."""
    absent = [band for band in bands if band not in tree.bands]
    if absent:
        warn(
            f"No {', '.join(absent)} here: the {tree.region} of {release} is {tree.folder}, with "
            f"{', '.join(tree.bands)}.",
            CoverageWarning,
        )


def warn_of_gaps(plan: CoaddPlan, files: Files, shares: dict[Plane, float]) -> None:
    """Say what part of the box no file covers, and which planes a part of it lacks."""
    total = plan.placement.shape[0] * plan.placement.shape[1]
    missing = {p: 1 - files[p].n_covered / total for p, share in shares.items() if share}
    missing = {plane: share for plane, share in missing.items() if share > 0}
    lacks = list(_lacks(plan, files, missing))
    empty = [piece.brick for piece, planes in lacks if len(planes) == len(shares)]
    if empty:
        part = f"{100 * min(missing.values()):.1f} % of the cutout"
        lacking = f"{plan.release.name} lacks {', '.join(empty)}."
        warn(f"{part} is without values: {lacking}", CoverageWarning)
    for piece, planes in lacks:
        if 0 < len(planes) < len(shares):
            names = ", ".join(map(str, planes))
            share = 100 * min(*map(missing.__getitem__, planes), piece.n_pixels / total)
            where = f"brick {piece.brick} of {plan.tree(piece.brick_id).folder}"
            msg = f"{names} without values in {share:.1f} % of the cutout: {where} lacks it."
            warn(msg, CoverageWarning)


def _lacks(
    plan: CoaddPlan, files: Files, planes: Iterable[Plane]
) -> Iterator[tuple[Piece, list[Plane]]]:
    """Yield each piece with those of the planes that have no file there."""
    for number, piece in enumerate(plan.placement.pieces):
        yield piece, [plane for plane in planes if number not in files[plane].sections]


# ---- of what the viewer renders ------------------------------------------------------------------


class LayerBricks:
    """The bricks that a rendering is made of, asked for when they matter."""

    def __init__(self, rendering: Rendering, service: ViewerService) -> None:
        self.rendering, self._service = rendering, service

    @cached_property
    def count(self) -> np.ndarray:
        """How many bricks' images hold each pixel; 1 if the layer is not made of bricks."""
        request, trees = self.rendering.request, self.rendering.layer.trees
        if not trees:
            return np.ones((request.ny, request.nx))
        shape, (ra, dec) = (request.ny, request.nx), self.sky
        count, north = np.zeros(shape), is_north(ra, dec)
        place, scale_deg = (request.ra_deg, request.dec_deg), self.rendering.grid.scale_deg
        near, radius_deg = bricks_under(*place, scale_deg, shape)
        for tree in trees:
            own = north == (tree.region == "north") if len(trees) == 2 else np.True_
            part = layer_of(tree.release, tree.region)
            bricks = near.tolist()
            with suppress(TransferError):
                # Where the viewer does not say which it has, all are counted.
                names = self._service.bricks(part.name, *place, radius_deg)
                bricks = [brick for brick in bricks if name_of(brick) in names]
            count += np.where(own, images_over(bricks, ra, dec), 0)
        return count

    @cached_property
    def sky(self) -> tuple[np.ndarray, np.ndarray]:
        """RA and Dec of each pixel."""
        y, x = np.mgrid[: self.rendering.request.ny, : self.rendering.request.nx]
        return self.rendering.grid.to_sky(x, y)

    @cached_property
    def brick_pixels(self) -> tuple[np.ndarray, np.ndarray]:
        """Place of each pixel on the grid of the target's brick, x and y."""
        request = self.rendering.request
        return brick_grid(int(brick_id(request.ra_deg, request.dec_deg))).to_pixel(*self.sky)

    def lacking(self, bands: tuple[str, ...]) -> dict[str, np.ndarray]:
        """Return where a layer of two regions has no such band, of bands that one of them lacks."""
        trees = self.rendering.layer.trees
        regions = {b: tree.region for tree in trees for b in bands if b not in tree.bands}
        if not regions:
            return {}
        north = is_north(*self.sky)
        sides = {band: north == (region == "north") for band, region in regions.items()}
        return {band: side for band, side in sides.items() if side.any()}

    def unobserved(self, is_zero: np.ndarray, border: np.ndarray) -> np.ndarray:
        """Return where the nearest pixel of the brick was not observed, as zeros about it tell.

        Interpolation smears what was observed into what was not: no pixel of the brick within the
        reach of the kernel about a zero was observed, unless the images end there.
        """
        if not is_zero.any():
            return is_zero
        from scipy.ndimage import maximum_filter

        x, y = self.brick_pixels
        x0, y0 = (int(np.floor(values.min())) - KERNEL_PIX for values in (x, y))
        ny, nx = int(y.max()) - y0 + 2 * KERNEL_PIX, int(x.max()) - x0 + 2 * KERNEL_PIX
        blank = np.zeros((ny, nx), bool)
        is_zero = is_zero & ~maximum_filter(border, 2 * EDGE_PIX + 3)
        rows = np.floor(y[is_zero]).astype(int) - y0
        columns = np.floor(x[is_zero]).astype(int) - x0
        # The kernel's even number of pixels: an odd number about both that a zero is between.
        for step in (0, 1):
            blank[rows, columns + step] = blank[rows + 1, columns + step] = True
        blank = maximum_filter(blank, 2 * KERNEL_PIX - 1)
        return blank[np.rint(y).astype(int) - y0, np.rint(x).astype(int) - x0]

    def warn_of_nowhere(self, nowhere: np.ndarray, where: str, on_missing: str) -> None:
        """Say which bricks the layer lacks; raise if that of the target is one."""
        request, layer = self.rendering.request, self.rendering.layer
        if not nowhere.any() or nowhere.all():
            return
        if on_missing == "raise" and nowhere[(request.ny - 1) // 2, (request.nx - 1) // 2]:
            hint = "Take on_missing='warn' for the part of the box that has some."
            msg = f"{where}: no brick is there. {hint}"
            raise NoCoverageError(msg)
        lost = dict.fromkeys(name_of(brick_id(*(v[nowhere] for v in self.sky))).tolist())
        what = f"{layer.name} lacks {', '.join(lost)}"
        warn(f"{nowhere.mean():.1%} of the cutout is without values: {what}.", CoverageWarning)
