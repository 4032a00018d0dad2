"""Pictures of many cutouts as files: PNG and JPEG, with a comment of what they are."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .._packages import import_optional
from ..images.plain import PlainCutout
from .page import picture_bytes
from .rgb import rgb

if TYPE_CHECKING:
    from ..images.cutting import Answer, Facts

_SUFFIXES = {"png": ".png", "jpeg": ".jpg"}


@dataclass(frozen=True)
class PictureEncoding:
    """How a cutout becomes a picture in the survey's colours, and what a file of one tells."""

    kind: str

    @property
    def suffix(self) -> str:
        """Ending of the files' names."""
        return _SUFFIXES[self.kind]

    def encode(self, answer: Answer, key: str, facts: Facts) -> bytes:
        """Return a file; its comment has the key of the request and the facts, as JSON."""
        picture = rgb(answer.to_hdus() if isinstance(answer, PlainCutout) else answer)
        text = json.dumps({"request": key, **facts})
        options: dict[str, Any] = {"comment": text}
        if self.kind == "png":
            info = import_optional("PIL.PngImagePlugin", "plot", "PNG").PngInfo()
            info.add_text("Comment", text)
            options = {"pnginfo": info}
        return picture_bytes(picture, self.kind, f"output={self.kind!r}", **options)

    def decode(self, data: bytes) -> tuple[str, Facts]:
        """Return the key of the request and the facts; raise OSError if it is no such file."""
        pillow: Any = import_optional("PIL.Image", "plot", f"output={self.kind!r}")
        with pillow.open(io.BytesIO(data)) as image:
            image.load()
            comment = image.info.get("Comment", image.info.get("comment", ""))
        try:
            facts = json.loads(comment)
            return facts.pop("request"), facts
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            msg = "The picture has no comment of ours."
            raise OSError(msg) from error
