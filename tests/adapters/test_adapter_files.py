"""Adapters on disk, in SpeechBrain's checkpoints, and in training on several processes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from adapter_cases import FEW, METHODS, Wrapper, adapted, batch, disturb, encode, hear, own, pretrained, same
from safetensors.torch import load_file, save_file
from torch import nn
from toy_brain import in_ranks

from lobes import training
from lobes.adapters import (
    BitFit,
    LoRA,
    PrefixTuning,
    active_adapter,
    adaptations,
    load_adapter,
    merge_adapter,
    save_adapter,
    set_active,
)
from lobes.encoders import PlainBlock
from lobes.errors import CheckpointError, ConfigError
from lobes.mixers import SDPA, SummaryMixing


@pytest.mark.parametrize(("encoder", "method"), FEW)
def test_saved_and_loaded_it_does_the_same(encoder, method, tmp_path):
    module = adapted(encoder, method, trained=True)
    if method == "vera":  # its random projections are kept, whatever another machine would draw
        for name, tensor in module.named_buffers():
            if name.endswith("vera_A.default"):
                tensor += 0.1
                break
    save_adapter(module, tmp_path)
    expected = hear(module, *batch())
    other = load_adapter(pretrained(encoder), tmp_path, "again")
    assert same(hear(other, *batch()), expected)
    assert (
        adaptations(other) == {"again": METHODS[method]}
        or adaptations(other)["again"].options() == METHODS[method].options()
    )


def test_a_file_holds_the_adapter_alone(tmp_path):
    module = adapted("hubert", "lora")
    METHODS["prefix"].apply(module, "prefix")
    save_adapter(module, tmp_path / "lora", "default")
    tensors = load_file(tmp_path / "lora" / "adapter.safetensors")
    assert sum(t.numel() for t in tensors.values()) == 2 * (4 * 2 * 2 * 16 + 2 * 2 * (16 + 24))
    description = json.loads((tmp_path / "lora" / "adapter.json").read_text())
    assert description["method"] == "LoRA" and description["options"]["targets"] == ["mixer", "ffn"]
    assert description["encoder"]["class"] == "HubertModel"
    save_adapter(module, tmp_path / "prefix")
    assert json.loads((tmp_path / "prefix" / "adapter.json").read_text())["method"] == "PrefixTuning"
    assert description["encoder"] == json.loads((tmp_path / "prefix" / "adapter.json").read_text())["encoder"]


def test_from_a_wrapper_to_the_bare_model_and_beside_others(tmp_path):
    expected = {}
    for method in ("lora", "onto", "bitfit"):
        module = disturb(METHODS[method].apply(Wrapper(pretrained("hubert"))))
        save_adapter(module, tmp_path / method)
        expected[method] = hear(module, *batch())
    bare = pretrained("hubert")
    for method in ("lora", "onto", "bitfit"):
        load_adapter(bare, tmp_path / method, method)
    for method in ("lora", "onto", "bitfit"):
        set_active(bare, method)
        assert same(hear(bare, *batch()), expected[method])


def test_another_encoder_is_refused(tmp_path):
    save_adapter(adapted("summary", "houlsby"), tmp_path)
    torch.manual_seed(9)
    with pytest.raises(CheckpointError, match="made on Encoder of .* with other weights than this encoder's; load the"):
        load_adapter(own(SummaryMixing), tmp_path)
    load_adapter(own(SummaryMixing), tmp_path, same_weights=False)
    other = pretrained("sdpa")
    with pytest.raises(CheckpointError, match="with other tensors than this encoder, Encoder of"):
        load_adapter(other, tmp_path, same_weights=False)
    assert not adaptations(other)
    merged = merge_adapter(disturb(BitFit().apply(pretrained("summary"))))
    with pytest.raises(CheckpointError, match="with other weights"):
        load_adapter(merged, tmp_path)


def test_damaged_folders_are_refused_and_change_nothing(tmp_path):
    save_adapter(adapted("summary", "houlsby", trained=True), tmp_path)
    module, tensors = pretrained("summary"), load_file(tmp_path / "adapter.safetensors")
    keys, text = module.state_dict().keys(), (tmp_path / "adapter.json").read_text()

    def refused(match):
        with pytest.raises(CheckpointError, match=match):
            load_adapter(module, tmp_path)
        assert module.state_dict().keys() == keys and not adaptations(module)

    save_file({key: t for key, t in tensors.items() if "up" not in key}, tmp_path / "adapter.safetensors")
    refused("adapter.safetensors and adapter.json do not fit: .*up")
    save_file({key: t[:1].clone() for key, t in tensors.items()}, tmp_path / "adapter.safetensors")
    refused("do not fit")
    (tmp_path / "adapter.safetensors").write_bytes(b"nothing")
    refused("no adapter that can be read")
    save_file(tensors, tmp_path / "adapter.safetensors")
    for before, after in (
        ("Houlsby", "Adaptation"),
        ("Houlsby", "os.system"),
        ("bottleneck", "width"),
        ('k": 4', 'k": 0'),
    ):
        (tmp_path / "adapter.json").write_text(text.replace(before, after))
        refused("expected one of BitFit|are not this version's")
    (tmp_path / "adapter.json").write_text("[]")
    refused("holds no mapping")
    (tmp_path / "adapter.json").unlink()
    refused("no adapter that can be read")


def test_what_cannot_be_saved(tmp_path):
    module = pretrained("sdpa")
    with pytest.raises(ConfigError, match="no adapter 'None'; the encoder has none"):
        save_adapter(module, tmp_path)
    PrefixTuning().apply(module)
    with pytest.raises(ConfigError, match="no adapter 'other'; the encoder has default"):
        save_adapter(module, tmp_path, "other")
    module.blocks[0].mixer.prefix.adapters["default"].keys.data[0] = torch.nan
    with pytest.raises(CheckpointError, match="keys holds inf or nan"):
        save_adapter(module, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_of_speechbrain_brings_every_adapter_back(tmp_path):
    def build():
        module = pretrained("sdpa")
        for name, method in METHODS.items():
            if name != "around":
                method.apply(module, name.replace("-", "_"))
        return module

    module, other = disturb(build()), build()
    training.Checkpointer(tmp_path, {"encoder": module}).save_checkpoint()
    training.Checkpointer(tmp_path, {"encoder": other}).recover_if_possible()
    assert active_adapter(other) == "onto"
    for name in (*adaptations(module), None):
        set_active(module, name)
        set_active(other, name)
        assert same(hear(module, *batch()), hear(other, *batch()))


class Classifier(nn.Module):
    """An encoder and a linear layer on the mean of its layers, as a probe sees them."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder, self.head = encoder, nn.Linear(16, 2)

    def forward(self, waveform, lengths):
        heard = encode(self.encoder, waveform, lengths)
        return self.head(sum(layer.sum(1) for layer in heard.layers) / heard.valid.sum(1, keepdim=True))


