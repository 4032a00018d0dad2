"""Cutouts from the coadds of the bricks: native pixels, whatever the borders between bricks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from astropy.io import fits

from .._packages import package_version
from ..exceptions import (
    CacheWarning,
    CoverageWarning,
    FailoverWarning,
    MissingDataError,
    NoCoverageError,
    warn,
)
from ..io.places import Failovers
from ..survey.bricks import region_of_brick
from ..survey.paths import MASK_PLANES, coadd_product, file_paths
from ..survey.pixel_grids import Box, SkyGrid
from ..survey.placement import WISE, Piece, frame_of_bands, place
from ..survey.releases import RELEASES, DataRelease, Tree
from ..survey.request import CutoutRequest, plane_name
from .assemble import Assembler
from .reader import Section, SectionRequest

__all__ = ["PixelReader", "coadd_cutout", "coadd_sections"]

CREATOR = f"astroquery_lis {package_version()}"
ONE_PIXEL = Box(0, 1, 0, 1)
LARGE_BYTES = 256 << 20
"""A cutout that reads more than this is read and put together one plane at a time."""

CARD_TEXT = 64
"""Characters of value and comment that one card can have."""


class PixelReader(Protocol):
    """What boxes of brick images are read through."""

    source_name: str

    def read(self, requests: list[SectionRequest]) -> list[Section]:
        """Read many boxes at once."""

    def has(self, requests: list[SectionRequest]) -> list[bool]:
        """Return which files there are."""


@dataclass(frozen=True)
class _Plane:
    """One image of the result: a product, in a band or without one."""

    product: str
    band: str | None

    def __str__(self) -> str:
        return f"{self.product} {self.band}" if self.band else self.product


_Sections = dict[tuple[int, _Plane], Section]


class _CoaddPlan:
    """A request laid over the bricks, and the files that it needs."""

    def __init__(self, request: CutoutRequest) -> None:
        assert request.release is not None
        self.request = request
        self.release: DataRelease = request.release
        grid = SkyGrid(request.wcs) if request.wcs else None
        frame = frame_of_bands(request.bands)
        shape = request.ny, request.nx
        self.placement = place(request.ra_deg, request.dec_deg, *shape, grid, frame)
        scale_arcsec = self.placement.grid.scale_deg * 3600
        self.area_ratio = 1.0 if grid is None else (scale_arcsec / frame.scale_arcsec) ** 2
        self.trees = [self._tree(piece) for piece in self.placement.pieces]
        self.planes: list[_Plane] = []
        for product in request.products:
            per_band = coadd_product(product).per_band
            bands = (request.bands or self.trees[0].bands) if per_band else (None,)
            self.planes += [_Plane(product, band) for band in bands]

    def _tree(self, piece: Piece) -> Tree:
        region = self.request.region
        if region == "auto":
            region = str(region_of_brick(piece.brick_id, self.release.name))
        return self.release.trees[region]

    def section(self, index: int, plane: _Plane) -> SectionRequest | None:
        """Return the request for a plane of a piece; `None` if its tree has no such file."""
        tree = self.trees[index]
        release = RELEASES[tree.release]
        if plane.band not in (None, *tree.bands, *self.release.wise_bands):
            return None
        if plane.product not in (*release.products, *release.mask_planes):
            return None
        piece = self.placement.pieces[index]
        hdu = MASK_PLANES[plane.product][0] if plane.product in MASK_PLANES else None
        file = "maskbits" if hdu else plane.product
        paths = file_paths(file, tree.release, tree.region, brick=piece.brick, band=plane.band)
        return SectionRequest(
            paths, piece.read, (tree, piece.brick, plane.product, plane.band), hdu
        )

    def sections(self) -> dict[tuple[int, _Plane], SectionRequest]:
        """Return the request of every piece and plane whose file can exist."""
        sections = {}
        for index in range(len(self.trees)):
            for plane in self.planes:
                section = self.section(index, plane)
                if section is not None:
                    sections[index, plane] = section
        return sections


def coadd_sections(request: CutoutRequest) -> list[SectionRequest]:
    """Return what a cutout reads of which files, without reading any."""
    return list(_CoaddPlan(request).sections().values())


def coadd_cutout(
    request: CutoutRequest, reader: PixelReader, *, on_missing: str = "raise"
) -> fits.HDUList:
    """Cut a box out of the bricks' coadds."""
    plan = _CoaddPlan(request)
    requests = plan.sections()
    n_pixels = sum(r.box.shape[0] * r.box.shape[1] for r in requests.values())
    is_large = 4 * n_pixels > LARGE_BYTES
    # A large cutout is read plane by plane: first only what there is, by a pixel of each file.
    first = [replace(r, box=ONE_PIXEL) if is_large else r for r in requests.values()]
    answers = reader.read(first)
    _warn_of_failures(answers)
    sections = {k: s for k, s in zip(requests, answers, strict=True) if s.pixels is not None}
    planes = _settle_missing(plan, sections, reader, on_missing)
    if len(plan.placement.pieces) > 1:
        _warn_of_gaps(plan, sections, planes)
    assembler = None
    if plan.placement.labels is not None:
        assembler = Assembler(plan.placement, plan.area_ratio, keep=not is_large)
    hdus = [_primary(plan, sections, planes, reader.source_name)]
    for plane in planes:
        pieces = {i: section for (i, p), section in sections.items() if p == plane}
        # The pixels of the last plane go before the next are read.
        arrays: dict[int, np.ndarray] = {}
        if is_large:
            boxes = [requests[i, plane] for i in pieces]
            pieces = dict(zip(pieces, reader.read(boxes), strict=True))
        arrays = {i: s.pixels for i, s in pieces.items() if s.pixels is not None}
        if assembler is not None:
            dtype = _dtype(plan, plane, arrays)
            pixels = assembler.plane(coadd_product(plane.product), arrays, dtype)
        elif arrays:
            pixels = arrays[0]
        else:
            no_value = coadd_product(plane.product).no_value
            pixels = np.full(plan.placement.shape, no_value, _dtype(plan, plane, arrays))
        hdus.append(_image_hdu(plan, plane, pieces, pixels))
    return fits.HDUList(hdus)


