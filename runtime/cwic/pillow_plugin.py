"""Pillow plug-in: ``import cwic.pillow_plugin``, and Pillow reads and writes ``.cwic``.

>>> import cwic.pillow_plugin
>>> image.save("photo.cwic", bpp=0.4)    # or another option of Codec.encode
>>> Image.open("photo.cwic").convert("L")

Opening reads the header and the metadata; the model is loaded, once per process, when the
first pixels are needed. Pillow does not look for plug-ins, so the import is needed.
docs/pillow.md has the options.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import IO, Any

from PIL import Image, ImageFile

from cwic import packaged
from cwic.codec import Codec, load
from cwic.container import MAGIC, MAX_SIDE_PX, VERSION, Stream, accepts
from cwic.errors import (
    CorruptError,
    CwicError,
    LimitError,
    StreamError,
    TruncatedError,
    UsageError,
)
from cwic.header import CRC_BYTES, EXTRAS, Layout, checked, read_header, read_layout
from cwic.metadata import METADATA, to_info, unpack
from cwic.types import EncodeOptions

__all__ = ["CwicImageFile", "use"]

_FORMAT = "CWIC"
_ANY_SIZE = MAX_SIDE_PX**2  # Pillow's own limit has been applied
_BLOCK_BYTES = 1 << 20
_OPTIONS = tuple(EncodeOptions.__annotations__.keys() - {"max_pixels", "metadata"})


class _Models:
    """The codecs of this process: each is loaded once, when it is first needed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loaded: dict[tuple[str | None, str], Codec] = {}
        self._default: tuple[str | None, str] = (None, "auto")

    def use(self, model: str | None, backend: str) -> None:
        self.codec(model, backend)
        self._default = model, backend

    def codec(self, model: str | None, backend: str) -> Codec:
        with self._lock:
            if (model, backend) not in self._loaded:
                self._loaded[model, backend] = load(model, backend)
            return self._loaded[model, backend]

    def for_saving(self, model: str | Path | None, backend: str | None) -> Codec:
        default_model, default_backend = self._default
        return self.codec(str(model) if model else default_model, backend or default_backend)

    def for_loading(self, model_id: bytes) -> Codec:
        """The default codec; if another made the stream, that one if it is known.

        Known are models that were used before, and those in the package.
        """
        default = self.codec(*self._default)
        with self._lock:
            codecs = default, *self._loaded.values()
        found = next((c for c in codecs if c.bundle.model_id == model_id), None)
        name = packaged.name_of(model_id)
        if found is None and name is not None:
            found = self.codec(name, self._default[1])
        return found or default


_models = _Models()


def use(model: str | Path | None = None, backend: str = "auto") -> None:
    """Load a model now, and open and save with it from now on.

    A stream of another model still opens if that model was used before in this process, or
    is in the package.

    Args:
        model: a bundle folder or the name of a model in the package; None is `nano`.
        backend: one of :data:`cwic.backends.BACKENDS`.

    Raises:
        BundleError, BackendError, UsageError: as :func:`cwic.load`; the choice stays as it was.
    """
    _models.use(None if model is None else str(model), backend)


class CwicImageFile(ImageFile.ImageFile):
    """A ``.cwic`` file that was opened; ``info`` has icc_profile, exif and xmp."""

    format = _FORMAT
    format_description = "Content-weighted image compression"

    def _open(self) -> None:
        assert self.fp is not None  # noqa: S101 - Pillow has just set it
        try:
            layout = _read_layout(self.fp)
        except LimitError as exc:
            raise Image.DecompressionBombError(
                f"{str(exc).partition(';')[0]}; raise PIL.Image.MAX_IMAGE_PIXELS if you trust it"
            ) from exc
        except StreamError as exc:
            raise SyntaxError(str(exc)) from exc
        self._mode = layout.header.mode
        self._size = layout.header.width_px, layout.header.height_px
        self.info.update(to_info(_read_metadata(self.fp, layout)))
        # A plain tuple, for Pillow 10 has no other.
        self.tile = [("cwic", (0, 0, *self._size), 0, (layout.end,))]  # type: ignore[list-item]
        self._end = layout.end

    def verify(self) -> None:
        """Check the layout and all checksums; no model is needed.

        Raises:
            OSError: the file is damaged.
        """
        if self.fp is not None:
            self.fp.seek(0)
            try:
                Stream.from_bytes(_read(self.fp, self._end), _ANY_SIZE)
            except StreamError as exc:
                raise OSError(str(exc)) from exc
        super().verify()

    def load_seek(self, pos: int) -> None:
        """Tells ``ImageFile.Parser`` to wait for the whole file."""
        assert self.fp is not None  # noqa: S101 - Pillow has looked
        self.fp.seek(pos)


