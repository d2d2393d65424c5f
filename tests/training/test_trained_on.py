"""A run that holds checkpoints goes on with the data that it was begun with, wherever they lie, and with no other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import speechbrain as sb
import torch
from speechbrain.utils.epoch_loop import EpochCounter
from toy_brain import fit, in_ranks, make_brain

from lobes.dataio import audio_dataset, read_manifest, write_manifest
from lobes.errors import ConfigError
from lobes.training import Brain, Checkpointer


class Scale(Brain):
    """Learns to multiply a clip's label by nothing."""

    def compute_forward(self, batch, stage):
        """(B, 1)."""
        return self.modules.model(batch.number.float().view(-1, 1))

    def compute_objectives(self, predictions, batch, stage):
        """The mean square."""
        return self.weighted(predictions.square().mean(), len(predictions))

    def on_stage_end(self, stage, stage_loss, epoch=None):
        """Keep the last."""
        if stage == sb.Stage.TRAIN:
            self.checkpointer.save_and_keep_only(meta={"epoch": epoch})


def dataset(folder: Path, n_clips: int = 4, root: str = "/here", first: str = "1", backwards: bool = False):
    """Clips with a number; nothing of their audio is read."""
    rows = []
    for number in range(n_clips):
        where = {"id": f"clip{number}", "wav": f"$data_root/{number}.wav", "start": 0.0, "stop": 0.5, "duration": 0.5}
        label = first if number == 0 else str(number)
        rows.append({**where, "sample_rate": 8000, "channel": None, "group": f"g{number % 2}", "label": label})
    path = write_manifest(
        folder / f"{n_clips}{first}.csv", rows[:: -1 if backwards else 1], data_root=root, source="x", licence="CC0-1.0"
    )
    return audio_dataset(read_manifest(path), 8000, ("id", "number"), labels={"number": ("label", int)})


def train(folder: Path, train_set, valid_set=None, epochs: int = 1, ready: bool = False) -> Scale:
    """Go on with the run in a folder; return the Brain. With `ready`, loaders are given in place of datasets."""
    model, counter = torch.nn.Linear(1, 1), EpochCounter(epochs)
    checkpointer = Checkpointer(folder / "save", {"model": model, "counter": counter})
    run_opts = {"device": "cpu", "noprogressbar": True}
    brain = Scale({"model": model}, lambda p: torch.optim.SGD(p, 0.01), None, run_opts, checkpointer)
    if ready:
        train_set = brain.make_dataloader(train_set, sb.Stage.TRAIN, batch_size=2)
    loader = {"batch_size": 2}
    brain.fit(counter, train_set, valid_set, train_loader_kwargs=loader, valid_loader_kwargs=loader)
    return brain


@pytest.mark.parametrize("ready", [False, True])
def test_a_corpus_that_grew_is_refused(ready, tmp_path):
    train(tmp_path, dataset(tmp_path), ready=ready)
    expected = r"save: holds checkpoints of a run on other data: its train set has 4 clips \(0.000556 h\), not 5 clips"
    with pytest.raises(ConfigError, match=f"{expected}.*; give another --output_folder or --name, or delete it"):
        train(tmp_path, dataset(tmp_path, 5), epochs=2, ready=ready)
    assert train(tmp_path, dataset(tmp_path), epochs=2, ready=ready).optimizer_step == 4, "and what was begun goes on"


@pytest.mark.parametrize("split", ["train", "valid"])
def test_other_labels_are_refused_and_named(split, tmp_path):
    sets = {"train": dataset(tmp_path), "valid": dataset(tmp_path, 2)}
    train(tmp_path, *sets.values())
    n_clips = len(sets[split])
    sets[split] = dataset(tmp_path, n_clips, first="7")
    with pytest.raises(ConfigError, match=f"its {split} set has other values of label;"):
        train(tmp_path, *sets.values(), epochs=2)


def test_as_many_other_clips_are_refused(tmp_path):
    train(tmp_path, dataset(tmp_path))
    other = dataset(tmp_path, 5)
    other.manifest.rows = other.manifest.rows[1:]
    with pytest.raises(ConfigError, match=r"its train set has 4 clips \(0.000556 h\), but not these;"):
        train(tmp_path, other)


def test_the_same_clips_may_lie_elsewhere_and_in_another_order(tmp_path):
    train(tmp_path, dataset(tmp_path), dataset(tmp_path, 2))
    moved = dataset(tmp_path, root="/there", backwards=True)
    assert train(tmp_path, moved, dataset(tmp_path, 2, root="/there"), epochs=2).optimizer_step == 4


def test_each_fold_has_its_own(tmp_path):
    for _ in range(2):
        for n_clips in (4, 5):
            train(tmp_path / str(n_clips), dataset(tmp_path, n_clips))


def test_a_run_from_before_there_were_notes_goes_on_and_is_noted(tmp_path):
    train(tmp_path, dataset(tmp_path))
    note = tmp_path / "save" / "trained_on.json"
    note.unlink()
    assert train(tmp_path, dataset(tmp_path, 5), epochs=2).optimizer_step == 2 + 3
    assert json.loads(note.read_text(encoding="utf-8"))["train"]["items"] == 5
    with pytest.raises(ConfigError, match="5 clips .*, not 4 clips"):
        train(tmp_path, dataset(tmp_path))


def test_a_column_that_is_new_is_noted_and_no_difference(tmp_path):
    train(tmp_path, dataset(tmp_path))
    wider = dataset(tmp_path)
    for row in wider.manifest.rows:
        row["colour"] = "blue"
    train(tmp_path, wider)
    for row in wider.manifest.rows:
        row["colour"] = "red"
    with pytest.raises(ConfigError, match="other values of colour;"):
        train(tmp_path, wider)
    train(tmp_path, dataset(tmp_path))


def test_a_note_without_a_checkpoint_holds_nobody(tmp_path):
    """Of a run that was killed before it had saved anything."""
    train(tmp_path, dataset(tmp_path), epochs=0)
    assert (tmp_path / "save" / "trained_on.json").is_file()
    assert train(tmp_path, dataset(tmp_path, 5)).optimizer_step == 3


def test_datasets_of_other_kinds_are_not_compared(tmp_path):
    fit(*make_brain(tmp_path), valid=True)
    assert not (tmp_path / "save" / "trained_on.json").exists()
    fit(*make_brain())  # nor is anything where there is no checkpointer


def _in_both(folder: Path, n_clips: int) -> None:
    train(folder, dataset(folder / f"of_rank{torch.distributed.get_rank()}", n_clips))


def test_several_processes_leave_together(tmp_path):
    assert in_ranks(_in_both, tmp_path, 4) == [0, 0]
    assert in_ranks(_in_both, tmp_path, 4) == [0, 0]
    assert in_ranks(_in_both, tmp_path, 5) == [1, 2], "process 0 raises the error, the other ends quietly"
