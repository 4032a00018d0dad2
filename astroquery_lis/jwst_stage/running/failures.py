"""Why a task failed, in one word of six, and what to do next."""

from dataclasses import dataclass

from .log_watch import FATAL_OF_CRDS

__all__ = ["KINDS", "Failure", "describe", "killed", "of_exit"]

KINDS = ("data", "reference", "memory", "parameter", "code", "killed")
"""What a failure is put down to."""

_ACTIONS = {
    "data": "Check the input file, or fetch it again.",
    "reference": (
        "Run JwstStage.prefetch_references(plan); without network, copy what it lists into "
        "crds_path."
    ),
    "memory": "Free memory or take fewer workers (max_workers=1); it was tried alone already.",
    "parameter": "Change the value in steps= and make the plan again.",
    "code": "See the log; with steps={step: {'skip': True}} the run goes on without the step.",
    "killed": "Run the same plan again; what is finished is kept.",
}

_CATALOGUE = (
    "Give steps={'tweakreg': {'abs_refcat': FILE}} a catalogue file "
    "(JwstStage.astrometric_reference writes one), or '' to align the images to one another only; "
    "the value may come from the CRDS parameter reference."
)

_CATALOGUE_SERVICE = "stcal.alignment"
_CRASHES = frozenset({4, 6, 7, 8, 11})
"""Signals that a fault of the code raises; the others come from outside."""

_NETWORK_ERRORS = ("ConnectionError", "ConnectTimeout", "ReadTimeout", "Timeout", "HTTPError")
_DATA_MARKS = ("Extension 'ASDF' not found", "truncated", "No SIMPLE card", "Empty or corrupt")


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a task failed.

    Attributes
    ----------
    kind : str
        One of `KINDS`.
    error : str
        Name of the error.
    message : str
        What happened and what to do next.
    cause : str
        What happened.
    """

    kind: str
    error: str
    message: str
    cause: str = ""


def describe(name, module, text, trace="", log=()):
    """Return the failure behind an error.

    Parameters
    ----------
    name, module, text : str
        The error's class, its module and its message.
    trace : str, optional
        The traceback.
    log : sequence of str, optional
        The last error lines of the log.

    Returns
    -------
    Failure
    """
    if name == "SystemExit":
        fatal = next((line for line in reversed(log) if FATAL_OF_CRDS in line), "")
        if fatal or "crds" in trace:
            told = fatal or "CRDS ended the process."
            return _failure("reference", "CrdsUnavailable", told)
        return _failure("code", name, f"a step ended the process: {text}")
    if module.split(".")[0] == "crds" or name == "CrdsUnavailable":
        return _failure("reference", "CrdsUnavailable", f"{name}: {text}")
    if name in _NETWORK_ERRORS and ("tweakreg" in trace or _CATALOGUE_SERVICE in trace):
        told = "the catalogue that tweakreg.abs_refcat names cannot be fetched"
        told = f"{name}: {told} ({_short(text)})"
        return Failure("reference", name, f"{told}. {_CATALOGUE}", told)
    if name == "ServerLost":
        return _failure("killed", name, text)
    if name == "MemoryError":
        return _failure("memory", name, text or "no memory was left")
    if module.startswith("stpipe") and name == "ValidationError":
        return _failure("parameter", name, text)
    if name == "InvalidExposureError" or any(mark in text for mark in _DATA_MARKS):
        return _failure("data", name, text)
    if name in ("FileNotFoundError", "PermissionError"):
        return _failure("data", name, text)
    if name == "OSError" and "No space left" in text:
        told = f"{name}: {_short(text)}"
        action = "Free space on the disk of the output directory and run again."
        return Failure("killed", name, f"{told}. {action}", told)
    return _failure("code", name, text)


def of_exit(code, console):
    """Return the failure of a process that ended by itself and said nothing.

    Parameters
    ----------
    code : int
        Its exit code.
    console : str
        The end of what it printed.

    Returns
    -------
    Failure
    """
    last = console.strip().splitlines()[-1:] or [""]
    if code == 255 and "CRDS" in console:
        return _failure("reference", "CrdsUnavailable", last[0])
    return _failure("code", f"exit code {code}", last[0] or "the process said nothing")


def killed(signal_number, *, out_of_memory, alone):
    """Return the failure of a process that a signal ended.

    Parameters
    ----------
    signal_number : int
        The signal.
    out_of_memory : bool
        Whether the system ended processes for want of memory meanwhile.
    alone : bool
        Whether it had the machine for itself.

    Returns
    -------
    Failure
    """
    told = f"the process was ended by signal {signal_number}"
    if signal_number in _CRASHES:
        return _failure("code", "Crashed", told)
    if alone:
        told += ", also when it ran alone"
    if out_of_memory:
        return _failure("memory", "Killed", f"{told}: the system was out of memory")
    return _failure("killed", "Killed", told)


def _failure(kind, name, text):
    told = f"{name}: {_short(text).rstrip('.')}"
    return Failure(kind, name, f"{told}. {_ACTIONS[kind]}", told)


def _short(text):
    text = " ".join(str(text).split())
    return text if len(text) <= 400 else text[:397] + "..."
