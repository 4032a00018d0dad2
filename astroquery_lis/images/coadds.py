"""Cutouts from the coadds of the bricks: native pixels, whatever the borders between bricks."""

from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace

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
from ..survey.placement import WISE, frame_of_bands, place
from ..survey.releases import get_release, get_tree
from .assemble import Assembler
from .sections import SectionRequest

__all__ = ["coadd_cutout", "coadd_cutout_paths", "coadd_sections", "collected_notes"]

ONE_PIXEL = Box(0, 1, 0, 1)
LARGE_BYTES = 256 << 20
"""A cutout that reads more than this is read and put together one plane at a time."""

CARD_TEXT = 64
"""Characters of value and comment that one card can have."""

_notes = ContextVar("notes", default=None)


@contextmanager
def collected_notes():
    """Collect what cutouts would warn of, in this thread, in place of the warnings."""
    notes = []
    token = _notes.set(notes)
    try:
        yield notes
    finally:
        _notes.reset(token)


def _tell(msg, category):
    notes = _notes.get()
    if notes is None:
        warn(msg, category)
    else:
        notes.append(msg)


@dataclass(frozen=True)
class _Plane:
    """One image of the result: a product, in a band or without one."""

    product: str
    band: str | None

    @property
    def extname(self):
        return "_".join([self.product, *([self.band] if self.band else [])]).upper()

    def __str__(self):
        return f"{self.product} {self.band}" if self.band else self.product


class _Job:
    """A request laid over the bricks and the files that they need."""

    def __init__(self, request):
        self.request = request
        self.release = get_release(request.release)
        grid = SkyGrid(request.wcs) if request.wcs else None
        frame = frame_of_bands(request.bands)
        shape = request.ny, request.nx
        self.placement = place(request.ra_deg, request.dec_deg, *shape, grid, frame)
        scale_arcsec = self.placement.grid.scale_deg * 3600
        self.area_ratio = 1.0 if grid is None else (scale_arcsec / frame.scale_arcsec) ** 2
        self.trees = [self._tree(piece) for piece in self.placement.pieces]
        self.planes = _planes(request.products, request.bands or self.trees[0].bands)

    def _tree(self, piece):
        region = self.request.region
        if region == "auto":
            region = str(region_of_brick(piece.brick_id, self.release.name))
        return get_tree(self.release.name, region)

    def section(self, index, plane):
        """Return the request for a plane of a piece; `None` if its tree has no such file."""
        tree = self.trees[index]
        has = (*tree.bands, *self.release.wise_bands)
        lacks_band = plane.band is not None and plane.band not in has
        found = get_release(tree.release)
        if lacks_band or plane.product not in (*found.products, *found.mask_planes):
            return None
        piece = self.placement.pieces[index]
        hdu = MASK_PLANES[plane.product][0] if plane.product in MASK_PLANES else None
        file = "maskbits" if hdu else plane.product
        paths = file_paths(file, tree.release, tree.region, brick=piece.brick, band=plane.band)
        source = tree, piece.brick, plane.product, plane.band
        return SectionRequest(paths, piece.read, source, hdu)

    @staticmethod
    def read_bytes(requests):
        """Return how much memory the boxes of requests take."""
        return sum(4 * request.box.shape[0] * request.box.shape[1] for request in requests)

    def sections(self):
        """Return ``{(piece, plane): request}`` of every file that can exist."""
        pairs = ((i, plane) for i in range(len(self.trees)) for plane in self.planes)
        named = {(i, plane): self.section(i, plane) for i, plane in pairs}
        return {key: request for key, request in named.items() if request is not None}


def _planes(products, bands):
    planes = []
    for product in products:
        per_band = coadd_product(product).per_band
        planes += [_Plane(product, band) for band in bands] if per_band else [_Plane(product, None)]
    return planes


def coadd_cutout_paths(request):
    """Return the paths of the files that a cutout reads, without reading any."""
    return [section.paths[0] for section in _Job(request).sections().values()]


def coadd_sections(request):
    """Return what a cutout reads of which files, without reading any."""
    return list(_Job(request).sections().values())


