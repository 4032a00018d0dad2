"""The commands that show one place: ``cutout``, ``psf``, ``picture``, ``url``."""

import argparse
import io
import os

import numpy as np
from astropy.coordinates import SkyCoord
from astropy.io import fits

from ..exceptions import InvalidRequestError, OptionalDependencyError
from .arguments import (
    TARGET,
    add_command,
    add_data_options,
    add_output,
    add_target,
    angle,
    size,
    sources,
)
from .console import check_output
from .positions import as_target, place, targets_of, tell_unplaced

__all__ = ["add_commands", "show_payload"]

SHOWN_CARDS = ("RELEASE", "REGION", "LAYER", "SOURCE", "MIRROR", "RA", "DEC", "BANDS")
PICTURE_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}
SIZE_HELP = "pixels or an angle such as 2arcmin, or NY,NX (default: %(default)s)"


def add_commands(commands):
    """Add the commands of this module.

    Parameters
    ----------
    commands : object
        What ``add_subparsers`` returned.
    """
    cut = add_command(
        commands,
        "cutout",
        _cutout,
        "cut a box out of the survey and write it as FITS",
        "Prints the name of the file.",
    )
    cut.add_argument("target", nargs="*", metavar="RA DEC|NAME", help=TARGET)
    cut.add_argument("--size", type=size, default=256, metavar="SIZE", help=SIZE_HELP)
    add_data_options(cut, "bands", "products", "region", "on-missing")
    cut.add_argument(
        "--layer", metavar="NAME", help="a layer of the viewer in place of --release and --region"
    )
    cut.add_argument(
        "--pixel-scale", type=angle, metavar="ANGLE", help="size of a pixel, such as 0.5arcsec"
    )
    cut.add_argument(
        "--rotation",
        type=angle,
        metavar="ANGLE",
        help="position angle of the y axis: 30deg",
    )
    cut.add_argument(
        "--wcs",
        metavar="FILE",
        help="take the grid of the first image in this FITS file, in place of size and scale; "
        "the position may then be left out",
    )
    cut.add_argument(
        "--wise-grid",
        default="native",
        choices=("native", "optical"),
        help="pixels of the WISE bands (default: %(default)s)",
    )
    cut.add_argument(
        "--convert-flux",
        action=argparse.BooleanOptionalAction,
        help="whether fluxes of the viewer are brought to the pixels of the result; by default "
        "where the unit is known",
    )
    cut.add_argument(
        "--source",
        type=sources,
        default="auto",
        metavar="NAME",
        help="auto, bricks or viewer, or several in order such as viewer,bricks "
        "(default: %(default)s)",
    )
    cut.add_argument(
        "--dry-run", action="store_true", help="print what would be asked, and ask nothing"
    )
    add_output(cut, "name of the file; by default cutout-RA-DEC.fits")

    psf = add_command(
        commands,
        "psf",
        _psf,
        "write the point spread functions at a place as FITS",
        "Prints the name of the file.",
    )
    add_target(psf)
    add_data_options(psf, "bands", "region", "on-missing")
    psf.add_argument(
        "--to-sky", action="store_true", help="turn it north up, on pixels of 0.262 arcsec"
    )
    psf.add_argument(
        "--source",
        type=sources,
        default="auto",
        metavar="NAME",
        help="auto, viewer or bricks, or several in order (default: %(default)s)",
    )
    psf.add_argument(
        "--dry-run", action="store_true", help="print what would be asked, and ask nothing"
    )
    add_output(psf, "name of the file; by default psf-RA-DEC.fits")

    picture = add_command(
        commands,
        "picture",
        _picture,
        "write the viewer's colour picture of a place",
        "Prints the name of the file. Needs the plot extra.",
    )
    add_target(picture)
    picture.add_argument("--size", type=size, default=256, metavar="SIZE", help=SIZE_HELP)
    picture.add_argument("--bands", metavar="BANDS", help="for example grz; by default the layer's")
    add_data_options(picture, mirror=False)
    picture.add_argument("--layer", metavar="NAME", help="by default that of the release")
    picture.add_argument(
        "--pixel-scale", type=angle, metavar="ANGLE", help="size of a pixel, such as 1arcsec"
    )
    picture.add_argument(
        "--dry-run", action="store_true", help="print what would be asked, and ask nothing"
    )
    add_output(picture, "a name in .png or .jpg; by default picture-RA-DEC.png")

    url = add_command(
        commands,
        "url",
        _url,
        "print the address of the viewer's page at a place",
        "Uses no network, but for names.",
    )
    add_target(url, table=True)
    url.add_argument("--release", metavar="NAME", help="data release whose layer is shown")
    url.add_argument("--layer", metavar="NAME", help="by default that of the release")
    url.add_argument(
        "--zoom",
        type=int,
        default=15,
        metavar="N",
        help="14 is 0.262 arcsec per screen pixel, one more halves it (default: %(default)s)",
    )


