"""The cost of mixers and encoders is measured, kept, judged and drawn as it should be."""

from __future__ import annotations

import inspect
import json
import random
import sys
from itertools import combinations
from pathlib import Path

import pytest
import torch
from matplotlib.text import Text

import lobes.mixers
from lobes.errors import DataError
from lobes.evaluation.cost import PeakMemory, counted_macs, time_in_turns
from lobes.mixers import TokenMixer

TOOLS = Path(__file__).parents[2] / "tools"
ENCODER = """
!new:lobes.encoders.Encoder
features: !new:lobes.encoders.LogMel {n_mels: 20, normalise: running}
stem: !new:lobes.encoders.StackingStem {n_features: 20, dim: 16, factor: 4}
dim: 16
depth: 1
mixer: !name:lobes.mixers.MIXER
"""


@pytest.fixture(scope="module")
def tool():
    """The script as a module, with those beside it."""
    sys.path.insert(0, str(TOOLS))
    import efficiency

    yield efficiency
    sys.path.remove(str(TOOLS))


@pytest.fixture
def here(tool, monkeypatch):
    """Jobs run in this process, which is fast, and are listed."""
    jobs = []

    def run_job(job):
        jobs.append(job)
        return tool.MODULES[job["level"]].measure(job)

    monkeypatch.setattr(tool, "run_job", run_job)
    return jobs


def quick(tool, out: Path, *arguments: str) -> dict:
    """Run the command on layers, and read what it wrote."""
    assert tool.main(["layers", "--quick", "--devices", "cpu", "--out", str(out), *arguments]) == 0
    return json.loads((out / "layers.json").read_text())


@pytest.mark.slow
def test_a_quick_run_measures_and_reports(tool, here, tmp_path):
    document = quick(tool, tmp_path, "--mixers", "SDPA", "summarymixing MERGED", "--publish", str(tmp_path / "docs"))
    assert {"command", "date", "hardware", "packages", "commit"} <= set(document["about"])
    for row in document["rows"]:
        assert [run["frames"] for run in row["forward"]] == document["settings"]["lengths"]
        for run in [*row["forward"], row["train"]]:
            assert 0 < run["best_ms"] <= run["median_ms"] and run["runs"] == 2
            assert run["ratio"] == pytest.approx(run["sdpa_best_ms"] / run["best_ms"])
        assert row["macs"] == row["macs_counted"] > 0
    sdpa, summary = document["rows"]
    assert sdpa["macs_by_hand"] == 2 * 64**2 * 64 and summary["macs_by_hand"] == 0
    assert summary["parameters"] == 4 * 64**2 + 3 * 64 and summary["state_floats"] == 65
    table = (tmp_path / "layers.md").read_text()
    assert "| SDPA | 16.6 k | 1.57 M \\* |" in table and "| SummaryMixing merged |" in table
    for name in ("layers.json", "layers.md", "layers-time.png", "layers-memory.png"):
        assert (tmp_path / "docs" / name).read_bytes() == (tmp_path / name).read_bytes()


@pytest.mark.slow
def test_rows_are_kept_until_told_otherwise(tool, here, tmp_path, capsys):
    first = quick(tool, tmp_path, "--mixers", "FFN only", "PoM")["rows"]
    here.clear()
    second = quick(tool, tmp_path, "--mixers", "FFN only", "PoM", "FNet")["rows"]
    assert second[:2] == first and {job["variant"]["name"] for job in here} == {"FNet"}

    # Too little memory is a result, any other error is not.
    second[0]["train"] = {"frames": 64, "error": "out of memory"}
    second[1]["forward"][0] = {"frames": 32, "error": "RuntimeError: a mistake"}
    document = json.loads((tmp_path / "layers.json").read_text()) | {"rows": second}
    (tmp_path / "layers.json").write_text(json.dumps(document))
    here.clear()
    third = quick(tool, tmp_path, "--mixers", "FFN only", "PoM")["rows"]
    assert {job["variant"]["name"] for job in here} == {"PoM"} and third[0] == second[0]
    assert [row["name"] for row in third] == ["FFN only", "PoM", "FNet"] and not tool.errors(third[1])

    assert tool.main(["layers", "--quick", "--lengths", "16", "--out", str(tmp_path)]) == 2
    assert "lengths [32, 128], expected lengths [16]; choose another --out" in capsys.readouterr().err
    again = quick(tool, tmp_path, "--mixers", "FFN only", "--lengths", "16", "--again")["rows"]
    assert [(row["name"], len(row["forward"])) for row in again] == [("FFN only", 1)]


