"""What a file is, from its headers alone: one exposure of one detector, whole, and of which level.

Pixels are never read.  The headers are walked from the first to the last, so that a file that was
cut off is seen as such, and what the headers say is held against what the name says: the pipeline
itself takes a calibrated file for a count rate and calibrates it a second time.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, NoReturn, Self, TypeVar

from astropy.io import fits

from ...exceptions import InvalidExposureError, TruncatedError, UnexpectedContentError
from ...io.whole_files import HEAD_BYTES, check_head, fits_headers
from ..pipelines import EXP_TYPES, is_guider, pipelines_for, read_table

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)

SUFFIXES = ("uncal", "rate", "rateints", "cal", "calints")
"""Endings of the files that a plan may begin from."""

ENDINGS = tuple(f"_{suffix}.fits" for suffix in SUFFIXES)

SHUTTERS = "_msa.fits"
"""Ending of the files that tell which shutters of NIRSpec's MSA were open."""

_LEVEL = {"rateints": "rate", "calints": "cal"}

_TABLE = read_table("keywords")
KEYWORDS: dict[str, str] = _TABLE["exposure"]
"""Attributes of an exposure that are words of its header."""

FLAGS: dict[str, str] = _TABLE["flags"]
"""Those that are true or false there."""

CRDS_KEYWORDS: dict[str, str] = _TABLE["crds"]
"""The parameters that CRDS chooses reference files by, and the keywords that hold them."""

# Full-frame coronagraphy reads detectors with no mask in their field: plain images.
_NO_MASK = {"MASKBAR": ("NRCA1", "NRCA2", "NRCA3"), "MASKRND": ("NRCA1", "NRCA3", "NRCA4")}

_NUMBERED = {"program": 5, "observation": 3, "visit": 3, "exposure_number": 5}


