"""Cutouts from the coadds of the bricks: native pixels, whatever the borders between bricks.

A pixel was observed if its inverse variance, or its number of exposures, is above 0; where only the
image is at hand, if that is not 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial, reduce
from typing import NamedTuple, Protocol

import numpy as np
from astropy.io import fits

from ..exceptions import ContentChangedError
from ..survey.bricks import name_of
from ..survey.paths import IMAGE_PRODUCTS, plane_file, tree_of_brick
from ..survey.pixel_grids import Box, SkyGrid
from ..survey.placement import WISE, Piece, Placement, cached_name, frame_of, place, without
from ..survey.releases import DataRelease, Tree
from ..survey.request import CutoutRequest
from .assemble import Assembler
from .coverage import (
    bands_with_data,
    check_target,
    nothing,
    settle,
    warn_of_absent_bands,
    warn_of_failures,
    warn_of_gaps,
)
from .plain import (
    Block,
    Card,
    PlainCutout,
    PlainImage,
    asked_cards,
    brick_cards,
    cards_of_all,
    file_cards,
    grid_cards,
    plane_cards,
    plane_name,
    served_cards,
    software_cards,
)
from .reader import Section, SectionRequest

ONE_PIXEL = Box(0, 1, 0, 1)
LARGE_BYTES = 256 << 20
"""A cutout that reads more than this is read and put together a few files at a time."""

FILES_AT_ONCE = 2
ROWS_AT_ONCE = 256

EVIDENCE = ("invvar", "nexp", "image", "depth", "galdepth", "psfsize")
"""Products that tell which pixels were observed, the surest first."""


class Plane(NamedTuple):
    """One image of a cutout: a product, in a band or without one."""

    product: str
    band: str | None

    def __str__(self) -> str:
        return f"{self.product} {self.band}" if self.band else self.product


def observed(product: str, pixels: np.ndarray) -> np.ndarray:
    """Return which pixels were observed, as those of a product of `EVIDENCE` tell it."""
    if product == "image":
        return (pixels != 0) & (pixels == pixels)
    return pixels > 0


class PixelReader(Protocol):
    """What boxes of brick images are read through."""

    source_name: str
    evidence: str

    def read(self, requests: list[SectionRequest]) -> list[Section]:
        """Read many boxes at once."""

    def prove_absent(self, tree: Tree, brick: int, lacks: str, band: str | None) -> None:
        """Refuse to take what folders lack for what the survey does not have."""


class CoaddPlan:
    """A request laid over the bricks, and the files that it needs."""

    def __init__(self, request: CutoutRequest) -> None:
        assert request.release is not None
        self.request = request
        self.release: DataRelease = request.release
        self.tree: Callable[[int], Tree] = partial(
            tree_of_brick, self.release, request.region
        )  # that a brick's files are in
        grid = SkyGrid(request.wcs) if request.wcs else None
        frame = frame_of(request.bands)
        shape = request.ny, request.nx
        self.placement = place(request.ra_deg, request.dec_deg, *shape, grid, frame)
        scale_arcsec = self.placement.grid.scale_deg * 3600
        self.area_ratio = 1.0 if grid is None else (scale_arcsec / frame.scale_arcsec) ** 2
        self.owner = self.placement.owner
        self.owner_tree = self.tree(self.owner)
        self.bands = request.bands or self.owner_tree.bands
        self.planes = [
            Plane(product, band)
            for product in request.products
            for band in (self.bands if IMAGE_PRODUCTS[product].per_band else (None,))
        ]

    @property
    def all_bands(self) -> tuple[str, ...]:
        """The bands of the kind that was asked for that the target's brick can have."""
        is_wise = self.placement.frame is WISE
        return self.release.wise_bands if is_wise else self.owner_tree.bands

    def evidence(self, product: str) -> list[Plane]:
        """Return the planes that are read only to see what was observed."""
        if not set(EVIDENCE).isdisjoint(self.request.products):
            return []
        has_bands = any(plane.band for plane in self.planes)
        return [Plane(product, band) for band in self.bands] if has_bands else []

    def section(self, piece: Piece, plane: Plane) -> SectionRequest | None:
        """Return the request for a plane of a piece; `None` if its tree has no such file."""
        tree = self.tree(piece.brick_id)
        file = plane_file(tree, piece.brick, plane.product, plane.band)
        if file is None:
            return None
        paths, hdu = file
        source = tree, piece.brick, plane.product, plane.band
        return SectionRequest(paths, piece.read, source, hdu)

    def paths(self) -> list[str]:
        """Return the names of the files if none is missing."""
        paths = []
        for brick_id in self.placement.bricks:
            tree, brick = self.tree(brick_id), name_of(brick_id)
            files = (plane_file(tree, brick, plane.product, plane.band) for plane in self.planes)
            paths += [file[0][0] for file in files if file is not None]
        return paths

    def sections(self, evidence: str = "") -> list[SectionRequest]:
        """Return what is read of which files if none is missing, with what tells of coverage."""
        pieces, planes = self.placement.pieces, self.planes
        planes = planes + self.evidence(evidence) if evidence else planes
        sections = (self.section(piece, plane) for piece in pieces for plane in planes)
        return [section for section in sections if section is not None]


