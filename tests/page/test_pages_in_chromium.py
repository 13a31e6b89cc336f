"""The pages in a real browser: nothing is asked for, nothing complained of, nothing runs off a phone's screen."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from matplotlib.image import imread

import gradcli

pytestmark = [pytest.mark.chromium, pytest.mark.slow]

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
SMALL = {"hidden_size": 8, "input_size": 4, "seq_len": 30, "trials": 2, "batch_size": 3}
#: What the browser asks its maker for by itself.
ITS_OWN = re.compile(r"https?://([\w.-]+\.)?(google|googleapis|gstatic|gvt1)\.com/")
PAPER = {"light": (255, 255, 255), "dark": (0x15, 0x18, 0x1C)}

Browser = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def browser(tmp_path: Path) -> Browser:
    """Return what opens a page with options, in a profile of its own, and waits for the browser's end."""
    command = next(filter(None, map(shutil.which, CHROMIUM)))
    profile = tmp_path / "profile"
    always = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--hide-scrollbars",
        f"--user-data-dir={profile}",
        "--host-resolver-rules=MAP * ~NOTFOUND",
        "--enable-logging=stderr",
        "--run-all-compositor-stages-before-draw",  # a busy machine would take the picture of half a page
    ]

    def opened(page: Path, *options: str) -> subprocess.CompletedProcess[str]:
        arguments = [command, *always, *options, page.as_uri()]
        return subprocess.run(arguments, capture_output=True, text=True, timeout=120, check=True)

    return opened


@cache
def text_of(name: str) -> str:
    several = {"compared": ["lstm", "gru", "rnn"]}
    found: str = gradcli.report(several.get(name, [name]), **SMALL).html
    return found


