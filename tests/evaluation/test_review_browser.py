"""The review page in a real browser: sorts, filters, plays, takes marks by mouse and keys, keeps and saves them."""

from __future__ import annotations

import html
import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from review_items import ROWS, make_page

from lobes.dataio.annotations import read_annotations
from lobes.evaluation.review import ReviewItem

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


LOOK = """
const found = { marks: Object.fromEntries(items.map(item => [item.file[0] + item.start, marks[item.id] || ""])) };
found.dressed = marksOf().filter(mark => mark).length;
"""


def click(**verdicts: str) -> str:
    """Steps that mark items by the first letter of their file and their start, such as n5="right", then look."""
    return "".join(
        f"""{{ const item = items.find(item => item.file[0] + item.start === "{place}");
        element("item-" + item.id).querySelector("{".yes" if verdict == "right" else ".no"}").click(); }}"""
        for place, verdict in verdicts.items()
    ) + LOOK  # fmt: skip


def moved(items: list[ReviewItem]) -> list[ReviewItem]:
    """As another threshold would have them: each a quarter of its length shorter, and without the near miss."""
    events = [replace(item.event, end=item.event.start + 0.75 * item.event.duration) for item in items[:5]]
    return [replace(item, event=event, threshold=0.6) for item, event in zip(items, events, strict=False)]


def test_marks_outlive_another_run_over_the_same_folder_alone(tmp_path):
    profile = tmp_path / "profile"
    some = make_page(tmp_path, change=lambda items: items[:3])
    assert visit(some, profile, click(n5="right", n20="wrong"))["dressed"] == 2
    all_of_them = {"n5": "right", "n7": "", "n20": "wrong", "s0.2": "", "s9.5": "", "s3": ""}
    page = make_page(tmp_path, change=lambda items: items[::-1])
    found = visit(page, profile, LOOK)
    assert found["marks"] == all_of_them and found["dressed"] == 2
    other = make_page(tmp_path, recordings=tmp_path / "elsewhere")
    assert visit(other, profile, click(s3="right"))["marks"] == dict.fromkeys(all_of_them, "") | {"s3": "right"}
    # Taken back and judged anew where the events have other ends, and seen from the first page again.
    less = make_page(tmp_path, change=moved)
    found = visit(less, profile, click(n5="right", n20="right", n7="wrong"))
    assert found["marks"] == {"n5": "", "n7": "wrong", "n20": "right", "s0.2": "", "s9.5": ""}
    again = visit(
        make_page(tmp_path), profile, LOOK + 'element("clear").click(); found.left = localStorage.getItem(key);'
    )
    assert again["marks"] == all_of_them | {"n5": "", "n7": "wrong", "n20": "right"} and again["left"] == "{}"


@pytest.mark.slow
def test_clearing_a_page_leaves_what_is_not_on_it(tmp_path):
    profile = tmp_path / "profile"
    visit(make_page(tmp_path), profile, click(n5="right", s3="wrong"))
    some = make_page(tmp_path, change=lambda items: items[:3])
    assert visit(some, profile, 'element("clear").click();' + LOOK)["marks"] == {"n5": "", "n7": "", "n20": ""}
    assert visit(make_page(tmp_path), profile, LOOK)["marks"]["s3"] == "wrong"


@pytest.mark.slow
def test_marks_that_were_kept_for_one_page_are_taken_over(tmp_path):
    page, profile = make_page(tmp_path), tmp_path / "profile"
    old = 'localStorage.setItem(former, JSON.stringify({ [items[1].id]: "wrong", [items[3].id]: "right" }));'
    visit(page, profile, old + "const found = {};")
    assert visit(page, profile, click(n5="right"))["marks"]["n7"] == "wrong"
    found = visit(make_page(tmp_path, change=lambda items: items[:4]), profile, LOOK)
    assert found["marks"] == {"n5": "right", "n7": "wrong", "n20": "", "s0.2": "right"}


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
