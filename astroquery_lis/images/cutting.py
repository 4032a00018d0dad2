"""What a worker does for a job of many targets: ask the sources, and write what they answer.

The targets of a job share the files of the bricks, so that each tile is fetched and decoded once.

Everything here is importable and takes small, picklable arguments, so that it runs in threads,
processes and on clusters alike; the settings come with the work.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
from astropy.io import fits

from .._conf import conf
from ..exceptions import LegacySurveyError, NoCoverageError, TransferError, collected_notes
from ..io.bounds import within
from ..io.jobs import Result, failure, portable
from ..io.whole_files import check_structure, reading, write_bytes
from ..survey.bricks import brick_id
from ..survey.paths import tree_of_brick
from ..survey.request import CutoutRequest
from .array_files import ARRAY_OUTPUTS, ArrayFile, Facts, shares_text
from .coadds import CoaddPlan, plain_cutout
from .plain import PlainCutout
from .reader import SectionReader, SectionRequest
from .sources import Access, Sources
from .strips import SharedFiles

if TYPE_CHECKING:
    from typing_extensions import Buffer


Answer: TypeAlias = PlainCutout | fits.HDUList
"""A cutout: without HDUs where nothing but the bricks' files is in it."""


@dataclass(frozen=True)
class BulkSpec:
    """Whom all targets of a call are asked of, and where the answers go."""

    sources: tuple[str, ...]
    on_missing: str
    folder: str = ""  # where files are written; empty if none are
    ids_are_names: bool = False  # a target's id alone makes the name of its file


@dataclass(frozen=True, eq=False)
class CutoutJob:
    """Targets and what is asked for each; in a job of the work, in an order good for reading."""

    rows: np.ndarray  # numbers of the targets in what the user gave
    ids: np.ndarray
    ra_deg: np.ndarray
    dec_deg: np.ndarray
    templates: tuple[CutoutRequest, ...]  # requests that differ in more than the position
    kinds: np.ndarray  # which of those each target has

    def __len__(self) -> int:
        return len(self.rows)

    def target(self, index: int) -> tuple[int, int | str]:
        """Return row and id of one target, as Python's own types."""
        name = self.ids[index]
        return int(self.rows[index]), name.item() if hasattr(name, "item") else name

    def request(self, index: int) -> CutoutRequest:
        """Return what is asked for one target: the same as `get_cutout` would ask."""
        template = self.templates[self.kinds[index]]
        return template.at(float(self.ra_deg[index]), float(self.dec_deg[index]))

    @cached_property
    def bricks(self) -> np.ndarray:
        """The id of the brick that owns each target."""
        return brick_id(self.ra_deg, self.dec_deg)

    def facts(self, index: int) -> Facts:
        """Return what is known of a target's `Result` beforehand."""
        template, facts = self.templates[self.kinds[index]], {"id": self.target(index)[1]}
        if template.release is None:
            return facts
        tree = tree_of_brick(template.release, template.region, int(self.bricks[index]))
        return {**facts, "release": template.release.name, "region": tree.region}

    def part(self, indices: Sequence[int] | np.ndarray) -> CutoutJob:
        """Return a job of some of the targets."""
        places = np.asarray(indices, int)
        numbers, kinds = np.unique(self.kinds[places], return_inverse=True)
        templates = tuple(self.templates[number] for number in numbers)
        parts = (self.rows, self.ids, self.ra_deg, self.dec_deg)
        rows, ids, ra_deg, dec_deg = (values[places] for values in parts)
        return CutoutJob(rows, ids, ra_deg, dec_deg, templates, kinds)


# ---- asking -------------------------------------------------------------------------------------


def each_answer(
    spec: BulkSpec, access: Access, job: CutoutJob
) -> Iterator[tuple[int, CutoutRequest, Answer | Exception, list[str]]]:
    """Yield index, request, cutout or the error, and notes, of one target after the other."""
    shared, deadline_s = SharedFiles(), conf.deadline
    with access.reader(shared) as reader:
        sources = access.sources(spec.sources, lambda: nullcontext(reader))
        are_plain = [sources.gives_plain(template) for template in job.templates]
        pending = deque(
            _Pending.of(job.request(index), sources, reader, is_plain=are_plain[kind])
            for index, kind in enumerate(job.kinds.tolist())
        )
        for target in pending:
            shared.expect(target.boxes)
        for index in range(len(job)):
            target = pending.popleft()
            answer: Answer | Exception
            with collected_notes() as notes:
                try:
                    answer = _answer(sources, reader, target, spec.on_missing, deadline_s)
                except Exception as error:  # one target must not take the others with it
                    answer = error
                finally:
                    shared.release(target.boxes)
            yield index, target.request, answer, notes