def _dtype(plan: _CoaddPlan, plane: _Plane, arrays: dict[int, np.ndarray]) -> np.dtype:
    if arrays:
        return np.result_type(*arrays.values())
    if plane.product == "maskbits":
        return np.dtype(np.int32 if plan.release.number >= 10 else np.int16)
    return np.dtype(np.int16 if plane.product == "nexp" else np.float32)


def _warn_of_failures(answers: Iterable[Section]) -> None:
    if any(section.answer is not None and section.answer.failures for section in answers):
        failovers = Failovers()
        for section in answers:
            if section.answer is not None:
                failovers.add(section.answer)
        for msg in failovers.messages:
            warn(msg, FailoverWarning)
    errors = [section.cache_error for section in answers if section.cache_error is not None]
    if errors:
        msg = f"The result is not cached: {errors[0]}"
        warn(msg, CacheWarning)


def _settle_missing(
    plan: _CoaddPlan, sections: _Sections, reader: PixelReader, on_missing: str
) -> list[_Plane]:
    """Return the planes of the result; raise or warn about what the target's brick lacks."""
    request, brick = plan.request, plan.placement.pieces[0].brick
    lacking = [plane for plane in plan.planes if (0, plane) not in sections]
    if not lacking:
        if request.bands is None:
            _warn_of_absent_bands(plan)
        return plan.planes
    bands = _bands_of_brick(plan, sections, reader)
    where = f"brick {brick} of {plan.trees[0].folder}"
    if not bands:
        return _settle_uncovered(plan, sections, where, on_missing)
    if request.bands is None:
        whole = [p for p in plan.planes if p.band is None or p.band in bands]
        absent = [band for band in plan.trees[0].bands if band not in bands]
        if absent:
            msg = f"No {', '.join(absent)} in {where}; it has {', '.join(bands)}."
            warn(msg, CoverageWarning)
        _warn_of_absent_bands(plan)
        lacking = [plane for plane in lacking if plane in whole]
        if not lacking:
            return whole
        plan.planes = whole
    names = ", ".join(str(plane) for plane in lacking)
    msg = f"No {names} in {where}; its bands are {', '.join(bands)}."
    if on_missing == "raise":
        msg += " Leave that out, or take on_missing='warn' for planes without values."
        raise MissingDataError(msg)
    warn(msg, CoverageWarning)
    return plan.planes


