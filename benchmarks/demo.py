"""What ``make demo`` shows: two photographs through the whole path, beside JPEG and WebP.

``python -m benchmarks.demo --model BUNDLE -o FOLDER PICTURE...``
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from rich.console import Console
from rich.table import Table

import cwic
from benchmarks import anchors
from benchmarks.metrics import ms_ssim, psnr_db
from cwic.files import replacing
from cwic.image import open_rgb
from cwic.report.spending import spending

__all__ = ["Shown", "comparison_sheet", "show"]

_BPP = 0.4
_PANEL_PX = 400
_CAPTION_PX = 44


@dataclass(frozen=True)
class Shown:
    """One picture as one codec restored it."""

    codec: str
    size_bytes: int
    pixels: NDArray[np.uint8]


def show(
    codec: cwic.Codec, picture: NDArray[np.uint8], stem: Path, bpp: float = _BPP
) -> tuple[list[Shown], NDArray[np.float64]]:
    """Encode and decode through files; return the results, and bits spent by position [h, w].

    Args:
        codec: the model.
        picture: uint8 [H, W, 3].
        stem: where ``.cwic`` and ``.png`` are written.
        bpp: rate of the cwic file.
    """
    data = codec.encode(picture, bpp=bpp)
    stem.with_suffix(".cwic").write_bytes(data)
    restored = codec.decode(stem.with_suffix(".cwic").read_bytes())
    restored.save(stem.with_suffix(".png"))
    results = [Shown("cwic", len(data), np.asarray(restored))]
    for anchor in anchors.available():
        if anchor.name in ("JPEG", "WebP"):
            other = anchors.nearest_not_smaller(anchor, picture, len(data))
            results.append(Shown(anchor.name, len(other), anchors.decode(other)))
    return results, spending(codec, data, picture[..., 0].size).position_bits


def _captioned(pixels: NDArray[np.uint8], first: str, second: str) -> Image.Image:
    panel = Image.new("RGB", (_PANEL_PX, _PANEL_PX + _CAPTION_PX), "white")
    height, width = pixels.shape[:2]
    side = min(_PANEL_PX, height, width)
    top, left = (height - side) // 2, (width - side) // 2
    panel.paste(Image.fromarray(pixels[top : top + side, left : left + side]), (0, _CAPTION_PX))
    draw = ImageDraw.Draw(panel)
    font = ImageFont.load_default(16)
    draw.text((6, 2), first, "black", font)
    draw.text((6, 22), second, "black", font)
    return panel


def comparison_sheet(
    rows: list[tuple[NDArray[np.uint8], list[Shown], NDArray[np.float64]]],
) -> Image.Image:
    """Original, cwic, JPEG at equal bytes and where cwic's bits went, a row per picture, 1:1."""
    size = (4 * _PANEL_PX + 24, len(rows) * (_PANEL_PX + _CAPTION_PX + 8))
    sheet = Image.new("RGB", size, "white")
    for y, (picture, results, bits) in enumerate(rows):
        by_name = {r.codec: r for r in results}
        pixels = picture.shape[0] * picture.shape[1]
        panels = [_captioned(picture, "original", f"{24:.2f} bpp")]
        for name in ("cwic", "JPEG"):
            r = by_name[name]
            quality = (
                f"{psnr_db(picture, r.pixels):.2f} dB, MS-SSIM {ms_ssim(picture, r.pixels):.4f}"
            )
            rate = f"{name}: {r.size_bytes} bytes, {8 * r.size_bytes / pixels:.3f} bpp"
            panels.append(_captioned(r.pixels, rate, quality))
        grey = (255 * np.sqrt(bits / max(1.0, bits.max()))).astype(np.uint8)
        large = grey.repeat(8, 0).repeat(8, 1)[: picture.shape[0], : picture.shape[1], None]
        panels.append(
            _captioned(
                large.repeat(3, 2),
                "where the bits went",
                f"white: {bits.max():.0f} bits for 8x8 pixels",
            )
        )
        for x, panel in enumerate(panels):
            sheet.paste(panel, (x * (_PANEL_PX + 8), y * (_PANEL_PX + _CAPTION_PX + 8)))
    return sheet


@click.command()
@click.argument("pictures", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--model", type=click.Path(path_type=Path), help="Bundle folder.")
@click.option("--bpp", default=_BPP, show_default=True)
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True)
def main(pictures: tuple[Path, ...], model: Path | None, bpp: float, output: Path) -> None:
    """Compress the pictures, print the comparison, write sheet.png."""
    codec = cwic.load(model)
    output.mkdir(parents=True, exist_ok=True)
    table = Table("picture", "codec", "bytes", "bpp", "PSNR", "MS-SSIM")
    rows = []
    for path in pictures:
        picture = open_rgb(path)
        results, bits = show(codec, picture, output / path.stem, bpp)
        rows.append((picture, results, bits))
        for r in results:
            table.add_row(
                path.stem,
                r.codec,
                str(r.size_bytes),
                f"{8 * r.size_bytes / picture[..., 0].size:.3f}",
                f"{psnr_db(picture, r.pixels):.2f} dB",
                f"{ms_ssim(picture, r.pixels):.4f}",
            )
    with replacing(output / "sheet.png") as temporary:
        comparison_sheet(rows).save(temporary, format="PNG")
    Console().print(table)
    click.echo(f"comparison sheet: {output / 'sheet.png'}")


if __name__ == "__main__":
    main()
