"""The Pillow plug-in, in the manner of Pillow's own tests of a format."""

from __future__ import annotations

import io
import pickle
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError
from tests.runtime.pillow.files import ICC, XMP, exif, opened, saved

import cwic
from cwic import pillow_plugin
from cwic.codec import Codec
from cwic.container import Header, Sections, Stream
from cwic.image import as_picture
from cwic.pillow_plugin import CwicImageFile

# ---- Sanity ---------------------------------------------------------------------------------


def test_registered() -> None:
    assert Image.registered_extensions()[".cwic"] == "CWIC"
    assert Image.MIME["CWIC"] == "image/x-cwic"


def test_open_load_save(codec: Codec, image: Image.Image, stream: bytes, tmp_path: Path) -> None:
    path = tmp_path / "photo.cwic"
    image.save(path)
    assert path.read_bytes() == stream
    with Image.open(path) as restored:
        assert isinstance(restored, CwicImageFile)
        assert (restored.format, restored.mode, restored.size) == ("CWIC", "RGB", (137, 103))
        assert restored.get_format_mimetype() == "image/x-cwic"
        assert restored.info == {}
        restored.load()
    assert np.array_equal(np.asarray(restored), np.asarray(codec.decode(stream)))


def test_importing_it_is_enough_and_needed(stream: bytes, tmp_path: Path) -> None:
    """In a fresh process; nothing of a model is loaded until there are pixels to make."""
    path = tmp_path / "photo.cwic"
    path.write_bytes(stream)
    program = f"""
from PIL import Image
try:
    Image.open({str(path)!r})
except OSError:
    print("unknown")
import sys, cwic.pillow_plugin
image = Image.open({str(path)!r})
print(image.size, "onnxruntime" in sys.modules)
image.load()
print(len(image.getcolors(99999)) > 100, "torch" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=99
    )
    assert done.stdout.split("\n")[:3] == ["unknown", "(137, 103) False", "True False"], done.stderr


@pytest.mark.parametrize(
    ("mode", "restored"),
    [
        *((mode, mode) for mode in ("RGB", "RGBA", "L", "LA")),
        *((mode, "RGB") for mode in ("P", "CMYK", "YCbCr", "HSV")),
        *((mode, "L") for mode in ("1", "I", "I;16")),
        ("PA", "RGBA"),
    ],
)
def test_modes(codec: Codec, image: Image.Image, mode: str, restored: str) -> None:
    if mode == "PA":
        picture = image.quantize(9).convert("PA")
    elif mode.startswith("I"):
        picture = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257).convert(
            mode
        )
    else:
        picture = image.convert(mode, dither=Image.Dither.NONE)
    data = saved(picture, quality=80)
    again = opened(data)
    assert (again.mode, again.size) == (restored, image.size)
    assert np.array_equal(np.asarray(again), np.asarray(codec.decode(data)))
    error = as_picture(again).pixels.astype(float) - as_picture(picture).pixels
    assert np.square(error).mean() < (600 if mode != "1" else 4000)


def test_mode_f_cannot_be_written() -> None:
    with pytest.raises(OSError, match="mode F.*convert it"):
        saved(Image.new("F", (4, 4)))


def test_the_first_frame_of_an_animation_is_saved(image: Image.Image) -> None:
    out = io.BytesIO()
    image.save(out, "GIF", save_all=True, append_images=[ImageOps.invert(image)])
    animation = opened(out.getvalue())
    assert opened(saved(animation)).size == image.size


# ---- Options of save ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{"quality": 10}, {"bpp": 0.3}, {"max_bytes": 900}, {"quality": 90}]
)
def test_rates(codec: Codec, image: Image.Image, options: dict[str, float]) -> None:
    assert saved(image, **options) == codec.encode(image, **options)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"quality": 0}, ValueError),
        ({"quality": 50, "bpp": 1}, ValueError),
        ({"max_bytes": 5}, OSError),  # cannot be reached
        ({"model": "nowhere"}, OSError),
        ({"backend": "warp"}, ValueError),
    ],
)
def test_wrong_options(
    image: Image.Image, tmp_path: Path, options: dict[str, object], error: type[Exception]
) -> None:
    """An error of Pillow's kinds, with our words and cause, and no file."""
    with pytest.raises(error, match="; ") as raised:
        image.save(tmp_path / "a.cwic", **options)
    assert isinstance(raised.value.__cause__, cwic.CwicError)
    assert not (tmp_path / "a.cwic").exists()


