"""The review page in a real browser: sorts, filters, plays, takes marks by mouse and keys, keeps and saves them."""

from __future__ import annotations

import html
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from review_items import ROWS, make_page

from lobes.dataio.annotations import read_annotations

pytestmark = pytest.mark.browser

TOOLS = """
const titles = () => [...document.querySelectorAll("article")].map(card => card.querySelector(".score").textContent);
const choose = (id, value) => {
  const select = document.getElementById(id);
  select.value = value;
  select.onchange();
  return titles();
};
const press = key => document.body.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
const marksOf = () => [...document.querySelectorAll("article")].map(card =>
  card.classList.contains("right") ? "right" : card.classList.contains("wrong") ? "wrong" : "");
const progressText = () => document.getElementById("progress").textContent;
const saved = [];
URL.createObjectURL = blob => { saved.push(blob); return "#"; };
window.confirm = () => true;
"""
STEPS = """
const found = { before: marksOf(), first: titles() };
found.pictures = [...document.querySelectorAll(".picture img")].map(image => image.naturalWidth);
for (const order of ["low", "uncertain", "time", "score"]) found[order] = choose("sort", order);
found.duets = choose("label", "duet");
found.south = choose("file", "south.wav");
found.near = choose("state", "near");
choose("state", ""); choose("file", ""); choose("label", "");
found.progress = [progressText()];
document.querySelectorAll("article .yes")[0].click();
press("ArrowDown"); press("w"); press("r"); press("r");
found.keyed = marksOf();
found.active = [...document.querySelectorAll("article")].findIndex(card => card.classList.contains("active"));
press("k"); press("u"); press("j"); press("j"); press("w");
found.undone = marksOf();
found.progress.push(progressText());
found.open = choose("state", "open");
choose("state", "");
document.getElementById("csv").click();
document.getElementById("raven").click();
found.texts = [asCsv(), asRaven()];
found.sizes = saved.map(blob => blob.size);
found.stored = Object.keys(localStorage).filter(name => name.startsWith("lobes-review-")).length;
found.plays = audio.canPlayType(data.audio.slice(5).split(";")[0]);
press("ArrowUp"); press(" ");
found.playing = !audio.paused || audio.src.length > 100;
found.boxes = [...document.querySelectorAll(".box:not(.other)")].map(box => {
  const [inner, outer] = [box.getBoundingClientRect(), box.parentElement.getBoundingClientRect()];
  return [(inner.left - outer.left) / outer.width, (inner.right - outer.left) / outer.width];
});
found.html = document.querySelectorAll("article b").length;
found.width = [innerWidth, document.documentElement.scrollWidth];
found.requests = performance.getEntriesByType("resource").map(entry => entry.name).filter(n => !n.startsWith("data:"));
"""
AGAIN = """
const found = { kept: marksOf(), progress: progressText() };
document.getElementById("clear").click();
found.cleared = marksOf();
found.stored = localStorage.getItem(key);
"""


def chromium(page: Path, profile: Path, width: int = 1300) -> str:
    """What the page's scripts leave in its body."""
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    command = [program, "--headless", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={profile}"]
    # A container has neither the sandbox nor much shared memory; the page is our own.
    command += ["--no-sandbox", "--disable-dev-shm-usage", f"--window-size={width},900"]
    done = subprocess.run(
        [*command, "--dump-dom", page.as_uri()], capture_output=True, text=True, timeout=90, check=True
    )
    return html.unescape(done.stdout.split("<body>")[1].split("</body>")[0]).strip()


def visit(page: Path, profile: Path, steps: str) -> dict[str, Any]:
    """Open the page, do something on it, and return what was found."""
    script = (
        f"<script>{TOOLS}onload = () => {{ try {{ {steps} document.body.textContent = JSON.stringify(found); }}"
        " catch (error) { document.body.textContent = JSON.stringify({ error: String(error.stack) }); } };</script>"
    )
    changed = page.with_name("visited.html")  # always the same, for marks are kept by the page's address
    changed.write_text(page.read_text(encoding="utf-8").replace("</body>", script + "</body>"), encoding="utf-8")
    found = json.loads(chromium(changed, profile))
    assert "error" not in found, found["error"]
    return found


@pytest.fixture(scope="module")
def visits(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any], Path]:
    folder = tmp_path_factory.mktemp("review")
    page = make_page(folder)
    first, second = (visit(page, folder / "profile", steps) for steps in (STEPS, AGAIN))
    return first, second, folder


