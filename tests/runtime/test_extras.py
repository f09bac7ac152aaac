"""Alpha and metadata: as sections, and through the codec with the shipped model."""

from __future__ import annotations

import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from PIL import Image, ImageCms

import cwic
from cwic import alpha, metadata
from cwic.cli import main
from cwic.codec import Codec
from cwic.container import EXTRAS, Stream
from cwic.errors import CorruptError, ImageError, UsageError
from cwic.extras import Extras
from cwic.header import MAX_METADATA_BYTES
from cwic.image import open_picture

ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
_exif = Image.Exif()
_exif[0x010F] = "a maker"
EXIF = _exif.tobytes().removeprefix(b"Exif\0\0")
XMP = b"<x:xmpmeta/>"


@pytest.fixture(scope="module")
def matte(photo: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A soft alpha with holes and plateaus, as large as the fixture ``small``."""
    return (6 * photo[180:283, 300:437, 1].astype(int) - 500).clip(0, 255).astype(np.uint8)


@pytest.fixture
def dressed(small: NDArray[np.uint8], matte: NDArray[np.uint8]) -> Image.Image:
    """A photograph with all that can be carried."""
    image = Image.fromarray(np.dstack([small, matte]))
    image.info |= {"icc_profile": ICC, "exif": b"Exif\0\0" + EXIF, "xmp": XMP}
    return image


# ---- Alpha ----------------------------------------------------------------------------------


@given(arrays.arrays(np.uint8, arrays.array_shapes(min_dims=2, max_dims=2, max_side=40)))
@settings(max_examples=150, deadline=None)
def test_any_alpha_round_trips(plane: NDArray[np.uint8]) -> None:
    assert np.array_equal(alpha.unpack(alpha.pack(plane), *plane.shape), plane)


@pytest.mark.parametrize("value", [0, 1, 128, 255])
def test_a_constant_alpha_is_one_byte(value: int) -> None:
    plane = np.full((300, 200), value, np.uint8)
    assert alpha.pack(plane) == bytes([value])
    assert np.array_equal(alpha.unpack(bytes([value]), 300, 200), plane)


RAMP = np.add.outer(np.arange(64) // 3, np.arange(80)).astype(np.uint8)


@pytest.mark.parametrize(
    ("number", "filtered"),
    [
        (0, RAMP),
        (1, np.vstack([RAMP[:1], RAMP[1:] - RAMP[:-1]])),
        (2, np.hstack([RAMP[:, :1], RAMP[:, 1:] - RAMP[:, :-1]])),
    ],
)
def test_filters_as_the_format_says(number: int, filtered: NDArray[np.uint8]) -> None:
    section = bytes([number]) + zlib.compress(filtered.tobytes())
    assert np.array_equal(alpha.unpack(section, 64, 80), RAMP)


def test_the_last_filter_goes_both_ways(matte: NDArray[np.uint8]) -> None:
    both, (height, width) = np.zeros_like(matte), matte.shape
    padded = np.pad(matte, ((1, 0), (1, 0))).astype(int)
    for y in range(height):
        for x in range(width):
            above, before, corner = padded[y, x + 1], padded[y + 1, x], padded[y, x]
            both[y, x] = (padded[y + 1, x + 1] - above - before + corner) % 256
    section = b"\3" + zlib.compress(both.tobytes())
    assert np.array_equal(alpha.unpack(section, height, width), matte)


@pytest.mark.parametrize(("number", "axes"), [(0, ()), (1, (0,)), (2, (1,)), (3, (0, 1))])
def test_the_smallest_filter_is_chosen(number: int, axes: tuple[int, ...]) -> None:
    """Of an alpha that the filter turns into few numbers."""
    plane = np.random.default_rng(number).integers(0, 3, (60, 90)).astype(np.uint8)
    few = zlib.compress(plane.tobytes(), 9)
    for axis in axes:
        plane = np.cumsum(plane, axis, dtype=np.uint8)
    assert alpha.pack(plane) == bytes([number]) + few


@pytest.mark.parametrize("extra", [-1, 1, 1 << 24])
def test_alpha_of_another_size_is_refused(extra: int) -> None:
    """Without the memory for what it would become."""
    section = b"\0" + zlib.compress(bytes(5000 + extra), 9)
    tracemalloc.start()
    with pytest.raises(CorruptError, match="the alpha is not of 100x50 pixels; fetch"):
        alpha.unpack(section, 50, 100)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < (1 << 16) + 3 * len(section)


# ---- Metadata -------------------------------------------------------------------------------


@given(st.binary(min_size=1, max_size=300), st.sampled_from(["icc", "exif", "xmp"]))
def test_any_metadata_round_trips(value: bytes, name: str) -> None:
    section = metadata.pack(name, value)
    assert metadata.unpack(name, section) == value
    assert len(section) <= len(value) + 1


def test_metadata_is_compressed_where_that_is_shorter() -> None:
    assert metadata.pack("xmp", b"<x/>") == b"\0<x/>"
    assert metadata.pack("xmp", b"<x/>" * 99) == b"\1" + zlib.compress(b"<x/>" * 99, 9)
    assert len(metadata.pack("icc", ICC)) < len(ICC)


def test_too_large_metadata_is_refused_by_name() -> None:
    assert metadata.pack("exif", bytes(MAX_METADATA_BYTES))
    with pytest.raises(ImageError, match="EXIF has 4194305 bytes, more than the limit of 4194304"):
        metadata.pack("exif", bytes(MAX_METADATA_BYTES + 1))


@pytest.mark.parametrize(
    ("keep", "names"),
    [
        (True, ["icc", "alpha", "exif", "xmp"]),
        (False, ["alpha"]),
        (("icc",), ["icc", "alpha"]),
        ({"xmp", "exif"}, ["alpha", "exif", "xmp"]),
    ],
)
def test_what_is_kept(keep: bool | set[str], names: list[str]) -> None:
    extras = Extras(RAMP, {"xmp": XMP, "icc": ICC, "exif": EXIF})
    assert list(extras.sections(keep)) == names


@pytest.mark.parametrize("keep", [("profile",), "icc", ("alpha",)])
def test_unknown_metadata_is_refused(keep: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="use True, False or some of icc, exif, xmp"):
        Extras().sections(keep)


# ---- Through the codec ----------------------------------------------------------------------


def test_all_is_carried(codec: Codec, dressed: Image.Image, matte: NDArray[np.uint8]) -> None:
    restored = codec.decode(codec.encode(dressed, quality=20))
    assert restored.mode == "RGBA"
    assert restored.info == dressed.info
    assert np.array_equal(np.asarray(restored.getchannel("A")), matte)


def test_alpha_does_not_change_the_colours(
    codec: Codec, dressed: Image.Image, small: NDArray[np.uint8], stream: bytes
) -> None:
    plain = np.asarray(codec.decode(stream))
    restored = np.asarray(codec.decode(codec.encode(dressed, quality=50)))
    assert np.array_equal(restored[..., :3], plain)
    plain_size = len(codec.encode(dressed.convert("RGB"), quality=50, metadata=False))
    assert plain_size == len(stream)


@pytest.mark.parametrize("channels", [1, 2])
def test_grey_stays_grey(
    codec: Codec, small: NDArray[np.uint8], matte: NDArray[np.uint8], channels: int
) -> None:
    grey = np.dstack([small[..., 1], matte])[..., :channels]
    data = codec.encode(grey[..., 0] if channels == 1 else grey, quality=90)
    restored = codec.decode(data)
    assert restored.mode == ("L", "LA")[channels - 1]
    error = np.asarray(restored).reshape(*small.shape[:2], -1)[..., 0].astype(float) - grey[..., 0]
    assert np.square(error).mean() < 60
    three = Image.fromarray(
        np.asarray(codec.decode(codec.encode(np.dstack([grey[..., 0]] * 3), quality=90)))
    )
    assert np.array_equal(np.asarray(three.convert("L")), np.asarray(restored.getchannel("L")))


@pytest.mark.parametrize("keep", [False, ("icc",)])
def test_metadata_can_be_left_out(
    codec: Codec, dressed: Image.Image, keep: bool | tuple[str, ...]
) -> None:
    whole, less = (codec.encode(dressed, quality=20, metadata=k) for k in (True, keep))
    expected = {"icc_profile": ICC} if keep else {}
    assert codec.decode(less).info == expected
    assert codec.decode(less).mode == "RGBA"
    assert len(less) < len(whole)


def test_a_budget_counts_all(codec: Codec, dressed: Image.Image) -> None:
    """Alpha and metadata take most of it here; the codes get what is left."""
    extras = sum(map(len, Stream.from_bytes(codec.encode(dressed)).extras.values()))
    assert extras > 1700
    data = codec.encode(dressed, max_bytes=extras + 700)
    assert extras + 500 < len(data) <= extras + 700
    with pytest.raises(cwic.RateError, match=r"smallest possible is \d+ bytes"):
        codec.encode(dressed, max_bytes=extras)


def test_a_cut_stream_gives_what_is_there(
    codec: Codec, dressed: Image.Image, matte: NDArray[np.uint8]
) -> None:
    """XMP is the first to go, then EXIF, then alpha; the profile goes after the codes."""
    data = codec.encode(dressed, quality=30)
    sizes = {name: len(part) + 4 for name, part in Stream.from_bytes(data).extras.items()}
    cut = len(data)
    missing: list[str] = []
    for name, label in (("xmp", "XMP"), ("exif", "EXIF"), ("alpha", "alpha")):
        missing.insert(0, label)
        salvaged = codec.salvage(data[: cut - 1])
        cut -= sizes[name]
        assert salvaged.missing == tuple(missing)
        assert salvaged.left_out == f"without {', '.join(missing)}"
        assert salvaged.codes_kept == 1
        assert salvaged.image.mode == "RGBA"
        expected = np.full_like(matte, 255) if "alpha" in missing else matte
        assert np.array_equal(np.asarray(salvaged.image.getchannel("A")), expected)
        assert salvaged.image.info["icc_profile"] == ICC
    salvaged = codec.salvage(data[: cut - 50])
    assert salvaged.coarse == (0,)
    assert salvaged.left_out.endswith("coarse tiles: 1 of 1; without alpha, EXIF, XMP")
    assert salvaged.image.info == {"icc_profile": ICC}


def test_every_flipped_bit_with_extras_is_refused(codec: Codec) -> None:
    image = Image.new("LA", (9, 9), (80, 200))
    image.info |= {"icc_profile": b"profile", "exif": EXIF, "xmp": XMP}
    data = codec.encode(image, quality=10)
    assert codec.decode(data).info.keys() == {"icc_profile", "exif", "xmp"}
    for place in range(8 * len(data)):
        bad = bytearray(data)
        bad[place // 8] ^= 1 << place % 8
        with pytest.raises(cwic.StreamError):
            codec.decode(bytes(bad))
    for length in range(len(data)):
        with pytest.raises(cwic.TruncatedError):
            codec.decode(data[:length])


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif", ".jp2"])
def test_the_command_line_tells_and_keeps_them(
    codec: Codec,
    dressed: Image.Image,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    suffix: str,
) -> None:
    """What a format can hold: JPEG 2000 has alpha alone in Pillow's hands, TIFF no XMP."""
    source, target = tmp_path / "a.cwic", tmp_path / f"b{suffix}"
    source.write_bytes(codec.encode(dressed, quality=20))
    main(["info", str(source)])
    parts = Stream.from_bytes(source.read_bytes()).extras
    sizes = [f"{EXTRAS[name]} {len(part)}" for name, part in parts.items()]
    assert f"lanes, {' + '.join(sizes)} bytes, checksums right" in capsys.readouterr().out
    main(["decode", str(source), "-o", str(target)])
    picture = open_picture(target)
    kept = {".png": {"icc", "exif", "xmp"}, ".webp": {"icc", "exif", "xmp"}, ".tif": {"icc"}}
    assert picture.extras.metadata.keys() == kept.get(suffix, set())
    if suffix != ".jp2":
        assert picture.extras.metadata["icc"] == ICC
    with Image.open(target) as image:
        assert image.mode == "RGBA"
        assert suffix == ".jp2" or image.getexif()[0x010F] == "a maker"