@dataclass
class _Pending:
    """A target whose turn is yet to come."""

    request: CutoutRequest
    is_plain: bool
    boxes: list[SectionRequest]  # what it will read of which files
    plan: CoaddPlan | None = None  # unless it is large

    @classmethod
    def of(
        cls, request: CutoutRequest, sources: Sources, reader: SectionReader, *, is_plain: bool
    ) -> _Pending:
        try:
            plans = [CoaddPlan(request)] if is_plain else sources.plans(request)
            boxes = [box for plan in plans for box in plan.sections(reader.evidence)]
        except LegacySurveyError:  # raised again when it is this target's turn
            return cls(request, is_plain, [])
        is_small = is_plain and plans[0].placement.labels is None
        return cls(request, is_plain, boxes, plans[0] if is_small else None)


def _answer(
    sources: Sources,
    reader: SectionReader,
    target: _Pending,
    on_missing: str,
    deadline_s: float,
) -> Answer:
    request = target.request
    with within(deadline_s, grows=True):
        if target.is_plain:
            return plain_cutout(target.plan or CoaddPlan(request), reader, on_missing=on_missing)
        if request.products == ("psf",):
            return sources.psfs(request, on_missing)
        return sources.planes(request, on_missing)


def each_cutout(
    spec: BulkSpec, access: Access, job: CutoutJob
) -> Iterator[tuple[int, CutoutRequest, fits.HDUList | Exception, list[str]]]:
    """Yield what `each_answer` does, with the HDUs of each cutout."""
    for index, request, answer, notes in each_answer(spec, access, job):
        cutout = answer.to_hdus() if isinstance(answer, PlainCutout) else answer
        yield index, request, cutout, notes


def cutouts_of_job(
    spec: BulkSpec, access: Access, job: CutoutJob
) -> list[tuple[int, fits.HDUList | Exception]]:
    """Return row and cutout of every target of a job, or the error that says why there is none."""
    return [
        (int(job.rows[i]), portable(hdul) if isinstance(hdul, Exception) else hdul)
        for i, _, hdul, _ in each_cutout(spec, access, job)
    ]


def facts_of_answer(answer: Answer) -> Facts:
    """Return what the headers of a cutout, or of PSFs, say for its `Result`."""
    images = answer.images if isinstance(answer, PlainCutout) else answer[1:]
    header = answer.header if isinstance(answer, PlainCutout) else answer[0].header
    url, shares = "", dict[str, float]()
    bands: dict[str, None] = {}
    for image in images:
        cards: Mapping[str, Any] = image.header
        url = url or cards.get("URL1", "")
        if "BAND" in cards:
            bands.setdefault(cards["BAND"])
            if "OBSFRAC" in cards:
                shares.setdefault(cards["BAND"], cards["OBSFRAC"])
    return {
        "url": url,
        "bands": header.get("BANDS", ",".join(bands)),
        "observed": shares_text(shares.values()),
        "layer": header.get("LAYER", ""),
    }


def safe_name(name: int | str) -> str:
    """Return a name with nothing in it that a file system may refuse."""
    return re.sub(r"[^A-Za-z0-9+._-]", "_", str(name)).lstrip(".")[:200] or "_"


def file_name(spec: BulkSpec, row: int, name: int | str, suffix: str = ".fits") -> str:
    """Return the name of a target's file."""
    stem = safe_name(name)
    return f"{stem}{suffix}" if spec.ids_are_names else f"{stem}_{row}{suffix}"


# ---- writing ------------------------------------------------------------------------------------


class Encoding(Protocol):
    """What the bytes of a target's own file are."""

    @property
    def suffix(self) -> str:
        """Ending of the files' names."""

    def encode(self, answer: Answer, key: str, facts: Facts) -> Buffer:
        """Return a file of a cutout; ``key`` is that of the request."""

    def decode(self, data: bytes) -> tuple[str, Facts]:
        """Return the key and the facts that a file tells; raise OSError if it is no such file."""


