"""Pruning reaches what it is asked for, and what it leaves gives what the gates gave; students have their sizes."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
import torch
from tiny_models import HUBERT, hubert, ours
from torch import nn
from torch.utils.data import DataLoader

from lobes.dataio import collate
from lobes.distillation import DistilAndPrune, Distillation, Gates, HardConcrete, Teacher, first_layers, prune, thin
from lobes.encoders import HuggingFaceEncoder, PrunedEncoder
from lobes.errors import ConfigError
from lobes.export import load_encoder, save_encoder
from lobes.objectives import ObjectiveOutput


def test_gates_are_what_the_distribution_says():
    gate = HardConcrete(2000, open=0.7)
    assert gate.probability().mean().item() == pytest.approx(0.7, abs=0.01)
    drawn = torch.stack([gate() for _ in range(200)])
    assert (drawn > 0).float().mean().item() == pytest.approx(0.7, abs=0.01)
    assert drawn.min() == 0 and drawn.max() == 1
    settled = gate.eval()()
    assert int((settled == 0).sum()) == pytest.approx(600, abs=15) and torch.equal(settled, gate())


@pytest.mark.parametrize("kind", ["hubert", "wav2vec2"])
@pytest.mark.parametrize("convolutions", [True, False])
def test_the_pruned_model_gives_what_the_gated_one_gave(kind, convolutions, dataset, tmp_path):
    encoder = hubert(model_type=kind, num_attention_heads=4).eval()
    gates = Gates(encoder, convolutions).eval()
    with torch.no_grad():
        for gate in gates._all():
            gate.log_alpha.copy_(torch.linspace(-6, 4, len(gate.log_alpha))[torch.randperm(len(gate.log_alpha))])
        gates.heads[1].log_alpha.fill_(-9.0)  # a block without any head
    [batch] = DataLoader(dataset(), batch_size=6, collate_fn=collate)
    gated = encoder(*batch.sig)
    pruned = prune(encoder, gates)
    assert isinstance(pruned, PrunedEncoder) and pruned.sizes["heads"][1] == 0
    small = pruned(*batch.sig)
    for a, b in zip(gated.layers, small.layers, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=0)
    count = sum(p.numel() for p in pruned.parameters())
    assert count < 0.9 * gates.total and pruned.macs(10.0) < encoder.macs(10.0)
    save_encoder(pruned, tmp_path / "pruned", pruned.hparams_text())
    loaded = load_encoder(tmp_path / "pruned")
    torch.testing.assert_close(loaded(*batch.sig).frames, small.frames, atol=0, rtol=0)
    gates.remove()
    assert not torch.equal(encoder(*batch.sig).frames, gated.frames)


def test_sparsity_counts_what_is_gone():
    encoder = hubert(num_attention_heads=4)
    gates = Gates(encoder)
    with torch.no_grad():
        for gate in gates._all():
            gate.log_alpha.copy_(torch.where(torch.arange(len(gate.log_alpha)) < 2, 20.0, -20.0))
    pruned = prune(encoder, gates)
    gone = 1 - sum(p.numel() for p in pruned.parameters()) / gates.total
    assert gates.sparsity().item() == pytest.approx(gone, abs=1e-6)


def test_all_open_changes_nothing():
    encoder = hubert()
    gates = Gates(encoder).eval()
    with torch.no_grad():
        for gate in gates._all():
            gate.log_alpha.fill_(30.0)
    assert gates.sparsity().item() == pytest.approx(0.0, abs=1e-6)
    pruned = prune(encoder, gates)
    assert sum(p.numel() for p in pruned.parameters()) == gates.total
    assert pruned.macs(7.3) == encoder.macs(7.3)


SIZES = {**HUBERT, "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4}


class WantsAll(nn.Module):
    """In the place of a distillation: all that it wants is that nothing goes."""

    def __init__(self) -> None:
        super().__init__()
        self.gates: Gates | None = None

    def forward(self, encoder, batch) -> ObjectiveOutput:
        return ObjectiveOutput(0.5 * self.gates.sparsity(), torch.ones(()), {}, {})


@pytest.mark.parametrize("target", [0.3, 0.6])
def test_training_reaches_the_target_within_a_percent(target):
    encoder, wants = HuggingFaceEncoder(SIZES), WantsAll()
    objective = DistilAndPrune(encoder, wants, sparsity=target, warmup=150)
    wants.gates = objective.gates
    optimizer = torch.optim.AdamW(objective.groups(encoder, gate_lr=0.1), lr=1e-3)
    for step in range(350):
        optimizer.zero_grad()
        output = objective(encoder, SimpleNamespace(step=step))
        output.loss.backward()
        optimizer.step()
    assert output.stats["sparsity"].item() == pytest.approx(target, abs=0.01)
    # Gates that nothing tells apart are open or shut by halves, and of heads there are four in a block: settled, what
    # is left has the size that was asked for all the same, and gives what the gated one gives.
    gates, audio = objective.gates.eval(), (torch.randn(1, 4000), torch.ones(1))
    said = gates.settle(target)
    pruned = prune(encoder.eval(), gates)
    gone = 1 - sum(p.numel() for p in pruned.parameters()) / gates.total
    assert gone == pytest.approx(said, abs=1e-6) and gone == pytest.approx(target, abs=0.01)
    torch.testing.assert_close(pruned(*audio).frames, encoder(*audio).frames, atol=1e-5, rtol=0)


def test_the_penalty_is_the_equation_and_its_multipliers_rise():
    """`loss + λ₁ (s - t) + λ₂ (s - t)²`, t on its way: a third of the way after two of six steps."""
    encoder, wants = HuggingFaceEncoder(SIZES), WantsAll()
    objective = DistilAndPrune(encoder, wants, sparsity=0.6, warmup=6)
    wants.gates = objective.gates.eval()
    objective.multipliers.data = torch.tensor([0.5, -2.0])
    for gate in objective.gates.heads:
        gate.log_alpha.data.fill_(-5.0)
    s = float(objective.gates.sparsity())
    off = s - 0.6 * 2 / 6
    objective.training = True
    output = objective(encoder, SimpleNamespace(step=1))
    assert output.loss.item() == pytest.approx(0.5 * s + 0.5 * off - 2.0 * off**2, rel=1e-5)
    output.loss.backward()
    assert objective.multipliers.grad.tolist() == pytest.approx([-off, -(off**2)], rel=1e-5), "they climb, not descend"
    objective.training = False
    assert objective(encoder, SimpleNamespace(step=1)).loss.item() == pytest.approx(0.5 * s), "no penalty in a test"


def test_a_student_is_distilled_while_it_is_pruned(dataset):
    encoder, teacher = HuggingFaceEncoder(SIZES), Teacher(HuggingFaceEncoder(SIZES), [1, 3])
    teacher.encoder.model.load_state_dict(encoder.model.state_dict())
    objective = DistilAndPrune(encoder, Distillation(encoder, teacher, layers=[1, 3]), sparsity=0.4, warmup=5)
    optimizer = torch.optim.AdamW(objective.groups(encoder, gate_lr=0.2), lr=5e-3)
    clips = dataset()
    clips.data_ids = clips.data_ids[3:4]  # the shortest
    [batch] = DataLoader(clips, batch_size=1, collate_fn=collate)
    outputs = []
    for step in range(25):
        batch.step = step
        optimizer.zero_grad()
        outputs.append(objective(encoder, batch))
        outputs[-1].loss.backward()
        optimizer.step()
    sparsity, distance = ([output.stats[name].item() for output in outputs] for name in ("sparsity", "distance"))
    assert sparsity[-1] > sparsity[0] + 0.05 and distance[-1] < distance[0]
    assert not any(p.requires_grad for p in teacher.parameters())
    objective.eval()
    objective.distillation.mean.zero_()
    assert objective(encoder, batch).items["residual"].shape == (1,)


def test_a_pruned_model_is_faster():
    big = {**HUBERT, "hidden_size": 192, "intermediate_size": 768, "num_attention_heads": 12, "conv_dim": [128] * 7,
           "num_conv_pos_embedding_groups": 16}  # fmt: skip
    encoder = HuggingFaceEncoder(big).eval()
    gates = Gates(encoder).eval()
    with torch.no_grad():
        for gate in gates._all():
            gate.log_alpha.copy_(torch.where(torch.arange(len(gate.log_alpha)) % 4 == 0, 20.0, -20.0))
    pruned = prune(encoder, gates)
    waveform, lengths = torch.randn(1, 5 * 16000), torch.ones(1)

    def seconds(model) -> float:
        best = 1e9
        with torch.inference_mode():
            for _ in range(5):
                started = time.process_time()
                model(waveform, lengths)
                best = min(best, time.process_time() - started)
        return best

    assert seconds(pruned) < 0.6 * seconds(encoder)


def test_students_of_the_papers_are_as_large_as_they_say():
    base = HuggingFaceEncoder({"model_type": "hubert"})  # HuBERT-base, random weights
    student = first_layers(base, 2)
    parameters = sum(p.numel() for p in student.parameters())
    assert parameters == pytest.approx(23.5e6, rel=0.01), parameters
    own, theirs = student.model.state_dict(), base.model.state_dict()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in own.items())
    fit = thin(base)
    parameters = sum(p.numel() for p in fit.parameters())
    assert parameters == pytest.approx(23.46e6, rel=0.001), parameters
    assert fit.frame_rate == 25.0 and fit.model.config.num_hidden_layers == 12


def test_students_of_a_teacher_that_is_a_student_itself():
    waveform, lengths = torch.randn(2, 8000), torch.tensor([1.0, 0.5])
    pruned = PrunedEncoder(HUBERT, {"heads": [2, 0, 1], "ffn": [5, 16, 9], "conv": [3, 8, 8, 8, 8, 8, 8]})
    for teacher in (pruned, thin(hubert(), dim=32, reuse=2)):
        teacher.requires_grad_(False).eval()
        student = first_layers(teacher, 2).eval()
        assert all(p.requires_grad for p in student.parameters()) and student.frozen == "nothing"
        with torch.no_grad():
            layers = [model(waveform, lengths).layers for model in (teacher, student)]
        assert len(layers[1]) == 3
        for theirs, own in zip(*layers, strict=False):
            torch.testing.assert_close(own, theirs, atol=1e-6, rtol=0)
        thinner = thin(teacher, dim=16)
        assert type(thinner) is HuggingFaceEncoder and thinner.layer_dims == [16] * 4


def test_what_cannot_be_pruned_or_thinned_is_named():
    with pytest.raises(ConfigError, match="model_type is 'wavlm'; expected one of hubert"):
        Gates(hubert(model_type="wavlm"))
    with pytest.raises(ConfigError, match="sparsity is 1.5"):
        DistilAndPrune(hubert(), Distillation(ours(), Teacher(hubert(), [1])), sparsity=1.5)
    with pytest.raises(ConfigError, match="n_layers is 9; expected 1 to 3"):
        first_layers(hubert(), 9)
    for asker, made in {"first_layers": first_layers, "thin": thin, "Gates": Gates}.items():
        with pytest.raises(ConfigError, match=f"{asker}: the teacher is Encoder; expected a model of Hugging Face"):
            made(ours())
    with pytest.raises(ConfigError, match="dim is 15"):
        thin(hubert(), dim=15)
    with pytest.raises(ConfigError, match=r"heads is \[9, 1, 1\]"):
        PrunedEncoder(HUBERT, {"heads": [9, 1, 1], "ffn": [1, 1, 1], "conv": [8] * 7})
