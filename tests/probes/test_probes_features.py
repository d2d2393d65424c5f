"""Features are computed once, in evaluation mode, without padding, and within the memory allowed."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from lobes.errors import DataError
from lobes.probes import LinearHead, Probe, collate_features, extract_features


class Encoder(nn.Module):
    """Two layers of dimension 3 at one frame per 4 samples; dropout and NaN padding show what must not be read."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.5)
        self.frozen = nn.Dropout(0.5).eval()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, waveform, lengths):
        frames = waveform.unfold(1, 4, 4)[..., :3] * self.scale
        counts = (lengths * waveform.shape[1] / 4).round().long()
        valid = torch.arange(frames.shape[1]) < counts.unsqueeze(1)
        frames = self.dropout(frames).masked_fill(~valid.unsqueeze(-1), float("nan"))
        return SimpleNamespace(layers=[frames, 2 * frames], valid=valid, frames=frames)


def make_loader(n_batches: int = 3, scale: float = 1.0) -> list[SimpleNamespace]:
    generator = torch.Generator().manual_seed(0)
    return [
        SimpleNamespace(
            id=[f"u{b}a", f"u{b}b"],
            sig=(scale * torch.randn(2, 16, generator=generator), torch.tensor([1.0, 0.5])),
        )
        for b in range(n_batches)
    ]


def test_features_are_those_of_evaluation_mode_without_padding() -> None:
    encoder = Encoder().train()
    encoder.frozen.eval()
    loader = make_loader()
    features = extract_features(encoder, loader, progress=False)
    assert sorted(features) == ["u0a", "u0b", "u1a", "u1b", "u2a", "u2b"]
    assert [tuple(layer.shape) for layer in features["u1b"]] == [(2, 3), (2, 3)]
    expected = loader[1].sig[0][1].unfold(0, 4, 4)[:2, :3]
    torch.testing.assert_close(features["u1b"][0], expected)
    assert encoder.training and encoder.dropout.training and not encoder.frozen.training


def test_features_hold_no_more_than_their_own_memory_and_can_train_a_head() -> None:
    features = extract_features(Encoder(), make_loader(), progress=False)
    layer = features["u0b"][0]
    assert layer.untyped_storage().nbytes() == layer.numel() * 4
    probe = Probe([3, 3], LinearHead(3, 2))
    probe(*collate_features(features, ["u0a", "u0b"])).sum().backward()
    probe([layer.unsqueeze(0)] * 2, torch.ones(1, 2, dtype=torch.bool)).sum().backward()


def test_chosen_layers_in_half_precision() -> None:
    full = extract_features(Encoder(), make_loader(), progress=False)
    half = extract_features(Encoder(), make_loader(), layers=[-1], half=True, progress=False)
    assert len(half["u0a"]) == 1 and half["u0a"][0].dtype == torch.float16
    torch.testing.assert_close(half["u0a"][0].float(), full["u0a"][1], atol=2e-3, rtol=2e-3)
    assert collate_features(half, ["u0a"])[0][0].dtype == torch.float32
    with pytest.raises(DataError, match="float16"):
        extract_features(Encoder(), make_loader(scale=1e5), half=True, progress=False)


def test_what_does_not_fit_is_foreseen_in_one_line() -> None:
    loader, seen = make_loader(100), []

    class Counting(list):
        def __iter__(self):
            for batch in super().__iter__():
                seen.append(batch)
                yield batch

    needed_gib = 100 * 2 * (4 + 2) * 3 * 4 / 2**30
    with pytest.raises(DataError, match=r"GiB foreseen.*half=True") as caught:
        extract_features(Encoder(), Counting(loader), features_gib=needed_gib / 10, progress=False)
    assert len(seen) < 10 and "\n" not in str(caught.value)
    assert len(extract_features(Encoder(), loader, features_gib=needed_gib, progress=False)) == 200


def test_what_will_not_fit_is_refused_early_and_what_fits_is_kept() -> None:
    """Pooled features, all alike, in batches of ever more utterances as they come of ever shorter ones."""

    class Pooled(nn.Module):
        def forward(self, waveform, lengths):
            x = waveform[:, :1, None].expand(-1, 1, 64)
            return SimpleNamespace(layers=[x], valid=torch.ones(len(x), 1, dtype=torch.bool), frames=x)

    seen = []

    class Loader(list):
        dataset = range(sum(range(1, 41)))

        def __iter__(self):
            for number, batch in enumerate(super().__iter__()):
                seen.append(number)
                yield batch

    names = iter(range(10_000))
    loader = Loader(
        SimpleNamespace(id=[str(next(names)) for _ in range(count)], sig=(torch.randn(count, 8), torch.ones(count)))
        for count in range(1, 41)
    )
    needed_gib = len(loader.dataset) * 64 * 4 / 2**30
    with pytest.raises(DataError, match="foreseen .6 utterances done.*features_gib"):
        extract_features(Pooled(), loader, features_gib=needed_gib * 0.99, progress=False)
    assert len(seen) == 3
    assert len(extract_features(Pooled(), loader, features_gib=needed_gib * 1.001, progress=False)) == 820


def test_the_limit_holds_without_a_length_too() -> None:
    with pytest.raises(DataError, match="features_gib=1e-06; give more"):
        extract_features(Encoder(), iter(make_loader(100)), features_gib=1e-6, progress=False)


def test_repeated_and_missing_ids_are_named() -> None:
    encoder = Encoder().train()
    with pytest.raises(DataError, match="'u0a' occurs twice"):
        extract_features(encoder, make_loader(1) * 2, progress=False)
    assert encoder.training
    features = extract_features(encoder, make_loader(1), progress=False)
    with pytest.raises(DataError, match="'x' has no features"):
        collate_features(features, ["u0a", "x"])