def coadd_cutout(request, reader, *, on_missing="raise"):
    """Cut a box out of the bricks' coadds."""
    job = _Job(request)
    requests = job.sections()
    is_large = job.read_bytes(requests.values()) > LARGE_BYTES
    # A large cutout is read plane by plane: first only what there is, by a pixel of each file.
    first = [replace(r, box=ONE_PIXEL) if is_large else r for r in requests.values()]
    answers = reader.read(first)
    sections = dict(zip(requests, answers, strict=True))
    found = {key: section for key, section in sections.items() if section.pixels is not None}
    _tell_failures(answers)
    planes = _settle_missing(job, found, reader, on_missing)
    _tell_gaps(job, found, planes)
    assembler = Assembler(job.placement, job.area_ratio, keep=not is_large)
    hdus = [_primary(job, found, planes, reader.source_name)]
    for plane in planes:
        mine = {i: section for (i, p), section in found.items() if p == plane}
        if is_large:
            mine = dict(zip(mine, reader.read([requests[i, plane] for i in mine]), strict=True))
        dtype = _dtype(plane, mine, job)
        pixels = assembler.plane(coadd_product(plane.product), mine, dtype)
        hdus.append(_image_hdu(job, plane, mine, pixels))
    return fits.HDUList(hdus)


def _dtype(plane, sections, job):
    if sections:
        return np.result_type(*(section.pixels.dtype for section in sections.values()))
    if plane.product == "maskbits":
        return np.int32 if job.release.number >= 10 else np.int16
    return np.int16 if plane.product == "nexp" else np.float32


def _tell_failures(answers):
    failovers = Failovers()
    for section in answers:
        if section.answer is not None:
            failovers.add(section.answer)
    for message in failovers.messages:
        _tell(message, FailoverWarning)
    errors = [section.cache_error for section in answers if section.cache_error is not None]
    if errors:
        msg = f"The result is not cached: {errors[0]}"
        _tell(msg, CacheWarning)


def _settle_missing(job, found, reader, on_missing):
    """Return the planes of the result; raise or warn about what the target's brick lacks."""
    request, brick = job.request, job.placement.pieces[0].brick
    lacking = [plane for plane in job.planes if (0, plane) not in found]
    if not lacking:
        _tell_absent_default_bands(job)
        return job.planes
    bands = _bands_of_brick(job, found, reader)
    where = f"brick {brick} of {job.trees[0].folder}"
    if not bands:
        return _settle_uncovered(job, found, where, on_missing)
    if request.bands is None:
        whole = [p for p in job.planes if p.band is None or p.band in bands]
        gone = [band for band in job.trees[0].bands if band not in bands]
        if gone:
            msg = f"No {', '.join(gone)} in {where}; it has {', '.join(bands)}."
            _tell(msg, CoverageWarning)
        _tell_absent_default_bands(job)
        lacking = [plane for plane in lacking if plane in whole]
        if not lacking:
            return whole
        job.planes = whole
    names = ", ".join(str(plane) for plane in lacking)
    msg = f"No {names} in {where}; its bands are {', '.join(bands)}."
    if on_missing == "raise":
        msg += " Leave that out, or take on_missing='warn' for planes without values."
        raise MissingDataError(msg)
    _tell(msg, CoverageWarning)
    return job.planes


def _settle_uncovered(job, found, where, on_missing):
    """Handle a target whose own brick is not in the release."""
    request = job.request
    at = f"RA {request.ra_deg:.6f}, Dec {request.dec_deg:+.6f}"
    msg = f"{job.release.name} has no data at {at}: {where} does not exist."
    if job.release.is_split and request.region == "auto":
        other = {"north": "south", "south": "north"}[job.trees[0].region]
        msg += f" The other region, region={other!r}, is not official there but may have it."
    if not found:
        raise NoCoverageError(msg)
    if on_missing == "raise":
        msg += " Neighbouring bricks do cover part of the box: on_missing='warn' returns that part."
        raise NoCoverageError(msg)
    _tell(msg, CoverageWarning)
    seen = {plane for _, plane in found}
    return job.planes if request.bands else [plane for plane in job.planes if plane in seen]