def test_metadata_is_saved_as_pillow_saves_it(image: Image.Image) -> None:
    """The profile that a picture has; EXIF and XMP when asked for. The picture stays as it was."""
    picture = image.copy()
    picture.info = {"icc_profile": ICC, "exif": exif(6), "xmp": XMP, "dpi": (72, 72)}
    before = dict(picture.info)
    assert opened(saved(picture)).info == {"icc_profile": ICC}
    assert opened(saved(picture, icc_profile=None)).info == {}
    assert opened(saved(picture, icc_profile=b"other")).info == {"icc_profile": b"other"}
    given = {"exif": exif(), "xmp": XMP}
    assert opened(saved(picture, **given)).info == {"icc_profile": ICC, **given}
    assert picture.info == before
    tags = Image.Exif()
    tags[0x010F] = "a maker"
    assert opened(saved(image, exif=tags)).getexif() == {0x010F: "a maker"}


def test_orientation_is_that_of_the_exif_that_is_saved(image: Image.Image) -> None:
    """What was opened and turned by hand is not turned again."""
    picture = image.copy()
    picture.info["exif"] = exif(6)
    assert opened(saved(picture)).size == picture.size
    turned = opened(saved(picture, exif=exif(6)))
    assert turned.size == picture.size[::-1]
    assert dict(turned.getexif()) == {0x010F: "a maker"}
    upright = ImageOps.exif_transpose(picture)
    error = np.asarray(turned, float) - np.asarray(upright)
    assert np.square(error).mean() < 300


def test_a_transparent_colour(image: Image.Image) -> None:
    palette = image.quantize(16)
    palette.info["transparency"] = 3
    alpha = np.asarray(opened(saved(palette)).getchannel("A"))
    assert np.array_equal(alpha == 0, np.asarray(palette) == 3)


# ---- Laziness -------------------------------------------------------------------------------


