"""What a manifest says about an engine, and what the engine's file is called.

Records lie in ``facts["engines"]`` of the manifest, by file name. The file itself is
listed among ``files`` like any other, with the library as its ``target``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from cwic.bundle import Bundle
from cwic.engines.library import KINDS, Kind, Library
from cwic.engines.profile import Shapes
from cwic.errors import BundleError

__all__ = ["FACTS", "EngineRecord", "file_name"]

FACTS = "engines"
_TAGS: dict[Kind, str] = {"tensorrt": "trt", "tensorrt-rtx": "rtx"}


@dataclass(frozen=True)
class EngineRecord:
    """How an engine was built.

    Attributes:
        kind: the library that built it and runs it.
        library_version: whole version; no other release runs the engine.
        sm: the compute capability it runs on, for example ``86``.
        gpu: name of the GPU it was built on, or None when built ahead of time.
        precision: ``fp32``, ``fp16`` or ``int8``: that of the ONNX file.
        profile: smallest, best and largest shape of every input.
        onnx: name of the ONNX file it was built from.
        onnx_sha256: hex digest of that file.
        builder: facts of the build: ``seconds``, ``log`` (name of a file with the library's
            messages and every layer's type), ``plugins``, ``inspected``.
        audit: what :func:`cwic.engines.audit.audit` found.
    """

    kind: Kind
    library_version: str
    sm: str
    gpu: str | None
    precision: str
    profile: Mapping[str, Shapes]
    onnx: str
    onnx_sha256: str
    builder: Mapping[str, Any]
    audit: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Plain values for the manifest."""
        return asdict(self)

    @classmethod
    def of(cls, bundle: Bundle, name: str) -> EngineRecord:
        """The record of the engine file ``name``.

        Raises:
            BundleError: the manifest has none, or one that is inconsistent.
        """
        try:
            values = dict(bundle.facts[FACTS][name])
            profile = {
                str(port): tuple(tuple(int(size) for size in shape) for shape in shapes)
                for port, shapes in values["profile"].items()
            }
            record = cls(**{**values, "profile": profile})
            if record.kind not in KINDS or any(len(shapes) != 3 for shapes in profile.values()):
                raise ValueError(f"kind {record.kind!r} or a profile that has not three shapes")
        except (AttributeError, KeyError, TypeError, ValueError) as exc:
            raise BundleError(
                f"{bundle.path} says nothing usable about {name} ({exc!r}); "
                f"build it again: cwic engine {bundle.path}"
            ) from exc
        return record


def file_name(role: str, library: Library, sm: str, precision: str) -> str:
    """For example ``encoder.sm87-trt10.3-fp16.engine``."""
    release = ".".join(map(str, library.release))
    return f"{role}.sm{sm}-{_TAGS[library.kind]}{release}-{precision}.engine"
