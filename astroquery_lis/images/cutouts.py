"""Which source makes a cutout, and what happens when it fails."""

from dataclasses import dataclass, replace

from ..exceptions import FailoverWarning, InvalidRequestError, ServiceDownError, TransferError, warn
from ..survey.layers import Layer, layer_of
from ..survey.pixel_grids import rotated_wcs_text
from ..survey.request import CutoutRequest
from .viewer import VIEWER_PRODUCTS, ViewerRequest, check_viewer_request
from .viewer_native import NATIVE_PRODUCTS

__all__ = ["SOURCES", "CutoutPlan", "as_sources", "attempts", "first_answer", "viewer_parameters"]

SOURCES = ("auto", "bricks", "viewer")


@dataclass(frozen=True)
class CutoutPlan:
    """A cutout before its source is chosen."""

    request: CutoutRequest
    layer: Layer | None
    pixel_scale_arcsec: float
    is_native: bool
    convert_flux: bool | None = None
    with_psf: bool = False
    wanted: tuple = ()
    wcs: str = ""
    wise: CutoutRequest | None = None
    wise_wanted: tuple = ()

    @property
    def release(self):
        """Release that was asked for, or that the layer shows."""
        return self.request.release

    @property
    def region(self):
        """Region that was asked for, or that the layer shows."""
        return self.request.region


def as_sources(source):
    """Return sources as a tuple, ``('auto',)`` where they are to be chosen."""
    try:
        names = (source,) if isinstance(source, str) else tuple(source)
    except TypeError:
        names = ()
    for name in names or (source,):
        if name not in SOURCES or (name == "auto" and len(names) > 1):
            msg = f"source={source!r} must be one of {', '.join(SOURCES)}, or a sequence of those."
            raise InvalidRequestError(msg, parameter="source", value=source)
    return names


def _refuse(message):
    raise InvalidRequestError(message, parameter="source", value=None)


def _for_bricks(plan):
    """Return the attempt to make a cutout from the bricks."""
    layer, request = plan.layer, plan.request
    if plan.wcs or not plan.is_native:
        if plan.convert_flux is False:
            _refuse("source='bricks' gives flux per pixel of the result; leave convert_flux out.")
        scale, shape = plan.pixel_scale_arcsec, (request.ny, request.nx)
        north_up = rotated_wcs_text(request.ra_deg, request.dec_deg, *shape, scale, 0.0)
        request = replace(request, wcs=plan.wcs or north_up)
    if layer is None:
        return "bricks", request
    from_files = layer.release is not None and layer.region is not None
    if not from_files or layer.product not in ("image", "model"):
        _refuse(f"source='bricks': there are no brick files for layer {layer.name}.")
    whole = layer_of(layer.release, layer.region, layer.product)
    bands = request.bands
    if bands is None and layer.bands != whole.bands:
        bands = layer.bands
    products = tuple(layer.product if p == "image" else p for p in request.products)
    return "bricks", replace(request, products=products, bands=bands)


def _for_viewer(plan):
    """Return the attempt to have the viewer make a cutout."""
    request, layer = plan.request, plan.layer
    if plan.wcs:
        _refuse("source='viewer' has neither rotation nor a given wcs; take source='bricks'.")
    if layer is None and plan.is_native and set(request.products) <= set(NATIVE_PRODUCTS):
        return "native", request
    if layer is None:
        unfit = [name for name in request.products if name not in VIEWER_PRODUCTS]
        if unfit:
            _refuse(
                f"source='viewer' cannot give {', '.join(unfit)} here; it has "
                f"{', '.join(NATIVE_PRODUCTS)} at native pixels, and "
                f"{', '.join(VIEWER_PRODUCTS)} at others."
            )
        layer = layer_of(request.release, request.region)
    bands = request.bands
    convert = plan.convert_flux
    if convert is None:
        convert = not plan.is_native and layer.unit == "nanomaggy"
    return "viewer", ViewerRequest(
        request.ra_deg,
        request.dec_deg,
        request.ny,
        request.nx,
        layer.name,
        request.products,
        bands,
        plan.pixel_scale_arcsec,
        convert,
    )


def attempts(source, plan, *, allow_unknown_layer=False):
    """Return what to try, in order."""
    names = as_sources(source)
    possible, refusals = [], []
    if names == ("auto",):
        # At other scales the viewer's rendering costs a fraction of the bytes.
        names = ("bricks", "viewer") if plan.is_native or plan.wcs else ("viewer", "bricks")
    for name in names:
        try:
            kind, request = (_for_bricks if name == "bricks" else _for_viewer)(plan)
            if kind == "viewer":
                check_viewer_request(request, allow_unknown_layer=allow_unknown_layer)
        except InvalidRequestError as error:
            refusals.append(error)
        else:
            possible.append((kind, request))
    if not possible:
        raise refusals[0 if len(refusals) == 1 or not plan.is_native else -1]
    return possible


def first_answer(calls):
    """Return what the first source gives that is not down."""
    failures = []
    for kind, call in calls:
        name = "bricks" if kind == "bricks" else "viewer"
        try:
            hdul = call()
        except TransferError as error:
            failures.append((name, error))
            continue
        for number, (failed, reason) in enumerate(failures, start=1):
            msg = f"Source {failed} failed ({reason}); {name} answered instead."
            warn(msg, FailoverWarning)
            hdul[0].header[f"FAILED{number}"] = (failed, "source that failed before")
        return hdul
    if len(failures) == 1:
        raise failures[0][1]
    told = " ".join(f"{name}: {error}" for name, error in failures)
    last = failures[-1][1]
    msg = f"No source could answer. {told}"
    raise ServiceDownError(msg, url=last.url, status=last.status, cause=last) from last


def viewer_parameters(request):
    """Return the viewer's parameters of a request, as it would be sent."""
    if isinstance(request, ViewerRequest):
        given = request.parameters(next(request.parts()), request.bands or ())
    else:
        given = {
            "ra": repr(request.ra_deg),
            "dec": repr(request.dec_deg),
            "layer": layer_of(request.release, request.region).name,
            "width": request.nx,
            "height": request.ny,
            "bands": "".join(request.bands or ()) or None,
            "subimage": True,
        }
    return {name: value for name, value in given.items() if value is not None}
