"""The page in a real browser: `pip install 'cwic[browser]'` and Chromium on PATH."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH (Debian: chromium)"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed; pip install 'cwic[browser]'"
    )
    with api.sync_playwright() as playwright:
        # Tests may run as root in a container, where Chromium's sandbox does not.
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


class Tab:
    """The page at one size, with all that went wrong and all that was fetched."""

    def __init__(self, browser: Any, file: Path, width: int, height: int, scheme: str) -> None:
        self.page = browser.new_page(
            viewport={"width": width, "height": height}, color_scheme=scheme
        )
        self.trouble: list[str] = []
        self.fetched: list[str] = []
        self.page.on("console", lambda message: self.trouble.append(message.text))
        self.page.on("pageerror", lambda error: self.trouble.append(str(error)))
        self.page.on("request", lambda request: self.fetched.append(request.url))
        self.page.goto(file.as_uri())


@pytest.fixture(scope="module")
def file(page: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(page)
    return path


@pytest.fixture
def tab(browser: Any, file: Path) -> Iterator[Tab]:
    opened = Tab(browser, file, 1280, 900, "light")
    yield opened
    opened.page.close()


def border(tab: Tab) -> float:
    """Where the border lies, in percent of the first picture."""
    style = "getComputedStyle(document.querySelector('.pane')).getPropertyValue('--at')"
    return float(tab.page.evaluate(style).removesuffix("%"))


def test_opens_without_errors_or_requests(tab: Tab, file: Path) -> None:
    assert tab.trouble == []
    assert [url for url in tab.fetched if not url.startswith("data:")] == [file.as_uri()]
    sizes = "[...document.images].map(i => i.decode().then(() => i.naturalWidth))"
    assert all(tab.page.evaluate(f"Promise.all({sizes})"))


def test_border_follows_pointer_and_keys(tab: Tab) -> None:
    pane = tab.page.locator(".pane").first
    pane.scroll_into_view_if_needed()
    box = pane.bounding_box()
    tab.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 20)
    tab.page.mouse.down()
    tab.page.mouse.move(box["x"] + box["width"] / 4, box["y"] + 20)
    tab.page.mouse.up()
    assert border(tab) == pytest.approx(25, abs=1)
    tab.page.keyboard.press("End")
    assert border(tab) == 100
    tab.page.keyboard.press("ArrowLeft")
    assert border(tab) == 99.5
    assert tab.trouble == []


def test_switch_changes_the_right_side(tab: Tab) -> None:
    visible = tab.page.locator("#picture-1 .restored:visible")
    shown = set()
    for name in ("cwic", "JPEG", "WebP"):
        tab.page.locator(f"input[name=picture-1-side][value={name}]").check()
        assert visible.count() == 1
        assert visible.get_attribute("data-codec") == name
        assert tab.page.locator("#picture-1 .tag.right").inner_text() == name
        assert name in tab.page.locator("#picture-1 .caption:visible").inner_text()
        shown.add(tab.page.locator("#picture-1 .pane").screenshot())
    assert len(shown) == 3
    # The other picture keeps its own.
    assert tab.page.locator("#picture-2 .restored:visible").get_attribute("data-codec") == "cwic"


def test_maps_lie_over_the_picture(tab: Tab) -> None:
    maps = tab.page.locator("#picture-1 .heat:visible")
    assert maps.count() == 0
    for name in ("levels", "bits"):
        tab.page.locator(f"input[name=picture-1-heat][value={name}]").check()
        assert maps.count() == 1
        assert maps.get_attribute("data-heat") == name
    tab.page.locator("input[name=picture-1-opacity]").press("Home")
    assert maps.evaluate("map => getComputedStyle(map).opacity") == "0.05"
    tab.page.locator("input[name=picture-1-heat][value='']").check()
    assert maps.count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_fits_a_phone(browser: Any, file: Path, scheme: str) -> None:
    tab = Tab(browser, file, 360, 640, scheme)
    assert tab.page.evaluate("document.documentElement.scrollWidth") == 360
    tab.page.locator("input[name=picture-1-zoom][value='2']").check()
    assert tab.page.evaluate("document.documentElement.scrollWidth") == 360
    paper = tab.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") == (scheme == "light")
    assert tab.trouble == []
    tab.page.close()