@dataclass(frozen=True, slots=True)
class Exposure:
    """One file of one detector, as its headers describe it.

    Attributes
    ----------
    path : str
        Absolute path.
    root : str
        Name of the file without its suffix.
    suffix : str
        'uncal', 'rate', 'rateints', 'cal' or 'calints'.
    size_bytes : int
        Of the file.
    instrument, detector, channel, module, filter, pupil, grating, band, mask, slit, lamp : str
        Upper case, as in the header; empty where the header has none.
    exp_type, subarray, readpatt, patttype, visit_type : str
        Likewise.
    target : str
        Name that the proposer gave it, else the catalogue's.
    program, observation, visit, visit_group, sequence_id, activity_id, exposure_number : str
        What identifies an exposure; empty where the header has none.
    is_tso, is_background, is_psf, is_imprint : bool
        What TSOVISIT, BKGDTARG, IS_PSF and IS_IMPRT say.
    n_ints, n_groups : int
        Integrations in the file, and groups in each.
    shape : tuple of int, (2,) in (ny, nx)
        Of one image.
    position_number : int
        Number of the dither position, 0 if unknown.
    date, time : str
        Begin of the exposure, UTC.
    s_region : str
        Footprint, empty where there is none.
    pointing : dict of str to float
        The keywords of the pointing that a footprint can be made of.
    cal_ver, crds_ctx : str
        Version of the pipeline and CRDS context that made the file; empty for an uncal one.
    parameters : dict of str to str
        The keywords that CRDS matches, under CRDS's names: ``META.INSTRUMENT.NAME``, ...
    steps_done : dict of str to str
        ``S_*`` keywords.
    references : dict of str to str
        ``R_*`` keywords, without ``crds://``.
    pool : dict of str to str
        Keywords that only the rules of associations look at, such as ``NUMDTHPT``.
    """

    path: str
    root: str
    suffix: str
    size_bytes: int = 0
    instrument: str = ""
    detector: str = ""
    channel: str = ""
    module: str = ""
    filter: str = ""
    pupil: str = ""
    grating: str = ""
    band: str = ""
    mask: str = ""
    slit: str = ""
    lamp: str = ""
    exp_type: str = ""
    subarray: str = ""
    readpatt: str = ""
    patttype: str = ""
    visit_type: str = ""
    target: str = ""
    program: str = ""
    observation: str = ""
    visit: str = ""
    visit_group: str = ""
    sequence_id: str = ""
    activity_id: str = ""
    exposure_number: str = ""
    is_tso: bool = False
    is_background: bool = False
    is_psf: bool = False
    is_imprint: bool = False
    n_ints: int = 1
    n_groups: int = 1
    shape: tuple = (0, 0)
    position_number: int = 0
    date: str = ""
    time: str = ""
    s_region: str = ""
    pointing: dict = field(default_factory=dict)
    cal_ver: str = ""
    crds_ctx: str = ""
    parameters: dict = field(default_factory=dict)
    steps_done: dict = field(default_factory=dict)
    references: dict = field(default_factory=dict)
    pool: dict = field(default_factory=dict)

    @property
    def msa_file(self) -> str:
        """Path of the file that says which shutters of the MSA were open; empty without one."""
        name = self.pool.get("MSAMETFL", "")
        if not name.lower().endswith(".fits"):
            return ""
        return os.path.join(os.path.dirname(self.path), os.path.basename(name))

    @property
    def level(self) -> str:
        """Level of the file whatever its integrations: 'uncal', 'rate' or 'cal'."""
        return _LEVEL.get(self.suffix, self.suffix)

    @property
    def classes(self) -> tuple[str, str, str]:
        """Classes of the three stages; empty where the chain stops."""
        classes = pipelines_for(
            self.exp_type,
            is_tso=self.is_tso,
            wavefront="WFSC" in f"{self.patttype} {self.visit_type}".upper(),
            path=self.path,
        )
        if self.exp_type == "NRC_CORON" and self._is_outside_mask:
            return (*classes[:2], "Image3Pipeline")
        # F277W holds only the first order of SOSS, and is not calibrated beyond stage 1.
        if self.exp_type == "NIS_SOSS" and self.filter == "F277W":
            return (classes[0], "", "")
        return classes

    @property
    def is_acquisition(self) -> bool:
        """Whether it only found the target."""
        return EXP_TYPES[self.exp_type].is_acquisition

    @property
    def is_slitless(self) -> bool:
        """Whether it holds spectra of a field, whose sources a mosaic of direct images tells."""
        return EXP_TYPES[self.exp_type].is_slitless

    @property
    def is_for_others(self) -> bool:
        """Whether it is a background, a reference star or an imprint of other exposures."""
        return self.is_background or self.is_psf or self.is_imprint

    @property
    def is_integrations(self) -> bool:
        """Whether stage 2 takes each integration for itself: rateints to calints."""
        if not self.classes[1] or self.exp_type.partition("_")[2].startswith("TA"):
            return False
        kind = EXP_TYPES[self.exp_type]
        if kind.has_mask:
            return not self._is_outside_mask
        return self.is_tso or kind.tso == "always" or kind.stages[2] == "Ami3Pipeline"

    @property
    def _is_outside_mask(self) -> bool:
        detectors = _NO_MASK.get(self.pupil, ())
        return self.subarray.upper() == "FULL" and self.detector in detectors

    @property
    def exposure_id(self) -> str:
        """What tells exposures apart in the pipeline; one for all detectors of an exposure."""
        parts = (self.program, self.observation, self.visit)
        numbers = (self.visit_group, self.sequence_id, self.activity_id, self.exposure_number)
        if not any(parts + numbers):
            return ""
        return f"jw{''.join(parts)}_{''.join(numbers[:3])}_{numbers[3]}"

    def to_dict(self) -> dict[str, object]:
        """Return the exposure as TOML types; what is empty is left out."""
        values = asdict(self)
        values["shape"] = list(self.shape)
        defaults = {f.name: f.default for f in fields(self)}
        return {k: v for k, v in values.items() if v != defaults[k] and v not in ({}, "")}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Return the exposure that `to_dict` wrote."""
        names = {f.name for f in fields(cls)}
        arguments = {name: value for name, value in values.items() if name in names}
        arguments["shape"] = tuple(arguments.get("shape", (0, 0)))
        return cls(**arguments)


def grouped(items: Iterable[T], key: Callable[[T], K]) -> dict[K, list[T]]:
    """Return items by what they have in common, in their order."""
    groups: dict[K, list[T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


_TIME = "META.OBSERVATION.TIME"


def configuration_key(exposure: Exposure) -> str:
    """Return the name of the set-up that decides on reference files, without the time of day."""
    values = [v for k, v in exposure.parameters.items() if k not in _SEPARATE]
    values.append(exposure.parameters.get("META.OBSERVATION.DATE", ""))
    words = (re.sub(r"[^a-z0-9-]+", "_", str(v).lower()) for v in values)
    return ".".join(word for word in words if word)


_SEPARATE = ("META.OBSERVATION.DATE", _TIME)


def configurations_of(exposures: Sequence[Exposure]) -> dict[str, dict[str, str]]:
    """Return the distinct set-ups: CRDS parameters, with the earliest time of the day."""
    configurations: dict[str, dict[str, str]] = {}
    for exposure in exposures:
        key = configuration_key(exposure)
        earliest = configurations.get(key)
        if earliest is None or exposure.parameters.get(_TIME, "") < earliest.get(_TIME, ""):
            configurations[key] = dict(exposure.parameters)
    return configurations


def split_name(path: str | os.PathLike[str]) -> tuple[str, str]:
    """Return root and suffix of the name of a file."""
    root, _, suffix = Path(path).name.removesuffix(".fits").rpartition("_")
    return (root, suffix) if root else (suffix, "")


def read_exposure(path: str | os.PathLike[str]) -> Exposure:
    """Return what the headers of a file say."""
    path = Path(os.path.abspath(path))
    root, suffix = split_name(path)
    if not path.name.endswith(ENDINGS):
        endings = ", ".join(ENDINGS)
        _refuse(
            path, f"the name must end in one of {endings}, or be an association's ..._asn.json."
        )
    primary, science = _headers(path)
    _check_level(path, suffix, primary, science)
    _check_keywords(path, suffix, primary, science)
    axes = [int(science[f"NAXIS{i + 1}"]) for i in range(science["NAXIS"])]
    n_groups, n_ints = (_count(keyword, primary, axes, suffix) for keyword in _COUNTED)
    references = _named("R_", primary)
    attributes: dict[str, Any] = _attributes(primary)
    return Exposure(
        path=str(path),
        root=root,
        suffix=suffix,
        size_bytes=path.stat().st_size,
        n_ints=n_ints,
        n_groups=n_groups,
        shape=(axes[1], axes[0]),
        position_number=int(primary.get("PATT_NUM") or 0),
        s_region=_word(science, "S_REGION"),
        pointing=_pointing(science),
        parameters=_parameters(primary),
        steps_done=_named("S_", primary),
        references={k: v.removeprefix("crds://") for k, v in references.items()},
        pool=_words(primary, _TABLE["pool"]),
        **attributes,
    )


def _attributes(primary: fits.Header) -> dict[str, object]:
    """Return what the primary header has under names of its own."""
    words = {name: _word(primary, keyword) for name, keyword in KEYWORDS.items()}
    numbers = {name: _padded(words[name], width) for name, width in _NUMBERED.items()}
    flags = {name: primary.get(keyword) is True for name, keyword in FLAGS.items()}
    target = _word(primary, "TARGPROP") or _word(primary, "TARGNAME")
    return {**words, **numbers, **flags, "target": target}


def _padded(number: str, width: int) -> str:
    return number.zfill(width) if number.isdigit() else number


def _named(prefix: str, header: fits.Header) -> dict[str, str]:
    # Values are parsed when they are asked for; most of a thousand headers need not be.
    return _words(header, (key for key in header if key.startswith(prefix)))


def _words(header: fits.Header, keywords: Iterable[str]) -> dict[str, str]:
    """Return those of some keywords that have a value, as words."""
    words = {keyword: _word(header, keyword) for keyword in keywords}
    return {keyword: word for keyword, word in words.items() if word}


_COUNTED = {
    "NGROUPS": {"uncal": 2},
    "NINTS": {"uncal": 3, "rateints": 2, "calints": 2},
}
"""Keywords of numbers of frames, and the axis of SCI that has each, by suffix."""


def _count(keyword: str, primary: fits.Header, axes: list[int], suffix: str) -> int:
    """Return the number of integrations in a file, or of groups in each."""
    axis = _COUNTED[keyword].get(suffix, len(axes))
    return axes[axis] if axis < len(axes) else int(primary.get(keyword) or 1)


def _value(header: fits.Header, keyword: str) -> object:
    """Return a value of a header, `None` for a keyword without one."""
    value = header.get(keyword)
    return None if isinstance(value, fits.card.Undefined) else value


def _word(header: fits.Header, keyword: str) -> str:
    value = _value(header, keyword)
    return "" if value is None else str(value).strip()


def _parameters(primary: fits.Header) -> dict[str, str]:
    values = {name: _value(primary, keyword) for name, keyword in CRDS_KEYWORDS.items()}
    # CRDS writes booleans as a FITS header does.
    return {
        name: {True: "T", False: "F"}[value] if isinstance(value, bool) else str(value)
        for name, value in values.items()
        if value is not None
    }


_GRID = ("V3I_YANG", "VPARITY", "CRPIX1", "CRPIX2", "CDELT1", "CDELT2")


def _pointing(science: fits.Header) -> dict[str, float]:
    values = ((name, science.get(name)) for name in (*_TABLE["pointing"], *_GRID))
    return {
        name: float(value)
        for name, value in values
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    }


def _refuse(path: Path, why: str) -> NoReturn:
    msg = f"{path}: {why}"
    raise InvalidExposureError(msg, parameter="files", value=str(path))


# Spectra of many slits have a thousand extensions, of which one is read card by card.
_EXTNAME = re.compile(rb"(?:.{80})*?EXTNAME = *'([^']*?) *'", re.DOTALL)


def _headers(path: Path) -> tuple[fits.Header, fits.Header]:
    """Return the primary header and that of SCI; raise unless the file is whole."""
    texts = _header_texts(path)
    lacking = [name for name in ("SCI", "ASDF") if name not in texts]
    if lacking:
        _refuse(
            path,
            f"has no extension {' and no '.join(lacking)}: the file was cut off, or is not one of "
            "JWST's.",
        )
    primary, science = (
        fits.Header.fromstring(texts[name].decode("latin-1")) for name in ("PRIMARY", "SCI")
    )
    return primary, science


def _header_texts(path: Path) -> dict[str, bytes]:
    """Return the headers of a file by extension; raise unless it is whole."""
    try:
        with open(path, "rb") as file:
            check_head(path, file.read(HEAD_BYTES), "the file")
            texts = [text for text, _ in fits_headers(file, "the file")]
    except OSError as error:
        _refuse(path, f"cannot be read: {error.strerror or error}.")
    except TruncatedError as error:
        _refuse(path, f"cut off: {error}")
    except UnexpectedContentError as error:
        _refuse(path, str(error))
    # Of several SCI extensions the first one tells what the file is.
    extensions = {_extension(text): text for text in reversed(texts[1:])}
    return {**extensions, "PRIMARY": texts[0]}


def _extension(text: bytes) -> str:
    """Return the name of the extension of a header, empty without one."""
    match = _EXTNAME.match(text)
    return match[1].decode("latin-1").upper() if match else ""


def _check_level(path: Path, suffix: str, primary: fits.Header, science: fits.Header) -> None:
    level, witness = _level(primary, science)
    if level != _LEVEL.get(suffix, suffix):
        _refuse(
            path,
            f"its name says {suffix!r}, but its header says {level!r} ({witness}). The pipeline "
            "would take it as named and calibrate it wrongly; rename the file or leave it out.",
        )


_WITNESSES = {
    "S_RESAMP": "i2d",
    "S_OUTLIR": "crf",
    **dict.fromkeys(("S_PHOTOM", "S_FLAT", "S_WCS", "S_GUICDS"), "cal"),
    "S_RAMP": "rate",
}
"""Levels of files in which a step is complete, the highest first."""


def _level(primary: fits.Header, science: fits.Header) -> tuple[str, str]:
    """Return the level that the headers speak of, and what says so."""
    steps = [name for name, state in _named("S_", primary).items() if state == "COMPLETE"]
    witness = next((step for step in _WITNESSES if step in steps), None)
    if witness is not None:
        return _WITNESSES[witness], f"{witness}=COMPLETE"
    if science.get("BUNIT") in ("MJy/sr", "Jy", "MJy"):
        return "cal", f"BUNIT={science['BUNIT']}"
    if steps:
        return "ramp", f"{steps[-1]}=COMPLETE and no S_RAMP"
    n_axes = science.get("NAXIS", 0)
    if n_axes in (2, 3) and not str(primary.get("EXP_TYPE", "")).upper().startswith("FGS_"):
        return "rate", f"{n_axes} axes"
    return "uncal", "no step was done"


def _check_keywords(path: Path, suffix: str, primary: fits.Header, science: fits.Header) -> None:
    needed, pointing = _needed(path, primary)
    headers = (science, primary)
    lacking = [keyword for keyword in needed if not _word(primary, keyword)]
    lacking += [k for k in pointing if all(header.get(k) is None for header in headers)]
    if science.get("NAXIS", 0) < 2:
        lacking.append("NAXIS1 and NAXIS2 of SCI")
    if lacking:
        _refuse(
            path,
            f"lacks {', '.join(lacking)}, without which the pipeline fails or leaves the {suffix} "
            "file uncalibrated without a word.",
        )


def _needed(path: Path, primary: fits.Header) -> tuple[list[str], list[str]]:
    """Return the keywords that have to be there, and those that may be in either header."""
    exp_type = str(primary.get("EXP_TYPE", "")).upper()
    if not exp_type or is_guider(exp_type):
        return _TABLE["basic"], []
    needed = [*_TABLE["basic"], *_TABLE["ramp"]]
    if not pipelines_for(exp_type, path=str(path))[1]:
        return needed, []
    instrument = str(primary.get("INSTRUME", "")).upper()
    needed += EXP_TYPES[exp_type].optics or _TABLE["optics"].get(instrument, ())
    return needed, _TABLE["pointing"]
