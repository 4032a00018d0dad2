"""Cutouts from the coadds of the bricks: native pixels, whatever the borders between bricks."""

import warnings
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

import numpy as np
from astropy.io import fits

from ..exceptions import (
    CacheWarning,
    CoverageWarning,
    FailoverWarning,
    MissingDataError,
    NoCoverageError,
)
from ..survey.bricks import IMAGE_SIZE_PIX, brick_grid, region_of_brick
from ..survey.layout import COADD_PRODUCTS, coadd_paths, get_tree
from ..survey.placement import pixel_sky, place, row_blocks
from ..survey.releases import get_release
from .reader import SectionRequest
from .resample import lanczos3, nearest

__all__ = ["coadd_cutout", "coadd_cutout_paths"]

NPRIMARY = 1
STACKLEVEL = 5
"""From a warning here to the line of the user's that called ``get_cutout``."""


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
        self.placement = place(request.ra_deg, request.dec_deg, request.ny, request.nx)
        self.trees = [self._tree(piece) for piece in self.placement.pieces]
        self.planes = _planes(request.products, request.bands or self.trees[0].bands)

    def _tree(self, piece):
        region = self.request.region
        if region == "auto":
            region = str(region_of_brick(piece.brick_id, self.release.name))
        return get_tree(self.release.name, region)

    def paths(self, index, plane):
        """Return the names of the file of a plane in a piece; `None` if its tree has none."""
        tree = self.trees[index]
        lacks_band = plane.band is not None and plane.band not in tree.bands
        if lacks_band or plane.product not in get_release(tree.release).products:
            return None
        brick = self.placement.pieces[index].brick
        return coadd_paths(tree.release, tree.region, plane.product, brick, plane.band)

    def files(self):
        """Return ``{(piece, plane): paths}`` of every file that can exist."""
        pairs = ((i, plane) for i in range(len(self.trees)) for plane in self.planes)
        named = {(i, plane): self.paths(i, plane) for i, plane in pairs}
        return {key: paths for key, paths in named.items() if paths is not None}


def _planes(products, bands):
    planes = []
    for product in products:
        per_band = COADD_PRODUCTS[product].per_band
        planes += [_Plane(product, band) for band in bands] if per_band else [_Plane(product, None)]
    return planes


def coadd_cutout_paths(request):
    """Return the paths of the files that a cutout reads, without reading any.

    Parameters
    ----------
    request : `~astroquery_lis.survey.request.CutoutRequest`
        The request.

    Returns
    -------
    list of str
        Relative to the survey's root; a file may turn out not to exist.
    """
    return [paths[0] for paths in _Job(request).files().values()]


def coadd_cutout(request, reader, *, on_missing="raise"):
    """Cut a box out of the bricks' coadds.

    Parameters
    ----------
    request : `~astroquery_lis.survey.request.CutoutRequest`
        What to cut.
    reader : `~.reader.SectionReader`
        Reads the files.
    on_missing : {'raise', 'warn'}, optional
        What to do about named data that the target's brick lacks.

    Returns
    -------
    `~astropy.io.fits.HDUList`
        An empty primary HDU with the provenance, then one image HDU per product and band.

    Raises
    ------
    NoCoverageError
        If the target's brick is not in the release.
    MissingDataError
        If it lacks a band or product that was named.
    TransferError
        If a file could not be had.
    """
    job = _Job(request)
    files = job.files()
    answers = reader.read(
        [SectionRequest(paths, job.placement.pieces[i].read) for (i, _), paths in files.items()]
    )
    sections = dict(zip(files, answers, strict=True))
    found = {key: section for key, section in sections.items() if section.pixels is not None}
    _tell_failures(answers)
    planes = _settle_missing(job, found, reader, on_missing)
    _tell_gaps(job, found, planes)
    coordinates = _neighbour_coordinates(job.placement)
    hdus = [_primary(job, found, planes)]
    for plane in planes:
        mine = {i: section for (i, p), section in found.items() if p == plane}
        pixels = _assemble(job.placement, plane, mine, coordinates, job)
        hdus.append(_image_hdu(job, plane, mine, pixels))
    return fits.HDUList(hdus)


def _tell_failures(answers):
    told = {}
    for section in answers:
        for mirror, error in section.failures:
            told.setdefault(mirror, (error, section.mirror))
    for mirror, (error, other) in told.items():
        msg = f"Mirror {mirror} failed ({error}); {other or 'no other'} answered instead."
        warnings.warn(msg, FailoverWarning, stacklevel=STACKLEVEL)
    errors = [section.cache_error for section in answers if section.cache_error is not None]
    if errors:
        msg = f"The result is not cached: {errors[0]}"
        warnings.warn(msg, CacheWarning, stacklevel=STACKLEVEL)


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
            warnings.warn(msg, CoverageWarning, stacklevel=STACKLEVEL)
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
    warnings.warn(msg, CoverageWarning, stacklevel=STACKLEVEL)
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
    warnings.warn(msg, CoverageWarning, stacklevel=STACKLEVEL)
    seen = {plane for _, plane in found}
    return job.planes if request.bands else [plane for plane in job.planes if plane in seen]