def _train_all(cases: list, folder: Path) -> None:
    rank = torch.distributed.get_rank()
    for encoder, method in cases:
        torch.manual_seed(0)
        module = METHODS[method].apply(pretrained(encoder))
        model = nn.parallel.DistributedDataParallel(Classifier(module).train(), broadcast_buffers=False)
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1)
        waveform, lengths = batch()
        for _ in range(3):  # an unused parameter makes the second step fail
            loss = nn.functional.cross_entropy(model(waveform + rank, lengths), torch.tensor([0, 1, rank]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        trained = torch.cat([p.detach().flatten() for p in model.parameters() if p.requires_grad])
        (folder / f"{encoder}-{method}-{rank}").write_bytes(trained.numpy().tobytes())


@pytest.mark.slow
def test_every_method_trains_on_two_processes(tmp_path):
    cases = [*FEW, ("sdpa", "prefix"), ("sdpa", "llama-2"), ("wav2vec2", "full")]
    assert in_ranks(_train_all, cases, tmp_path) == [0, 0]
    for encoder, method in cases:
        first, second = ((tmp_path / f"{encoder}-{method}-{rank}").read_bytes() for rank in (0, 1))
        assert first and first == second


def test_two_processes_train_as_one_would(tmp_path):
    """The mean of their gradients, of the adapter's parameters alone."""
    assert in_ranks(_train_all, [("summary", "lora")], tmp_path) == [0, 0]
    torch.manual_seed(0)
    model = Classifier(METHODS["lora"].apply(pretrained("summary"))).train()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1)
    waveform, lengths = batch()
    for _ in range(3):
        losses = [
            nn.functional.cross_entropy(model(waveform + rank, lengths), torch.tensor([0, 1, rank])) for rank in (0, 1)
        ]
        optimizer.zero_grad()
        (sum(losses) / 2).backward()
        optimizer.step()
    alone = torch.cat([p.detach().flatten() for p in model.parameters() if p.requires_grad])
    theirs = torch.frombuffer(bytearray((tmp_path / "summary-lora-0").read_bytes()), dtype=torch.float32)
    torch.testing.assert_close(theirs, alone, atol=1e-5, rtol=1e-4)


def test_the_encoder_may_be_used_in_bfloat16():
    module = own(SDPA, PlainBlock).eval()
    for name in ("lora", "prefix", "llama", "prompt", "houlsby", "chapter", "onto", "bitfit"):
        disturb(METHODS[name].apply(module, name))
        with torch.autocast("cpu", torch.bfloat16):
            assert hear(module, *batch()).frames.isfinite().all()
    half = pretrained("sdpa").bfloat16()
    LoRA().apply(half)
    PrefixTuning().apply(half, "prefix")
    assert half.blocks[0].mixer.prefix.adapters["prefix"].keys.dtype == torch.bfloat16
