"""The models in the package: `nano`, which is the default, and its variants.

A model is named where a bundle folder may stand, or found by the identity that a stream
carries, so that a stream of any of them decodes without being told which.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cwic.codec import Codec

__all__ = ["DEFAULT", "MANIFEST", "Codecs", "folder", "name_of", "names"]

DEFAULT = "nano"
MANIFEST = "model.json"
_MODELS = Path(__file__).with_name("models")


@lru_cache(maxsize=1)
def names() -> tuple[str, ...]:
    """Names of the models, the default first."""
    found = {path.parent.name for path in _MODELS.glob(f"*/{MANIFEST}")}
    return tuple(sorted(found, key=lambda name: (name != DEFAULT, name)))


def folder(model: str | Path | None = None) -> Path:
    """Where a model lies.

    Args:
        model: a bundle folder, or else a name of :func:`names`; None is the default.
    """
    if model is None:
        return _MODELS / DEFAULT
    path = Path(model)
    named = str(path) in names() and not (path / MANIFEST).is_file()
    return _MODELS / path if named else path


@lru_cache(maxsize=64)
def name_of(model_id: bytes) -> str | None:
    """The name of the model of an identity (8 bytes), if it is one of :func:`names`."""
    for name in names():
        values = json.loads((_MODELS / name / MANIFEST).read_bytes())
        if values["model_id"] == model_id.hex():
            return name
    return None


class Codecs:
    """The codec of each stream: of the default model, or of another model in the package.

    Args:
        open_codec: opens the codec of a bundle folder; called once for each, and at once for
            the default one, so that a missing backend is not found file by file.
    """

    def __init__(self, open_codec: Callable[[Path], Codec]) -> None:
        self._open = open_codec
        self._lock = threading.Lock()
        self._opened = {DEFAULT: open_codec(folder())}

    def of(self, model_id: bytes) -> Codec:
        """For a stream of this model; the default one, which says so, if it is not here."""
        name = name_of(model_id) or DEFAULT
        with self._lock:
            if name not in self._opened:
                self._opened[name] = self._open(folder(name))
            return self._opened[name]
