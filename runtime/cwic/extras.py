"""What a picture has beside its colours: alpha, ICC profile, EXIF and XMP."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cwic import alpha, metadata
from cwic.container import EXTRAS, Stream
from cwic.errors import StreamError, UsageError
from cwic.metadata import METADATA

__all__ = ["Extras"]


@dataclass(frozen=True)
class Extras:
    """Alpha and metadata of a picture.

    Attributes:
        alpha: uint8 [H, W]; None: there is none.
        metadata: ICC profile, EXIF and XMP by the names of :data:`cwic.metadata.METADATA`.
        missing: sections that were lost, in words (only of a salvaged stream).
    """

    alpha: NDArray[np.uint8] | None = None
    metadata: Mapping[str, bytes] = field(default_factory=dict)
    missing: tuple[str, ...] = ()

    def sections(self, keep: bool | Collection[str] = True) -> dict[str, bytes]:
        """Extra sections of a stream, in their order.

        Args:
            keep: which metadata: all, none, or some of the names icc, exif, xmp. Alpha is
                part of the picture and always kept.

        Raises:
            ImageError: metadata too large.
            UsageError: an unknown name.
        """
        if isinstance(keep, bool):
            keep = METADATA if keep else ()
        unknown = set(keep) - set(METADATA)
        if isinstance(keep, str) or unknown:
            raise UsageError(
                f"metadata={keep!r} is unknown; use True, False or some of {', '.join(METADATA)}"
            )
        found = {
            name: metadata.pack(name, value)
            for name, value in self.metadata.items()
            if name in keep
        }
        if self.alpha is not None:
            found["alpha"] = alpha.pack(self.alpha)
        return {name: found[name] for name in EXTRAS if name in found}

    @classmethod
    def read(cls, stream: Stream, *, salvage: bool = False) -> Extras:
        """The extras of a parsed stream.

        Args:
            stream: from a reader.
            salvage: name what is damaged in ``missing`` and go on; a lost alpha is opaque.

        Raises:
            CorruptError: a section is not what a writer writes.
        """
        size = stream.header.height_px, stream.header.width_px
        plane, found, missing = None, {}, []
        for name in stream.header.extras:
            try:
                if name not in stream.extras:
                    raise StreamError(f"the {EXTRAS[name]} is lost; fetch or encode it again")
                if name == "alpha":
                    plane = alpha.unpack(stream.extras[name], *size)
                else:
                    found[name] = metadata.unpack(name, stream.extras[name])
            except StreamError:
                if not salvage:
                    raise
                missing.append(EXTRAS[name])
                if name == "alpha":
                    plane = np.full(size, 255, np.uint8)
        return cls(plane, found, tuple(missing))