def test_cards_are_sorted_and_filtered(visits):
    found = visits[0]
    assert found["first"] == found["score"] == ["0.99", "0.95", "0.70", "0.55", "0.52", "0.35"]
    assert found["low"] == found["score"][::-1]
    assert found["uncertain"] == ["0.52", "0.55", "0.35", "0.70", "0.95", "0.99"]
    assert found["time"] == ["0.95", "0.55", "0.70", "0.52", "0.35", "0.99"]
    assert found["duets"] == ["0.99", "0.95", "0.70", "0.52", "0.35"]
    assert found["south"] == ["0.99", "0.52", "0.35"] and found["near"] == ["0.35"]


def test_marks_are_made_by_mouse_and_keys(visits):
    found = visits[0]
    assert found["before"] == [""] * 6
    assert found["keyed"] == ["right", "wrong", "right", "right", "", ""] and found["active"] == 4
    assert found["undone"] == ["right", "wrong", "right", "", "", "wrong"]
    assert found["open"] == ["0.55", "0.52"]
    assert found["progress"][0] == "6 of 6 shown. 0 of 5 detections marked."
    assert found["progress"][1] == "6 of 6 shown. 3 of 5 detections marked: 2 right, 1 wrong, 67 % right."


def test_marks_are_saved_as_tables(visits):
    found, _, folder = visits
    marks = {0.95: "wrong", 0.7: "right", 0.35: "wrong", 0.99: "right"}
    assert found["sizes"] == [len(text.encode()) for text in found["texts"]], "what is saved is the table"
    for text, name in zip(found["texts"], ("verdicts.csv", "verdicts.selections.txt"), strict=True):
        (folder / name).write_text(text, encoding="utf-8")
        table = read_annotations(folder / name)
        column = "verdict" if name.endswith("csv") else "Verdict"
        assert {a.score: a.extra[column] for a in table} == marks
        for annotation in table:
            file, start, end, label, *_ = next(row for row in ROWS if row[4] == annotation.score)
            assert (annotation.start, annotation.end, annotation.label) == (start, end, label)
            assert annotation.file.endswith(file)
    south = [a for a in table if a.file.endswith("south.wav")]
    assert {a.extra["Begin Time (s)"] for a in south} == {"63.000000", "69.500000"}, "time over all files, for Raven"


def test_marks_outlive_the_visit_and_can_be_cleared(visits):
    first, second, _ = visits
    assert first["stored"] == 1
    assert second["kept"] == first["undone"] and second["progress"] == first["progress"][1]
    assert second["cleared"] == [""] * 6 and second["stored"] == "{}"


def test_pictures_and_sounds_are_there(visits):
    found = visits[0]
    assert found["pictures"] == [480] * 6 and found["playing"]
    assert found["plays"] in ("probably", "maybe")
    for left, right in found["boxes"]:
        assert 0 <= left < right <= 1.001
    # The second card: a call from 5.0 to 6.5 s in a picture of 4.0 to 7.5 s.
    assert found["boxes"][1] == pytest.approx([1 / 3.5, 2.5 / 3.5], abs=0.01)
    assert found["html"] == 0, "a label is text, not HTML"
    assert found["requests"] == []


def test_the_page_fits_a_phone(tmp_path):
    page = make_page(tmp_path)
    frame = f'<iframe id="f" style="border: 0; width: 390px; height: 800px" srcdoc="{html.escape(page.read_text())}">'
    script = """</iframe><script>onload = () => {
      const page = document.getElementById("f").contentDocument, seen = element => element.getBoundingClientRect();
      document.body.textContent = JSON.stringify({
        needed: page.documentElement.scrollWidth,
        cards: [...page.querySelectorAll("article")].map(card => seen(card).width),
        buttons: [...page.querySelectorAll("article button")].map(button => seen(button).height),
      });
    };</script>"""
    harness = tmp_path / "harness.html"
    harness.write_text("<!doctype html><html><body>" + frame + script + "</body></html>")
    found = json.loads(chromium(harness, tmp_path / "profile"))
    assert found["needed"] <= 390 and min(found["cards"]) > 300
    assert min(found["buttons"]) >= 32, "large enough for a thumb"
