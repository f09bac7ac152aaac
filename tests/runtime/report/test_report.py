"""What a report says and how its page is built; the browser's part is in test_browser.py."""

from __future__ import annotations

import base64
import hashlib
import io
import math
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import cwic
from cwic.errors import UsageError
from cwic.report import classical
from cwic.report.build import build_report
from cwic.report.chart import HEIGHT, WIDTH, line_chart
from cwic.report.cli import report
from cwic.report.curves import Point, mean_curves
from cwic.report.inputs import display_names, find_pictures
from cwic.report.measure import Coded, Measured, Rate, measure
from cwic.report.metrics import psnr_db, ssim
from cwic.report.view import picture_view

VOID = {"meta", "link", "img", "input", "br", "line", "circle", "polyline"}


class Page(HTMLParser):
    """Tags with their attributes, what they refer to, and the text; checks that tags match."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: dict[str, str] = {}
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        where = self._open[-1] if self._open else ""
        self.text[where] = self.text.get(where, "") + data

    def all(self, tag: str, **wanted: str) -> list[dict[str, str | None]]:
        return [a for t, a in self.tags if t == tag and wanted.items() <= a.items()]


@pytest.fixture(scope="module")
def parsed(page: str) -> Page:
    return Page(page)


def test_nothing_is_fetched_and_only_the_own_script_may_run(parsed: Page) -> None:
    references = [
        value or ""
        for _, attributes in parsed.tags
        for name, value in attributes.items()
        if name in ("src", "href", "action", "srcset", "poster", "data")
    ]
    assert references
    assert all(r.startswith(("data:", "#")) for r in references)
    assert not [name for _, a in parsed.tags for name in a if name.startswith("on")]
    assert "url(" not in parsed.text["style"]
    assert "@import" not in parsed.text["style"]
    digest = base64.b64encode(hashlib.sha256(parsed.text["script"].encode()).digest()).decode()
    (policy,) = parsed.all("meta", **{"http-equiv": "Content-Security-Policy"})
    assert f"script-src 'sha256-{digest}'" in (policy["content"] or "")
    assert len(parsed.all("script")) == 1


def test_hostile_names_are_text(parsed: Page, folder: Path) -> None:
    (name,) = (p.name for p in folder.iterdir() if p.name != "b.png" and p.suffix == ".png")
    assert "<img" in name
    for tag in ("title", "h1", "h2", "a"):
        assert name in parsed.text[tag]
    assert all((a["src"] or "").startswith("data:image/") for a in parsed.all("img"))


def test_ids_are_unique_and_links_lead_to_them(parsed: Page) -> None:
    ids = [a["id"] for _, a in parsed.tags if "id" in a]
    assert len(set(ids)) == len(ids)
    assert {(a["href"] or "")[1:] for a in parsed.all("a")} == {"picture-1", "picture-2", "summary"}
    assert {"picture-1", "picture-2", "summary"} <= set(ids)


def test_every_picture_has_its_controls(parsed: Page) -> None:
    for number in (1, 2):
        sides = parsed.all("input", type="radio", name=f"picture-{number}-side")
        assert [a["value"] for a in sides] == ["cwic", "JPEG", "WebP"]
        heats = parsed.all("input", type="radio", name=f"picture-{number}-heat")
        assert [a["value"] for a in heats] == ["", "levels", "bits"]
    splits = parsed.all("input", **{"class": "split"})
    assert len(splits) == 2
    assert all(a["aria-label"] and a["type"] == "range" for a in splits)
    assert all(a["alt"] for a in parsed.all("img"))
    assert len(parsed.all("svg")) == 2 * 3  # two pictures and the mean


def test_embedded_pictures_are_those_that_were_measured(parsed: Page, folder: Path) -> None:
    shown = parsed.all("img", **{"class": "side original"})
    with Image.open(folder / "b.png") as picture:
        expected = np.array(picture)
    (source,) = (a["src"] or "" for a in shown if (a["alt"] or "").startswith("b.png"))
    with Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))) as picture:
        assert np.array_equal(np.array(picture.convert("RGB")), expected)


@pytest.fixture(scope="module")
def measured(codec: cwic.Codec, small: np.ndarray) -> Measured:
    return measure(codec, "small", small, Rate(quality=70), 0)


def test_files_of_equal_bytes(measured: Measured) -> None:
    cwic_file, *others = measured.coded
    assert [c.codec for c in others] == ["JPEG", "WebP"]
    for coded in others:
        codec = next(c for c in classical.CLASSICAL if c.name == coded.codec)
        encodings = classical.Encodings(codec, measured.original)
        quality = int(coded.setting.split()[1])
        assert encodings.encode(quality) == coded.data
        if coded.too_large:
            assert quality == codec.qualities[0]
            assert len(coded.data) > len(cwic_file.data)
        else:
            assert len(coded.data) <= len(cwic_file.data) < len(encodings.encode(quality + 1))
        assert np.array_equal(classical.decode(coded.data), coded.pixels)


def test_a_codec_without_so_small_a_file_is_said_to_have_none(
    codec: cwic.Codec, folder: Path
) -> None:
    text = build_report([folder / "b.png"], codec, Rate(quality=1), curve_points=0)
    assert "JPEG at its lowest quality takes" in text
    assert "<svg" not in text


def test_sections_and_bits_add_up_to_the_file(measured: Measured) -> None:
    spent, size = measured.spent, len(measured.coded[0].data)
    assert sum(spent.sections.values()) == size
    assert spent.position_bits.shape == measured.levels.shape
    coded = spent.sections["levels"] + spent.sections["codes"]
    # The coder's own state is some bytes a section.
    assert coded - 20 <= spent.position_bits.sum() / 8 <= coded
    rest = spent.position_bits[measured.levels == 0]
    assert spent.position_bits[measured.levels > 0].mean() > (rest.mean() if len(rest) else 0)


def test_large_pictures_are_shown_smaller(measured: Measured) -> None:
    view = picture_view(measured, 4000)
    assert (view.width_px, view.height_px) == (137, 103)
    assert view.shown_width_px * view.shown_height_px == pytest.approx(4000, rel=0.02)
    with Image.open(io.BytesIO(base64.b64decode(view.coded[1].url.partition(",")[2]))) as picture:
        assert picture.size == (view.shown_width_px, view.shown_height_px)


def test_ssim_follows_its_definition(small: np.ndarray) -> None:
    noisy = small + np.random.default_rng(0).normal(0, 12, small.shape)
    other = noisy.clip(0, 255).astype(np.uint8)
    x, y = (np.array(Image.fromarray(v).convert("L"), np.float64) for v in (small, other))
    taps = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
    window = np.outer(taps, taps) / taps.sum() ** 2

    def mean(v: np.ndarray) -> np.ndarray:
        parts = np.lib.stride_tricks.sliding_window_view(v, (11, 11))
        return np.einsum("ijkl,kl->ij", parts, window)

    a, b = mean(x), mean(y)
    xx, yy, xy = mean(x * x) - a * a, mean(y * y) - b * b, mean(x * y) - a * b
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    values = (2 * a * b + c1) * (2 * xy + c2) / ((a * a + b * b + c1) * (xx + yy + c2))
    assert ssim(small, other) == pytest.approx(values.mean(), abs=1e-4)


def test_metrics_of_equal_and_of_tiny_pictures(small: np.ndarray) -> None:
    assert psnr_db(small, small) == math.inf
    assert ssim(small, small) == pytest.approx(1)
    assert ssim(small[:10], small[:10]) is None


def test_means_are_over_settings_that_all_have() -> None:
    first = {"cwic": [Point(1, 0.1, 20, 0.5), Point(50, 0.5, 30, 0.9)]}
    second = {"cwic": [Point(1, 0.3, 22, None)]}
    assert mean_curves([first, second]) == {"cwic": [Point(1, 0.2, 21, None)]}


@pytest.mark.parametrize(
    "points", [[(0.1, 30.0)], [(0.1, 30.0), (2.5, 41.7)], [(0.013, 0.99912), (0.014, 0.99913)]]
)
def test_charts_hold_their_points(points: list[tuple[float, float]]) -> None:
    chart = line_chart("t", ("x", "y"), {"cwic": [*points, (0.2, math.inf)]}, {})
    assert chart is not None
    (line,) = chart.lines
    assert len(line.points) == len(points)
    assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in line.points)
    for ticks in (chart.x_ticks, chart.y_ticks):
        assert len({tick.label for tick in ticks}) == len(ticks) >= 2
    assert line_chart("t", ("x", "y"), {"cwic": [(0.1, math.inf)]}, {}) is None


def test_names_and_folders(folder: Path, tmp_path: Path) -> None:
    assert [p.suffix for p in find_pictures([folder])] == [".png", ".png"]
    with pytest.raises(UsageError, match=r"has no picture .*name another folder$"):
        find_pictures([tmp_path])
    twice = [Path("a/x.png"), Path("b/x.png"), Path("c\udcff.png")]
    assert display_names(twice) == ["a/x.png", "b/x.png", "c\ufffd.png"]


def test_command_writes_the_page(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "r.html"
    arguments = [str(folder / "b.png"), "-o", str(target), "--curve-points", "0", "-q", "60"]
    done = CliRunner().invoke(report, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    assert f"{target.stat().st_size} bytes" in done.output
    assert Page(target.read_text()).all("img")


@pytest.mark.parametrize(
    ("rate", "remedy"), [(Rate(max_bytes=20), "b.png: .*20 bytes"), (Rate(quality=0), "b.png: ")]
)
def test_errors_name_the_picture(folder: Path, codec: cwic.Codec, rate: Rate, remedy: str) -> None:
    with pytest.raises(cwic.CwicError, match=remedy):
        build_report([folder / "b.png"], codec, rate, curve_points=0)


def test_a_curve_needs_two_points(folder: Path, codec: cwic.Codec) -> None:
    with pytest.raises(UsageError, match="use 0 for none"):
        build_report([folder], codec, curve_points=1)


def test_bits_per_pixel_count_the_whole_file(measured: Measured) -> None:
    coded: Coded = measured.coded[0]
    assert coded.bpp == pytest.approx(8 * len(coded.data) / (137 * 103))