def show_payload(payload, console):
    """Print what would be asked.

    Parameters
    ----------
    payload : str, list or dict
        As ``get_query_payload=True`` returns it.
    console : `~.console.Console`
        Prints it.
    """
    console.put(payload=payload)
    if isinstance(payload, dict):
        payload = [f"{name}={value}" for name, value in payload.items()]
    for text in [payload] if isinstance(payload, str) else payload:
        console.line(text)


def _name_output(options, default):
    if options.output is None and not options.dry_run:
        options.output = default
        check_output(options)


def _cutout(options, survey, console):
    grid = None if options.wcs is None else _grid_of(options.wcs)
    position = as_target(options.target) if options.target or grid is None else None
    name = "cutout.fits" if position is None else f"cutout-{place(position)}.fits"
    _name_output(options, name)
    answer = survey.get_cutout(
        position,
        options.size,
        bands=options.bands,
        products=options.products,
        release=options.release,
        region=options.region,
        layer=options.layer,
        pixel_scale=options.pixel_scale,
        wcs=grid,
        rotation=options.rotation,
        wise_grid=options.wise_grid,
        source=options.source,
        mirror=options.mirror,
        on_missing=options.on_missing,
        convert_flux=options.convert_flux,
        cache=False if options.no_cache else None,
        get_query_payload=options.dry_run,
    )
    if options.dry_run:
        return show_payload(answer, console)
    return _write_images(answer, options.output, console)


def _grid_of(path):
    """Return the header of the first image in a FITS file."""
    try:
        with fits.open(path) as hdul:
            headers = [hdu.header for hdu in hdul if hdu.is_image and hdu.header["NAXIS"] == 2]
    except OSError as error:
        msg = f"--wcs: {path} cannot be read as FITS: {error}."
        raise InvalidRequestError(msg, parameter="wcs", value=path) from error
    if not headers:
        msg = f"--wcs: {path} has no image."
        raise InvalidRequestError(msg, parameter="wcs", value=path)
    return headers[0]


def _psf(options, survey, console):
    position = as_target(options.target)
    _name_output(options, f"psf-{place(position)}.fits")
    answer = survey.get_psf(
        position,
        bands=options.bands,
        release=options.release,
        region=options.region,
        to_sky=options.to_sky,
        source=options.source,
        mirror=options.mirror,
        on_missing=options.on_missing,
        cache=False if options.no_cache else None,
        get_query_payload=options.dry_run,
    )
    if options.dry_run:
        return show_payload(answer, console)
    return _write_images(answer, options.output, console)


def _write_images(hdul, path, console):
    header = hdul[0].header
    console.put(
        header={name: header[name] for name in SHOWN_CARDS if name in header},
        images=[
            {
                "name": hdu.name,
                "shape": list(hdu.shape),
                "unit": hdu.header.get("BUNIT"),
                "band": hdu.header.get("BAND"),
            }
            for hdu in hdul[1:]
        ],
    )
    console.hdul(hdul, path)


def _refuse_two_layers(options):
    if options.layer and options.release:
        msg = "Give --layer or --release: a layer has a release of its own."
        raise InvalidRequestError(msg, parameter="layer", value=options.layer)


def _picture(options, survey, console):
    _refuse_two_layers(options)
    position = as_target(options.target)
    _name_output(options, f"picture-{place(position)}.png")
    path = options.output
    ending = ".png" if path in (None, "-") else os.path.splitext(path)[1].lower()
    if ending not in PICTURE_FORMATS:
        msg = f"-o: {path} must end in one of: {', '.join(PICTURE_FORMATS)}."
        raise InvalidRequestError(msg, parameter="output", value=path)
    answer = survey.get_picture(
        position,
        options.size,
        layer=options.layer,
        bands=options.bands,
        pixel_scale=options.pixel_scale,
        cache=False if options.no_cache else None,
        get_query_payload=options.dry_run,
    )
    if options.dry_run:
        return show_payload(answer, console)
    stream = io.BytesIO()
    kind = PICTURE_FORMATS[ending]
    _image(answer).save(stream, kind, **({"quality": 95} if kind == "JPEG" else {}))
    console.put(shape=list(answer.shape))
    console.binary(stream.getvalue(), path)


def _image(array):
    try:
        from PIL import Image
    except ImportError as error:
        msg = "Pictures need pillow: install astroquery_lis[plot]."
        raise OptionalDependencyError(msg, cause=error) from error
    return Image.fromarray(np.ascontiguousarray(array))


def _url(options, survey, console):
    _refuse_two_layers(options)
    _, ra_deg, dec_deg = targets_of(options)
    urls = [
        ""
        if np.isnan(ra)
        else survey.viewer_url(
            SkyCoord(ra, dec, unit="deg"), layer=options.layer, zoom=options.zoom
        )
        for ra, dec in zip(ra_deg, dec_deg, strict=True)
    ]
    for url in urls:
        console.line(url)
    console.put(urls=urls)
    return tell_unplaced(np.isnan(ra_deg), console)
