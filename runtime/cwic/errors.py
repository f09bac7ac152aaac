"""The exception tree of cwic.

Every failure that a user can cause is one of these; its message is one line
that ends with the remedy.

CwicError
├── UsageError             an option or argument that cannot be used as given
├── ImageError             a picture that cannot be read, or cannot be coded
├── StreamError            a .cwic stream that cannot be decoded
│   ├── NotCwicError         the bytes do not start as a .cwic stream does
│   ├── VersionError         a stream of a version this release does not read
│   ├── TruncatedError       the stream ends before its last byte
│   ├── CorruptError         a checksum or a consistency rule is broken
│   ├── LimitError           the stream asks for more than the caller allows
│   └── ModelMismatchError   the stream was made by another model
├── RateError              the asked rate cannot be reached with this picture
├── BundleError            a model folder that is incomplete or damaged
├── BackendError           an inference backend that is missing or fails
├── CheckpointError        a training checkpoint that cannot be used
├── TrainingError          training cannot start or go on
└── ExportError            an artefact cannot be exported or validated
"""

from __future__ import annotations

__all__ = [
    "BackendError",
    "BundleError",
    "CheckpointError",
    "CorruptError",
    "CwicError",
    "ExportError",
    "ImageError",
    "LimitError",
    "ModelMismatchError",
    "NotCwicError",
    "RateError",
    "StreamError",
    "TrainingError",
    "TruncatedError",
    "UsageError",
    "VersionError",
    "first_line",
]

_LONGEST_REASON = 300


class CwicError(Exception):
    """Base of every error that cwic raises on purpose; ``str(e)`` is one line."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


class UsageError(CwicError):
    """An option or argument cannot be used as given."""


class ImageError(CwicError):
    """A picture cannot be read, or its size or mode cannot be coded."""


class StreamError(CwicError):
    """A ``.cwic`` stream cannot be decoded."""


class NotCwicError(StreamError):
    """The bytes do not start as a ``.cwic`` stream does."""


class VersionError(StreamError):
    """The stream's version is not one that this release reads."""


class TruncatedError(StreamError):
    """The stream ends before its last byte."""


class CorruptError(StreamError):
    """A checksum or a consistency rule of the stream is broken."""


class LimitError(StreamError):
    """The stream asks for more pixels or memory than the caller allows."""


class ModelMismatchError(StreamError):
    """The stream names a model other than the one that is loaded."""


class RateError(CwicError):
    """The asked rate cannot be reached with this picture and model."""


class BundleError(CwicError):
    """A model folder is incomplete, damaged or of another format version."""


class BackendError(CwicError):
    """An inference backend is not installed, or fails to load or run a graph."""


class CheckpointError(CwicError):
    """A training checkpoint cannot be read or does not fit the model."""


class TrainingError(CwicError):
    """Training cannot start or go on: data, device or configuration."""


class ExportError(CwicError):
    """An artefact cannot be exported, or differs from the eager model."""


def first_line(exc: BaseException) -> str:
    """What an error of another library says, short enough for a message; else its type."""
    said = str(exc).strip() or type(exc).__name__
    return said.splitlines()[0][:_LONGEST_REASON]
