"""Every loss against its formula in a slow loop; padding, rates and layers of any kind."""

from __future__ import annotations

import itertools
import math
from functools import partial

import pytest
import torch
from tiny_models import ENCODERS, hubert, ours
from torch.nn import functional as F
from torch.utils.data import DataLoader

from lobes.dataio import collate
from lobes.distillation import (
    Distillation,
    LayerHeads,
    MaskedTwoWay,
    MaskedUnits,
    STaR,
    Teacher,
    explained,
    gram_distance,
    l1_cosine,
    mse,
    temporal_gram,
)
from lobes.distillation.masking import masked
from lobes.errors import ConfigError

#: Students and teachers: a HuBERT teaches all, and each kind of rate meets each other.
PAIRS = [
    *((name, "HuBERT, 50 Hz") for name in ENCODERS),
    ("ours, 25 Hz", "ours, 25 Hz"),
    ("ours, 25 Hz", "ours, 33 Hz"),
    ("ours, 33 Hz", "ours, 50 Hz"),
    ("HuBERT, 50 Hz", "ours, 25 Hz"),
]


def some(valid_lengths=(5, 3), frames=6, dim=4):
    """Predictions and targets, with garbage where they are padded."""
    predicted, target = torch.randn(2, frames, dim), torch.randn(2, frames, dim)
    valid = torch.arange(frames) < torch.tensor(valid_lengths)[:, None]
    for tensor in (predicted, target):
        tensor[~valid] = math.nan
    return predicted, target, valid


def test_l1_cosine_is_the_equation():
    p, t, valid = some()
    for log_sigmoid in (True, False):
        total_l1 = total_cosine = 0.0
        for row, frame in valid.nonzero().tolist():
            a, b = p[row, frame], t[row, frame]
            total_l1 += sum(abs(x - y) for x, y in zip(a.tolist(), b.tolist(), strict=True)) / 4
            cosine = float(a @ b / (a.norm() * b.norm()))
            total_cosine += math.log(1 / (1 + math.exp(-cosine))) if log_sigmoid else cosine
        expected = total_l1 / 8 - 0.7 * total_cosine / 8
        assert l1_cosine(p, t, valid, 0.7, log_sigmoid).item() == pytest.approx(expected, rel=1e-5)


def test_mse_is_the_equation():
    p, t, valid = some()
    expected = sum(float((p[r, f] - t[r, f]).square().mean()) for r, f in valid.nonzero().tolist()) / 8
    assert mse(p, t, valid).item() == pytest.approx(expected, rel=1e-5)


def test_gram_distance_is_the_equation():
    x, y, valid = some()
    x, y = (part.masked_fill(~valid[..., None], math.nan) for part in (x, y))
    total = count = 0.0
    for row in range(2):
        real = valid[row].nonzero().squeeze(1).tolist()
        for i, j in itertools.product(real, real):
            total += float((x[row, i] @ x[row, j] - y[row, i] @ y[row, j]) / 4) ** 2
            count += 1
    found = gram_distance(temporal_gram(x, x, valid), temporal_gram(y, y, valid), valid)
    assert found.item() == pytest.approx(total / count, rel=1e-5)


def test_fidelity_is_r_squared():
    p, t, valid = some()
    mean = torch.randn(4)
    residual, total = explained([p], [t], valid, [mean])
    assert residual[1].item() == pytest.approx(float((p - t)[1, :3].square().sum()), rel=1e-5)
    assert total[0].item() == pytest.approx(float((t - mean)[0, :5].square().sum()), rel=1e-5)


@pytest.mark.parametrize(("student_rate", "teacher_rate"), [(25, 50), (50, 25), (50, 50), (25, 100 / 3), (50, 100 / 3)])
def test_heads_give_the_teachers_rate_and_read_no_padding(student_rate, teacher_rate):
    heads = LayerHeads(4, 3, 1, student_rate, teacher_rate)
    alone = torch.randn(1, 9, 4)
    [one], valid_one = heads([alone], torch.ones(1, 9, dtype=torch.bool))
    padded = torch.cat([F.pad(alone, (0, 0, 0, 5), value=math.nan), torch.randn(1, 14, 4)])
    lengths = torch.arange(14) < torch.tensor([[9], [14]])
    [both], valid = heads([padded], lengths)
    n_frames = int(valid_one.sum())
    assert n_frames == pytest.approx(9 * teacher_rate / student_rate, abs=1)
    assert int(valid[0].sum()) == n_frames and both.isfinite().all()
    torch.testing.assert_close(both[0, :n_frames], one[0, :n_frames], atol=1e-6, rtol=0)


