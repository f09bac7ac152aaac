"""Rates and regions on the command line, and that a killed run leaves no half file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import cwic
from cwic.cli import main


@pytest.fixture
def picture(tmp_path: Path, photo: NDArray[np.uint8]) -> Path:
    path = tmp_path / "photo.png"
    Image.fromarray(photo[100:300, 200:520]).save(path)
    return path


def _error(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 1
    line = capsys.readouterr().err.strip()
    assert "\n" not in line
    return line


@pytest.mark.parametrize(
    "option", [["--max-bytes", "2500"], ["--bpp", "0.3"], ["--psnr", "28"], ["-q", "30"]]
)
def test_every_target_composes_with_a_region(
    picture: Path, codec: cwic.Codec, option: list[str]
) -> None:
    plain, drawn = picture.with_name("plain.cwic"), picture.with_name("drawn.cwic")
    main(["encode", str(picture), "-o", str(plain), *option])
    region = ["--roi", "40,40,120,120", "--roi", "200,0,240,40"]
    main(["encode", str(picture), "-o", str(drawn), *option, *region])
    assert plain.read_bytes() != drawn.read_bytes()
    if option[0] == "--max-bytes":
        assert all(0.99 * 2500 <= path.stat().st_size <= 2500 for path in (plain, drawn))
    if option[0] == "-q":
        assert drawn.stat().st_size < plain.stat().st_size
    assert codec.decode(drawn.read_bytes()).size == (320, 200)


def test_a_mask_from_a_file(picture: Path) -> None:
    mask = np.full((200, 320), 30, np.uint8)
    mask[40:120, 40:120] = 255
    Image.fromarray(mask).save(picture.with_name("mask.png"))
    out = picture.with_name("out.cwic")
    command = ["encode", str(picture), "-o", str(out), "--max-bytes", "2000"]
    main([*command, "--roi", str(picture.with_name("mask.png"))])
    assert out.stat().st_size <= 2000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--max-bytes", "40"], "smallest possible is"),
        (["--psnr", "70"], "ask for at most"),
        (["--psnr", "30", "--bpp", "1"], "give one of them"),
        (["--roi", "none.png"], "check the path"),
        (["--roi", "1,2,3"], "or one mask alone"),
        (["--roi", "900,900,999,999"], "inside it"),
        (["--roi", "0,0,9,9", "--roi-background", "2"], "use for example"),
    ],
)
def test_one_line_with_the_remedy(
    picture: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    out = picture.with_name("out.cwic")
    assert message in _error(["encode", str(picture), "-o", str(out), *options], capsys)
    assert not out.exists()


def test_strip_keeps_the_profile_only(picture: Path, codec: cwic.Codec) -> None:
    exif = Image.Exif()
    exif[0x010F] = "a maker"
    with Image.open(picture) as image:
        image.save(picture, exif=exif, icc_profile=b"profile" * 9)
    for strip in (False, True):
        out = picture.with_name(f"{strip}.cwic")
        main(["encode", str(picture), "-o", str(out), *(["--strip"] if strip else [])])
        info = codec.decode(out.read_bytes()).info
        assert info["icc_profile"] == b"profile" * 9
        assert ("exif" in info) != strip


@pytest.mark.parametrize("command", ["encode", "decode"])
def test_a_precision_that_the_bundle_lacks(
    picture: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    stream = picture.with_suffix(".cwic")
    main(["encode", str(picture), "-o", str(stream), "--precision", "fp32"])
    capsys.readouterr()
    source = picture if command == "encode" else stream
    out = picture.with_name("out" + {"encode": ".cwic", "decode": ".png"}[command])
    options = ["--backend", "cpu", "--precision", "int8"]
    assert "export it" in _error([command, str(source), "-o", str(out), *options], capsys)
    assert not out.exists()
