"""The leaderboard in a real browser: it sorts, filters, draws intervals and a Pareto front, and fits a phone."""

from __future__ import annotations

import html
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from leaderboard_results import MODELS, make_entries

from lobes.evaluation.leaderboard import make_board
from lobes.evaluation.leaderboard_page import write_board
from lobes.evaluation.published import read_published

pytestmark = pytest.mark.browser
PUBLISHED = Path(__file__).parents[2] / "docs" / "leaderboard" / "published.csv"

TOOLS = """
const names = () => [...document.querySelectorAll("#results tbody tr")].map(row => row.querySelector("th")
  ? row.querySelector("th").firstChild.textContent : row.textContent);
const choose = (id, value) => { const e = document.getElementById(id); e.value = value; e.onchange(); return names(); };
const titles = () => [...document.querySelectorAll("#results thead th")].map(cell => cell.textContent);
const press = title => {
  const cell = [...document.querySelectorAll("#results thead th")].find(cell => cell.textContent.startsWith(title));
  cell.querySelector("button").focus();
  cell.querySelector("button").click();
  return [names(), document.activeElement.textContent,
    [...document.querySelectorAll("#results [aria-sort]")].map(c => [c.textContent, c.getAttribute("aria-sort")])];
};
const marks = () => [...document.querySelectorAll("#plot g.mark")].map(mark => mark.getAttribute("aria-label"));
"""
STEPS = """
const found = { first: names(), titles: titles(), counts: element("counts").textContent };
found.bars = [...document.querySelectorAll("#results tbody .bar")].map(bar => {
  const [range, dot, all] = ["i", "s"].map(n => bar.querySelector(n).getBoundingClientRect())
    .concat(bar.getBoundingClientRect());
  return [range.left, (dot.left + dot.right) / 2, range.right].map(x => (x - all.left) / all.width);
});
found.text = document.querySelector("#results td.result").textContent;
found.worst = press("Result");
found.cheap = press("MACs");
found.dear = press("MACs");
found.sorted = choose("sort", "value");
found.marks = marks();
found.front = document.querySelector("#plot .front").getAttribute("d").match(/[MH]/g).length;
found.heights = [...document.querySelectorAll("#plot g.mark")].map(mark => mark.getBoundingClientRect().height);
document.querySelector("#plot g.mark").focus();
found.point = element("point").textContent;
found.french = choose("task", "French");
found.linear = choose("head", "linear");
found.finetune = choose("mode", "finetune");
found.warned = !element("generated").hidden;
found.elements = document.querySelectorAll("#results tbody th b").length;
choose("mode", ""); choose("head", "");
element("model").value = "LUNA"; element("model").oninput();
found.searched = names();
element("model").value = "no such"; element("model").oninput();
found.nothing = names();
element("model").value = ""; element("model").oninput();
found.published = choose("task", "AER, AlloSat");
found.noPlot = element("plot").textContent;
element("showPublished").checked = false; element("showPublished").onchange();
found.withoutPublished = names();
found.all = choose("task", "");
found.allTitles = titles();
found.ranks = [...document.querySelectorAll(".ranked")].map(list => [...list.children].map(part => part.textContent));
found.taus = document.querySelector("#taus tbody").textContent;
found.pairs = document.querySelectorAll("#pairs tbody tr").length;
found.failed = document.querySelector("#failed tbody").textContent;
found.requests = performance.getEntriesByType("resource").map(entry => entry.name).filter(n => !n.startsWith("data:"));
"""
#: Shows the page in frames, for a browser's own window is never narrower than 500 px.
FRAMES = """</iframe><script>onload = () => {
  const look = frame => {
    const page = frame.contentDocument, seen = element => element.getBoundingClientRect();
    const controls = [...page.querySelectorAll("nav select, nav input[type=search], summary")];
    const style = name => frame.contentWindow.getComputedStyle(page.querySelector(name));
    for (const id of ["task", "head"]) {
      const option = page.createElement("option");
      option.textContent = "a name that is longer than any place for it can be";
      page.getElementById(id).append(option);
    }
    const boxes = [...page.querySelectorAll("header + nav select, header + nav input")].map(seen);
    const meet = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
    const labels = [...page.querySelectorAll("#plot text")].map(seen), plot = seen(page.querySelector("#plot"));
    return {
      needed: page.documentElement.scrollWidth, width: frame.contentWindow.innerWidth,
      overlaps: boxes.filter((one, i) => boxes.some((other, j) => j < i && meet(one, other))).length,
      controls: controls.filter(one => seen(one).height).map(one => seen(one).height),
      unnamed: [...page.querySelectorAll("select, input")].filter(one => !one.closest("label")).length,
      cut: labels.filter(box => box.left < plot.left - 1 || box.right > plot.right + 1).length,
      rows: [...page.querySelectorAll("#results tbody tr")].map(row => seen(row).width),
      colours: [style("body").backgroundColor, style("body").color, style(".quiet").color],
    };
  };
  document.body.textContent = JSON.stringify([...document.querySelectorAll("iframe")].map(look));
};</script>"""