@dataclass
class PlaneFiles:
    """The files that one plane is made of."""

    placement: Placement
    requests: dict[int, SectionRequest] = field(default_factory=dict)  # by number of the piece
    sections: dict[int, Section] = field(default_factory=dict)  # of the files that there are
    asked: int = 0  # pieces that were asked for
    barred: set[int] = field(default_factory=set)  # bricks that have no such file

    @property
    def n_covered(self) -> int:
        """How many pixels some file has."""
        return sum(self.placement.pieces[i].n_pixels for i in self.sections)

    @property
    def n_foreign(self) -> int:
        """How many pixels are of a brick that does not own them."""
        pieces = (self.placement.pieces[i] for i in self.sections)
        return sum(piece.n_pixels for piece in pieces if piece.is_spare)


def _find_files(
    plan: CoaddPlan, planes: Iterable[Plane], reader: PixelReader
) -> tuple[dict[Plane, PlaneFiles], list[Section], bool]:
    """Return the files of each plane, read unless they are large, all answers, and if they are."""
    files = {plane: PlaneFiles(plan.placement) for plane in planes}
    answers: list[Section] = []
    is_large, pending = False, list(files)
    while pending:
        asked: list[tuple[Plane, int, SectionRequest]] = []
        for plane in pending:
            of_plane = files[plane]
            pieces = of_plane.placement.pieces
            for i in range(of_plane.asked, len(pieces)):
                request = plan.section(pieces[i], plane)
                if request is not None:
                    of_plane.requests[i] = request
                    asked.append((plane, i, request))
            of_plane.asked = len(pieces)
        ny, nx = plan.request.ny, plan.request.nx
        is_large |= 4 * ny * nx * len(pending) > LARGE_BYTES
        # A large cutout is read plane by plane: first only what there is, by a pixel of each file.
        read = reader.read([replace(r, box=ONE_PIXEL) if is_large else r for _, _, r in asked])
        answers += read
        lost: dict[Plane, set[int]] = {}
        for (plane, i, _), section in zip(asked, read, strict=True):
            if section.pixels is None:
                lost.setdefault(plane, set()).add(i)
            else:
                files[plane].sections[i] = section
        shared: _Shared = {}
        for plane, pieces_lost in lost.items():
            _stand_in(plan, files[plane], pieces_lost, shared)
        pending = list(lost)
    return files, answers, is_large


_Shared = dict[tuple[Placement, frozenset[int], frozenset[int]], Placement]


def _stand_in(plan: CoaddPlan, files: PlaneFiles, lost: set[int], shared: _Shared) -> None:
    """Let other bricks' images stand in for pieces of a plane that have no file."""
    placement = files.placement
    files.barred |= {placement.pieces[i].brick_id for i in lost}

    def may_stand_in(brick: int, other: int) -> bool:
        return other not in files.barred and plan.tree(other) == plan.tree(brick)

    # Planes that lack the same files share one placement: of a large box it is 200 MB of labels.
    key = placement, frozenset(lost), frozenset(files.barred)
    if key not in shared:
        shared[key] = without(placement, lost, may_stand_in)
    files.placement = shared[key]


_Files = dict[Plane, PlaneFiles]


def coadd_cutout(
    request: CutoutRequest, reader: PixelReader, *, on_missing: str = "raise"
) -> fits.HDUList:
    """Cut a box out of the bricks' coadds."""
    return plain_cutout(CoaddPlan(request), reader, on_missing=on_missing).to_hdus()


