"""Every method on every kind of encoder: padding, identity, shapes, switching, merging, training."""

from __future__ import annotations

import copy

import pytest
import torch
from adapter_cases import (
    ATTENTION_ONLY,
    CASES,
    FEW,
    LATER,
    METHODS,
    adapted,
    batch,
    disturb,
    encode,
    hear,
    pretrained,
    same,
)

from lobes.adapters import (
    Houlsby,
    LLaMAAdapter,
    LoRA,
    PrefixTuning,
    active_adapter,
    adaptations,
    adapter_macs,
    merge_adapter,
    remove_adapter,
    set_active,
    trainable_share,
)
from lobes.adapters.sites import adapter_tensors, pretrained_model, pretrained_tensors
from lobes.errors import ConfigError

each = pytest.mark.parametrize(
    ("encoder", "method"), [pytest.param(*case, marks=pytest.mark.slow if case in LATER else ()) for case in CASES]
)
few = pytest.mark.parametrize(("encoder", "method"), FEW)
#: Learned frames among many, and far from the output, learn slowly.
RATES = {"prompt": 1.0, "prefix": 1.0, "full": 0.002}


@each
def test_it_begins_as_the_pretrained_encoder(encoder, method):
    origin = pretrained(encoder).requires_grad_(method == "full")
    before, after = hear(origin, *batch()), hear(adapted(encoder, method), *batch())
    assert same(before, after) == METHODS[method].identity
    for ours, theirs in zip([after.frames, *after.layers], [before.frames, *before.layers], strict=True):
        assert ours.shape == theirs.shape
    assert torch.equal(before.valid, after.valid)
    if encoder in ("sdpa", "summary"):
        assert adapted(encoder, method).macs(2.0) == origin.macs(2.0)


@pytest.mark.parametrize("encoder", ["sdpa", "wrapper"])
@pytest.mark.parametrize("method", METHODS)
def test_what_every_method_adds_can_be_counted(encoder, method):
    module = adapted(encoder, method)
    trains = {name: p.requires_grad for name, p in module.named_parameters()}
    added = adapter_macs(module, min(0.5, METHODS[method].max_seconds))
    assert (added == 0) == (METHODS[method].mergeable or method == "onto"), added
    assert {name: p.requires_grad for name, p in module.named_parameters()} == trains


@each
def test_an_utterance_does_not_hear_its_padding(encoder, method):
    module = adapted(encoder, method, trained=True)
    waveform, lengths = batch((2301, 6400, 401), fill=torch.nan)
    together = hear(module, waveform, lengths)
    for row, samples in enumerate((2301, 6400, 401)):
        alone = hear(module, waveform[row : row + 1, :samples], torch.ones(1))
        count = alone.frames.shape[1]
        assert alone.valid.all() and together.valid[row].sum() == count
        for ours, theirs in zip([together.frames, *together.layers], [alone.frames, *alone.layers], strict=True):
            torch.testing.assert_close(ours[row, :count], theirs[0], atol=2e-5, rtol=1e-4)
            assert not ours[row, count:].any()


@each
def test_switching_to_none_and_back(encoder, method):
    before, module = hear(pretrained(encoder), *batch()), adapted(encoder, method, trained=True)
    changed = hear(module, *batch())
    assert method == "probe" or not same(changed, before)
    set_active(module, None)
    assert same(hear(module, *batch()), before) and trainable_share(module) == 0
    set_active(module, "default")
    assert same(hear(module, *batch()), changed) and active_adapter(module) == "default"


@few
def test_merged_equals_unmerged(encoder, method):
    module = adapted(encoder, method, trained=True)
    unmerged = hear(module, *batch())
    if not METHODS[method].mergeable:
        with pytest.raises(ConfigError, match="BitFit, ConvLoRA, DoRA.*VeRA can$"):
            merge_adapter(module)
        assert same(hear(module, *batch()), unmerged)
        return
    merged = hear(merge_adapter(module), *batch())
    for ours, theirs in zip([merged.frames, *merged.layers], [unmerged.frames, *unmerged.layers], strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    assert module.state_dict().keys() == pretrained(encoder).state_dict().keys()
    assert not adaptations(module) and trainable_share(module) == 0


@few
def test_removing_leaves_the_pretrained_encoder(encoder, method):
    origin = pretrained(encoder)
    module = remove_adapter(adapted(encoder, method, trained=True), "default")
    assert same(hear(module, *batch()), hear(origin, *batch()))
    assert module.state_dict().keys() == origin.state_dict().keys()
    METHODS[method].apply(module)
    begun = hear(origin.requires_grad_(method == "full"), *batch())
    assert same(hear(module, *batch()), begun) == METHODS[method].identity


@each
def test_only_its_own_parameters_train_and_the_loss_falls(encoder, method):
    module = adapted(encoder, method).train()
    own = adapter_tensors(module, "default")
    trained = {id(p) for p in module.parameters() if p.requires_grad}
    assert trained == {id(t) for t in own.values() if isinstance(t, torch.nn.Parameter)}
    base = {key: tensor.clone() for key, tensor in pretrained_tensors(pretrained_model(module)).items()}
    begun = {key: tensor.clone() for key, tensor in own.items()}
    head = torch.nn.Linear(16, 3).requires_grad_(method == "probe")
    optimizer = torch.optim.Adam(
        [p for p in [*module.parameters(), *head.parameters()] if p.requires_grad], RATES.get(method, 0.01)
    )
    losses = []
    for _ in range(6):
        heard = encode(module, *batch())
        pooled = sum(layer.sum(1) for layer in heard.layers) / heard.valid.sum(1, keepdim=True)
        loss = torch.nn.functional.cross_entropy(head(pooled), torch.tensor([0, 1, 2]))
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in module.parameters() if p.requires_grad)
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 1e-3, losses
    for key, tensor in pretrained_tensors(pretrained_model(module)).items():
        assert torch.equal(tensor, base[key]), key
    still = [key for key, t in own.items() if isinstance(t, torch.nn.Parameter) and torch.equal(t, begun[key])]
    # A bias of keys adds the same to all scores of a query, and cancels.
    assert all("k_proj" in key for key in still), still