def test_interpolation_is_linear_in_time():
    heads = LayerHeads(1, 1, 1, 50.0, 40.0)
    torch.nn.init.ones_(heads.heads[0].weight), torch.nn.init.zeros_(heads.heads[0].bias)
    time = (torch.arange(50) + 0.5) / 50
    [found], valid = heads([time[None, :, None]], torch.ones(1, 50, dtype=torch.bool))
    torch.testing.assert_close(found[0, 1:-1, 0], ((torch.arange(40) + 0.5) / 40)[1:-1])
    assert valid.sum() == 40


def batch_of(dataset):
    [batch] = DataLoader(dataset(), batch_size=6, collate_fn=collate)
    return batch


@pytest.mark.parametrize(("student_name", "teacher_name"), PAIRS, ids=lambda name: name.replace(" ", ""))
def test_any_student_learns_from_any_teacher(student_name, teacher_name, dataset):
    student, teacher = ENCODERS[student_name](), Teacher(ENCODERS[teacher_name](), [1, -1])
    objective = Distillation(student, teacher)
    objective.prepare(dataset())
    batch = batch_of(dataset)
    output = objective(student, batch)
    assert (
        output.loss.isfinite() and output.weight > 0 and set(output.stats) == {"layer_1", f"layer_{teacher.layers[1]}"}
    )
    trained = [p for p in (*student.parameters(), *objective.parameters()) if p.requires_grad]
    assert not any(p.requires_grad for p in teacher.parameters())
    optimizer = torch.optim.Adam(trained, 0.01)
    first = output.loss.item()
    for _ in range(8):
        optimizer.zero_grad()
        objective(student, batch).loss.backward()
        optimizer.step()
    objective.eval(), student.eval()
    after = objective(student, batch)
    assert after.loss.item() < first
    assert after.items["residual"].shape == after.items["total"].shape == (6,) and (after.items["total"] > 0).all()


@pytest.mark.parametrize("student_name", list(ENCODERS), ids=lambda name: name.replace(" ", ""))
def test_the_loss_of_an_utterance_does_not_depend_on_its_batch(student_name, dataset):
    student, teacher = ENCODERS[student_name]().eval(), Teacher(hubert(), [1, 3])
    objective = Distillation(student, teacher).eval()
    objective.mean.zero_()
    together = objective(student, batch_of(dataset))
    rows = []
    for item in DataLoader(dataset(), batch_size=1, collate_fn=collate):
        rows.append(objective(student, item))
    weights = torch.stack([row.weight for row in rows])
    losses = torch.stack([row.loss for row in rows])
    assert together.weight == weights.sum()
    assert together.loss.item() == pytest.approx(float((weights * losses).detach().sum() / weights.sum()), abs=1e-5)
    torch.testing.assert_close(together.items["residual"], torch.cat([row.items["residual"] for row in rows]), rtol=1e-4, atol=1e-4)  # fmt: skip  # noqa: E501


@pytest.mark.parametrize("student_name", ["ours, 25 Hz", "ours, 50 Hz", "HuBERT, 50 Hz"])
def test_gram_matrices_teach_without_heads(student_name, dataset):
    student, teacher = ENCODERS[student_name](), Teacher(hubert(hidden_size=24), [1, 3])
    objective = STaR(student, teacher, layers=[1, 2])
    batch = batch_of(dataset)
    optimizer = torch.optim.Adam(student.parameters(), 0.005)
    first = objective(student, batch).stats["within_layers"].item()
    for _ in range(15):
        optimizer.zero_grad()
        objective(student, batch).loss.backward()
        optimizer.step()
    assert objective(student, batch).stats["within_layers"].item() < 0.8 * first
    # Heads only look on: of their error nothing reaches the student.
    student.zero_grad()
    predicted, _ = objective.predict(student(*batch.sig))
    predicted[0].sum().backward()
    assert all(p.grad is None for p in student.parameters())