def _settle_uncovered(
    plan: _CoaddPlan, sections: _Sections, where: str, on_missing: str
) -> list[_Plane]:
    """Handle a target whose own brick is not in the release."""
    request = plan.request
    at = f"RA {request.ra_deg:.6f}, Dec {request.dec_deg:+.6f}"
    msg = f"{plan.release.name} has no data at {at}: {where} does not exist."
    if plan.release.is_split and request.region == "auto":
        other = {"north": "south", "south": "north"}[plan.trees[0].region]
        msg += f" The other region, region={other!r}, is not official there but may have it."
    if not sections:
        raise NoCoverageError(msg)
    if on_missing == "raise":
        msg += " Neighbouring bricks do cover part of the box: on_missing='warn' returns that part."
        raise NoCoverageError(msg)
    warn(msg, CoverageWarning)
    present = {plane for _, plane in sections}
    return plan.planes if request.bands else [plane for plane in plan.planes if plane in present]


def _bands_of_brick(plan: _CoaddPlan, sections: _Sections, reader: PixelReader) -> list[str]:
    """Return the bands that the target's brick has, asking for those that are not known yet."""
    of_kind = plan.trees[0].bands
    if plan.placement.frame is WISE:
        of_kind = plan.release.wise_bands
    image = {band: _Plane("image", band) for band in of_kind}
    unknown = [b for b, p in image.items() if p not in plan.planes]
    requests = [plan.section(0, image[band]) for band in unknown]
    exists = reader.has([request for request in requests if request is not None])
    present = {band for band, there in zip(unknown, exists, strict=True) if there}
    present |= {plane.band for i, plane in sections if i == 0 and plane.band}
    return [band for band in image if band in present]


def _warn_of_absent_bands(plan: _CoaddPlan) -> None:
    """Say which bands of the release this region never has, when the user named none."""
    if plan.request.bands is not None or plan.request.region != "auto":
        return
    absent = [band for band in plan.release.bands if band not in plan.trees[0].bands]
    if absent:
        msg = (
            f"No {', '.join(absent)} here: the {plan.trees[0].region} of {plan.release.name} is "
            f"{plan.trees[0].folder}, with {', '.join(plan.trees[0].bands)}."
        )
        warn(msg, CoverageWarning)


def _warn_of_gaps(plan: _CoaddPlan, sections: _Sections, planes: list[_Plane]) -> None:
    """Say what part of the box no brick covers, and which bands a part of it lacks."""
    pieces = plan.placement.pieces
    total = plan.placement.shape[0] * plan.placement.shape[1]
    covered = {i for i, _ in sections}
    empty = [i for i in range(1, len(pieces)) if i not in covered]
    if empty:
        share = 100 * sum(pieces[i].n_pixels for i in empty) / total
        names = ", ".join(pieces[i].brick for i in empty)
        msg = f"{share:.1f} % of the cutout is without values: {plan.release.name} lacks {names}."
        warn(msg, CoverageWarning)
    for i in sorted(covered - {0}):
        lacks = [str(plane) for plane in planes if (i, plane) not in sections]
        if lacks:
            msg = (
                f"{', '.join(lacks)} without values in {100 * pieces[i].n_pixels / total:.1f} % of "
                f"the cutout: brick {pieces[i].brick} of {plan.trees[i].folder} lacks it."
            )
            warn(msg, CoverageWarning)


