"""The report in a real browser: it fits a phone, is legible in both colour schemes, and asks for nothing."""

from __future__ import annotations

import html
import json
import math
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lobes.evaluation import wer, write_report, write_result

pytestmark = pytest.mark.browser

PHONE, DESKTOP = 390, 1200
SYSTEMS = ("pretrained SummaryMixing", "pretrained SDPA", "untrained SummaryMixing", "untrained SDPA", "log-mel")
#: A page that each of the checks below has to complain about.
SPOILT = (
    '<!doctype html><body style="color: #aaa; background: #bbb"><div style="width: 600px">wide</div>'
    '<img src="http://127.0.0.1:9/logo.png"><figure><svg viewBox="0 0 100 20" width="200">'
    '<text x="60" y="15">cut off at the right</text></svg></figure></body>'
)
#: Shows each page in a frame of a given width, for a browser's own window is never narrower than 500 px.
HARNESS = """<!doctype html><html><body>%s<script>
function inspect(frame) {
  const view = frame.contentWindow, page = frame.contentDocument, svgs = [...page.querySelectorAll("figure svg")];
  const letters = svg => [...svg.querySelectorAll("text")].filter(text => text.textContent.trim());
  const outside = (text, svg) => {
    const [inner, outer] = [text.getBoundingClientRect(), svg.getBoundingClientRect()];
    return inner.left < outer.left - 1 || inner.right > outer.right + 1;
  };
  return {
    width: view.innerWidth,
    needed: page.documentElement.scrollWidth,
    requests: view.performance.getEntriesByType("resource").map(entry => entry.name),
    figures: svgs.map(svg => svg.getBoundingClientRect().height),
    letters: svgs.flatMap(svg => letters(svg).map(text => text.getBoundingClientRect().height)),
    cut: svgs.flatMap(svg => letters(svg).filter(text => outside(text, svg))).map(text => text.textContent),
    colours: ["body", ".quiet", ".generated", ".generated strong", "figure text"]
      .map(name => page.querySelector(name)).filter(element => element)
      .map(element => view.getComputedStyle(element)[element.closest("svg") ? "fill" : "color"]),
    background: view.getComputedStyle(page.body).backgroundColor,
  };
}
addEventListener("load", () => {
  const found = [...document.querySelectorAll("iframe")].map(inspect);
  document.body.textContent = JSON.stringify(found);
});
</script></body></html>"""


def chromium(page: Path, profile: Path) -> str:
    """The text that the page's scripts leave in its body."""
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    command = [program, "--headless", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={profile}"]
    # A container has neither the sandbox nor much shared memory; the page is our own.
    command += ["--no-sandbox", "--disable-dev-shm-usage", "--window-size=1300,900", "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return html.unescape(done.stdout.split("<body>")[1].split("</body>")[0]).strip()


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What the browser found in the report on a phone, light and dark, on a desktop, and in the spoilt page."""
    folder = tmp_path_factory.mktemp("report")
    rng = np.random.default_rng(0)
    results = [
        write_result(
            folder / system,
            task="a task with a name of some length",
            system=system,
            metric=wer,
            records=[
                {"id": str(i), "group": f"s{i % 8}", "errors": int(rng.binomial(10, 0.2)), "length": 10}
                for i in range(80)
            ],
            seed=1,
            generated_speech=True,
            parameters_total=1_234_567,
            data_name="MiniFrench test",
            command="python train.py hparams/tiny.yaml --encoder ../SSL/results/SummaryMixing/1 --untrained True",
        )
        for system in SYSTEMS
    ]
    curve = (list(range(1, 301)), [3 + math.exp(-step / 60) for step in range(300)])
    report = write_report(
        folder / "report.html",
        title="Two small encoders learn from sound alone",
        summary="What was done.",
        results=results,
        curves={"SummaryMixing": curve, "SDPA": curve},
        curve_unit="nats",
        layer_weights={system: [0.1, 0.2, 0.4, 0.3] for system in SYSTEMS[:4]},
    )
    text = report.read_text(encoding="utf-8")
    views = {
        "phone": (text, PHONE, "light"),
        "phone, dark": (text, PHONE, "dark"),
        "desktop": (text, DESKTOP, "light"),
        "spoilt": (SPOILT, PHONE, "light"),
    }
    frames = (
        f'<iframe style="border: 0; width: {width}px; height: 800px; color-scheme: {scheme}" '
        f'srcdoc="{html.escape(page)}"></iframe>'
        for page, width, scheme in views.values()
    )
    harness = folder / "harness.html"
    harness.write_text(HARNESS % "".join(frames), encoding="utf-8")
    return dict(zip(views, json.loads(chromium(harness, folder / "profile")), strict=True))


def luminance(colour: str) -> float:
    """Relative luminance (WCAG 2.2) of `rgb(r, g, b)`."""
    parts = [int(part) / 255 for part in colour.removeprefix("rgb(").rstrip(")").split(",")[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def faults(view: dict[str, Any]) -> set[str]:
    """What is wrong with a page as the browser shows it."""
    background = luminance(view["background"])
    contrasts = [
        (max(background, luminance(colour)) + 0.05) / (min(background, luminance(colour)) + 0.05)
        for colour in view["colours"]
    ]
    wrong = {
        "wider than the window": view["needed"] > view["width"],
        "asks for something": bool(view["requests"]),
        "cuts letters off": bool(view["cut"]),
        "has faint letters": min(contrasts) < 4.5,  # WCAG 2.2, level AA
    }
    return {name for name, found in wrong.items() if found}


@pytest.mark.parametrize("name", ["phone", "phone, dark", "desktop"])
def test_the_report_is_legible(seen: dict[str, dict[str, Any]], name: str) -> None:
    view = seen[name]
    assert faults(view) == set(), view
    assert view["width"] == (DESKTOP if name == "desktop" else PHONE)
    assert len(view["figures"]) == 3 and min(view["figures"]) > 120
    assert min(view["letters"]) >= 10  # the height of a line of text, in px


def test_the_report_follows_the_colour_scheme(seen: dict[str, dict[str, Any]]) -> None:
    assert luminance(seen["phone"]["background"]) > 0.9 > 0.1 > luminance(seen["phone, dark"]["background"])


def test_the_checks_would_notice(seen: dict[str, dict[str, Any]]) -> None:
    expected = {"wider than the window", "asks for something", "cuts letters off", "has faint letters"}
    assert faults(seen["spoilt"]) == expected, seen["spoilt"]
