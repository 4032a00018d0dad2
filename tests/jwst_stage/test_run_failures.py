"""Failures are put down to one of six causes, with what to do next."""

import signal
import traceback

import numpy as np
import pytest

from astroquery_lis.exceptions import CrdsUnavailable, InvalidExposureError
from astroquery_lis.jwst_stage.running import progress
from astroquery_lis.jwst_stage.running.progress import KINDS, describe, killed, of_exit


def of(error, log=()):
    try:
        raise error
    except BaseException:
        return describe(
            type(error).__name__,
            type(error).__module__,
            str(error),
            traceback.format_exc(),
            log,
        )


def test_system_exit_of_crds_is_known_by_the_log():
    log = ["CRDS - ERROR -  (FATAL) CRDS server connection and cache load FAILED."]
    failure = of(SystemExit(-1), log)
    assert failure.kind == "reference"
    assert failure.cause.startswith("CrdsUnavailable: ")
    assert "(FATAL) CRDS server connection and cache load FAILED" in failure.message
    assert "prefetch_references" in failure.message


def test_system_exit_of_anything_else():
    failure = of(SystemExit(3))
    assert failure.kind == "code"
    assert failure.cause.startswith("SystemExit: ")


def test_crds_errors():
    crds = pytest.importorskip("crds.core.exceptions")
    for error in (
        crds.CrdsLookupError("Error determining best reference for 'pars-x'"),
        crds.CrdsDownloadError("no such file"),
        crds.ChecksumError("bad"),
    ):
        failure = of(error)
        assert failure.kind == "reference"
        assert failure.cause.startswith("CrdsUnavailable: ")
        assert type(error).__name__ in failure.message
    assert of(CrdsUnavailable("gone")).kind == "reference"


def test_parameters():
    exceptions = pytest.importorskip("stpipe.exceptions")
    failure = of(exceptions.ValidationError("Extra value 'jmp' in steps"))
    assert failure.kind == "parameter"
    assert failure.message == (
        "ValidationError: Extra value 'jmp' in steps. Change the value in steps= and make the "
        "plan again."
    )


def array_too_large():
    """numpy's own error, which is a MemoryError of another name."""
    with pytest.raises(MemoryError) as caught:
        np.empty(1 << 60, np.uint8)
    return caught.value


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (MemoryError(), "memory"),
        (array_too_large(), "memory"),
        (InvalidExposureError("cut off"), "data"),
        (KeyError("Extension 'ASDF' not found."), "data"),
        (FileNotFoundError("no file"), "data"),
        (OSError("[Errno 28] No space left on device"), "killed"),
        (ValueError("operands could not be broadcast"), "code"),
        (KeyboardInterrupt(), "code"),
    ],
)
def test_kinds(error, kind):
    failure = of(error)
    assert failure.kind == kind
    assert kind in KINDS
    assert failure.message.startswith(type(error).__name__)
    assert failure.message.endswith(".")
    assert failure.message.startswith(failure.cause)


def test_the_error_that_a_printed_trace_ends_with_is_told():
    # Spec2Pipeline and Image2Pipeline raise the traces of what went wrong, as text.
    traces = []
    for error in (ValueError("first"), FileNotFoundError("no file:\nx.fits")):
        try:
            raise error
        except Exception:
            traces.append(traceback.format_exc())
    failure = of(RuntimeError("\n".join(traces)))
    assert failure.kind == "data"
    assert failure.cause == "FileNotFoundError: no file: x.fits"


def test_catalogue_service_that_is_not_reached():
    trace = "File stcal/tweakreg/astrometric_utils.py, in get_catalog"
    failure = describe("ConnectionError", "requests.exceptions", "refused", trace)
    assert failure.kind == "reference"
    assert "tweakreg.abs_refcat" in failure.message
    assert "astrometric_reference" in failure.message
    assert describe("ConnectionError", "requests.exceptions", "refused", "").kind == "code"


def test_exit_codes():
    failure = of_exit(255, "first\nCRDS - ERROR -  (FATAL) cannot continue\n")
    assert failure.kind == "reference"
    assert failure.cause.startswith("CrdsUnavailable: ")
    assert "cannot continue" in failure.message
    failure = of_exit(255, "")
    assert failure.kind == "code"
    assert "exit code 255: the process said nothing" in failure.message


@pytest.mark.parametrize(("out_of_memory", "kind"), [(True, "memory"), (False, "killed")])
def test_kills(out_of_memory, kind):
    failure = killed(signal.SIGKILL, out_of_memory=out_of_memory, alone=True)
    assert failure.kind == kind
    assert "signal 9, also when it ran alone" in failure.message
    alone = killed(signal.SIGKILL, out_of_memory=out_of_memory, alone=False)
    assert "alone" not in alone.cause


def test_long_messages_are_cut():
    failure = of(ValueError("x" * 5000))
    assert len(failure.message) < 600


def test_memory_of_the_machine():
    assert 0 < progress.available_gb() < 1e5
    assert progress.kills() >= 0


def test_memory_of_a_container(monkeypatch, tmp_path):
    (tmp_path / "memory.max").write_text(f"{2 << 30}\n")
    (tmp_path / "memory.current").write_text(f"{1 << 30}\n")
    (tmp_path / "memory.stat").write_text(f"anon 1\ninactive_file {1 << 29}\n")
    (tmp_path / "memory.events").write_text("low 0\noom 3\noom_kill 2\n")
    monkeypatch.setattr(progress, "_CGROUP", tmp_path)
    assert progress.available_gb() == pytest.approx(1.5)
    assert progress.kills() == 2
    (tmp_path / "memory.max").write_text("max\n")
    assert progress.available_gb() > 1.5 or progress.available_gb() == progress._of_machine()
