"""The gallery: pictures of what the default model does, and the figures under them.

``python -m benchmarks.gallery --images 'kodak/*.png' -o docs/gallery``

Writes the sheets of :mod:`benchmarks.gallery_sheets`, a mask, and ``gallery.json``, from which
``python -m benchmarks.render`` makes docs/gallery.md. Which pictures are compared is found by
measuring all of them; those of maps and regions are named here, for what they show.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

import cwic
from benchmarks import anchors, command
from benchmarks import gallery_sheets as sheets
from benchmarks.metrics import bits_per_pixel, ms_ssim, psnr_db
from cwic.files import replacing
from cwic.image import open_rgb
from cwic.report.spending import spending

__all__ = ["BPP", "CODECS", "FAIR", "REGION_BPP", "differing_window", "fair", "measured"]

Pixels = NDArray[np.uint8]

BPP = 0.4
REGION_BPP = 0.15
CODECS = ("JPEG", "WebP", "AVIF")
FAIR = 0.95
"""Share of cwic's bytes that a file takes at least, to be compared with it."""
_RATES_BPP = (0.1, 0.25, 0.5, 1.0)
_EACH = 2
_MAPS = ("kodim01", "kodim08", "kodim24", "kodim03", "kodim15", "kodim23")
"""Three of buildings and streets, and three others."""
_MAPPED = "nano-signs"
"""The model in the package that has an importance map."""
_BOXES = {"kodim23": [(70, 170, 250, 310), (400, 105, 580, 310)]}
_ELLIPSES = {"kodim03": (85, 75, 300, 305)}
_OUTSIDE = 48
"""Grey of the mask outside its ellipse."""
_FEATHER_PX = 12