@pytest.mark.slow
def test_too_little_memory_is_a_row_and_no_crash(tool):
    settings = tool.settings_of("layers", tool.parse(["layers", "--quick", "--max-gb", "3"]), "cpu")
    variants = {variant.name: variant for variant in tool.efficiency_layers.available_variants()}
    job = tool.efficiency_layers.plan(variants["unfused attention"], settings)[1]
    assert tool.run_job(job | {"frames": 20000}) == {"error": "out of memory"}  # 13 GB of weights


def test_an_error_is_a_row_and_no_crash(tool, monkeypatch, capsys):
    monkeypatch.setattr(tool, "limit_memory", lambda gigabytes: True)
    settings = tool.settings_of("layers", tool.parse(["layers", "--quick"]), "cpu")
    job = tool.efficiency_layers.plan(tool.efficiency_layers.Variant("odd", "SDPA", {"num_heads": 7}), settings)[0]
    tool.worker(job)
    assert json.loads(capsys.readouterr().out)["error"].startswith("ConfigError: SDPA: dim 64 is not a multiple of")


def test_an_unknown_mixer_is_named(tool, tmp_path, capsys):
    assert tool.main(["layers", "--mixers", "Transformer", "--out", str(tmp_path)]) == 2
    assert "there is no 'Transformer'; expected some of FFN only, " in capsys.readouterr().err


def test_every_mixer_is_measured(tool):
    classes = {name: getattr(lobes.mixers, name) for name in lobes.mixers.__all__ if name[0].isupper()}
    mixers = {n for n, c in classes.items() if issubclass(c, TokenMixer) and not inspect.isabstract(c)}
    variants = tool.efficiency_layers.available_variants()
    assert mixers <= {variant.mixer for variant in variants}
    assert len({variant.name.lower() for variant in variants}) == len(variants)


def made_up(kind: str, ratios: dict[int, float], memory: dict[int, float]) -> dict:
    """A row with these figures."""
    runs = [{"frames": n, "ratio": ratio, "memory_mb": memory.get(n, 1.0)} for n, ratio in ratios.items()]
    return {"variant": {"kind": kind}, "forward": runs}


@pytest.mark.parametrize(
    ("kind", "ratios", "growth", "expected"),
    [
        ("linear", {1000: 0.95, 4000: 2.0, 16000: 4.0}, 4.0, []),
        ("linear", {1000: 0.9, 4000: 2.0, 16000: 4.0}, 4.0, ["0.90× SDPA at 1000, expected 0.91×"]),
        ("linear", {1000: 1.0, 4000: 1.9, 16000: 3.9}, 4.0, ["1.90× SDPA at 4000", "3.90× SDPA at 16000"]),
        ("linear", {1000: 1.0, 4000: 2.0, 16000: 4.0}, 16.0, ["memory grows 16.0× from 4000 to 16000"]),
        ("linear", {1000: 1.0, 4000: 2.0, 16000: 4.0}, 2.9, ["memory grows 2.9×"]),
        ("exempt", {1000: 1.0, 4000: 1.1, 16000: 1.2}, 4.0, []),
        ("exempt", {1000: 0.7, 4000: 1.1, 16000: 1.2}, 4.0, ["0.70× SDPA at 1000"]),
        ("baseline", {1000: 0.1, 4000: 0.1, 16000: 0.1}, 16.0, ["not judged"]),
        ("linear", {1000: 0.1}, 1.0, ["not judged"]),
    ],
)
def test_verdicts(tool, kind, ratios, growth, expected):
    found = tool.efficiency_layers.verdict(made_up(kind, ratios, {4000: 10.0, 16000: 10.0 * growth}))
    assert len(found) == len(expected)
    assert all(text.startswith(start) for text, start in zip(found, expected, strict=True))


def test_a_mixer_that_runs_out_of_memory_falls_short(tool):
    row = made_up("linear", {1000: 1.0, 4000: 2.0}, {})
    row["forward"].append({"frames": 16000, "error": "out of memory"})
    assert tool.efficiency_layers.verdict(row) == ["out of memory at 16000"]


