"""What follows where nothing was observed: an error, or a warning and a plane left out or blank."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from ..exceptions import (
    CacheWarning,
    CoverageWarning,
    MissingDataError,
    NoCoverageError,
    warn,
)
from ..io.places import Failovers
from ..survey.pixel_grids import Box
from ..survey.placement import cached_name

if TYPE_CHECKING:
    from ..survey.releases import Tree
    from .coadds import CoaddPlan, Plane, PlaneFiles
    from .reader import Section

Files = Mapping["Plane", "PlaneFiles"]


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
    present = list(dict.fromkeys(p.band for p, share in shares.items() if share and p.band))
    if not any(shares.values()):
        present = list(other_bands())
        if not present:
            raise NoCoverageError(nothing)
    bands = ", ".join(present)
    if not are_bands_named:
        shares = _of_bands(shares, present, f"in {place}; it has {bands}.")
    if not all(shares.values()):
        names = ", ".join(str(plane) for plane, share in shares.items() if not share)
        msg = f"No {names} in {place}; its bands are {bands}."
        if on_missing == "raise":
            msg += " Leave that out, or take on_missing='warn' for planes without values."
            raise MissingDataError(msg)
        warn(msg, CoverageWarning)
    return dict(shares)


def _of_bands(
    shares: Mapping[Plane, float], bands: Sequence[str], message: str
) -> dict[Plane, float]:
    """Return the shares of planes of some bands, or of none; warn of the other bands."""
    absent = dict.fromkeys(p.band for p in shares if p.band and p.band not in bands)
    if absent:
        warn(f"No {', '.join(absent)} {message}", CoverageWarning)
    return {plane: share for plane, share in shares.items() if plane.band not in absent}


def warn_of_failures(answers: Iterable[Section]) -> None:
    """Say which mirrors failed before others answered, and what could not be kept."""
    failovers = Failovers()
    for section in answers:
        failovers.add(section.answer)
    failovers.warn()
    errors = [section.cache_error for section in answers if section.cache_error is not None]
    if errors:
        msg = f"The result is not cached: {errors[0]}"
        warn(msg, CacheWarning)


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
    if plan.release.is_split and request.region == "auto":
        other = {"north": "south", "south": "north"}[tree.region]
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
    """Return True if a file has the pixel of the target."""
    box = plan.placement.box
    x, y = plan.placement.grid.to_pixel(plan.request.ra_deg, plan.request.dec_deg)
    row, column = (round(float(value)) for value in (y - box.y0, x - box.x0))
    if not (0 <= row < box.shape[0] and 0 <= column < box.shape[1]):
        return True
    target = Box(row, row + 1, column, column + 1)
    labels = [(f, f.placement.labels) for f in files.values()]
    return any(a is not None and int(a.of(target)[0, 0]) in f.sections for f, a in labels)


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
    lacks = [
        (piece, [plane for plane in missing if i not in files[plane].sections])
        for i, piece in enumerate(plan.placement.pieces)
    ]
    empty = [piece.brick for piece, planes in lacks if len(planes) == len(shares)]
    if empty:
        part = f"{100 * min(missing.values()):.1f} % of the cutout"
        lacking = f"{plan.release.name} lacks {', '.join(empty)}."
        warn(f"{part} is without values: {lacking}", CoverageWarning)
    for piece, planes in lacks:
        if 0 < len(planes) < len(shares):
            names = ", ".join(map(str, planes))
            share = 100 * min(*(missing[p] for p in planes), piece.n_pixels / total)
            where = f"brick {piece.brick} of {plan.tree(piece.brick_id).folder}"
            msg = f"{names} without values in {share:.1f} % of the cutout: {where} lacks it."
            warn(msg, CoverageWarning)