def test_star_is_its_sums_over_layers_and_pairs_of_frames(dataset):
    """Three targets of one rate: within each, and from each to the next."""
    student, teacher = ours(dim=24).eval(), Teacher(ours(), [0, 1, 2])
    objective = STaR(student, teacher, layers=[0, 1, 2], between=0.3, regression=0.0)
    batch = batch_of(dataset)
    output, targets = student(*batch.sig), teacher(*batch.sig)

    def distance(pairs) -> float:
        layers = 0.0
        for (a, b), (c, d) in pairs:
            total = count = 0.0
            for row in range(len(output.valid)):
                real = range(int(targets.valid[row].sum()))
                for i, j in itertools.product(real, real):
                    ours_, theirs = float(a[row, i] @ b[row, j]) / 24, float(c[row, i] @ d[row, j]) / 16
                    total, count = total + (ours_ - theirs) ** 2, count + 1
            layers += total / count
        return layers / len(pairs)

    f, g = [layer.detach() for layer in output.layers], targets.layers
    within = distance([((x, x), (y, y)) for x, y in zip(f, g, strict=True)])
    between = distance([((f[i], f[i + 1]), (g[i], g[i + 1])) for i in range(2)])
    assert objective(student, batch).loss.item() == pytest.approx(within + 0.3 * between, rel=1e-4)


