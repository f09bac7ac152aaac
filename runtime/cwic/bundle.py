"""A bundle: the folder that holds one exported model.

::

    model.json            the manifest (format, identity, shape, files, training facts)
    encoder.onnx          image uint8 [N,H,W,3] -> codes, importance
    decoder.onnx          codes, levels -> image uint8 [N,H,W,3]
    gradient.onnx         codes, levels, image -> gradient, error; for cwic.search
    context.safetensors   integer tables of the entropy model
    ...                   further forms of the first two graphs, each named in the manifest,
                          and engines built from them (cwic.engines)

``model_id`` names what a decoder must share with the encoder: the decoder's weights and
the entropy model. A stream carries it, so a decoder with another model refuses by name.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from cwic import packaged
from cwic.errors import BundleError
from cwic.files import write_bytes
from cwic.packaged import MANIFEST
from cwic.rate import QualityScale

__all__ = [
    "CONTEXT_FILE",
    "FORMAT",
    "KINDS_OF_CODES",
    "MANIFEST",
    "MODEL_ID_BYTES",
    "Bundle",
    "FileEntry",
]

FORMAT = "cwic-bundle/1"
CONTEXT_FILE = "context.safetensors"
KINDS_OF_CODES = "signs", "values"
MODEL_ID_BYTES = 8
_LARGEST_MANIFEST = 1 << 20


def _stays_inside(name: str) -> bool:
    """Whether ``name`` is a plain relative path with ``/``, safe on every system."""
    path = PurePosixPath(name)
    plain = str(path) == name and name.isprintable() and not set(name) & set("\\:")
    return plain and not path.is_absolute() and name != "." and ".." not in path.parts


@dataclass(frozen=True)
class FileEntry:
    """One file of a bundle.

    Attributes:
        sha256: hex digest of its bytes.
        bytes: its size.
        role: ``encoder``, ``decoder``, ``gradient`` or ``context``; ``log`` for what an
            engine builder said, ``configuration`` for a server's.
        target: what runs it: ``onnx``, ``onnx-tensorrt`` (int8 as TensorRT wants it),
            ``torchscript``, ``exported-program``, ``torch-tensorrt``, ``triton``, ``cwic``, or
            the engines of ``tensorrt`` and ``tensorrt-rtx``.
        precision: ``fp32``, ``fp16`` or ``int8`` for graphs, ``int`` for the entropy tables.
    """

    sha256: str
    bytes: int
    role: str
    target: str
    precision: str

    @classmethod
    def of(cls, path: Path, *, role: str, target: str, precision: str) -> FileEntry:
        """The entry that describes the file at ``path`` as it is now."""
        data = path.read_bytes()
        return cls(hashlib.sha256(data).hexdigest(), len(data), role, target, precision)


@dataclass(frozen=True)
class Bundle:
    """A model folder whose manifest has been read and checked.

    Attributes:
        path: the folder.
        name: human name of the model.
        model_id: identity of decoder weights and entropy model, 8 bytes.
        n: codes per position: a multiple of 8, and of ``levels`` if they are signs.
        levels: L, highest importance level, 1..255.
        stride: pixels per code position along each side.
        quality_scales: rate factors of qualities 1 to 100, see
            :class:`cwic.rate.QualityScale`.
        files: every file by its name in the folder.
        facts: training and rate-distortion facts, plain JSON values.
        codes: what they are: ``signs``, a bit each, or ``values``, whole numbers.
    """

    path: Path
    name: str
    model_id: bytes
    n: int
    levels: int
    stride: int
    files: Mapping[str, FileEntry]
    quality_scales: tuple[float, ...] = QualityScale().scales
    facts: Mapping[str, Any] = field(default_factory=dict)
    codes: str = "signs"

    @property
    def encoder_channels(self) -> int:
        """Channels of the bytes that the encoder graph gives: eight signs, or half a value."""
        return self.n // 8 if self.codes == "signs" else 2 * self.n

    @property
    def decoder_channels(self) -> int:
        """Channels of the bytes that the decoder graph takes: eight signs, or a value."""
        return self.n // 8 if self.codes == "signs" else self.n

    @classmethod
    def load(cls, path: str | Path | None = None) -> Bundle:
        """Read the manifest of a bundle folder or of a model in the package (None: `nano`).

        Files are checked against their digests when :meth:`read` opens them.

        Raises:
            BundleError: no such folder, or a manifest that is missing, damaged, of another
                format version or inconsistent.
        """
        folder = packaged.folder(path)
        manifest = folder / MANIFEST
        try:
            if manifest.stat().st_size > _LARGEST_MANIFEST:
                raise BundleError(f"{manifest} is larger than 1 MiB; export the model again")
            values = json.loads(manifest.read_bytes())
        except FileNotFoundError as exc:
            raise BundleError(
                f"{folder} holds no {MANIFEST}; pass a folder written by cwic export, "
                f"or one of {', '.join(packaged.names())}"
            ) from exc
        except (OSError, ValueError, RecursionError) as exc:
            raise BundleError(f"{manifest} cannot be read ({exc}); export the model again") from exc
        if not isinstance(values, dict) or values.get("format") != FORMAT:
            found = values.get("format") if isinstance(values, dict) else None
            raise BundleError(
                f"{manifest} has format {found!r}, not {FORMAT!r}; "
                "export the model again with this release"
            )
        try:
            return cls._from_manifest(folder, values)
        except (AttributeError, KeyError, TypeError, ValueError) as exc:
            raise BundleError(
                f"{manifest} is inconsistent ({exc!r}); export the model again"
            ) from exc

    @classmethod
    def _from_manifest(cls, folder: Path, values: dict[str, Any]) -> Bundle:
        n, levels, stride = (int(values[key]) for key in ("n", "levels", "stride"))
        model_id = bytes.fromhex(values["model_id"])
        files = {name: FileEntry(**entry) for name, entry in values["files"].items()}
        codes = str(values.get("codes", "signs"))
        if codes not in KINDS_OF_CODES:
            raise ValueError(f"unknown codes {codes!r}")
        if not (1 <= levels <= 255 and 8 <= n <= 4096 and n % 8 == 0) or (
            codes == "signs" and n % levels
        ):
            raise ValueError(f"n={n} and levels={levels} do not fit")
        if not 1 <= stride <= 64 or len(model_id) != MODEL_ID_BYTES:
            raise ValueError("stride or model_id out of range")
        if not all(_stays_inside(name) for name in files):
            raise ValueError("a file name leaves the folder")
        return cls(
            path=folder,
            name=str(values["name"]),
            model_id=model_id,
            n=n,
            levels=levels,
            stride=stride,
            files=files,
            quality_scales=QualityScale(values["quality_scales"]).scales,
            facts=dict(values.get("facts", {})),
            codes=codes,
        )

    def graphs(self, role: str, *, int8: str = "onnx") -> dict[str, str]:
        """Names of the ONNX files of a role (``encoder``, ``decoder``), by precision.

        Args:
            role: as in :class:`FileEntry`.
            int8: ``target`` of the int8 file to name, ``onnx`` or ``onnx-tensorrt``.
        """
        return {
            entry.precision: name
            for name, entry in sorted(self.files.items())
            if entry.role == role
            and entry.target == (int8 if entry.precision == "int8" else "onnx")
        }

    def read(self, name: str) -> bytes:
        """Bytes of one file, after checking them against the manifest.

        Raises:
            BundleError: the file is not listed, missing, or not the one that was written.
        """
        entry = self.files.get(name)
        if entry is None:
            have = ", ".join(sorted(self.files)) or "nothing"
            raise BundleError(f"{self.path} lists no {name} (it has {have}); export it first")
        engine = entry.target.startswith("tensorrt")
        made, remedy = (
            ("built", f"build it again: cwic engine {self.path}")
            if engine
            else ("exported", "export the model again")
        )
        try:
            data = (self.path / name).read_bytes()
        except OSError as exc:
            raise BundleError(f"{self.path / name} is missing or unreadable; {remedy}") from exc
        if len(data) != entry.bytes or hashlib.sha256(data).hexdigest() != entry.sha256:
            raise BundleError(
                f"{self.path / name} is not the file that was {made} (sha256 differs); {remedy}"
            )
        return data

    def save(self) -> None:
        """Write the manifest into :attr:`path`; the files must lie there already."""
        values = {
            "format": FORMAT,
            "name": self.name,
            "model_id": self.model_id.hex(),
            "codes": self.codes,
            "n": self.n,
            "levels": self.levels,
            "stride": self.stride,
            "quality_scales": list(self.quality_scales),
            "files": {name: vars(entry) for name, entry in sorted(self.files.items())},
            "facts": dict(self.facts),
        }
        write_bytes(self.path / MANIFEST, (json.dumps(values, indent=2) + "\n").encode())