def plain_cutout(plan: CoaddPlan, reader: PixelReader, *, on_missing: str = "raise") -> PlainCutout:
    """Cut a box out of the bricks' coadds, without HDUs."""
    request = plan.request
    evidence = plan.evidence(reader.evidence)
    files, answers, is_large = _find_files(plan, [*plan.planes, *evidence], reader)
    if any(section.cache_error or section.answer.failures for section in answers):
        warn_of_failures(answers)
    n_pieces = len(plan.placement.pieces)
    is_whole = all(len(f.sections) == n_pieces and not f.barred for f in files.values())
    if not is_whole:
        _check_absent(plan, files, reader, on_missing)
    pixels = {
        plane: _assembled(plan, plane, files[plane], reader, is_read=not is_large)
        for plane in (*evidence, *plan.planes)
    }
    shares = _shares(plan, files, pixels)
    if not all(shares.values()):
        shares = _settle(plan, files, shares, reader, on_missing)
    if (request.bands, request.region) == (None, "auto"):
        warn_of_absent_bands(plan.release.bands, plan.release.name, plan.owner_tree)
    if not is_whole:
        warn_of_gaps(plan, files, shares)
    grid = grid_cards(plan.placement.grid, plan.placement.box)
    images = [_image(plan, p, files[p], pixels[p], share, grid) for p, share in shares.items()]
    return PlainCutout(_primary(plan, files, list(shares), reader.source_name), images)


def _check_absent(plan: CoaddPlan, files: _Files, reader: PixelReader, on_missing: str) -> None:
    """Refuse files that folders lack and the survey may have, and a target that no file has."""
    pieces = [f.placement.pieces[i].brick_id for f in files.values() for i in f.sections]
    for plane in plan.planes:
        for brick in files[plane].barred:
            # Bands that nobody named may be lacking where there are others.
            if plan.request.bands is not None or plane.band is None or brick not in pieces:
                lacks = f"{plane} of brick {name_of(brick)}"
                reader.prove_absent(plan.tree(brick), brick, lacks, plane.band)
    if on_missing == "raise":
        check_target(plan, files)


def _assembled(
    plan: CoaddPlan, plane: Plane, files: PlaneFiles, reader: PixelReader, *, is_read: bool
) -> np.ndarray:
    """Return the pixels of a plane, put together from those of its files."""
    product, placement = IMAGE_PRODUCTS[plane.product], files.placement
    pieces = (
        ((i, s.pixels) for i, s in files.sections.items() if s.pixels is not None)
        if is_read
        else _read_by_few(files, reader)
    )
    if placement.labels is None:
        for _, pixels in pieces:
            return pixels
    arrays = [s.pixels for s in files.sections.values() if s.pixels is not None]
    dtype = np.result_type(*arrays) if arrays else product.dtype
    result = np.full(placement.shape, product.no_value, dtype)
    for i, pixels in pieces:
        Assembler(placement, plan.area_ratio).put(result, product, i, pixels)
        del pixels
    return result