def test_fidelity_is_about_the_mean_of_what_is_tested(dataset):
    """Whatever was trained on: who says the mean of the tested clips everywhere explains nothing."""
    clips, other = dataset(), dataset()
    other.data_ids, other.durations = other.data_ids[:1], other.durations[:1]
    student, teacher = ours().eval(), Teacher(hubert(), [1, 3])
    objective = Distillation(student, teacher).eval()
    objective.prepare(other)
    of_one = objective.mean.clone()
    objective.measure_against(clips)
    frames = [teacher(*item.sig) for item in DataLoader(clips, batch_size=1, collate_fn=collate)]
    for place in range(2):
        expected = torch.cat([found.layers[place][found.valid] for found in frames]).mean(0)
        torch.testing.assert_close(objective.mean[place], expected, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(objective.mean, of_one)
    assert "mean" not in objective.state_dict(), "a checkpoint does not bring another back"


def test_the_same_encoder_is_its_own_best_student(dataset):
    encoder = ours().eval()
    teacher = Teacher(ours(), [1, 2])
    teacher.encoder.load_state_dict(encoder.state_dict())
    objective = Distillation(encoder, teacher, layers=[1, 2], distance=mse)
    for head in objective.heads.heads:
        torch.nn.init.eye_(head.weight), torch.nn.init.zeros_(head.bias)
    objective.mean.zero_()
    output = objective.eval()(encoder, batch_of(dataset))
    assert output.loss.item() < 1e-10 and float(output.items["residual"].sum() / output.items["total"].sum()) < 1e-8


def test_weights_and_distances_make_the_named_methods(dataset):
    student, teacher = ours(), Teacher(hubert(), [1, 2, 3])
    batch = batch_of(dataset)
    hints = Distillation(student, teacher, layers=[0, 1, 2], distance=mse, weights=[0.1, 0.1, 1.0])
    output = hints(student, batch)
    parts = [output.stats[f"layer_{layer}"] for layer in (1, 2, 3)]
    assert output.loss.item() == pytest.approx(float(0.1 * parts[0] + 0.1 * parts[1] + parts[2]), rel=1e-5)
    Distillation(student, teacher, distance=partial(l1_cosine, log_sigmoid=False))(student, batch).loss.backward()


@pytest.mark.parametrize(
    "names", [("ours, 25 Hz", "HuBERT, 50 Hz"), ("ours, 50 Hz", "ours, 25 Hz"), ("HuBERT, 50 Hz",) * 2]
)
def test_masked_frames_learn_from_the_whole_and_the_others_from_what_is_heard(names, dataset):
    student, encoder = (ENCODERS[name]() for name in names)
    teacher = Teacher(encoder, [1, 2])
    objective = MaskedTwoWay(student, teacher, distance=mse, mask_probability=0.2, mask_span=3)
    batch = batch_of(dataset)
    batch.step = 7
    output = objective(student, batch)
    # The same by hand, frame by frame.
    ours, theirs = objective.masks.draw(batch, student)
    whole = teacher(*batch.sig)
    with masked(encoder, theirs):
        part = teacher(*batch.sig)
    with masked(student, ours):
        predicted, valid = objective.predict(student(*batch.sig))
    total = count = hidden = 0.0
    for row in range(6):
        for frame in range(min(valid.shape[1], whole.valid.shape[1])):
            if valid[row, frame] and whole.valid[row, frame]:
                is_masked = bool(theirs[row, frame])
                for p, t, h in zip(predicted, whole.layers, part.layers, strict=True):
                    total += float((p[row, frame] - (t if is_masked else h)[row, frame]).square().mean())
                count, hidden = count + 1, hidden + is_masked
    assert output.loss.item() == pytest.approx(total / count, rel=1e-4) and output.weight == count
    assert output.stats["masked_share"].item() == pytest.approx(hidden / count, abs=1e-6) and 0.2 < hidden / count < 0.8
    assert not torch.allclose(whole.layers[1], part.layers[1])
    batch.step = 8
    assert objective(student, batch).loss.item() != output.loss.item(), "other masks in each step"
    output.loss.backward()
    objective.eval(), student.eval()
    objective.mean.zero_()
    assert objective(student, batch).loss.item() == pytest.approx(
        Distillation.forward(objective, student, batch).loss.item()
    )


@pytest.mark.parametrize("names", [("ours, 25 Hz", "HuBERT, 50 Hz"), ("HuBERT, 50 Hz",) * 2])
def test_units_are_predicted_where_they_are_masked(names, dataset):
    student, encoder = (ENCODERS[name]() for name in names)
    teacher = Teacher(encoder, [1, 2])
    objective = MaskedUnits(student, teacher, n_units=5, mask_probability=0.2, mask_span=3)
    objective.prepare(dataset())
    batch = batch_of(dataset)
    batch.step = 3
    output = objective(student, batch)
    # The same by hand, frame by frame.
    ours, theirs = objective.masks.draw(batch, student)
    with masked(student, ours):
        heard = student(*batch.sig)
    logits, valid = objective.unit_head([heard.layers[-1]], heard.valid)
    frames, real = teacher(*batch.sig)
    total = count = 0.0
    for row in range(6):
        for frame in range(min(valid.shape[1], real.shape[1])):
            if valid[row, frame] and real[row, frame] and theirs[row, frame]:
                x = (frames[-1][row, frame] - objective.centre) / objective.deviation
                unit = int((objective.centres - x).square().sum(1).argmin())
                total -= float(logits[0][row, frame].log_softmax(-1)[unit])
                count += 1
    assert output.stats["unit_loss"].item() == pytest.approx(total / count, rel=1e-5) and output.weight == count
    # Of the heads that read the teacher's layers nothing reaches the student, but its own task does.
    predicted, _ = objective.predict(student(*batch.sig))
    predicted[0].sum().backward()
    assert all(p.grad is None for p in student.parameters())
    optimizer = torch.optim.Adam([*student.parameters(), *objective.unit_head.parameters()], 0.01)
    for _ in range(25):
        optimizer.zero_grad()
        objective(student, batch).loss.backward()
        optimizer.step()
    assert objective(student, batch).stats["unit_loss"] < 0.9 * output.stats["unit_loss"]
    objective.eval(), student.eval()
    assert objective(student, batch).items["residual"].shape == (6,)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MaskedUnits(ours(), Teacher(hubert(), [1]), unit_layer=1), "unit_layer 1; there are 1 targets"),
        (lambda: Teacher(hubert(), [9]), r"layers \[9\]; it has 4"),
        (lambda: Teacher(hubert(), []), r"layers \[\]"),
        (lambda: Distillation(ours(), Teacher(hubert(), [1, 2]), layers=[1]), "1 layers for 2 targets"),
        (lambda: Distillation(ours(), Teacher(hubert(), [1]), layers=[7]), "layer 7; the student has 3"),
        (lambda: MaskedTwoWay(ours(factor=3), Teacher(hubert(), [1])), "33.3333 and 50 Hz"),
        (lambda: Distillation(ours(), Teacher(ours_at_8k(), [1])), "hears 16000 Hz, the teacher 8000 Hz"),
    ],
)
def test_what_does_not_fit_is_named(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def ours_at_8k():
    from lobes.encoders import Encoder, LogMel, StackingStem
    from lobes.mixers import SummaryMixing

    return Encoder(LogMel(sample_rate=8000, n_mels=20), StackingStem(20, 16), 16, 2, SummaryMixing)
