"""Where a cutout can come from: the brick files, the viewer's brick pixels, the viewer's rendering.

Each source says which requests it can serve, and in which form; those that can are asked in turn,
and the first that answers wins.  The WISE bands are in the brick files alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NamedTuple, NoReturn, Protocol

from astropy.io import fits

from ..exceptions import (
    CoverageWarning,
    FailoverWarning,
    InvalidRequestError,
    NoCoverageError,
    TransferError,
    warn,
)
from ..io.http import Options, all_failed, reason_of, shared_client
from ..io.mirrors import Mirror
from ..io.places import FileFinder
from ..survey.layers import LAYER_PRODUCTS, Layer, layer_of
from ..survey.placement import WISE, frame_of
from ..survey.releases import DERIVED, PIXEL_SCALE_ARCSEC, WISE_BANDS
from ..survey.request import CutoutRequest
from .assemble import COARSE_RATIO
from .coadds import (
    CoaddPlan,
    PixelReader,
    coadd_cutout,
    plain_cutout,
)
from .cutout_hdus import add_derived
from .open_images import OpenImages
from .psf import ModelPsf, ViewerPsf
from .reader import Proof, SectionReader
from .renderings import Rendering, check_layer_request, viewer_cutout
from .strips import SharedFiles
from .viewer_service import NATIVE_PRODUCTS, ViewerSections, ViewerService, viewer_client

if TYPE_CHECKING:
    from .._typing import Payload

SOURCES = ("auto", "bricks", "viewer")

ALIASED_ARCSEC = (0.37, 0.53)
"""Pixel scales at which the viewer's interpolation aliases."""

FEW_PIX = 3000
"""Side of a box, in native pixels, up to which bricks are asked first at any scale."""

Attempts = Iterator[tuple["Source", CutoutRequest]]


class Source(Protocol):
    """One source of planes."""

    name: ClassVar[str]

    def fitted(self, request: CutoutRequest) -> CutoutRequest:
        """Return the request as this source serves it; raise InvalidRequestError if it cannot."""

    def answer(self, request: CutoutRequest, on_missing: str) -> fits.HDUList:
        """Return an empty primary HDU with the provenance, then the planes."""

    def payload(self, request: CutoutRequest) -> Payload:
        """Return what would be asked of which service."""

    def urls(self, request: CutoutRequest) -> list[str]:
        """Return the addresses of what would be asked."""


def _refuse(message: str) -> NoReturn:
    raise InvalidRequestError(message, parameter="source", value=None)


@dataclass(frozen=True)
class BrickFiles:
    """The coadds of the bricks, from mirrors and cache."""

    open_reader: Callable[[], AbstractContextManager[PixelReader]]
    mirror: Mirror
    name: ClassVar[str] = "bricks"

    def fitted(self, request: CutoutRequest) -> CutoutRequest:
        """Return the request for products of files, on the bricks' pixels or on a WCS."""
        if not request.is_native:
            if request.convert_flux is False:
                _refuse(
                    "source='bricks' gives flux per pixel of the result; leave convert_flux out."
                )
            request = replace(request, wcs=request.wcs or request.north_up_text())
        return request if request.layer is None else _of_files(request, request.layer)

    def answer(self, request: CutoutRequest, on_missing: str) -> fits.HDUList:
        """Cut the planes out of the files."""
        with self.open_reader() as reader:
            return plain_cutout(CoaddPlan(request), reader, on_missing=on_missing).to_hdus()

    def payload(self, request: CutoutRequest) -> Payload:
        """Return the addresses of the files; one may turn out not to exist."""
        return {"service": self.mirror.name, "urls": self.urls(request)}

    def urls(self, request: CutoutRequest) -> list[str]:
        """Return the addresses of the files, of the first mirror."""
        return [str(self.mirror.locate(path)) for path in CoaddPlan(request).paths()]


def _of_files(request: CutoutRequest, layer: Layer) -> CutoutRequest:
    """Return the request for the products of files that a layer shows."""
    if layer.release is None or layer.region is None or layer.product not in ("image", "model"):
        _refuse(f"source='bricks': there are no brick files for layer {layer.name}.")
    bands, whole = request.bands, layer_of(layer.release, layer.region, layer.product)
    if bands is None and layer.bands != whole.bands:
        bands = layer.bands
    products = tuple(layer.product if name == "image" else name for name in request.products)
    return replace(request, layer=None, products=products, bands=bands)