@few
def test_a_state_dict_goes_into_an_encoder_adapted_alike(encoder, method):
    module, other = adapted(encoder, method, trained=True), adapted(encoder, method)
    set_active(other, None)
    other.load_state_dict(module.state_dict())
    set_active(other, "default")
    assert same(hear(other, *batch()), hear(module, *batch()))


@few
def test_a_copy_is_a_copy(encoder, method):
    module = adapted(encoder, method, trained=True)
    other, before = copy.deepcopy(module), hear(module, *batch())
    assert same(hear(other, *batch()), before)
    disturb(other)
    assert method == "probe" or not same(hear(other, *batch()), before)
    set_active(other, None)
    assert same(hear(module, *batch()), before)


@pytest.mark.parametrize("encoder", ["sdpa", "wavlm"])
def test_all_methods_live_side_by_side_in_one_encoder(encoder):
    module, expected = pretrained(encoder), {}
    for method, adaptation in METHODS.items():
        adaptation.apply(module, name=method.replace("-", "_"))
    disturb(module)
    for method, adaptation in METHODS.items():
        name = method.replace("-", "_")
        alone = adaptation.apply(pretrained(encoder), name)
        for key, tensor in adapter_tensors(alone, name).items():
            tensor.data.copy_(adapter_tensors(module, name)[key])
        expected[name] = hear(alone, *batch())
    for name in (*expected, "lora", "prefix", "lora"):
        set_active(module, name)
        assert same(hear(module, *batch()), expected[name]), name
        trained = {id(p) for p in module.parameters() if p.requires_grad}
        assert trained == {id(t) for t in adapter_tensors(module, name).values() if isinstance(t, torch.nn.Parameter)}
    set_active(module, None)
    assert same(hear(module, *batch()), hear(pretrained(encoder), *batch()))
    with pytest.raises(ConfigError, match="remove_adapter all but 'lora' first"):
        merge_adapter(module, "lora")
    for name in [name for name in expected if name != "lora"]:
        remove_adapter(module, name)
    merged = hear(merge_adapter(module), *batch())
    torch.testing.assert_close(merged.frames, expected["lora"].frames, atol=1e-5, rtol=1e-5)
    assert module.state_dict().keys() == pretrained(encoder).state_dict().keys()


def test_two_adapters_of_one_method(encoder="sdpa"):
    for method in ("vera", "dora", "bitfit", "prefix", "houlsby"):
        module = adapted(encoder, method, trained=True)
        first = hear(module, *batch())
        METHODS[method].apply(module, "second")
        assert same(hear(module, *batch()), hear(pretrained(encoder), *batch())) == METHODS[method].identity
        set_active(module, "default")
        assert same(hear(module, *batch()), first)


@pytest.mark.parametrize("method", ATTENTION_ONLY)
def test_what_needs_attention_says_who_has_it(method):
    with pytest.raises(
        ConfigError, match="Encoder of SummaryMixing has no softmax attention.*SDPA or LocalSDPA.*Hubert"
    ):
        METHODS[method].apply(pretrained("summary"))


@pytest.mark.parametrize("name", ["", "a.b", "keys", "1st", "a b"])
def test_names_that_are_none_are_refused(name):
    with pytest.raises(ConfigError, match="adapter name"):
        METHODS["bitfit"].apply(pretrained("sdpa"), name)


def test_wrong_options_and_targets_are_refused_and_change_nothing():
    module = pretrained("summary").requires_grad_(True)
    keys = module.state_dict().keys()
    with pytest.raises(ConfigError, match="'query'; expected targets among frontend .1., mixer .8., ffn"):
        LoRA(targets=["query"]).apply(module)
    with pytest.raises(ConfigError, match="target 'attention' is no role; expected some of frontend, mixer"):
        LoRA(targets=["attention"]).apply(module)
    with pytest.raises(ConfigError, match="rank is 0 and dropout 0.0; expected 1 or more"):
        LoRA(rank=0)
    with pytest.raises(ConfigError, match="target 'query'; expected some of mixer, ffn, convolution"):
        Houlsby(targets=["query"]).apply(module)
    with pytest.raises(ConfigError, match="length is 0"):
        PrefixTuning(length=0)
    with pytest.raises(ConfigError, match="layers is 3; expected at most the encoder's 2"):
        LLaMAAdapter(layers=3).apply(pretrained("sdpa"))
    assert module.state_dict().keys() == keys and not adaptations(module)
    assert all(p.requires_grad for p in module.parameters())
    LoRA().apply(module)
    with pytest.raises(ConfigError, match="has one of that name"):
        LoRA().apply(module)
    with pytest.raises(ConfigError, match="the encoder has 'default'; expected one of them"):
        set_active(module, "other")