def _bands_of_brick(job, found, reader):
    """Return the bands that the target's brick has, asking for those that are not known yet."""
    have = {plane.band for i, plane in found if i == 0 and plane.product == "image"}
    image = {band: _Plane("image", band) for band in job.trees[0].bands}
    unknown = [b for b, p in image.items() if p not in job.planes]
    exists = reader.has([job.paths(0, image[band]) for band in unknown])
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
        warnings.warn(msg, CoverageWarning, stacklevel=STACKLEVEL)


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
        warnings.warn(msg, CoverageWarning, stacklevel=STACKLEVEL)
    for i in sorted(covered - {0}):
        lacks = [str(plane) for plane in planes if (i, plane) not in found]
        if lacks:
            msg = (
                f"{', '.join(lacks)} without values in {100 * pieces[i].n_pixels / total:.1f} % of "
                f"the cutout: brick {pieces[i].brick} of {job.trees[i].folder} lacks it."
            )
            warnings.warn(msg, CoverageWarning, stacklevel=STACKLEVEL)


def _neighbour_coordinates(placement):
    """Return, for each neighbour, blocks of (rows and columns, y, x): where its pixels are read."""
    coordinates = {}
    for i, piece in enumerate(placement.pieces):
        if piece.is_owner:
            continue
        grid, blocks = brick_grid(piece.brick_id), []
        for block in row_blocks(piece.area):
            inside = placement.labels[block.slices] == i
            if not inside.any():
                continue
            ra, dec = (v[inside] for v in pixel_sky(placement.grid, placement.box, block))
            x, y = grid.to_pixel(ra, dec)
            on_image = _within(y) & _within(x)
            rows, columns = np.nonzero(inside)
            blocks.append(
                (
                    (rows[on_image] + block.y0, columns[on_image] + block.x0),
                    y[on_image] - piece.read.y0,
                    x[on_image] - piece.read.x0,
                )
            )
        coordinates[i] = blocks
    return coordinates


def _within(pixel):
    return (pixel > -0.5) & (pixel < IMAGE_SIZE_PIX - 0.5)


def _assemble(placement, plane, sections, coordinates, job):
    """Put the pieces of one plane together."""
    if placement.labels is None and 0 in sections:
        return sections[0].pixels
    product = COADD_PRODUCTS[plane.product]
    dtype = _dtype(plane, sections, job)
    result = np.full(placement.shape, product.no_value, dtype)
    for i, section in sections.items():
        piece = placement.pieces[i]
        if piece.is_owner:
            where = piece.read.moved(-placement.box.y0, -placement.box.x0).slices
            inside = placement.labels[where] == i
            result[where][inside] = section.pixels[inside]
            continue
        for where, y, x in coordinates[i]:
            if product.interpolated:
                result[where] = lanczos3(section.pixels, y, x)
            else:
                values = nearest(section.pixels, y, x)
                if plane.product == "maskbits":
                    # The nearest pixel may lie across the border; the position does not.
                    values = values & ~values.dtype.type(NPRIMARY)
                result[where] = values
    return result


def _dtype(plane, sections, job):
    if sections:
        return np.result_type(*(section.pixels.dtype for section in sections.values()))
    if plane.product == "maskbits":
        return np.int32 if job.release.number >= 10 else np.int16
    return np.int16 if plane.product == "nexp" else np.float32


def package_version():
    """Return the version of the package."""
    try:
        return version("astroquery_lis")
    except PackageNotFoundError:
        return "unknown"


def _primary(job, found, planes):
    request, pieces = job.request, job.placement.pieces
    covered = sorted({i for i, _ in found})
    bands = request.bands or dict.fromkeys(p.band for p in planes if p.band)
    mirrors = dict.fromkeys(section.mirror for section in found.values())
    cards = [
        ("SURVEY", "LegacySurvey", "DESI Legacy Imaging Surveys"),
        ("RELEASE", request.release, "data release asked for"),
        ("REGION", request.region, "region asked for"),
        ("SOURCE", "bricks", "what the pixels were cut from"),
        ("MIRROR", ", ".join(mirrors), "where the files came from"),
        ("RA", request.ra_deg, "[deg] target, ICRS"),
        ("DEC", request.dec_deg, "[deg] target, ICRS"),
        ("SIZEX", request.nx, "[pix] width"),
        ("SIZEY", request.ny, "[pix] height"),
        ("PRODUCTS", ",".join(request.products), "products asked for"),
        ("BANDS", ",".join(bands), "bands, as in the extensions"),
        ("GRID", pieces[0].brick, "brick whose TAN grid this is"),
        ("NBRICKS", len(covered), "bricks that contributed"),
    ]
    for number, i in enumerate(covered, start=1):
        cards.append((f"BRICK{number}", pieces[i].brick, f"of {job.trees[i].folder}"))
        cards.append((f"TREE{number}", job.trees[i].folder, "release and region of its files"))
    cards += [
        ("REQKEY", request.key[:32], "identifies the request"),
        ("CREATOR", f"astroquery_lis {package_version()}", "software"),
    ]
    header = fits.Header(cards)
    if len(covered) > 1:
        header["COMMENT"] = (
            "Pixels of brick GRID are native. Those of other bricks are interpolated: image, "
            "model, blobmodel by Lanczos-3, the rest nearest; each pixel from the brick that "
            "owns it."
        )
    return fits.PrimaryHDU(header=header)


def _image_hdu(job, plane, sections, pixels):
    box = job.placement.box
    header = fits.Header(job.placement.grid.cards(x0=box.x0, y0=box.y0))
    header["BUNIT"] = (COADD_PRODUCTS[plane.product].unit, "unit of the pixels")
    header["PRODUCT"] = (plane.product, COADD_PRODUCTS[plane.product].description)
    if plane.band is not None:
        header["BAND"] = (plane.band, "filter band")
    for number, i in enumerate(sorted(sections), start=1):
        header[f"BRICK{number}"] = job.placement.pieces[i].brick
        header[f"URL{number}"] = sections[i].url
    return fits.ImageHDU(pixels, header, name=plane.extname)