@dataclass(frozen=True)
class FitsEncoding:
    """FITS files."""

    suffix: str = ".fits"

    def encode(self, answer: Answer, key: str, facts: Facts) -> Buffer:
        """Return a file, whose header has the key."""
        if isinstance(answer, PlainCutout):
            return answer.to_bytes()
        with io.BytesIO() as stream:
            # The headers are our own; to check every card again takes a third of the time.
            answer.writeto(stream, output_verify="ignore")
            return stream.getvalue()

    def decode(self, data: bytes) -> tuple[str, Facts]:
        """Return the key of the request and what the headers tell."""
        with fits.open(io.BytesIO(data)) as hdul:
            return hdul[0].header.get("REQKEY", ""), facts_of_answer(hdul)


def save_job(
    spec: BulkSpec,
    access: Access,
    job: CutoutJob,
    *,
    output: str = "fits",
    encoding: Encoding | None = None,
) -> list[Result]:
    """Cut the targets of a job and write them; what an earlier run wrote is left alone."""
    files: _Files | ArrayFile
    if output in ARRAY_OUTPUTS:
        files = ArrayFile(spec.folder, job, output)
    else:
        files = _Files(spec, job, FitsEncoding() if encoding is None else encoding)
    earlier = files.earlier_results()
    job = files.job
    if not len(job):
        return earlier
    results = []
    start_s = time.perf_counter()
    with files:
        for index, request, answer, notes in each_answer(spec, access, job):
            row, facts = int(job.rows[index]), job.facts(index)
            try:
                if isinstance(answer, Exception):
                    raise answer
                known = {**facts, **facts_of_answer(answer)}
                written = files.add(index, request, answer, known)
                result = Result(row, "COMPLETE", message=" ".join(notes), **written, **known)
            except NoCoverageError as error:
                result = Result(row, "NODATA", message=str(error), **facts)
            except Exception as error:
                result = failure(row, error, **facts)
            end_s = time.perf_counter()
            results.append(replace(result, seconds=round(end_s - start_s, 4)))
            start_s = end_s
    return earlier + [files.completed(r) if r.status == "COMPLETE" else r for r in results]


LOOK_BYTES = 16 << 20
"""Each time so much was written, the disk is asked how much room is left."""


def _file_facts(path: Path, data: Buffer) -> Facts:
    digest = hashlib.sha256(data).hexdigest()
    return {"local_path": str(path), "bytes": memoryview(data).nbytes, "sha256": digest}


class _Files:
    """A file for each target."""

    def __init__(self, spec: BulkSpec, job: CutoutJob, encoding: Encoding) -> None:
        self._spec, self._folder = spec, Path(spec.folder)
        self._encoding = encoding
        self.job = job
        self._paths: list[Path] = []
        self._room_bytes = 0  # what may be written before the disk is looked at again

    def __enter__(self) -> _Files:
        return self

    def __exit__(self, *exc_info: object) -> None:
        pass

    def _path(self, index: int) -> Path:
        row, name = self.job.target(index)
        return self._folder / file_name(self._spec, row, name, self._encoding.suffix)

    def earlier_results(self) -> list[Result]:
        """Return the results of targets whose files are there, and leave those out."""
        paths = [self._path(index) for index in range(len(self.job))]
        is_there = np.array([os.path.lexists(path) for path in paths], bool)
        results = [self._earlier_result(index) for index in np.flatnonzero(is_there).tolist()]
        self._paths = [path for path, skips in zip(paths, is_there, strict=True) if not skips]
        self.job = self.job.part(np.flatnonzero(~is_there))
        return results

    def _earlier_result(self, index: int) -> Result:
        row, facts, path = int(self.job.rows[index]), self.job.facts(index), self._path(index)
        try:
            data = path.read_bytes()
            check_structure(path, io.BytesIO(data), path)
            with reading(path, "read"):
                key, told = self._encoding.decode(data)
            if key == self.job.request(index).key[:32]:
                return Result(row, "COMPLETE", **{**facts, **told, **_file_facts(path, data)})
        except (OSError, TransferError):
            pass
        msg = f"{path} is there and is not of this job, or not whole; move it away."
        return failure(row, LegacySurveyError(msg), **facts)

    def add(self, index: int, request: CutoutRequest, answer: Answer, facts: Facts) -> Facts:
        """Write the file of one target."""
        path = self._paths[index]
        data = self._encoding.encode(answer, request.key[:32], facts)
        size = memoryview(data).nbytes
        has_room = size <= self._room_bytes
        write_bytes(path, data, has_room=has_room)
        self._room_bytes = (self._room_bytes if has_room else LOOK_BYTES) - size
        return _file_facts(path, data)

    def completed(self, result: Result) -> Result:
        """Return the result as it is."""
        return result