def test_opening_reads_the_header_and_metadata(
    rgba: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("a model was asked for")

    monkeypatch.setattr(pillow_plugin._models, "codec", fail)
    image = opened(rgba)
    assert (image.mode, image.size) == ("RGBA", (137, 103))
    assert image.info == {"icc_profile": ICC, "exif": exif(), "xmp": XMP}
    assert image.getexif()[0x010F] == "a maker"
    with pytest.raises(AssertionError, match="a model was asked for"):
        image.load()


def test_few_bytes_are_read_to_open(codec: Codec) -> None:
    """The header and the XMP, which lies behind all codes.

    Once all of Pillow's formats are registered, those without a prefix read 1870 bytes first.
    """
    Image.init()
    header = Header(64, 64, codec.bundle.model_id, 50, 1, 16, extras=("xmp",))
    stream = Stream(header, (Sections(b"levels", bytes(1 << 20)),), {"xmp": b"\0" + XMP})

    class Counting(io.BytesIO):
        total = 0

        def read(self, size: int | None = -1, /) -> bytes:
            found = super().read(size)
            self.total += len(found)
            return found

    fp = Counting(stream.to_bytes())
    assert Image.open(fp).info == {"xmp": XMP}
    assert fp.total < 5000


def test_a_header_longer_than_the_first_read(codec: Codec) -> None:
    """Of 3000 tiles."""
    header = Header(16 * 8 * 3000, 8, codec.bundle.model_id, 50, 1, 16)
    data = Stream(header, (Sections(b"a", b"b"),) * 3000).to_bytes()
    assert opened(data).size == (16 * 8 * 3000, 8)
    for length in (5000, 6000):
        with pytest.raises(UnidentifiedImageError):
            opened(data[:length])


def test_a_model_is_loaded_once(
    codec: Codec, stream: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads that come first wait for the one that loads."""
    loads = []

    def slow(*key: object) -> Codec:
        loads.append(key)
        return codec

    monkeypatch.setattr(pillow_plugin, "load", slow)
    monkeypatch.setattr(pillow_plugin, "_models", pillow_plugin._Models())
    with ThreadPoolExecutor(4) as pool:
        pictures = list(pool.map(lambda _: np.asarray(opened(stream)), range(8)))
    assert loads == [(None, "auto")]
    assert all(np.array_equal(picture, pictures[0]) for picture in pictures)


def test_use_chooses_the_model(
    codec: Codec, image: Image.Image, stream: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a model that was used before still opens its own streams."""

    class Other:
        bundle = codec.bundle

        def __init__(self, model: object, backend: object) -> None:
            self.name = f"{model} {backend}".encode()
            self.bundle = type("Bundle", (), {"model_id": b"otherone"})()

        def encode(self, *_: object, **__: object) -> bytes:
            return self.name

        def decode(self, data: bytes, **_: object) -> Image.Image:
            return Image.new("RGB", (137, 103), (1, 2, 3))

    monkeypatch.setattr(pillow_plugin, "load", Other)
    assert saved(image, model="elsewhere", backend="cpu") == b"elsewhere cpu"
    assert saved(image) == stream
    pillow_plugin.use("mine", "cuda")
    assert saved(image) == b"mine cuda"
    assert saved(image, backend="cpu") == b"mine cpu"
    assert opened(stream).getpixel((0, 0)) != (1, 2, 3)
    good = Stream.from_bytes(stream)
    header = Header(137, 103, b"otherone", 50, 1, 128)
    theirs = Stream(header, good.tiles).to_bytes()
    assert opened(theirs).getpixel((0, 0)) == (1, 2, 3)


def test_a_wrong_choice_changes_nothing(image: Image.Image, stream: bytes) -> None:
    with pytest.raises(cwic.BundleError):
        pillow_plugin.use("nowhere")
    assert saved(image) == stream


# ---- What images are for --------------------------------------------------------------------


def test_file_objects(image: Image.Image, stream: bytes, tmp_path: Path) -> None:
    """One that was handed over stays open; one that Pillow opened is closed after loading."""
    fp = io.BytesIO(stream)
    Image.open(fp).load()
    assert not fp.closed
    (tmp_path / "a.cwic").write_bytes(stream)
    picture = Image.open(tmp_path / "a.cwic")
    own = picture.fp
    assert own is not None
    picture.load()
    assert own.closed
    out = io.BytesIO(b"before")
    out.seek(0, io.SEEK_END)
    image.save(out, "CWIC")
    assert out.getvalue() == b"before" + stream


def test_a_file_that_cannot_seek(stream: bytes) -> None:
    class Pipe(io.RawIOBase):
        def __init__(self) -> None:
            self.inner = io.BytesIO(stream)

        def seek(self, *_: object) -> int:
            raise io.UnsupportedOperation

        def read(self, size: int = -1) -> bytes:
            return self.inner.read(size)

    assert np.array_equal(np.asarray(Image.open(Pipe())), np.asarray(opened(stream)))


def test_the_parser(stream: bytes) -> None:
    """Bytes as they arrive."""
    parser = ImageFile.Parser()
    for start in range(0, len(stream), 97):
        parser.feed(stream[start : start + 97])
    assert np.array_equal(np.asarray(parser.close()), np.asarray(opened(stream)))


@pytest.mark.parametrize(
    "use",
    [
        lambda picture: pickle.loads(pickle.dumps(picture)),  # noqa: S301
        lambda picture: picture.copy(),
        lambda picture: picture.crop((0, 0, *picture.size)),
    ],
    ids=["pickle", "copy", "crop"],
)
def test_copies(rgba: bytes, use: Callable[[Image.Image], Image.Image]) -> None:
    copy = use(opened(rgba))
    assert np.array_equal(np.asarray(copy), np.asarray(opened(rgba)))
    assert copy.info == opened(rgba).info


def test_thumbnail_and_draft(stream: bytes) -> None:
    picture = opened(stream)
    assert picture.draft("L", (10, 10)) is None
    picture.thumbnail((50, 50))
    assert picture.size == (50, 38)


def test_one_frame(stream: bytes) -> None:
    picture = opened(stream)
    assert getattr(picture, "n_frames", 1) == 1
    with pytest.raises(EOFError):
        picture.seek(1)