def chromium(page: Path, profile: Path, *options: str) -> str:
    """What the page's scripts leave in its body."""
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    command = [program, "--headless", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={profile}"]
    # A container has neither the sandbox nor much shared memory; the page is our own.
    command += ["--no-sandbox", "--disable-dev-shm-usage", "--window-size=1300,900", *options]
    done = subprocess.run(
        [*command, "--dump-dom", page.as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    return html.unescape(done.stdout.split("<body>")[1].split("</body>")[0]).strip()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    board = make_board(make_entries(), read_published(PUBLISHED), n=50)
    failed = {"task": "digits", "model": "broken", "mode": "frozen", "head": "linear", "seed": 1, "rate": None}
    folder = tmp_path_factory.mktemp("board")
    return write_board(folder, {**board, "failed": [{**failed, "error": "no <i> memory"}]}, "Board")[-1]


@pytest.fixture(scope="module")
def found(page: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    script = (
        f"<script>{TOOLS}onload = () => {{ try {{ {STEPS} document.body.textContent = JSON.stringify(found); }}"
        " catch (error) { document.body.textContent = JSON.stringify({ error: String(error.stack) }); } };</script>"
    )
    changed = page.with_name("visited.html")
    changed.write_text(page.read_text(encoding="utf-8").replace("</body>", script + "</body>"), encoding="utf-8")
    found = json.loads(chromium(changed, tmp_path_factory.mktemp("profile")))
    assert "error" not in found, found["error"]
    return found


def test_rows_are_sorted(found):
    best = ["Luna", "SummaryMixing", "attention", "log-mel"]
    assert found["first"] == best == list(MODELS), "the first task, the best first"
    assert found["worst"] == [best[::-1], "Result [95 %]", [["Result [95 %]", "ascending"]]], (
        "focus stays on the button"
    )
    cheap = ["log-mel", "SummaryMixing", "Luna", "attention"]
    assert found["cheap"][0] == cheap and found["dear"][0] == cheap[::-1] and found["sorted"] == best
    assert "Seeds" in found["titles"] and "Task" not in found["titles"] and "Task" in found["allTitles"]


def test_rows_are_filtered(found):
    assert len(found["french"]) == 9 and found["linear"][0] == "Luna <b>" and len(found["linear"]) == 5
    assert found["finetune"] == ["Luna <b>"] and found["elements"] == 0, "a name is text, not HTML"
    assert found["warned"] and len(found["searched"]) == 3 and found["nothing"] == ["Nothing to show."]
    assert found["counts"] == "4 of 13 results."


def test_published_figures_are_seen_apart(found):
    assert "Pantagruel L-114k" in found["published"] and found["withoutPublished"] == ["Nothing to show."]
    assert found["noPlot"] == "No cost was measured for what is shown."
    assert len(found["all"]) == 13


def test_intervals_are_drawn(found):
    assert len(found["bars"]) == 4
    for low, value, high in found["bars"]:
        assert -0.01 <= low <= value + 1e-6 and value <= high + 1e-6 and high <= 1.01
    assert found["bars"][0][1] > found["bars"][3][1] + 0.3
    assert found["text"] == "84.2 [77.3, 89.2]"


def test_the_plot_has_the_pareto_front(found):
    assert len(found["marks"]) == 4 and found["front"] == 3, "attention is dearer and worse than Luna"
    first = found["marks"][0]
    assert first.startswith("log-mel, frozen, linear: 34.7 [") and "1 M MACs per second" in first
    assert found["point"] == found["marks"][0], "what has the focus is told"
    assert min(found["heights"]) >= 24, "large enough for a thumb"


def test_over_tasks_and_the_rest(found):
    (ranked,) = (ranks for ranks in found["ranks"] if ranks)
    assert ranked[::3] == list(MODELS) and ranked[1] == "1.00 [1.00, 1.00]"
    assert found["taus"].startswith("FrenchfrozenlinearBiLSTM40.67 [") and found["pairs"] == 18
    assert "no <i> memory" in found["failed"] and found["requests"] == []


@pytest.mark.parametrize("dark", [False, True])
def test_the_page_fits_phone_and_desktop(page, tmp_path, dark):
    text = html.escape(page.read_text(encoding="utf-8"))
    frames = [f'<iframe style="border: 0; width: {width}px; height: 800px" srcdoc="{text}">' for width in (400, 1100)]
    harness = tmp_path / "harness.html"
    harness.write_text("<!doctype html><html><body>" + "</iframe>".join(frames) + FRAMES + "</body></html>")
    options = ["--blink-settings=preferredColorScheme=0"] if dark else []
    phone, desktop = json.loads(chromium(harness, tmp_path / "profile", *options))
    for view in (phone, desktop):
        assert view["needed"] <= view["width"] and view["unnamed"] == 0 and view["cut"] == 0
        assert view["overlaps"] == 0, "a control lies over another"
        background, ink, quiet = ([int(n) for n in c[4:-1].split(",")] for c in view["colours"])
        assert (sum(background) < 200) == dark
        assert abs(sum(ink) - sum(background)) > 400 and abs(sum(quiet) - sum(background)) > 250
    assert phone["width"] == 400 and min(phone["controls"]) >= 32, "large enough for a thumb"
    assert max(phone["rows"]) <= 400 and desktop["width"] == 1100
