"""What could not be heard changes nothing: neither weights, nor statistics, nor scores, whatever is in its batch."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
import torch
from torch import nn
from torch.utils.data import DataLoader, Subset

from lobes import training
from lobes.dataio import audio_dataset, collate, write_manifest
from lobes.probes import (
    AttentionHead,
    AttentiveHead,
    BiLSTMHead,
    FrameLinear,
    GRURater,
    LinearHead,
    PeakHead,
    XVector,
    seq2seq_loss,
)
from lobes.probes.norms import FrameNorm, PooledNorm
from lobes.probes.seq2seq import Seq2SeqOutput
from lobes.training import steps
from lobes.training.parallel import synchronise_norms

HEADS = [
    FrameLinear(8, 5), BiLSTMHead(8, 5, hidden=4), GRURater(8, 1), PeakHead(8, 5), XVector(8, 4, channels=8),
    LinearHead(8, 3), AttentiveHead(8, 3), AttentionHead(8, 5, width=16, hidden=8, heads=2, depth=1),
]  # fmt: skip


@pytest.fixture
def dataset(tmp_path):
    """Noise of 0.2 s, but for the last two clips, which are no audio."""
    noise, rows = np.random.default_rng(0), []
    for number in range(6):
        path = tmp_path / f"{number}.wav"
        soundfile.write(path, 0.1 * noise.standard_normal(3200), 16000)
        where = {"id": f"u{number}", "wav": f"$data_root/{number}.wav", "start": 0.0, "stop": 0.2}
        rows.append({**where, "duration": 0.2, "sample_rate": 16000, "channel": None, "group": "all"})
    manifest = write_manifest(tmp_path / "all.csv", rows, data_root=tmp_path, source="noise", licence="CC0-1.0")
    for number in (4, 5):
        (tmp_path / f"{number}.wav").write_bytes(b"no audio")
    return audio_dataset(manifest, 16000, ("id", "sig"))


class Loudness(training.Brain):
    """A regression that does not ask who was heard, with batch statistics, and notes whom it scored."""

    scored: list[str]

    def compute_forward(self, batch, stage):
        samples = batch.sig.data
        return self.modules.model(torch.stack((samples.std(1), samples.mean(1)), 1))

    def compute_objectives(self, found, batch, stage):
        if stage != training.brain.sb.Stage.TRAIN:
            self.scored += batch.id
        return self.weighted((found - 1).square().mean(), len(batch.id))


def brain(lr: float = 0.1) -> Loudness:
    torch.manual_seed(0)
    model = nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 1))
    made = Loudness({"model": model}, lambda params: torch.optim.SGD(params, lr), {}, {"device": "cpu"})
    made.scored = []
    return made


@pytest.mark.parametrize("batch_size", [1, 2, 3, 4])
def test_a_batch_in_which_nothing_could_be_read_is_not_scored(dataset, batch_size):
    made = brain()
    made.on_stage_start(training.brain.sb.Stage.TEST)
    made.evaluate(dataset, test_loader_kwargs={"batch_size": batch_size, "collate_fn": collate})
    assert made.scored == ["u0", "u1", "u2", "u3"]


def test_nor_is_it_trained_on(dataset):
    made = brain()
    model = made.modules.model

    def part(*numbers):
        return DataLoader(Subset(dataset, numbers), batch_size=2, collate_fn=collate)

    made.fit(range(1), part(0, 1, 2, 3))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert before["0.running_var"].max() < 1
    made.fit(range(1), part(4, 5))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("head", [LinearHead(8, 3), AttentiveHead(8, 3), XVector(8, 4, channels=8)])
def test_an_utterance_without_a_frame_is_in_no_statistic(head):
    x, valid = torch.randn(4, 9, 8), torch.ones(4, 9, dtype=torch.bool)
    valid[3] = False
    state = {name: value.clone() for name, value in head.state_dict().items()}
    head.train()
    beside = head(x, valid)[:3]
    found = {name: value.clone() for name, value in head.state_dict().items()}
    head.load_state_dict(state)
    torch.testing.assert_close(beside, head(x[:3], valid[:3]), atol=1e-5, rtol=1e-5)
    for name, value in head.state_dict().items():
        torch.testing.assert_close(found[name], value, atol=1e-6, rtol=1e-5)


def test_texts_of_utterances_without_a_frame_are_not_learnt():
    torch.manual_seed(0)
    logits, valid = torch.randn(3, 5, 7), torch.ones(3, 6, dtype=torch.bool)
    valid[1] = False
    ctc = torch.randn(3, 6, 5)
    tokens = (torch.randint(1, 5, (3, 4)), torch.tensor([1.0, 1.0, 0.5]))

    class Batch:
        source_tokens = tokens

        def __init__(self, rows):
            self.tokens = self.source_tokens = tuple(part[rows] for part in tokens)

    def loss(rows):
        return seq2seq_loss(Seq2SeqOutput(ctc[rows], valid[rows], logits[rows], ctc[rows]), Batch(rows), 5, 0.1, 0.3)

    for found, expected in zip(loss([0, 1, 2]), loss([0, 2]), strict=True):
        torch.testing.assert_close(found, expected)
    assert loss([1])[1] == 0


def test_on_gpus_norms_of_our_own_stay_and_others_are_synchronised():
    module = nn.Sequential(nn.BatchNorm1d(2), nn.ModuleDict({"a": nn.BatchNorm2d(3), "b": FrameNorm(4)}), PooledNorm(5))
    found = synchronise_norms(module)
    kinds = [type(part) for part in (found[0], found[1]["a"], found[1]["b"], found[2])]
    assert kinds == [nn.SyncBatchNorm, nn.SyncBatchNorm, FrameNorm, PooledNorm]
    assert isinstance(synchronise_norms(nn.BatchNorm1d(2)), nn.SyncBatchNorm)


@pytest.mark.parametrize("head", HEADS, ids=lambda head: type(head).__name__)
def test_every_head_runs_where_processes_have_gpus(head, monkeypatch):
    """As far as a machine without one can tell: after the Brain has put in what DistributedDataParallel needs."""
    monkeypatch.setattr(steps, "DistributedDataParallel", lambda module, **options: module)
    monkeypatch.setattr(steps, "broadcast_buffers", lambda module: None)
    made = training.Brain({"model": head}, lambda params: torch.optim.SGD(params, 0.1), {}, {"device": "cpu"})
    made.distributed_launch, made.device_type = True, "cuda"
    made._wrap_distributed()
    x, valid = torch.randn(2, 9, 8), torch.ones(2, 9, dtype=torch.bool)
    assert torch.isfinite(made.modules.eval().model(x, valid)).all()
