"""Figures are drawn, the same every time; the report stands alone, follows the page's colours and hides nothing."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from lobes.errors import DataError
from lobes.evaluation import (
    inline_svg,
    layer_weights_figure,
    loss_figure,
    results_figure,
    save_figure,
    wer,
    write_report,
    write_result,
)
from lobes.evaluation.plots import read_curve


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    folder = tmp_path_factory.mktemp("results")
    rng = np.random.default_rng(0)
    made = []
    for system, rate in (("pretrained <SummaryMixing>", 0.18), ("log-mel & mean", 0.33)):
        records = [
            {"id": str(i), "group": f"s{i % 24}", "errors": int(rng.binomial(10, rate)), "length": 10}
            for i in range(240)
        ]
        options = {"parameters_total": 1_234_567, "audio_hours": 2.5, "data_name": "MiniFrench test"}
        made.append(
            write_result(
                folder,
                task="letters",
                system=system,
                metric=wer,
                records=records,
                seed=1,
                generated_speech=True,
                command="python train.py --x '<y>'",
                **options,
            )  # fmt: skip
        )
    return made


@pytest.fixture
def train_log(tmp_path: Path) -> Path:
    path = tmp_path / "train_log.csv"
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["step", "loss", "valid_loss"])
        writer.writerows([[step, 3 / (step + 1), ""] for step in range(200)] + [[200, "nan", 0.5], [201, "", ""]])
    return path


def texts(figure) -> set[str]:
    import matplotlib.text

    return {item.get_text() for item in figure.findobj(matplotlib.text.Text)}


def test_a_training_log_is_read_without_its_gaps(train_log: Path) -> None:
    steps, losses = read_curve(train_log)
    assert steps == list(range(200)) and losses[1] == 1.5
    assert read_curve(train_log, y="valid_loss") == ([200.0], [0.5])
    with pytest.raises(DataError, match="no column 'speed', have step, loss"):
        read_curve(train_log, y="speed")
    with pytest.raises(DataError, match="no such file"):
        read_curve(train_log.with_name("none.csv"))


def test_figures_have_labels_with_units(results: list[dict], train_log: Path) -> None:
    assert {"optimiser step", "loss (nats)", "ours"} <= texts(loss_figure({"ours": train_log}, unit="nats"))
    assert {"weight (%)", "layer (0: first)", "a", "b"} <= texts(layer_weights_figure({"a": [0.2, 0.8], "b": [1.0]}))
    labels = texts(results_figure(results))
    assert {"letters (generated speech)", "WER (%), 95 % interval; lower is better"} <= labels
    assert {"pretrained <SummaryMixing>", f"{100 * results[0]['metric']['value']:.1f}"} <= labels


def test_drawn_values_are_the_given_ones(results: list[dict]) -> None:
    lines = results_figure(results).axes[0].get_lines()
    metric = results[1]["metric"]
    assert list(lines[2].get_xdata()) == pytest.approx([100 * metric["low"], 100 * metric["high"]])
    assert list(lines[3].get_xdata()) == pytest.approx([100 * metric["value"]])
    heights = [bar.get_height() for bar in layer_weights_figure({"a": [0.25, 0.75]}).axes[0].patches]
    assert heights == pytest.approx([25, 75])


@pytest.mark.parametrize("suffix", [".svg", ".png"])
def test_a_figure_is_the_same_bytes_every_time(tmp_path: Path, results: list[dict], suffix: str) -> None:
    one, two = (save_figure(results_figure(results), tmp_path / f"{name}{suffix}").read_bytes() for name in "ab")
    assert one == two and len(one) > 2000


def test_nothing_to_draw_is_said() -> None:
    for call, message in [
        (lambda: results_figure([]), "results: nothing"),
        (lambda: layer_weights_figure({}), "weights: nothing"),
        (lambda: loss_figure({"a": ([], [])}), "curves: no finite"),
        (lambda: save_figure(layer_weights_figure({"a": [1.0]}), "figure.gif"), ".svg, .png or .pdf"),
    ]:
        with pytest.raises(DataError, match=message):
            call()


def test_inline_svg_follows_the_page_and_is_well_formed(results: list[dict]) -> None:
    svg = inline_svg(results_figure(results), 'a "quoted" description')
    root = ElementTree.fromstring(svg)
    assert root.get("aria-label") == 'a "quoted" description' and root.get("width") is None
    assert "currentColor" in svg and "#24292f" not in svg
    assert "http" not in svg and "DejaVu" not in svg and "<style" not in svg
    ids = re.findall(r' id="([^"]+)"', svg)
    references = re.findall(r'(?:url\(|href=")#([\w-]+)', svg)
    assert set(references) == set(ids) and len(set(ids)) == len(ids)
    for element in root.iter():
        if element.tag == "text":
            assert "fill: currentColor" in element.get("style", "")


class Page(HTMLParser):
    """Collects tags, links and text, and checks that every tag is closed in order."""

    VOID = {"meta", "br", "link", "img", "path", "use", "rect"}

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.seen: set[str] = set()
        self.words = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs) -> None:
        self.seen.add(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "action", "srcset")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_startendtag(self, tag, attrs) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_data(self, data) -> None:
        self.words += data


def test_the_report_stands_alone_and_says_what_matters(tmp_path: Path, results: list[dict], train_log: Path) -> None:
    path = write_report(
        tmp_path / "out" / "report.html",
        title="Letters & digits",
        summary="What <was> done.",
        results=results,
        curves={"ours": train_log},
        layer_weights={"ours": [0.3, 0.7]},
        figures=[(layer_weights_figure({"x": [1.0]}), "A further figure.")],
        notes=["Mind this."],
    )
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert page.open == [] and not {"script", "link", "img", "iframe"} & page.seen
    assert all(link.startswith("#") for link in page.links) and "http" not in text and "url(#" in text
    assert "@import" not in text and "@font-face" not in text
    assert 'name="viewport"' in text and "prefers-color-scheme: dark" in text
    value = f"{100 * results[0]['metric']['value']:.1f}"
    for words in (
        "Generated speech.", "What <was> done.", "pretrained <SummaryMixing>", "log-mel & mean", value, "1.23 M",
        "2.5 h", "240 items in 24 groups, lower is better", "python train.py --x '<y>'", "Mind this.",
        "A further figure.",
    ):  # fmt: skip
        assert words in page.words, words
    assert text.count("<svg") == 4 and [p.name for p in path.parent.iterdir()] == ["report.html"]


def test_the_notice_is_there_only_for_generated_speech(tmp_path: Path, results: list[dict]) -> None:
    real = [result | {"generated_speech": False} for result in results]
    text = write_report(tmp_path / "r.html", title="T", summary="S", results=real).read_text(encoding="utf-8")
    assert "enerated speech" not in text
    mixed = [results[0], real[1] | {"task": "other"}]
    text = write_report(tmp_path / "r.html", title="T", summary="S", results=mixed).read_text(encoding="utf-8")
    assert "these figures (letters) was" in text
    with pytest.raises(DataError, match="none to report"):
        write_report(tmp_path / "r.html", title="T", summary="S", results=[])


def test_importing_evaluation_loads_neither_matplotlib_nor_scipy_nor_torch() -> None:
    code = "import sys, lobes.evaluation; print([m for m in ('matplotlib', 'scipy', 'torch') if m in sys.modules])"
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True)
    assert done.stdout.strip() == "[]"