class _Decoder(ImageFile.PyDecoder):
    """Fills an image with the decoded picture; its argument is the length of the stream."""

    _pulls_fd = True

    def decode(self, buffer: object) -> tuple[int, int]:
        assert self.fd is not None  # noqa: S101 - pulls_fd
        data = _read(self.fd, self.args[0])
        try:
            codec = _models.for_loading(read_header(data).model_id)
            try:
                image = codec.decode(data, max_pixels=_ANY_SIZE)
            except (TruncatedError, CorruptError):
                if not ImageFile.LOAD_TRUNCATED_IMAGES:
                    raise
                image = codec.salvage(data, max_pixels=_ANY_SIZE).image
        except CwicError as exc:
            raise OSError(str(exc)) from exc
        self.set_as_raw(image.tobytes())
        return -1, 0


def _accept(prefix: bytes) -> bool | str:
    if accepts(prefix) and len(prefix) > len(MAGIC) and prefix[len(MAGIC)] != VERSION:
        return "this .cwic file has another version; install the release of cwic that made it"
    return accepts(prefix)


def _save(im: Image.Image, fp: IO[bytes], filename: str | bytes) -> None:
    info = im.encoderinfo
    options: Any = {name: info[name] for name in _OPTIONS if name in info}
    picture = im.copy()
    # As Pillow's own formats do: the profile belongs to the pixels, the rest is asked for.
    picture.info = {"icc_profile": im.info.get("icc_profile")}
    picture.info |= {key: info[key] for key in METADATA.values() if key in info}
    if "transparency" in im.info:
        picture.info["transparency"] = im.info["transparency"]
    try:
        codec = _models.for_saving(info.get("model"), info.get("backend"))
        data = codec.encode(picture, max_pixels=_ANY_SIZE, **options)
    except UsageError as exc:
        raise ValueError(str(exc)) from exc
    except CwicError as exc:
        raise OSError(str(exc)) from exc
    fp.write(data)


def _read(fp: IO[bytes], size: int) -> bytes:
    """Up to ``size`` bytes; a block at a time, for a header may claim more than there are."""
    blocks = []
    while size > 0 and (block := fp.read(min(size, _BLOCK_BYTES))):
        blocks.append(block)
        size -= len(block)
    return b"".join(blocks)


def _read_layout(fp: IO[bytes]) -> Layout:
    """From as many bytes as the header needs."""
    limit = _ANY_SIZE if Image.MAX_IMAGE_PIXELS is None else 2 * Image.MAX_IMAGE_PIXELS
    data, wanted = b"", 1 << 8  # the table of some forty tiles; one tile takes thirty bytes
    while True:
        data += _read(fp, wanted - len(data))
        try:
            return read_layout(data, limit)
        except TruncatedError:
            if len(data) < wanted:
                raise
            wanted *= 4


def _read_metadata(fp: IO[bytes], layout: Layout) -> dict[str, bytes]:
    """What is intact; of the rest ``load`` will speak."""
    found = {}
    for name in METADATA.keys() & layout.extras.keys():
        start, size = layout.extras[name]
        fp.seek(start)
        try:
            part = checked(_read(fp, size + CRC_BYTES), 0, size, EXTRAS[name])
            found[name] = unpack(name, part)
        except StreamError:
            continue
    return found


Image.register_open(_FORMAT, CwicImageFile, _accept)
Image.register_decoder("cwic", _Decoder)
Image.register_save(_FORMAT, _save)
Image.register_extension(_FORMAT, ".cwic")
Image.register_mime(_FORMAT, "image/x-cwic")
