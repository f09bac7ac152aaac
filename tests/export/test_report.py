"""The report of a validation: what is past tolerance, and each form that it is written in."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
from html.parser import HTMLParser
from math import inf, nan
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cwic.errors import UsageError
from cwic_export.validation.compare import follow_others
from cwic_export.validation.differences import Differences, Outcome
from cwic_export.validation.html import to_html
from cwic_export.validation.markdown import to_markdown
from cwic_export.validation.metrics import SMALLEST_MS_SSIM_PX, Quality, measure
from cwic_export.validation.outputs import Outputs, parse_scales
from cwic_export.validation.report import Artefact, Crossing, Departure, Exhibit, Report
from cwic_export.validation.tables import tables
from cwic_export.validation.tolerances import TOLERANCES, looser

ASSETS = Path(__file__).parents[2] / "assets"
HOSTILE = '<script>alert("1")</script>|`x`'

RIGHT = Outcome(
    picture="a.png",
    scale=0.5,
    kept_codes=1000,
    kept_flips=0,
    positions=100,
    levels_differ=0,
    level_largest=0,
    pixel_largest=0,
    pixel_mean=0.0,
    reference=Quality(30.0, 0.95),
    own=Quality(30.0, 0.95),
    reference_bpp=0.5,
    own_bpp=0.5,
)


def artefact(target: str = "onnx", precision: str = "fp32", **changed: object) -> Artefact:
    outcome = dataclasses.replace(RIGHT, **changed)  # type: ignore[arg-type]
    return Artefact(target, precision, Differences(codes=2000, outcomes=[outcome]))


def report_of(*artefacts: Artefact, **values: object) -> Report:
    fields = {"name": "small", "model_id": "00", "pictures": ("a.png",), "scales": (0.5,)}
    return Report(artefacts=list(artefacts), **{**fields, **values})  # type: ignore[arg-type]


@pytest.mark.parametrize("precision", TOLERANCES)
@pytest.mark.parametrize(
    ("limit", "field", "value", "problem"),
    [
        ("level_share", "levels_differ", 100, "share of levels that differ 1 "),
        ("pixel_largest", "pixel_largest", 200, "a pixel differs by 200 "),
        ("pixel_mean", "pixel_mean", 9.0, "mean difference of pixels 9 "),
        ("psnr_loss_db", "own", Quality(28.0, 0.95), "PSNR loss in dB 2 "),
        ("ms_ssim_loss", "own", Quality(30.0, 0.85), "MS-SSIM loss 0.1 "),
        ("bpp_rise", "own_bpp", 0.75, "rise in bpp 0.5 "),
        ("pixel_mean", "pixel_mean", nan, "mean difference of pixels nan "),
    ],
)
def test_every_limit_of_every_precision(
    precision: str, limit: str, field: str, value: object, problem: str
) -> None:
    most = getattr(TOLERANCES[precision], limit)
    changed = artefact(precision=precision, **{field: value})
    if most == inf:
        assert changed.status == "passed"
        return
    assert changed.status == "differs"
    assert changed.problems == [f"{problem}(allowed: {most:g})"]
    assert not report_of(changed, artefact("torchscript")).passed


@pytest.mark.parametrize("precision", TOLERANCES)
def test_what_is_limited_over_all_pictures(precision: str) -> None:
    flipped = np.zeros((1, 16, 10, 10), bool)
    flipped[0, :, :3] = True
    limits = TOLERANCES[precision]
    found = artefact(precision=precision)
    assert found.status == "passed"
    found.differences.add_codes(
        flipped, np.zeros_like(flipped), np.full(flipped.shape, 0.01, np.float32)
    )
    found.differences.add_importance(np.full((1, 10, 10), 77, np.int16))
    problems = "\n".join(found.problems)
    assert "share of codes that flip" in problems
    assert ("a code flips at |E| 0.01" in problems) == (limits.code_margin < 0.01)
    assert ("importance differs by 77" in problems) == (limits.importance < 77)


def test_flips_that_follow_from_others_are_no_causes() -> None:
    flipped = np.zeros((1, 16, 5, 6), bool)
    flipped[0, 3, 2, 2] = True  # the cause
    flipped[0, 2, 2, 3] = True  # of the same group of four: a cause of its own
    flipped[0, 4, 3, 3] = True  # of the next group, beside the cause
    flipped[0, 15, 4, 4] = True  # follows from that one
    flipped[0, 15, 0, 5] = True  # too far away
    causes = flipped & ~follow_others(flipped, 4)
    assert sorted(map(tuple, np.argwhere(causes[0]).tolist())) == [
        (2, 2, 3),
        (3, 2, 2),
        (15, 0, 5),
    ]
    assert not follow_others(flipped, 16).any()  # all decided at once


def test_gains_are_no_problem() -> None:
    assert artefact(own=Quality(31.0, 0.96), own_bpp=0.4).status == "passed"


def test_an_unknown_precision_is_no_pass() -> None:
    (problem,) = artefact(precision="fp4").problems
    assert problem == "no tolerance is known for precision 'fp4'; known: fp32, fp16, int8"


def test_nothing_compared_is_no_pass() -> None:
    skipped = Artefact("onnx", "fp32")
    skipped.skip("no runtime")
    assert not report_of(skipped).passed
    assert report_of(skipped, artefact("torchscript")).passed


def test_limits_of_a_pair_are_the_larger_ones() -> None:
    both = looser(TOLERANCES["fp32"], TOLERANCES["fp16"])
    assert both.pixel_largest == TOLERANCES["fp16"].pixel_largest
    assert looser(TOLERANCES["fp32"], TOLERANCES["fp32"]) == TOLERANCES["fp32"]


@pytest.mark.parametrize("wrong", ["codes", "pixels", "lost", None])
def test_a_pair_past_tolerance_is_no_pass(wrong: str | None) -> None:
    crossing = Crossing("eager fp32", "onnx fp32", pixel_limit=1, mean_limit=0.01)
    own = np.full((10, 10, 3), 7, np.uint8)
    restored = own.copy()
    restored[0, 0, 0] += 2 if wrong == "pixels" else 1
    crossing.add(same_codes=wrong != "codes", restored=restored, own=own)
    if wrong == "lost":
        crossing.add_lost()
    report = report_of(artefact(), crossings=[crossing])
    assert report.passed == (wrong is None)
    assert len(report.problems()) == (wrong is not None)
    matrix = next(table for table in tables(report) if table.title.startswith("Encoded by"))
    assert ("!" in matrix.rows[0][-1]) == (wrong is not None)


@pytest.fixture
def full() -> Report:
    """Every part, with names that no form may take literally."""
    skipped = Artefact("tensorrt", "fp16")
    skipped.skip(f"no GPU {HOSTILE}")
    pixels = np.random.default_rng(0).integers(0, 256, (3, 24, 16, 3)).astype(np.uint8)
    found = artefact(precision="fp16", own_bpp=0.9, own=Quality(29.5, None))
    found.exhibit = Exhibit(HOSTILE, 0.5, *pixels, pixel_mean=2.0)
    found.departures = [Departure("encoder", HOSTILE, "Conv", "", "x", inf, 0.0, True)]
    crossing = Crossing("eager fp32", "onnx fp16", 1, 0.1)
    crossing.add(same_codes=True, restored=pixels[0], own=pixels[0])
    return report_of(found, skipped, name=HOSTILE, pictures=(HOSTILE,), crossings=[crossing])


def test_json(full: Report) -> None:
    values = json.loads(full.to_json())
    assert values["format"] == "cwic-validation/2"
    assert values["passed"] is False
    assert values["name"] == HOSTILE
    onnx, tensorrt = values["artefacts"]
    assert onnx["by_scale"][0]["bpp_rise_worst"] == pytest.approx(0.8)
    assert onnx["outcomes"][0]["delta_psnr_db"] == pytest.approx(-0.5)
    assert onnx["by_scale"][0]["delta_ms_ssim_mean"] is None
    assert onnx["departures"][0]["error"] is None
    assert tensorrt["status"] == "skipped"
    assert values["tolerances"]["fp16"]["code_margin"] is None
    assert "torchmetrics" in values["metrics"]


class Page(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_html_is_one_file_with_pictures_and_escapes_everything(full: Report) -> None:
    page = Page(to_html(full))
    assert "script" not in page.tags
    assert HOSTILE in page.text  # as text
    assert f"tensorrt fp16: no GPU {HOSTILE}" in page.text
    assert len(page.sources) == 4
    for source in page.sources:
        head, data = source.split(",")
        assert head == "data:image/png;base64"
        with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
            assert picture.size == (16, 24)


def test_markdown_escapes_everything(full: Report) -> None:
    text = to_markdown(full)
    assert "<script" not in text
    assert r"\`x\`" in text
    for table in tables(full):
        lines = [line for line in text.splitlines() if line.startswith("| ")]
        assert lines
        assert table.title.split(":")[-1].strip() in text.replace("\\", "")
    # A name with a bar must not make a column.
    row = next(line for line in text.splitlines() if "alert" in line and "Conv" in line)
    assert row.replace(r"\|", "").count("|") == 8


def test_tables_fit_their_headers(full: Report) -> None:
    for table in tables(full):
        assert {len(row) for row in table.rows} == {len(table.header)}


def test_ms_ssim_is_that_of_torchmetrics_and_needs_its_size() -> None:
    with Image.open(ASSETS / "kodim23.png") as file:
        picture = np.array(file.convert("RGB"))[:SMALLEST_MS_SSIM_PX, :200]
    noisy = (picture.astype(np.int16) + np.arange(200)[None, :, None] % 9).clip(0, 255)
    found = measure(picture, noisy.astype(np.uint8))
    assert found.ms_ssim is not None
    assert 0.9 < found.ms_ssim < 1
    assert measure(picture, picture).ms_ssim == pytest.approx(1)
    assert measure(picture[:-1], picture[:-1]).ms_ssim is None
    assert found.psnr_db == pytest.approx(
        10 * np.log10(255**2 / np.square(noisy - picture.astype(float)).mean())
    )


def test_scales() -> None:
    assert parse_scales("0.25, 1,") == [0.25, 1.0]
    with pytest.raises(UsageError, match="use for example 0.25,0.5,1"):
        parse_scales("low")


def test_only_one_form_is_printed(full: Report) -> None:
    assert Outputs(markdown="-").write(full) == to_markdown(full)
    assert Outputs().write(full) is None
    with pytest.raises(UsageError, match="give the others a file"):
        Outputs(json="-", html="-")