def _read_by_few(files: PlaneFiles, reader: PixelReader) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the pieces of a plane with their pixels, a few in memory at once."""
    numbers = list(files.sections)
    for start in range(0, len(numbers), FILES_AT_ONCE):
        at_once = numbers[start : start + FILES_AT_ONCE]
        sections = reader.read([files.requests[i] for i in at_once])
        for i in at_once:
            pixels = sections.pop(0).pixels
            if pixels is None:
                msg = f"{files.sections[i].url} went away while it was read."
                raise ContentChangedError(msg, url=files.sections[i].url)
            yield i, pixels
            # Nothing that was put is kept while the next are read.
            del pixels


def _shares(plan: CoaddPlan, files: _Files, pixels: dict[Plane, np.ndarray]) -> dict[Plane, float]:
    """Return which part of each plane was observed: of one without a band, in any band."""
    # The surest last, which stays.
    telling = [
        plane
        for product in reversed(EVIDENCE)
        for plane in files
        if plane.product == product and files[plane].sections
    ]
    witnesses: dict[str | None, list[Plane]] = {plane.band: [plane] for plane in telling}
    if witnesses and any(plane.band is None for plane in plan.planes):
        witnesses[None] = [plane for (plane,) in witnesses.values()]
    total = plan.request.ny * plan.request.nx
    parts = {band: _n_observed(planes, pixels) / total for band, planes in witnesses.items()}
    shares = dict.fromkeys(plan.planes, 0.0)
    for plane in plan.planes:
        of_plane, part = files[plane], parts.get(plane.band)
        if of_plane.sections:
            # Where nothing tells, there is data where there is a file.
            shares[plane] = of_plane.n_covered / total if part is None else part
    return shares


def _n_observed(planes: list[Plane], pixels: dict[Plane, np.ndarray]) -> int:
    """Return how many pixels were observed in any of some planes, a few rows at once."""
    total = 0
    for y0 in range(0, len(pixels[planes[0]]), ROWS_AT_ONCE):
        rows = slice(y0, y0 + ROWS_AT_ONCE)
        masks = (observed(plane.product, pixels[plane][rows]) for plane in planes)
        total += int(np.count_nonzero(reduce(np.logical_or, masks)))
    return total


def _settle(
    plan: CoaddPlan, files: _Files, shares: dict[Plane, float], reader: PixelReader, on_missing: str
) -> dict[Plane, float]:
    where = f"brick {cached_name(plan.owner)} of {plan.owner_tree.folder}"
    others, is_named = partial(_other_bands, plan, reader), plan.request.bands is not None
    message = nothing(plan, files)
    return settle(shares, on_missing, where, message, others, are_bands_named=is_named)


def _other_bands(plan: CoaddPlan, reader: PixelReader) -> list[str]:
    """Return the bands beside those that were asked for that have data in the box."""
    if set(plan.all_bands) <= set(plan.bands):
        return []
    bands = plan.all_bands if plan.placement.frame is WISE else None
    request = replace(plan.request, products=("image",), bands=bands)
    return bands_with_data(lambda: coadd_cutout(request, reader, on_missing="warn"))


def _primary(
    plan: CoaddPlan, files: _Files, planes: list[Plane], source: str
) -> list[Card | Block]:
    request = plan.request
    pieces, mirrors = dict[int, Piece](), dict[str, None]()
    for plane in planes:
        of_plane = files[plane]
        for i, section in of_plane.sections.items():
            pieces[i] = of_plane.placement.pieces[i]
            mirrors[section.mirror] = None
    # The target's brick first, those that stand in for others last.
    covered = dict.fromkeys((pieces[i].brick, pieces[i].brick_id) for i in sorted(pieces))
    bands = request.bands or tuple(dict.fromkeys(p.band for p in planes if p.band))
    grid = "WCS" if request.wcs else cached_name(plan.owner)
    served = served_cards(plan.release.name, request.region, source, ", ".join(mirrors))
    shape = request.ny, request.nx
    asked = asked_cards(shape, request.products, bands, grid, len(covered))
    folders = (plan.tree(brick_id).folder for _, brick_id in covered)
    names = tuple(zip((brick for brick, _ in covered), folders, strict=True))
    return [
        served,
        ("RA", request.ra_deg, "[deg] target, ICRS"),
        ("DEC", request.dec_deg, "[deg] target, ICRS"),
        asked,
        brick_cards(names),
        ("REQKEY", request.key[:32], "identifies the request"),
        software_cards(bool(request.wcs), len(covered) > 1),
    ]


def _image(
    plan: CoaddPlan,
    plane: Plane,
    files: PlaneFiles,
    pixels: np.ndarray,
    share: float,
    grid: list[Block],
) -> PlainImage:
    pieces = [files.placement.pieces[i] for i in sorted(files.sections)]
    sections = [files.sections[i] for i in sorted(files.sections)]
    kept = sections[0].cards if sections else ()
    if len(sections) > 1:
        kept = cards_of_all(sections)
    scale_deg = plan.placement.grid.scale_deg
    before = plane_cards(plane.product, plane.band, plan.placement.frame, scale_deg)
    known = tuple(card[0] for card in kept if card[0] in before.values)
    origins = tuple((p.brick, s.url) for p, s in zip(pieces, sections, strict=True))
    values = repr([card[1] for card in kept])
    after = file_cards(kept, values, known, files.n_foreign if files.barred else 0, origins)
    observed_share: Card = ("OBSFRAC", round(share, 6), "share of the pixels that were observed")
    name = plane_name(plane.product, plane.band)
    extname: Card = ("EXTNAME", name, "extension name")
    return PlainImage(name, [*grid, before, observed_share, after, extname], pixels)