def _bands_of_brick(job, found, reader):
    """Return the bands that the target's brick has, asking for those that are not known yet."""
    have = {plane.band for i, plane in found if i == 0 and plane.product == "image"}
    of_kind = job.trees[0].bands
    if job.placement.frame is WISE:
        of_kind = job.release.wise_bands
    image = {band: _Plane("image", band) for band in of_kind}
    unknown = [b for b, p in image.items() if p not in job.planes]
    exists = reader.has([job.section(0, image[band]) for band in unknown])
    have |= {band for band, there in zip(unknown, exists, strict=True) if there}
    have |= {plane.band for i, plane in found if i == 0 and plane.band}
    return [band for band in image if band in have]


def _tell_absent_default_bands(job):
    """Say which bands of the release this region never has, when the user named none."""
    gone = [band for band in job.release.bands if band not in job.trees[0].bands]
    if job.request.bands is None and job.request.region == "auto" and gone:
        msg = (
            f"No {', '.join(gone)} here: the {job.trees[0].region} of {job.release.name} is "
            f"{job.trees[0].folder}, with {', '.join(job.trees[0].bands)}."
        )
        _tell(msg, CoverageWarning)


def _tell_gaps(job, found, planes):
    """Say what part of the box no brick covers, and which bands a part of it lacks."""
    pieces = job.placement.pieces
    total = job.placement.shape[0] * job.placement.shape[1]
    covered = {i for i, _ in found}
    empty = [i for i in range(1, len(pieces)) if i not in covered]
    if empty:
        share = 100 * sum(pieces[i].n_pixels for i in empty) / total
        names = ", ".join(pieces[i].brick for i in empty)
        msg = f"{share:.1f} % of the cutout is without values: {job.release.name} lacks {names}."
        _tell(msg, CoverageWarning)
    for i in sorted(covered - {0}):
        lacks = [str(plane) for plane in planes if (i, plane) not in found]
        if lacks:
            msg = (
                f"{', '.join(lacks)} without values in {100 * pieces[i].n_pixels / total:.1f} % of "
                f"the cutout: brick {pieces[i].brick} of {job.trees[i].folder} lacks it."
            )
            _tell(msg, CoverageWarning)


def _primary(job, found, planes, source):
    request, pieces = job.request, job.placement.pieces
    covered = sorted({i for i, _ in found})
    bands = request.bands or dict.fromkeys(p.band for p in planes if p.band)
    mirrors = dict.fromkeys(section.mirror for section in found.values())
    cards = [
        ("SURVEY", "LegacySurvey", "DESI Legacy Imaging Surveys"),
        ("RELEASE", request.release, "data release asked for"),
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
        cards.append((f"BRICK{number}", pieces[i].brick, f"of {job.trees[i].folder}"))
        cards.append((f"TREE{number}", job.trees[i].folder, "release and region of its files"))
    cards += [
        ("REQKEY", request.key[:32], "identifies the request"),
        ("CREATOR", f"astroquery_lis {package_version()}", "software"),
    ]
    header = fits.Header([_fitting(*card) for card in cards])
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


def _fitting(name, value, comment):
    """Return a card without its comment if there is no room for it beside a long text."""
    is_short = not isinstance(value, str) or len(value) + len(comment) <= CARD_TEXT
    return name, value, comment if is_short else ""


def _image_hdu(job, plane, sections, pixels):
    box = job.placement.box
    header = fits.Header(job.placement.grid.cards(x0=box.x0, y0=box.y0))
    header["BUNIT"] = (coadd_product(plane.product).unit, "unit of the pixels")
    header["PRODUCT"] = (plane.product, coadd_product(plane.product).description)
    if job.placement.frame is WISE:
        header["MAGSYS"] = ("Vega", "magnitudes of WISE images; zero point 22.5")
    if coadd_product(plane.product).interpolated:
        scale_arcsec = round(job.placement.grid.scale_deg * 3600, 9)
        header["FLUXPIX"] = (scale_arcsec, "[arcsec] side of the pixel that flux is per")
    if plane.band is not None:
        header["BAND"] = (plane.band, "filter band")
    for number, i in enumerate(sorted(sections), start=1):
        header[f"BRICK{number}"] = job.placement.pieces[i].brick
        header[f"URL{number}"] = sections[i].url
    return fits.ImageHDU(pixels, header, name=plane.extname)
