"""What a worker does for a job of many targets: ask the sources, files shared among the targets.

Everything here is importable and takes small, picklable arguments, so that it runs in threads,
processes and on clusters alike; the settings come with the work.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from astropy.io import fits

from ..exceptions import LegacySurveyError, collected_notes
from ..io.bounds import within
from ..io.jobs import portable
from ..survey.bricks import brick_id
from ..survey.paths import tree_of_brick
from ..survey.request import CutoutRequest
from .coadds import CoaddPlan, plain_cutout
from .plain import PlainCutout
from .reader import SectionReader, SectionRequest
from .sources import Access, Sources
from .strips import SharedFiles

Answer: TypeAlias = PlainCutout | fits.HDUList
"""A cutout: without HDUs where nothing but the bricks' files is in it."""

Facts = dict[str, Any]
"""What a target's `Result` says of it, whatever happens: id, release, region."""


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


# ---- cutting ------------------------------------------------------------------------------------


def each_answer(
    spec: BulkSpec, access: Access, job: CutoutJob
) -> Iterator[tuple[int, CutoutRequest, Answer | Exception, list[str]]]:
    """Yield index, request, cutout or the error, and notes, of one target after the other."""
    shared = SharedFiles()
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
                    answer = _answer(sources, reader, target, spec.on_missing)
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


def _answer(sources: Sources, reader: SectionReader, target: _Pending, on_missing: str) -> Answer:
    request = target.request
    with within(grows=True):
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


def shares_text(shares: Iterable[float]) -> str:
    """Return shares as text."""
    return ",".join(f"{share:.4g}" for share in shares)