@dataclass(frozen=True)
class _Viewer:
    """What both ways to have pixels of the viewer share."""

    service: Callable[[], ViewerService]
    name: ClassVar[str] = "viewer"

    def payload(self, request: CutoutRequest) -> Payload:
        """Return the viewer's parameters; a large request takes several addresses."""
        parameters, root = self._parameters(request), self.service().url
        if len(parameters) > 1:
            return {"service": root, "urls": self.urls(request)}
        return {"service": f"{root}/cutout.fits", "params": parameters[0]}

    def urls(self, request: CutoutRequest) -> list[str]:
        """Return the addresses of what would be asked."""
        address = self.service().address
        return [address("cutout.fits", **values) for values in self._parameters(request)]

    def _parameters(self, request: CutoutRequest) -> list[dict[str, str | int | bool]]:
        raise NotImplementedError


class ViewerPixels(_Viewer):
    """The pixels of the bricks as the viewer passes them on."""

    def fitted(self, request: CutoutRequest) -> CutoutRequest:
        """Return the request if it is for native pixels that the viewer passes on."""
        if request.layer is not None or not request.is_native:
            _refuse("The viewer passes on the native pixels of releases only.")
        unfit = [name for name in request.products if name not in NATIVE_PRODUCTS]
        if unfit:
            _refuse(f"The viewer has no native pixels of {', '.join(unfit)}.")
        return request

    def answer(self, request: CutoutRequest, on_missing: str) -> fits.HDUList:
        """Put the planes together as from the files."""
        return coadd_cutout(request, ViewerSections(self.service()), on_missing=on_missing)

    def _parameters(self, request: CutoutRequest) -> list[dict[str, str | int | bool]]:
        return ViewerSections(self.service()).parameters(CoaddPlan(request).sections())


class ViewerRendering(_Viewer):
    """What the viewer renders of a layer."""

    def fitted(self, request: CutoutRequest) -> CutoutRequest:
        """Return the request with the layer that is to be rendered."""
        if request.wcs:
            _refuse("source='viewer' has neither rotation nor a given wcs; take source='bricks'.")
        layer = _shown(request) if request.layer is None else request.layer
        convert = request.convert_flux
        if convert is None:
            convert = not request.is_native and layer.unit == "nanomaggy"
        request = replace(request, layer=layer, convert_flux=convert)
        check_layer_request(request)
        return request

    def answer(self, request: CutoutRequest, on_missing: str) -> fits.HDUList:
        """Have the planes rendered, and check them."""
        return viewer_cutout(request, self.service(), on_missing=on_missing)

    def _parameters(self, request: CutoutRequest) -> list[dict[str, str | int | bool]]:
        return Rendering(request).all_parameters()


def _shown(request: CutoutRequest) -> Layer:
    """Return the layer that shows what a request of a release wants, or refuse it."""
    unfit = [name for name in request.products if name not in LAYER_PRODUCTS]
    not_native = [name for name in request.products if name not in NATIVE_PRODUCTS]
    if request.is_native and len(not_native) < len(request.products):
        # A rendering has another grid: what is added must not change what was there.
        unfit = not_native or unfit
    if unfit:
        _refuse(
            f"source='viewer' cannot give {', '.join(unfit)} here; it has "
            f"{', '.join(NATIVE_PRODUCTS)} at native pixels, and "
            f"{', '.join(LAYER_PRODUCTS)} at others."
        )
    assert request.release is not None
    return layer_of(request.release.name, request.region)


class Cost(NamedTuple):
    """What is asked of a service."""

    n_requests: int
    n_bytes: int


def suitable(
    request: CutoutRequest,
    sources: Iterable[Source],
    names: tuple[str, ...],
    viewer_matches: Callable[[], bool] = lambda: True,
) -> Attempts:
    """Yield the sources that can serve a request, in the order of the names, and how.

    Of the sources of one name the first that can is taken.  A source is looked at only when those
    before it have failed; if none can serve the request, one of their refusals is raised.
    """
    serves = False
    refusals = []
    for name in names:
        refusal = None
        if name == "viewer" and serves and not viewer_matches():
            # Another sky must not stand in for that of the mirrors.
            break
        for source in sources:
            if source.name != name:
                continue
            try:
                fitted = source.fitted(request)
            except InvalidRequestError as error:
                refusal = error
            else:
                serves, refusal = True, None
                yield source, fitted
                break
        if refusal is not None:
            refusals.append(refusal)
    if not serves:
        raise refusals[-1 if request.is_native else 0]