def _primary(
    plan: _CoaddPlan, sections: _Sections, planes: list[_Plane], source: str
) -> fits.PrimaryHDU:
    request, pieces = plan.request, plan.placement.pieces
    covered = sorted({i for i, _ in sections})
    bands = request.bands or dict.fromkeys(p.band for p in planes if p.band)
    mirrors = dict.fromkeys(section.mirror for section in sections.values())
    cards: list[tuple[str, str | float, str]] = [
        ("SURVEY", "LegacySurvey", "DESI Legacy Imaging Surveys"),
        ("RELEASE", plan.release.name, "data release asked for"),
        ("REGION", request.region, "region asked for"),
        ("SOURCE", source, "what the pixels were cut from"),
        ("MIRROR", ", ".join(mirrors), "where the files came from"),
        ("RA", request.ra_deg, "[deg] target, ICRS"),
        ("DEC", request.dec_deg, "[deg] target, ICRS"),
        ("SIZEX", request.nx, "[pix] width"),
        ("SIZEY", request.ny, "[pix] height"),
        ("PRODUCTS", ",".join(request.products), "products asked for"),
        ("BANDS", ",".join(bands), "bands, as in the extensions"),
        ("GRID", "WCS" if request.wcs else pieces[0].brick, "grid: a brick's own, or a WCS"),
        ("NBRICKS", len(covered), "bricks that contributed"),
    ]
    for number, i in enumerate(covered, start=1):
        cards.append((f"BRICK{number}", pieces[i].brick, f"of {plan.trees[i].folder}"))
        cards.append((f"TREE{number}", plan.trees[i].folder, "release and region of its files"))
    cards += [
        ("REQKEY", request.key[:32], "identifies the request"),
        ("CREATOR", CREATOR, "software"),
    ]
    # A long text leaves no room for the comment beside it.
    header = fits.Header(
        [
            (name, value, comment if len(str(value)) + len(comment) <= CARD_TEXT else "")
            for name, value, comment in cards
        ]
    )
    if request.wcs:
        header["COMMENT"] = (
            "Pixels are interpolated onto the WCS: image, model, blobmodel with flux conserved "
            "(Lanczos-3, or an adaptive kernel on coarser pixels), the rest nearest."
        )
    elif len(covered) > 1:
        header["COMMENT"] = (
            "Pixels of brick GRID are native. Those of other bricks are interpolated: image, "
            "model, blobmodel by Lanczos-3, the rest nearest; each pixel from the brick that "
            "owns it."
        )
    return fits.PrimaryHDU(header=header)


def _image_hdu(
    plan: _CoaddPlan, plane: _Plane, pieces: dict[int, Section], pixels: np.ndarray
) -> fits.ImageHDU:
    product = coadd_product(plane.product)
    box = plan.placement.box
    header = fits.Header(plan.placement.grid.cards(x0=box.x0, y0=box.y0))
    header["BUNIT"] = (product.unit, "unit of the pixels")
    header["PRODUCT"] = (plane.product, product.description)
    if plan.placement.frame is WISE:
        header["MAGSYS"] = ("Vega", "magnitudes of WISE images; zero point 22.5")
    if product.interpolated:
        scale_arcsec = round(plan.placement.grid.scale_deg * 3600, 9)
        header["FLUXPIX"] = (scale_arcsec, "[arcsec] side of the pixel that flux is per")
    if plane.band is not None:
        header["BAND"] = (plane.band, "filter band")
    for number, i in enumerate(sorted(pieces), start=1):
        header[f"BRICK{number}"] = plan.placement.pieces[i].brick
        header[f"URL{number}"] = pieces[i].url
    return fits.ImageHDU(pixels, header, name=plane_name(plane.product, plane.band))
