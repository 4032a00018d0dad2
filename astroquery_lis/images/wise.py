"""What the WISE bands of a cutout need: their own grid, or the optical one."""

from dataclasses import replace

from astropy.io.fits import Header

from ..exceptions import InvalidRequestError
from ..survey.pixel_grids import rotated_wcs_text
from ..survey.placement import WISE, place
from ..survey.releases import PIXEL_SCALE_ARCSEC, WISE_PRODUCTS, get_release
from .derived import DERIVED

__all__ = ["split_wise", "wise_request"]


def split_wise(bands, release):
    """Tell the WISE bands from the others."""
    known = get_release(release).wise_bands
    if isinstance(bands, str):
        wise = [name for name in known if name in bands]
        wise.sort(key=bands.index)
        for name in wise:
            bands = bands.replace(name, "")
        return bands.strip(", "), tuple(wise)
    if bands is None or not known:
        return bands, ()
    try:
        names = list(bands)
    except TypeError:
        return bands, ()
    wise = tuple(dict.fromkeys(name for name in names if name in known))
    return [name for name in names if name not in known], wise


def wise_request(request, bands, wanted, *, scale_arcsec, on_optical):
    """Return the request for the WISE bands of a cutout, and its products."""
    mine = tuple(name for name in wanted if name in WISE_PRODUCTS or name in DERIVED)
    if not mine:
        allowed = ", ".join((*WISE_PRODUCTS, *DERIVED))
        msg = f"products={wanted!r}: the WISE bands have {allowed}."
        raise InvalidRequestError(msg, parameter="products", value=wanted)
    base = tuple(dict.fromkeys(b for name in mine for b in DERIVED.get(name, (name,))))
    found = replace(request, products=base, bands=bands)
    if request.wcs or on_optical:
        return replace(found, wcs=request.wcs or _optical_grid(request, scale_arcsec)), mine
    ny, nx = (max(round(n * scale_arcsec / WISE.scale_arcsec), 1) for n in (found.ny, found.nx))
    return replace(found, ny=ny, nx=nx), mine


def _optical_grid(request, scale_arcsec):
    """Return the grid of the optical cutout as text."""
    if scale_arcsec != PIXEL_SCALE_ARCSEC:
        shape = request.ny, request.nx
        return rotated_wcs_text(request.ra_deg, request.dec_deg, *shape, scale_arcsec, 0.0)
    placement = place(request.ra_deg, request.dec_deg, request.ny, request.nx)
    cards = placement.grid.cards(x0=placement.box.x0, y0=placement.box.y0)
    return "\n".join(str(card).rstrip() for card in Header(cards).cards)