def first_answer(attempts: Attempts, on_missing: str) -> fits.HDUList:
    """Return what the first source gives that is not down; a card ``FAILED1`` names others."""
    failures: list[tuple[str, TransferError]] = []
    for source, request in attempts:
        try:
            hdul = source.answer(request, on_missing)
        except TransferError as error:
            failures.append((source.name, error))
            continue
        for number, (name, failure) in enumerate(failures, start=1):
            msg = f"Source {name} failed ({reason_of(failure)}); {source.name} answered instead."
            warn(msg, FailoverWarning)
            hdul[0].header[f"FAILED{number}"] = (name, "source that failed before")
        return hdul
    summary = "No source could answer."
    raise all_failed(summary, failures)


def _leave_out(error: NoCoverageError, on_missing: str, *, has_others: bool) -> None:
    """Warn of the optical planes, or those of WISE, where nothing is; raise if no other is left."""
    if on_missing == "raise" or not has_others:
        raise error
    warn(str(error), CoverageWarning)


def _files_serve_better(request: CutoutRequest) -> bool:
    """Return True if bricks are asked first: they conserve flux, and weights are theirs.

    The viewer interpolates native pixels without a filter up to twice their size, which aliases
    from 0.37 arcsec on.  Of large boxes its rendering takes a fraction of the bytes.
    """
    scale_arcsec = request.pixel_scale_arcsec
    if scale_arcsec**2 > COARSE_RATIO * PIXEL_SCALE_ARCSEC**2 and find_spec("reproject") is None:
        return False
    side_pix = max(request.ny, request.nx) * scale_arcsec / PIXEL_SCALE_ARCSEC
    return ALIASED_ARCSEC[0] <= scale_arcsec <= ALIASED_ARCSEC[1] or side_pix <= FEW_PIX


@dataclass(frozen=True)
class Sources:
    """The sources of one call, and which of them were named."""

    names: tuple[str, ...]
    bricks: BrickFiles
    service: Callable[[], ViewerService]
    viewer_matches: Callable[[], bool]  # whether it shows the same sky as the mirrors
    stands_in: bool = True  # whether another source than the first is asked, where none is named

    def attempts(self, request: CutoutRequest) -> Attempts:
        """Return the sources that can serve a part of a request, and how."""
        if "psf" in request.products:
            names = ("viewer", "bricks") if self.names == ("auto",) else self.names
            return suitable(request, (ViewerPsf(self.service), ModelPsf(self.bricks)), names)
        if frame_of(request.bands) is WISE:
            return suitable(request, (self.bricks,), ("bricks",))
        pixels, rendering = ViewerPixels(self.service), ViewerRendering(self.service)
        sources = (self.bricks, pixels, rendering)
        if self.names != ("auto",):
            return suitable(request, sources, self.names)
        by_files = request.wcs or request.is_native or _files_serve_better(request)
        by_files = by_files or not self.viewer_matches()
        names = ("bricks", "viewer") if by_files else ("viewer", "bricks")
        attempts = suitable(request, sources, names, self.viewer_matches)
        return attempts if self.stands_in else islice(attempts, 1)

    def planes(self, request: CutoutRequest, on_missing: str) -> fits.HDUList:
        """Return all planes of a cutout: of files, made of those, and PSFs."""
        if request.fallback is not None:
            return self._of_first_layer(request, request.fallback, on_missing)
        has_derived = not DERIVED.keys().isdisjoint(request.products)
        parts = [self.attempts(part) for part in request.file_parts()]
        hdul = fits.HDUList()
        for number, attempts in enumerate(parts, start=1):
            try:
                answer = first_answer(attempts, on_missing)
            except NoCoverageError as error:
                _leave_out(error, on_missing, has_others=number < len(parts) or len(hdul) > 0)
                continue
            if has_derived:
                answer = add_derived(answer, request.products)
            hdul.extend(answer[min(len(hdul), 1) :])
        if "psf" in request.products:
            hdul.extend(self._psfs_beside(hdul, request, on_missing))
        header = hdul[0].header
        header["REQKEY"] = request.key[:32]
        if request.layer is not None:
            header.setdefault("LAYER", (request.layer.name, "layer of the viewer"))
        return hdul

    def _psfs_beside(
        self, hdul: fits.HDUList, request: CutoutRequest, on_missing: str
    ) -> list[fits.ImageHDU]:
        """Return the PSFs of the optical bands of a cutout's planes."""
        bands = [hdu.header.get("BAND", "W") for hdu in hdul]
        optical = tuple(dict.fromkeys(band for band in bands if band[0] != "W"))
        part = replace(request, products=("psf",), bands=optical or request.bands)
        return first_answer(replace(self, names=("auto",)).attempts(part), on_missing)[1:]

    def _of_first_layer(
        self, request: CutoutRequest, fallback: CutoutRequest, on_missing: str
    ) -> fits.HDUList:
        """Return the planes of a layer, or of the first one after it that has data there."""
        try:
            hdul = self.planes(replace(request, fallback=None), on_missing)
        except NoCoverageError:
            hdul = self.planes(fallback, on_missing)
        hdul[0].header["REQKEY"] = request.key[:32]
        return hdul

    def psfs(self, request: CutoutRequest, on_missing: str) -> fits.HDUList:
        """Return the PSFs at a position, of a request for nothing else."""
        hdul = first_answer(self.attempts(request), on_missing)
        hdul[0].header["REQKEY"] = (request.key[:32], "identifies the request")
        return hdul

    def first(self, request: CutoutRequest) -> list[tuple[Source, CutoutRequest]]:
        """Return who is asked first for each part of a cutout, and what."""
        if request.products == ("psf",):
            return [next(self.attempts(request))]
        return [next(self.attempts(part)) for part in request.file_parts()]

    def viewer_cost(self, request: CutoutRequest) -> Cost:
        """Return what a cutout, if all goes well, costs the viewer."""
        n_requests = n_bytes = 0
        for source, part in self.first(request):
            if source.name == "viewer":
                bands = part.bands or (part.layer.default_bands if part.layer else ()) or "grz"
                n_requests += len(source.urls(part))
                n_bytes += 4 * part.ny * part.nx * len(part.products) * len(bands)
        if "psf" in request.products and len(request.products) > 1:
            # The PSF, and the CCDs whose axes it is on.
            n_requests += 2
        return Cost(n_requests, n_bytes)

    def gives_plain(self, request: CutoutRequest) -> bool:
        """Return True if one file of the bricks is all that each plane is made of and asked of."""
        is_direct = request.layer is None and (request.is_native or bool(request.wcs))
        of_files = not any(name == "psf" or name in DERIVED for name in request.products)
        is_optical = not any(band in WISE_BANDS for band in request.bands or ())
        return is_direct and of_files and is_optical and self.names in (("auto",), ("bricks",))

    def plans(self, request: CutoutRequest) -> list[CoaddPlan]:
        """Return what a cutout will ask the files of bricks for."""
        return [
            CoaddPlan(part)
            for source, part in self.first(request)
            if isinstance(source, BrickFiles)
        ]

    def payload(self, request: CutoutRequest) -> Payload:
        """Return what the first source of a cutout would be asked for its files."""
        (source, part), *others = self.first(request)
        payload = source.payload(part)
        if "urls" in payload and others:
            payload["urls"] = self.urls(request)
        return payload

    def urls(self, request: CutoutRequest) -> list[str]:
        """Return the addresses that a cutout would be made from."""
        return [url for source, part in self.first(request) for url in source.urls(part)]


