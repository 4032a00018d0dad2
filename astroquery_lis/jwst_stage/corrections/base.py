"""What a correction is: a named change of the pixels at a fixed point of the chain, written down.

A correction is a dictionary when it travels: into a plan, to the process that works, into the
fingerprint of a product.  Its digest covers the code, the parameters and the content of the files
that the parameters name.
"""

from dataclasses import asdict, dataclass, field, fields

__all__ = ["IMAGING", "IN_STEP", "MARK", "POINTS", "RESERVED", "Correction", "mark"]

POINTS = ("after_jump", "after_rate", "after_cal", "before_stage3")
"""Where it may be: inside stage 1, on its product, on that of stage 2, and last of all."""

IN_STEP = "in_step"
"""The point of a correction that is a step of the pipeline itself, switched on or off."""

RESERVED = ("point", "suffix", "only")
"""Parameters that are about the correction, and do not reach its function."""

IMAGING = frozenset({"NRC_IMAGE", "MIR_IMAGE", "NIS_IMAGE", "FGS_IMAGE"})
"""Types of exposures that the corrections of this package are made for."""

MARK = "corrected: "
"""What the HISTORY of a corrected product begins with."""


@dataclass(frozen=True, slots=True)
class Correction:
    """One correction with its parameters.

    Attributes
    ----------
    name : str
        Of a correction of this package, or of the function or class.
    point : str
        One of `POINTS`, or `IN_STEP`.
    suffix : str
        What its product is called by; also what it is known by in HISTORY.
    source : str
        Where the code is: ``"builtin:name"``, ``"import:module:name"``, ``"pickle:..."`` with the
        function itself, or empty for a step of the pipeline.
    parameters : dict
        Keyword arguments of the function; JSON types only.
    steps : dict
        What it asks of the pipeline's own steps: ``{selector: {step: {parameter: value}}}``, the
        selector empty for all exposures.
    only : tuple of str
        Exposures that it is for: words in upper case, such as 'NRCA3', 'F200W' or 'NRCA3/F200W', of
        which one has to be right.  Empty for all.
    imaging : bool
        Whether it is for images only.
    files : dict of str to str
        sha256 of the content of each file among the parameters, by path.
    code : str
        sha256 of the code alone, see `~.digest`.
    digest : str
        sha256 of code, parameters and files.
    """

    name: str
    point: str
    suffix: str
    source: str = ""
    parameters: dict = field(default_factory=dict)
    steps: dict = field(default_factory=dict)
    only: tuple = ()
    imaging: bool = False
    files: dict = field(default_factory=dict)
    code: str = ""
    digest: str = ""

    def applies(self, exposure):
        """Tell whether an exposure is among those that the correction is for.

        Parameters
        ----------
        exposure : object
            With ``instrument``, ``channel``, ``detector``, ``filter``, ``pupil`` and ``exp_type``.

        Returns
        -------
        bool
        """
        if self.imaging and exposure.exp_type not in IMAGING:
            return False
        words = {
            getattr(exposure, name)
            for name in ("instrument", "channel", "detector", "filter", "pupil")
        }
        return not self.only or any(set(entry.split("/")) <= words for entry in self.only)

    def to_dict(self):
        """Return the correction as JSON and TOML types.

        Returns
        -------
        dict
        """
        values = asdict(self)
        return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}

    @classmethod
    def from_dict(cls, values):
        """Return the correction that `to_dict` wrote.

        Parameters
        ----------
        values : dict
            As `to_dict` gives it.

        Returns
        -------
        Correction
        """
        known = {f.name for f in fields(cls)}
        taken = {name: value for name, value in values.items() if name in known}
        taken["only"] = tuple(taken.get("only", ()))
        return cls(**taken)


def mark(correction):
    """Return the line of HISTORY by which it is known that a correction was applied.

    Parameters
    ----------
    correction : Correction
        The correction.

    Returns
    -------
    str
        72 characters at most, so that it stays one card.
    """
    return f"{MARK}{correction.suffix} ({correction.name})"[:72]