def measured(codec: cwic.Codec, paths: list[Path], folder: Path) -> dict[str, Any]:
    """Draw every sheet into ``folder`` and return the figures."""
    folder.mkdir(parents=True, exist_ok=True)
    used = [a for a in anchors.available() if a.name in CODECS]
    compared = [_compared(codec, used, path) for path in paths]
    order = sorted(filter(fair, compared), key=_lead, reverse=True) or compared
    each = min(_EACH, max(1, len(order) // 2))
    shown = {f"best-{i + 1}": row for i, row in enumerate(order[:each])}
    shown |= {f"worst-{i + 1}": row for i, row in enumerate(order[: each - 1 : -1][:each])}
    by_name = {path.name: path for path in paths}
    return {
        "bpp": BPP,
        "fair_share": FAIR,
        "compared": compared,
        "shown": {
            name: {
                "picture": row["picture"],
                "crop": _draw_comparison(
                    codec, used, by_name[row["picture"]], row, folder / f"{name}.jpg"
                ),
            }
            for name, row in shown.items()
        },
        "regions": [_boxes(codec, paths, folder), _mask(codec, paths, folder)],
        "maps": _maps(codec, paths, folder),
        "rates": _rates(codec, by_name[order[len(order) // 2]["picture"]], folder),
    }


def fair(row: dict[str, Any]) -> bool:
    """Whether WebP's file uses the bytes of cwic's: its lowest settings lie far apart."""
    codecs = row["codecs"]
    share: float = codecs["WebP"]["size_bytes"] / codecs["cwic"]["size_bytes"]
    return FAIR <= share <= 1


def _lead(row: dict[str, Any]) -> float:
    """By how much the MS-SSIM of cwic is above WebP's."""
    lead: float = row["codecs"]["cwic"]["ms_ssim"] - row["codecs"]["WebP"]["ms_ssim"]
    return lead


def _files(
    codec: cwic.Codec, used: list[anchors.Anchor], picture: Pixels
) -> dict[str, tuple[bytes, Pixels]]:
    """Files and pictures by codec: cwic at the rate, the others in what its file takes."""
    data = codec.encode(picture, bpp=BPP)
    found = {"cwic": (data, np.asarray(codec.decode(data)))}
    for anchor in used:
        other = anchors.largest_not_larger(anchor, picture, len(data))
        found[anchor.name] = other, anchors.decode(other)
    return found


def _figures(data: bytes, picture: Pixels, restored: Pixels) -> dict[str, Any]:
    return {
        "size_bytes": len(data),
        "bpp": round(bits_per_pixel(data, picture), 4),
        "psnr_db": round(psnr_db(picture, restored), 3),
        "ms_ssim": round(ms_ssim(picture, restored), 5),
    }


def _compared(codec: cwic.Codec, used: list[anchors.Anchor], path: Path) -> dict[str, Any]:
    picture = open_rgb(path)
    files = _files(codec, used, picture)
    return {
        "picture": path.name,
        "codecs": {name: _figures(data, picture, made) for name, (data, made) in files.items()},
    }


def differing_window(
    a: Pixels, b: Pixels, size: tuple[int, int], keep: Pixels | None = None
) -> Any:
    """Left, top, right, bottom of the window where two pictures [H, W, 3] differ most.

    Args:
        a, b: the pictures.
        size: height and width of the window; cut to those of the pictures.
        keep: uint8 [H, W], where differences count if it is not 0; None: everywhere.
    """
    height, width = (min(s, whole) for s, whole in zip(size, a.shape[:2], strict=True))
    difference = np.abs(a.astype(np.float64) - b).mean(axis=2)
    if keep is not None:
        difference *= keep > 0
    sums = np.pad(difference.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    windows = (sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width]) + sums[
        :-height, :-width
    ]
    top, left = (int(i) for i in np.unravel_index(windows.argmax(), windows.shape))
    return left, top, left + width, top + height


def _draw_comparison(
    codec: cwic.Codec, used: list[anchors.Anchor], path: Path, row: dict[str, Any], target: Path
) -> list[int]:
    picture = open_rgb(path)
    files = _files(codec, used, picture)
    crop = differing_window(files["cwic"][1], files["WebP"][1], sheets.CROP_PX)
    panels = [
        sheets.overview(picture, [crop], f"{path.stem}", "frame: what is shown"),
        sheets.cropped(picture, crop, "original", f"{24:.2f} bpp"),
    ]
    for name, (_, restored) in files.items():
        panels.append(sheets.cropped(restored, crop, *_caption(name, row["codecs"][name])))
    sheets.save(panels, target)
    return list(crop)


def _caption(name: str, figures: dict[str, Any]) -> tuple[str, str]:
    return (
        f"{name}: {figures['size_bytes']} bytes, {figures['bpp']:.3f} bpp",
        f"{figures['psnr_db']:.2f} dB, MS-SSIM {figures['ms_ssim']:.4f}",
    )


def _named(paths: list[Path], stem: str) -> Path:
    """The picture of that name, else the first."""
    return next((path for path in paths if path.stem == stem), paths[0])


def _boxes(codec: cwic.Codec, paths: list[Path], folder: Path) -> dict[str, Any]:
    ((stem, boxes),) = _BOXES.items()
    path = _named(paths, stem)
    picture = open_rgb(path)
    if path.stem != stem:
        boxes = [_middle(picture)]
    inside = np.zeros(picture.shape[:2], np.uint8)
    for left, top, right, bottom in boxes:
        inside[top:bottom, left:right] = 255
    found = _region(codec, picture, boxes, inside, path.stem, boxes, folder / "region-boxes.jpg")
    return {"kind": "boxes", "picture": path.name, "boxes": boxes, **found}


def _mask(codec: cwic.Codec, paths: list[Path], folder: Path) -> dict[str, Any]:
    ((stem, ellipse),) = _ELLIPSES.items()
    path = _named(paths, stem)
    picture = open_rgb(path)
    if path.stem != stem:
        ellipse = _middle(picture)
    mask = Image.new("L", picture.shape[1::-1], _OUTSIDE)
    ImageDraw.Draw(mask).ellipse(ellipse, 255)
    mask = mask.filter(ImageFilter.GaussianBlur(_FEATHER_PX))
    with replacing(folder / "mask.png") as temporary:
        mask.save(temporary, format="PNG", optimize=True)
    grey = np.asarray(mask)
    inside = ((grey > 128) * 255).astype(np.uint8)
    found = _region(codec, picture, grey, inside, path.stem, [ellipse], folder / "region-mask.jpg")
    return {"kind": "mask", "picture": path.name, "mask": "mask.png", **found}


def _middle(picture: Pixels) -> tuple[int, int, int, int]:
    height, width = picture.shape[:2]
    return width // 4, height // 4, 3 * width // 4, 3 * height // 4


def _region(
    codec: cwic.Codec,
    picture: Pixels,
    roi: Any,
    inside: Pixels,
    stem: str,
    frames: list[tuple[int, int, int, int]],
    target: Path,
) -> dict[str, Any]:
    """Both files at one budget; ``inside`` is uint8 [H, W], not 0 in the region."""
    budget = int(REGION_BPP * inside.size / 8)
    made = {
        "without": codec.encode_detailed(picture, max_bytes=budget),
        "with": codec.encode_detailed(picture, max_bytes=budget, roi=roi),
    }
    restored = {name: np.asarray(codec.decode(e.data)) for name, e in made.items()}
    figures = {
        name: {
            "size_bytes": len(made[name].data),
            "inside_psnr_db": round(_psnr_where(picture, pixels, inside > 0), 3),
            "outside_psnr_db": round(_psnr_where(picture, pixels, inside == 0), 3),
        }
        for name, pixels in restored.items()
    }
    size = sheets.SMALL_CROP_PX
    left, top, right, bottom = frames[-1]
    near = np.zeros_like(inside)
    near[top:bottom, left:right] = inside[top:bottom, left:right]
    windows = {
        "inside": differing_window(restored["without"], restored["with"], size, near),
        "outside": differing_window(restored["without"], restored["with"], size, 255 - inside),
    }
    highest = max(int(e.levels.max()) for e in made.values())
    panels = [
        sheets.overview(picture, frames, stem, "the region", dim=inside == 0),
        *(
            sheets.map_of(e.levels, highest, f"{name} region", f"levels; white: {highest}")
            for name, e in made.items()
        ),
    ]
    for where, window in windows.items():
        panels.append(sheets.cropped(picture, window, "original", f"{where} the region"))
        for name, pixels in restored.items():
            f = figures[name]
            panels.append(
                sheets.cropped(
                    pixels,
                    window,
                    f"{name} region: {f['size_bytes']} bytes",
                    f"{where}: {f[f'{where}_psnr_db']:.2f} dB",
                )
            )
    sheets.save(panels, target)
    return {"budget_bytes": budget, **figures}


def _psnr_where(a: Pixels, b: Pixels, where: NDArray[np.bool_]) -> float:
    # A picture of one row of the wanted pixels has the same mean error.
    return psnr_db(a[where][None], b[where][None])


def _maps(codec: cwic.Codec, paths: list[Path], folder: Path) -> list[dict[str, Any]]:
    """What the codec spends where, and the importance map of :data:`_MAPPED`."""
    mapped = cwic.load(_MAPPED)
    chosen = [path for path in paths if path.stem in _MAPS] or paths[:3]
    chosen.sort(key=lambda path: _MAPS.index(path.stem) if path.stem in _MAPS else 0)
    found, panels = [], []
    for first in range(0, len(chosen), 3):
        row = chosen[first : first + 3]
        blank = [sheets.BLANK] * (3 - len(row))
        pictures = [open_rgb(path) for path in row]
        encoded = [codec.encode_detailed(picture, bpp=BPP) for picture in pictures]
        levels = [mapped.encode_detailed(picture, bpp=BPP).levels for picture in pictures]
        panels += [
            sheets.overview(picture, [], path.stem, f"{e.bpp:.3f} bpp")
            for path, picture, e in zip(row, pictures, encoded, strict=True)
        ]
        panels += blank
        for picture, e in zip(pictures, encoded, strict=True):
            bits = spending(codec, e.data, picture[..., 0].size).position_bits
            words = f"white: {bits.max():.0f} for 8x8 pixels"
            panels.append(sheets.map_of(np.sqrt(bits), bits.max() ** 0.5, "bits spent", words))
        panels += blank
        for path, own in zip(row, levels, strict=True):
            low, high, mean = int(own.min()), int(own.max()), float(own.mean())
            words = f"{low} to {high}, mean {mean:.1f}"
            panels.append(sheets.map_of(own, high, f"importance levels of {_MAPPED}", words))
            found.append({"picture": path.name, "lowest": low, "highest": high})
            found[-1]["mean"] = round(mean, 2)
        panels += blank
    sheets.save(panels, folder / "maps.jpg")
    return found


def _rates(codec: cwic.Codec, path: Path, folder: Path) -> dict[str, Any]:
    picture = open_rgb(path)
    files = [codec.encode(picture, bpp=bpp) for bpp in _RATES_BPP]
    restored = [np.asarray(codec.decode(data)) for data in files]
    crop = differing_window(picture, restored[0], sheets.CROP_PX)
    points = [_figures(d, picture, r) for d, r in zip(files, restored, strict=True)]
    panels = [
        sheets.overview(picture, [crop], path.stem, "frame: what is shown"),
        sheets.cropped(picture, crop, "original", f"{24:.2f} bpp"),
    ]
    for point, pixels in zip(points, restored, strict=True):
        panels.append(sheets.cropped(pixels, crop, *_caption("cwic", point)))
    sheets.save(panels, folder / "rates.jpg")
    wanted = [{"asked_bpp": b, **p} for b, p in zip(_RATES_BPP, points, strict=True)]
    return {"picture": path.name, "crop": list(crop), "points": wanted}


@click.command()
@command.images
@command.output
def main(images: list[Path], output: Path) -> None:
    """Measure, draw the sheets, write gallery.json into the folder OUTPUT."""
    command.measure_shipped(images, output / "gallery.json", partial(measured, folder=output))
    size = sum(path.stat().st_size for path in output.iterdir())
    click.echo(f"{output}: {size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