# ---- the sources of workers ----------------------------------------------------------------------


@dataclass(frozen=True)
class Access:
    """The settings of a call, to be carried to workers; without a location nothing is kept."""

    mirrors: tuple[Mirror, ...]
    location: str | None
    client_options: Options  # of HttpClient, names and values
    viewer_url: str = ""
    viewer_options: Options = ()  # of viewer_client, beside those of HttpClient
    viewer_matches: bool = True  # whether the viewer shows the same sky as the mirrors
    max_age_s: float | None = None  # how long its answers are good
    proof: Proof | None = None  # refuses to take what folders lack for what the survey lacks

    def reader(self, shared: SharedFiles | None = None) -> SectionReader:
        """Return a reader of brick files, on the connections that jobs of a process share."""
        where = self.mirrors, self.location, OpenImages()
        return SectionReader(self.client_options, *where, shared, self.proof)

    def finder(self) -> FileFinder:
        """Return what finds whole files."""
        client = partial(shared_client, self.client_options)
        location = None if self.location is None else Path(self.location)
        return FileFinder(client, self.mirrors, location)

    def sources(
        self,
        names: tuple[str, ...],
        open_reader: Callable[[], AbstractContextManager[PixelReader]] | None = None,
    ) -> Sources:
        """Return the sources that a worker asks."""
        bricks = BrickFiles(self.reader if open_reader is None else open_reader, self.mirrors[0])
        matches = partial(bool, self.viewer_matches)
        # A mirror that fails in a long job must not bring thousands of requests on the viewer.
        return Sources(names, bricks, self._service, matches, stands_in=False)

    def _service(self) -> ViewerService:
        options = (*self.client_options, *self.viewer_options)
        client = shared_client(tuple(dict(options).items()), viewer_client)
        return ViewerService(client, self.viewer_url, self.location, self.max_age_s)
