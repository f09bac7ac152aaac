"""Picture sizes: what is accepted, how they round, and the shapes they become."""

from __future__ import annotations

import pytest

from cwic.engines.profile import DEFAULT_SIZES, Profile
from cwic.errors import UsageError


def test_the_default_goes_from_64_pixels_to_4k() -> None:
    profile = Profile.parse()
    assert (profile.smallest, profile.best, profile.largest) == (
        (64, 64),
        (1080, 1920),
        (2160, 3840),
    )
    assert profile.shapes("encoder", 16, 8) == {
        "image": ((1, 64, 64, 3), (1, 1080, 1920, 3), (1, 2160, 3840, 3))
    }
    assert profile.shapes("decoder", 16, 8) == {
        "codes": ((1, 16, 8, 8), (1, 16, 135, 240), (1, 16, 270, 480)),
        "levels": ((1, 8, 8), (1, 135, 240), (1, 270, 480)),
    }


def test_a_batch_goes_from_one_and_is_best_full() -> None:
    shapes = Profile.parse(("8x16", "16x32", "24x64"), batch=4).shapes("encoder", 8, 8)
    assert shapes == {"image": ((1, 8, 16, 3), (4, 16, 32, 3), (4, 24, 64, 3))}


def test_sides_round_up_as_a_codec_pads() -> None:
    profile = Profile.parse(("1x8", "9X17", "1079x1913"), stride=8)
    assert (profile.smallest, profile.best, profile.largest) == ((8, 8), (16, 24), (1080, 1920))


@pytest.mark.parametrize(
    ("sizes", "reason"),
    [
        (("64x64", "1080x1920"), "three sizes"),
        (("64", "64x64", "64x64"), "no size; write HEIGHTxWIDTH"),
        (("64x-8", "64x64", "64x64"), "no size; write HEIGHTxWIDTH"),
        (("64x64x3", "64x64", "64x64"), "no size; write HEIGHTxWIDTH"),
        (("0x64", "64x64", "64x64"), "out of range; use sides"),
        (("64x64", "64x64", "64x70000"), "out of range; use sides"),
        (("64x64", "32x640", "128x640"), "not in order; give"),
        (("64x64", "640x640", "1080x600"), "not in order; give"),
    ],
)
def test_sizes_that_are_none(sizes: tuple[str, ...], reason: str) -> None:
    with pytest.raises(UsageError, match=reason) as error:
        Profile.parse(sizes)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("batch", [0, -1, 1025])
def test_a_batch_out_of_range(batch: int) -> None:
    with pytest.raises(UsageError, match="use 1 to 1024"):
        Profile.parse(DEFAULT_SIZES, batch=batch)