def test_memory_sees_what_was_allocated_now():
    bytearray(90_000_000)
    with PeakMemory() as memory:
        block = bytearray(50_000_000)
    assert 49 < memory.mb < 60
    with PeakMemory() as memory:
        del block
    assert memory.mb < 5


def test_what_is_compared_takes_turns():
    calls: list[str] = []
    times = time_in_turns({name: (lambda name=name: calls.append(name)) for name in "ab"}, rounds=3)
    assert "".join(calls) == "abbaab"
    assert [len(taken.seconds) for taken in times.values()] == [3, 3]
    slow = time_in_turns({"slow": lambda: sum(range(10**5))}, rounds=1000, seconds=0.0, least=4)["slow"]
    assert len(slow.seconds) == 4 and 0 < slow.best <= slow.median


def test_counts_of_what_pytorch_does_not_count():
    query, key = torch.randn(2, 4, 10, 8), torch.randn(2, 4, 30, 8)
    attention = counted_macs(lambda: torch.nn.functional.scaled_dot_product_attention(query, key, key))
    assert attention == (2 * 4 * 10 * 30 * 16,) * 2
    x = torch.randn(3, 16, 5, dtype=torch.complex64)
    assert counted_macs(lambda: torch.fft.fft(x, dim=1)) == (5 * 3 * 16 * 5 * 4 // 2,) * 2
    assert counted_macs(lambda: torch.fft.irfft(torch.fft.rfft(x.real, dim=1), dim=1)).total == 5 * 3 * 16 * 5 * 4 // 2


def test_an_encoder_is_measured_in_its_parts(tool, here, tmp_path, monkeypatch):
    monkeypatch.setattr(tool.efficiency_encoders, "export", lambda job: {"status": "not measured"})  # takes long
    path = tmp_path / "small" / "summary.yaml"
    path.parent.mkdir()
    path.write_text(ENCODER.replace("MIXER", "SummaryMixing"))
    command = ["encoders", "--quick", "--devices", "cpu", "--out", str(tmp_path), "--encoders", str(path)]
    assert tool.main(command) == 0
    document = json.loads((tmp_path / "encoders.json").read_text())
    (row,) = document["rows"]
    assert row["name"] == "small/summary" and not tool.errors(row)
    assert row["facts"]["fp32_bytes"] == 4 * row["facts"]["parameters"] and row["facts"]["state_bytes"] > 0
    assert row["train"]["audio_per_second"] == pytest.approx(2000 / row["train"]["step_ms"])
    assert row["stream"]["status"] == "streams" and row["stream"]["chunk_frames"] == 8
    assert row["stream"]["chunk_median_ms"] <= row["stream"]["chunk_worst_ms"]
    assert [use["audio_seconds"] for use in row["use"]] == [1, 2]
    assert all(
        use["real_time_factor"] == pytest.approx(use["best_ms"] / 1000 / n) for n, use in enumerate(row["use"], 1)
    )
    assert "| small/summary |" in (tmp_path / "encoders.md").read_text()

    here.clear()
    assert tool.main(command) == 0 and not here
    path.write_text(ENCODER.replace("MIXER", "FNet"))
    assert not tool.efficiency_encoders.is_of(row, str(path))
    job = tool.efficiency_encoders.plan(str(path), document["settings"])[2]
    assert tool.efficiency_encoders.measure(job)["status"].startswith("cannot stream: Encoder: mixer FNet of block 0")


@pytest.mark.slow
def test_export_is_measured_where_there_is_one(tool, tmp_path):
    pytest.importorskip("onnxruntime")
    found = {}
    for name in ("SummaryMixing", "FNet"):
        path = tmp_path / f"{name}.yaml"
        path.write_text(ENCODER.replace("MIXER", name))
        settings = tool.settings_of("encoders", tool.parse(["encoders", "--quick"]), "cpu")
        found[name] = tool.efficiency_encoders.export(tool.efficiency_encoders.plan(str(path), settings)[3])
    assert found["FNet"]["status"].startswith("does not export: export_onnx: mixer FNet of block 0")
    summary = found["SummaryMixing"]
    assert summary["int8_bytes"] < summary["onnx_bytes"] and summary["onnx_difference"] < 1e-4
    assert 0 < summary["int8_difference"] < 0.1 and summary["int8_real_time_factor"] > 0


def test_names_beside_lines_do_not_touch(tool):
    plots = tool.efficiency_plots
    rows = [{"name": f"mixer number {n}", "variant": {"kind": "linear", "mixer": str(n)}} for n in range(26)]
    series = {row["name"]: [(250.0, 50.0 + n / 9), (16000.0, 60.0 + n / 7)] for n, row in enumerate(rows)}
    drawn_as = plots.looks(rows)
    assert sum(look.colour != plots.GREY for look in drawn_as.values()) == plots.HIGHLIGHTED
    figure = plots.lines_figure(series, drawn_as, "Time", "frames", "ms")
    figure.canvas.draw()
    boxes = sorted((text.get_window_extent() for text in figure.axes[0].texts), key=lambda box: box.y0)
    assert len(boxes) == 26 and all(low.y1 <= high.y0 for low, high in zip(boxes, boxes[1:], strict=False))
    assert boxes[0].y0 > 0 and boxes[-1].y1 < figure.bbox.y1 and max(box.x1 for box in boxes) < figure.bbox.x1


@pytest.mark.slow
def test_names_of_points_do_not_touch_each_other_nor_hide_points(tool):
    plots, noise = tool.efficiency_plots, random.Random(1)
    systems = {}
    for n in range(14):
        value = 0.4 + 0.03 * noise.random()
        systems[f"system {n}"] = 0.6 + 0.3 * noise.random(), plots.Quality(value, value - 0.01, value + 0.01, "wer")
    figure = plots.quality_figure(systems, "cost", "Title", baseline="system 3")
    figure.canvas.draw()
    axes = figure.axes[0]
    boxes = {text.get_text(): Text.get_window_extent(text) for text in axes.texts}
    dots = [axes.transData.transform((cost, 100 * found.value)) for cost, found in systems.values()]
    assert boxes.keys() == systems.keys()
    assert not [pair for pair in combinations(boxes.values(), 2) if pair[0].overlaps(pair[1])]
    assert not [dot for dot in dots if any(box.contains(*dot) for box in boxes.values())]
    assert all(axes.bbox.contains(box.x0, box.y0) and axes.bbox.contains(box.x1, box.y1) for box in boxes.values())


def test_ticks_are_round_and_not_too_few(tool):
    ticks = tool.efficiency_plots.log_ticks
    assert ticks(0.9, 20000) == [1, 10, 100, 1000, 10000]
    assert ticks(0.55, 1.3) == [0.6, 0.7, 0.8, 0.9, 1, 1.2]
    assert ticks(0.0012, 0.0071) == [0.0015, 0.002, 0.003, 0.005, 0.007]


def test_places_move_no_more_than_they_must(tool):
    assert tool.efficiency_plots.spread([50, 0, 51, 20], 10, 0, 100) == [45.5, 0, 55.5, 20]
    assert tool.efficiency_plots.spread([1, 2, 3], 10, 0, 100) == [0, 10, 20]
    assert tool.efficiency_plots.spread([99, 99, 99], 80, 0, 100) == [0, 50, 100]


def test_the_front_of_quality_and_cost(tool, tmp_path):
    points = {"cheap": (1.0, 0.3), "beaten": (2.0, 0.4), "good": (3.0, 0.2), "dear": (4.0, 0.2)}
    assert tool.efficiency_plots.pareto(points, higher=False) == ["cheap", "good"]
    assert tool.efficiency_plots.pareto(points, higher=True) == ["cheap", "beaten"]
    runs = [{"frames": 900, "best_ms": 5.0}, {"frames": 4000, "best_ms": 50.0}]
    rows = [{"name": name, "variant": {"kind": "linear", "mixer": name}, "forward": runs} for name in ("PoM", "Luna")]
    document = {
        "level": "layers",
        "rows": rows,
        "settings": {"lengths": [900, 4000], "device": "cpu", "dim": 8, "threads": 1},
    }
    table = tmp_path / "quality.csv"
    table.write_text("system,value,low,high,metric\nPoM,0.2,0.1,0.3,wer\nother,0.1,0.1,0.1,wer\n")
    written = tool.efficiency_plots.write(document, tmp_path / "layers.json", table)
    assert [path.name for path in written] == ["layers-time.png", "layers-quality.png"]
    table.write_text("system,value,low,high,metric\nPoM,0.2,0.1,0.3,wer\nPoM,0.9,0.8,1.0,accuracy\n")
    with pytest.raises(DataError, match="accuracy, wer; expected one task and metric"):
        tool.efficiency_plots.read_quality(table)
