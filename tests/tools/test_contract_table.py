"""The table of who keeps the contract says what the checks find, and the checks find what they are for."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from lobes.encoders import frame_mask

TOOLS = Path(__file__).parents[2] / "tools"
QUICK = {
    "speechbrain": ("Conformer, HyperMixing", "HyperMixing alone"),
    "transformers": ("FNet, padded to the batch", "FNet, padded to 512"),
    "lobes": ("Encoder, SummaryMixing", "SDPA"),
}


@pytest.fixture(scope="module")
def table():
    """The script as a module."""
    sys.path.insert(0, str(TOOLS))
    yield importlib.import_module("contract_table")
    sys.path.remove(str(TOOLS))


@pytest.fixture(scope="module")
def rows(table):
    """What is committed."""
    return table.read(table.DOCS / "contract.csv")


def agree(table, rows, found) -> int:
    """Hold what is found against the rows of the same versions; return how many there were."""
    committed = {(row["library"], row["model"], row["check"]): row for row in rows}
    compared = 0
    for now in found:
        then = committed[now["library"], now["model"], now["check"]]
        if (now["version"], now["torch"]) != (then["version"], then["torch"]):
            continue
        where = f"{now['library']} {now['model']}, {now['check']}: run tools/contract_table.py --write"
        assert now["outcome"] == then["outcome"], where
        if now["outcome"] == table.FAIL:
            assert float(now["difference"]) == pytest.approx(float(then["difference"]), rel=0.2, nan_ok=True), where
        compared += 1
    return compared


def test_the_page_is_made_of_the_rows(table, rows):
    assert (table.DOCS / "contract.md").read_text(encoding="utf-8") == table.page(rows)
    found = {(row["library"], row["model"], row["check"]) for row in rows}
    expected = {(s.library, s.name, check) for s in table.SUBJECTS for check in table.CHECKS}
    assert found == expected | {(masks.library, masks.name, table.MASKED_SHARE) for masks in table.MASKS}


def test_ours_keep_the_contract(table, rows):
    """But for the export of what declares that it cannot be exported."""
    broken = {
        (row["model"], row["check"])
        for row in rows
        if row["library"] == "lobes" and row["outcome"] not in (table.PASS, table.NOT_OFFERED)
    }
    assert broken == {("LocalSDPA", "export"), ("FNet", "export")}


def test_quick_rows_are_what_is_measured_now(table, rows):
    subjects = [s for s in table.SUBJECTS if s.name in QUICK.get(s.library, ())]
    assert len(subjects) == 6
    quick = [check for check in table.CHECKS if check != "export"]
    compared = agree(table, rows, [*table.measure(subjects, quick), *table.measure_masks()])
    if compared < 3 * len(quick):
        pytest.skip("the table was written with other versions of the libraries")


@pytest.mark.slow
def test_every_row_is_what_is_measured_now(table, rows):
    if not agree(table, rows, table.measure(table.SUBJECTS, tuple(table.CHECKS))):
        pytest.skip("the table was written with other versions of the libraries")


class Toy(nn.Module):
    """Each frame plus something that has one fault, or none."""

    def __init__(self, adds: str) -> None:
        super().__init__()
        self.adds, self.weight = adds, nn.Parameter(torch.ones(()))

    def forward(self, x: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        real = valid[..., None]
        count = real.sum(1, keepdim=True).clamp_min(1)
        added = {
            "nothing": lambda: 0,
            "mean of all": lambda: x.mean(1, keepdim=True),
            "mean of the real": lambda: x.masked_fill(~real, 0.0).sum(1, keepdim=True) / count,
            "mean by a product": lambda: (x * real).sum(1, keepdim=True) / count,
            "next frame": lambda: nn.functional.pad(x[:, 1:], (0, 0, 0, 1)),
            "place in the batch": lambda: torch.arange(len(x))[:, None, None],
            "square root": lambda: (self.weight * x.masked_fill(~real, 0.0)).square().sum(1, keepdim=True).sqrt(),
            "at least two": lambda: 0 * x[:, 1:2].max(),
            "a list": lambda: torch.tensor([[float(t)] for t in range(x.shape[1])]),
        }[self.adds]()
        return self.weight * x + added


def toy(table, adds: str):
    """A subject around `Toy`."""

    class ToySubject(table.Subject):
        library = call = "test"

        def build(self, causal=False):
            return Toy(adds)

        def encode(self, model, x, lengths, chunks=None):
            return model(x, frame_mask(lengths, x.shape[1]))

        def stream(self, model, x, chunks):
            return torch.cat([model(part, torch.ones(part.shape[:2]).bool()) for part in x.split(chunks.size, 1)], 1)

    return ToySubject("toy")


FUTURE = {"causal form", "chunks", "streaming"}
GARBAGE = {"padding, garbage", "padding, NaN"}


@pytest.mark.parametrize(
    ("adds", "failing"),
    [
        ("nothing", set()),
        ("mean of all", {"padding, zeros"} | GARBAGE | FUTURE),
        ("mean of the real", FUTURE),
        ("mean by a product", {"padding, NaN"} | FUTURE),
        ("next frame", GARBAGE | FUTURE),
        ("place in the batch", {"batch order", "0 frames in a batch"}),
        ("square root", {"0 frames in a batch"} | FUTURE),
        ("at least two", {"1 frame", "0 frames alone"}),
    ],
)
def test_the_checks_find_what_is_wrong(table, adds, failing):
    subject = toy(table, adds)
    found = {check: table.checks.run(subject, check) for check in table.CHECKS if check != "export"}
    assert {check for check, one in found.items() if one.outcome != table.PASS} == failing, found


@pytest.mark.slow  # the first export of a process takes 5 s
def test_an_export_for_one_length_is_found(table):
    assert table.checks.run(toy(table, "mean of the real"), "export").outcome == table.PASS
    assert table.checks.run(toy(table, "a list"), "export").outcome == table.RAISES


def test_what_a_model_raises_is_a_finding(table):
    broken = toy(table, "nothing")
    broken.encode = lambda *_: torch.zeros(2, 3) @ torch.zeros(2, 3)
    found = table.checks.run(broken, "batch order")
    assert found.outcome == table.RAISES and found.note.startswith("RuntimeError: mat1 and mat2")
