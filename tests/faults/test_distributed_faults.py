"""Known faults of SpeechBrain's Brain in runs of several processes: each shows on theirs and not on ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import speechbrain as sb
import torch
from speechbrain.dataio.batch import PaddedBatch
from torch import nn
from toy_brain import in_ranks, make_brain, make_dataset

from lobes import training
from lobes.errors import ConfigError

N_VALID = 7


class _Stream(torch.utils.data.IterableDataset):
    def __iter__(self) -> Any:
        return iter(torch.ones(4, 1))


def _stream_is_refused(base: type) -> bool:
    brain = base({"model": nn.Linear(1, 1)}, run_opts={"device": "cpu"})
    try:
        brain.make_dataloader(_Stream(), sb.Stage.TRAIN)
    except ConfigError:
        return True
    return False


def _batch_norm_trains(base: type) -> bool:
    class Normed(base):
        def compute_forward(self, batch, stage):
            return self.modules.model(batch)

        def compute_objectives(self, output, batch, stage):
            return output.square().mean()

    model = nn.Sequential(nn.Linear(1, 2), nn.BatchNorm1d(2))
    options = {"device": "cpu", "distributed_backend": "gloo", "noprogressbar": True}
    brain = Normed({"model": model}, lambda p: torch.optim.SGD(p, 0.1), {}, options)
    values = torch.arange(8.0)[:, None]
    try:
        brain.fit(range(1), values, train_loader_kwargs={"batch_size": 2})
    except (ValueError, RuntimeError):
        return False
    means = [None, None]
    torch.distributed.all_gather_object(means, model[1].running_mean.tolist())
    return means[0] == means[1]


def _validated(base: type) -> dict[str, Any]:
    """Which items this process validates, and the loss that it takes for the mean."""
    ids: list[str] = []
    brain, _ = make_brain(base=base)
    forward = brain.compute_forward
    brain.compute_forward = lambda batch, stage: ids.extend(batch.id) or forward(batch, stage)
    brain.compute_objectives = lambda output, batch, stage: (
        brain.weighted(*output) if base is training.Brain else output[0]
    )
    brain._wrap_distributed()
    options = {"batch_size": 2, "collate_fn": PaddedBatch}
    loss = brain.evaluate(make_dataset(N_VALID), test_loader_kwargs=options)
    return {"ids": ids, "loss": loss}


def _check(base: type, folder: Path) -> None:
    rank = torch.distributed.get_rank()
    found = {
        "validated": _validated(base),
        "stream_is_refused": _stream_is_refused(base),
        "batch_norm_trains": _batch_norm_trains(base),
    }
    (folder / f"{rank}.json").write_text(json.dumps(found))


def _run(base: type, folder: Path) -> list[dict[str, Any]]:
    assert in_ranks(_check, base, folder) == [0, 0]
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]


def test_ours_is_free_of_the_faults(tmp_path: Path) -> None:
    ranks = _run(training.Brain, tmp_path)
    ids = [item for rank in ranks for item in rank["validated"]["ids"]]
    assert sorted(ids) == sorted(make_dataset(N_VALID).data_ids)
    assert len(ranks[0]["validated"]["ids"]) != len(ranks[1]["validated"]["ids"])
    whole = _validated(training.Brain)["loss"]
    for rank in ranks:
        assert rank["validated"]["loss"] == pytest.approx(whole, rel=1e-6)
        assert rank["stream_is_refused"]
        assert rank["batch_norm_trains"]


def test_theirs_has_the_faults(tmp_path: Path) -> None:
    for rank in _run(sb.Brain, tmp_path):
        assert len(rank["validated"]["ids"]) == N_VALID  # every process does everything
        assert not rank["stream_is_refused"]
        assert not rank["batch_norm_trains"]