@pytest.fixture(params=["lstm", "compared"])
def page(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return written(tmp_path, text_of(request.param))


def written(folder: Path, text: str) -> Path:
    path = folder / "page.html"
    path.write_text(text, encoding="utf-8")
    return path


def complaints(done: subprocess.CompletedProcess[str]) -> list[str]:
    return [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def requests(log: Path) -> set[str]:
    """Return every address that was asked for, but for the browser's own."""
    events: list[dict[str, Any]] = json.loads(log.read_text())["events"]
    found = {str(event["params"]["url"]) for event in events if "url" in event.get("params", {})}
    return {url for url in found if not ITS_OWN.match(url) and not url.startswith(("file:", "data:", "chrome"))}


def test_nothing_is_asked_for_and_nothing_complained_of(page: Path, browser: Browser, tmp_path: Path) -> None:
    done = browser(page, f"--log-net-log={tmp_path / 'net.json'}", f"--screenshot={tmp_path / 'a.png'}")
    assert complaints(done) == []
    assert requests(tmp_path / "net.json") == set()


def test_what_asks_for_something_is_noticed(browser: Browser, tmp_path: Path) -> None:
    asking = '<!DOCTYPE html><img src="http://example.org/a.png"><script>console.error("here")</script>'
    done = browser(
        written(tmp_path, asking), f"--log-net-log={tmp_path / 'net.json'}", f"--screenshot={tmp_path / 'a.png'}"
    )
    assert any("here" in line for line in complaints(done))
    assert "http://example.org/a.png" in requests(tmp_path / "net.json")


def test_what_a_page_may_not_do_is_forbidden(browser: Browser, tmp_path: Path) -> None:
    """Were a script or an address to slip through, the page's own policy stops it."""
    slipped = '<script>document.title = "ran"; console.error("ran")</script><img src="http://example.org/a.png">'
    harmed = text_of("lstm").replace("<h1>", f"{slipped}<h1>")
    done = browser(
        written(tmp_path, harmed), f"--log-net-log={tmp_path / 'net.json'}", f"--screenshot={tmp_path / 'a.png'}"
    )
    assert requests(tmp_path / "net.json") == set()
    assert not any('"ran"' in line for line in complaints(done))
    assert sum("Content Security Policy" in line for line in complaints(done)) >= 2


def seen_in_a_frame(browser: Browser, page: Path, width: int, allowed: str, script: str) -> Any:
    """Show a page in a frame that may do what is allowed, and return what a script beside it finds in `d`, the page."""
    outer = page.with_name("outer.html")
    inside = html.escape(page.read_text(encoding="utf-8"))
    outer.write_text(
        f'<!DOCTYPE html><meta charset="utf-8"><iframe id="f" sandbox="{allowed}" srcdoc="{inside}"'
        f' style="width:{width}px;height:900px;border:0"></iframe><pre id="out"></pre>'
        '<script>document.getElementById("f").onload = e => {const d = e.target.contentDocument;'
        f' document.getElementById("out").textContent = JSON.stringify({script})}}</script>',
        encoding="utf-8",
    )
    done = browser(outer, "--dump-dom", "--virtual-time-budget=5000", "--window-size=1400,1000")
    found = re.search(r'<pre id="out">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found is not None
    return json.loads(html.unescape(found[1]))


def test_scripts_make_no_difference(page: Path, browser: Browser) -> None:
    look = "[d.body.innerText, ...[...d.querySelectorAll('body *')].map(p => p.getBoundingClientRect().toJSON())]"
    on, off = (
        seen_in_a_frame(browser, page, 780, allowed, look)
        for allowed in ("allow-same-origin allow-scripts", "allow-same-origin")
    )
    assert on == off
    assert len(on) > 1000
    assert "Versions" in on[0]


def test_a_frame_without_scripts_runs_none(browser: Browser, tmp_path: Path) -> None:
    running = written(tmp_path, "<!DOCTYPE html><p>before</p><script>document.body.textContent = 'after'</script>")
    texts = [
        seen_in_a_frame(browser, running, 780, allowed, "d.body.innerText")
        for allowed in ("allow-same-origin allow-scripts", "allow-same-origin")
    ]
    assert texts == ["after", "before"]


@pytest.mark.parametrize("scheme", PAPER)
def test_the_ground_is_that_of_the_scheme(page: Path, browser: Browser, tmp_path: Path, scheme: str) -> None:
    picture = tmp_path / "a.png"
    browser(
        page,
        f"--screenshot={picture}",
        "--window-size=800,1500",
        f"--blink-settings=preferredColorScheme={int(scheme == 'light')}",
    )
    shown = (imread(picture)[..., :3] * 255).round().astype(int)
    ground = (shown == PAPER[scheme]).all(axis=2)
    assert ground.mean() > 0.5
    # Curves, axes and letters stand out from it: there are pixels of the other end of the scale.
    brightness = shown.mean(axis=2)
    assert ((brightness < 80) if scheme == "light" else (brightness > 180)).mean() > 0.004


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_nothing_runs_off_the_screen(page: Path, browser: Browser, width: int) -> None:
    """The page itself does not scroll sideways: what is too wide does so in a box of its own."""
    measured = seen_in_a_frame(
        browser,
        page,
        width,
        "allow-same-origin",
        "(() => {for (const part of d.querySelectorAll('details')) part.open = true;"
        " const wide = [...d.querySelectorAll('main *')].filter(p => !p.closest('.wide, pre')"
        f" && p.getBoundingClientRect().right > {width} + 1).map(p => p.tagName + ' ' + p.className);"
        " return {wide, scroll: d.documentElement.scrollWidth, client: d.documentElement.clientWidth}})()",
    )
    assert measured["client"] == width
    assert measured["scroll"] == width
    assert measured["wide"] == []


def test_what_is_folded_is_printed(browser: Browser, tmp_path: Path) -> None:
    text = text_of("lstm")
    assert "<details>" in text
    pages = []
    for name, version in (
        ("folded", text),
        ("open", text.replace("<details>", "<details open>")),
        ("without", re.sub(r"<details>.*?</details>", "", text, flags=re.DOTALL)),
    ):
        file = tmp_path / f"{name}.pdf"
        browser(written(tmp_path, version), f"--print-to-pdf={file}")
        pages.append(len(re.findall(rb"/Type\s*/Page\b", file.read_bytes())))
    folded, opened, without = pages
    assert folded == opened > without
