"""What the methods compute, against their equations; every mixer; chunks and streams."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from adapter_cases import METHODS, adapted, batch, disturb, encode, hear, pretrained, same
from mixer_cases import CASES as MIXERS
from torch.nn import functional as F

from lobes.adapters import (
    BitFit,
    ConvLoRA,
    FullFineTuning,
    Houlsby,
    LayerNormTuning,
    LLaMAAdapter,
    LoRA,
    PrefixTuning,
    PromptTuning,
    merge_adapter,
    roles,
    set_active,
)
from lobes.adapters.anatomy import ROLES
from lobes.encoders import (
    ConvolutionStem,
    EfficientNetV2,
    Encoder,
    LogMel,
    PitchShift,
    PlainBlock,
    StackingStem,
    StreamingEncoder,
    TimeExpansion,
)
from lobes.errors import ConfigError
from lobes.mixers import SDPA, Chunks, LocalSDPA, SummaryMixing
from lobes.mixers.attention import rotate

DIM = 16


def small(mixer, **options) -> Encoder:
    torch.manual_seed(0)
    return Encoder(LogMel(n_mels=20), StackingStem(20, DIM), DIM, 2, mixer, kernel=5, **options).eval()


@pytest.mark.parametrize("mixer", MIXERS)
def test_every_layer_that_a_role_names_is_heard(mixer):
    """An adapter around a layer whose weights are read past it would be silent, without an error."""
    encoder = small(MIXERS[mixer].build)
    LoRA(rank=2, targets=list(roles(encoder))).apply(encoder)
    disturb(encoder)
    output = encoder(*batch((6400, 3000)))
    (output.frames * torch.randn_like(output.frames)).sum().backward()
    silent = [name for name, p in encoder.named_parameters() if p.requires_grad and not p.grad.abs().sum() > 0]
    assert not silent


@pytest.mark.parametrize("method", [FullFineTuning(), BitFit(), LayerNormTuning()], ids=repr)
def test_all_that_is_tuned_has_gradients_behind_what_hears_for_an_encoder(method):
    """The norm of the output frames has none: two processes would wait for it in vain."""
    tuned = {}
    for name, around in {
        "alone": lambda encoder: encoder,
        "slower": partial(TimeExpansion, factor=2),
        "slower and lower": lambda encoder: PitchShift(TimeExpansion(encoder, factor=2), factor=2),
    }.items():
        encoder = around(small(SummaryMixing))
        method.apply(encoder)
        waveform, lengths = batch((6400, 3000))
        output = encoder(waveform.repeat(1, 4), lengths)
        sum((layer * torch.randn_like(layer)).sum() for layer in output.layers).backward()
        trained = {name: p for name, p in encoder.named_parameters() if p.requires_grad}
        assert not [name for name, p in trained.items() if p.grad is None]
        tuned[name] = sum(p.numel() for p in trained.values())
    assert len(set(tuned.values())) == 1 and tuned["alone"] > 0


@pytest.mark.parametrize("mixer", MIXERS)
@pytest.mark.parametrize("method", [Houlsby(bottleneck=2), PromptTuning(length=30, std=1.0), BitFit()], ids=repr)
def test_methods_that_need_no_role_work_with_every_mixer(mixer, method):
    encoder = small(MIXERS[mixer].build)
    x = batch((6400, 3000))
    before = hear(encoder, *x)
    if isinstance(method, BitFit) and not any(name.endswith("bias") for name, _ in encoder.named_parameters()):
        return
    disturb(method.apply(encoder))
    together = hear(encoder, *x)
    assert not same(together, before)
    alone = hear(encoder, x[0][1:, :3000], torch.ones(1))
    torch.testing.assert_close(together.frames[1, : alone.frames.shape[1]], alone.frames[0], atol=1e-4, rtol=1e-3)
    set_active(encoder, None)
    assert same(hear(encoder, *x), before)


def test_roles_are_those_of_the_encoder():
    plain = Encoder(LogMel(n_mels=20), ConvolutionStem(20, DIM, 4, 8), DIM, 2, SDPA, block=PlainBlock)
    assert roles(plain) == {
        **{"frontend": 4, "mixer": 4, "query": 2, "key": 2, "value": 2, "out": 2},
        **{"ffn": 4, "ffn_up": 2, "ffn_down": 2},
    }
    assert roles(EfficientNetV2(LogMel(n_mels=20), DIM)).keys() == {
        *("frontend", "mixer", "ffn", "ffn_up", "ffn_down", "convolution")
    }
    for encoder in ("hubert", "wav2vec2", "wavlm", "wrapper"):
        assert roles(pretrained(encoder)) == {
            **{"frontend": 3, "mixer": 8, "query": 2, "key": 2, "value": 2, "out": 2},
            **{"ffn": 4, "ffn_up": 2, "ffn_down": 2},
        }
    assert set(roles(small(SummaryMixing))) <= set(ROLES)


def attend(query, keys, values):
    """Softmax attention of one query (d,) to keys and values (K, d)."""
    return (keys @ query / math.sqrt(len(query))).softmax(0) @ values


@pytest.mark.parametrize("chunk", [None, 4])
@pytest.mark.parametrize("mixer", ["sdpa", "sdpa-causal-short", "local", "local-causal"])
def test_a_prefix_equals_the_equation(mixer, chunk):
    torch.manual_seed(0)
    encoder = small(MIXERS[mixer].build).double()
    PrefixTuning(length=3, std=1.0).apply(encoder)
    attention = encoder.blocks[0].mixer
    found = attention.prefix()
    n_frames = 11
    x = torch.randn(1, n_frames, DIM, dtype=torch.float64)
    chunks = Chunks(chunk) if chunk else None
    y = attention(x, torch.ones(1, n_frames, dtype=torch.bool), chunks)
    set_active(encoder, None)
    query, key, value = attention.qkv(x)[0].unflatten(-1, (3, 2, -1)).permute(1, 2, 0, 3)
    turned, turned_key = rotate(query), rotate(key)
    expected = torch.zeros(n_frames, DIM, dtype=torch.float64)
    for t in range(n_frames):
        seen = visible(attention, t, n_frames, chunk)
        for head in range(2):
            # The prefix meets the query as it is, frames meet it rotated.
            scores = torch.cat((found.keys[head] @ query[head, t], turned_key[head][seen] @ turned[head, t]))
            weights = (scores / math.sqrt(DIM / 2)).softmax(0)
            told = weights @ torch.cat((found.values[head], value[head][seen]))
            expected[t, head * DIM // 2 : (head + 1) * DIM // 2] = told
    torch.testing.assert_close(y[0], attention.out(expected), atol=1e-10, rtol=1e-8)


def visible(mixer, t, n_frames, chunk):
    """Frames that frame t sees."""
    if mixer.causal or chunk:
        start, end = (t, t + 1) if mixer.causal else (t // chunk * chunk, t // chunk * chunk + chunk)
        return slice(max(0, start - mixer.left_context), min(end, n_frames))
    if isinstance(mixer, LocalSDPA):
        block = t // mixer.window
        return slice(max(0, (block - 1) * mixer.window), (block + 2) * mixer.window)
    return slice(0, n_frames)


@pytest.mark.parametrize("method", ["prefix", "llama"])
@pytest.mark.parametrize("encoder", ["hubert", "wavlm"])
def test_prompts_of_hugging_face_equal_the_equation(encoder, method):
    model = adapted(encoder, method, trained=True).double()
    attention = model.encoder.layers[0].attention
    x = torch.randn(1, 9, DIM, dtype=torch.float64)
    with torch.no_grad():
        told = attention(x)[0]
        set_active(model, None)
        query, key, value = (
            layer(x)[0].unflatten(-1, (2, -1)) for layer in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        bias = position_bias(attention, x) if encoder == "wavlm" else torch.zeros(2, 9, 9)
        site = attention.prefix if method == "prefix" else attention.gated_prompts
        adapter = site.adapters["default"]
        expected = torch.zeros(9, DIM, dtype=torch.float64)
        for head in range(2):
            part = slice(head * DIM // 2, (head + 1) * DIM // 2)
            for t in range(9):
                scores = key[:, head] @ query[t, head] / math.sqrt(DIM / 2) + bias[head, t]
                if method == "prefix":
                    more = adapter.keys[head] @ query[t, head] / math.sqrt(DIM / 2)
                    expected[t, part] = torch.cat((more, scores)).softmax(0) @ torch.cat(
                        (adapter.values[head], value[:, head])
                    )
                else:
                    keys, values = (
                        attention.k_proj(adapter.prompts)[:, part],
                        attention.v_proj(adapter.prompts)[:, part],
                    )
                    prompted = adapter.gates[head].tanh() * attend(query[t, head], keys, values)
                    expected[t, part] = scores.softmax(0) @ value[:, head] + prompted
        torch.testing.assert_close(told[0], attention.out_proj(expected), atol=1e-10, rtol=1e-8)


def position_bias(attention, x):
    """WavLM's, gated, as its own attention makes it: (H, T, T)."""
    kept = {}
    attend_then = attention.torch_multi_head_self_attention
    attention.torch_multi_head_self_attention = lambda *args: (
        kept.setdefault("bias", args[2]) is None or attend_then(*args)
    )
    attention(x)
    attention.torch_multi_head_self_attention = attend_then
    return kept["bias"]


def test_gated_prompts_of_ours_equal_the_equation():
    encoder = small(partial(SDPA, num_heads=2)).double()
    disturb(LLaMAAdapter(length=3, layers=1).apply(encoder))
    attention, x = encoder.blocks[1].mixer, torch.randn(1, 9, DIM, dtype=torch.float64)
    valid = torch.ones(1, 9, dtype=torch.bool)
    assert not hasattr(encoder.blocks[0].mixer, "gated_prompts")
    told, adapter = attention(x, valid), attention.gated_prompts.adapters["default"]
    set_active(encoder, None)
    plain = attention(x, valid)
    query = attention.qkv(x)[0, :, :DIM].unflatten(-1, (2, -1))
    keys, values = (part.unflatten(-1, (2, -1)) for part in attention.qkv(adapter.prompts)[:, DIM:].chunk(2, -1))
    added = torch.stack(
        [
            torch.cat([adapter.gates[h].tanh() * attend(query[t, h], keys[:, h], values[:, h]) for h in range(2)])
            for t in range(9)
        ]
    )
    torch.testing.assert_close(told[0] - plain[0], F.linear(added, attention.out.weight), atol=1e-10, rtol=1e-8)


STREAMS = {
    "sdpa": partial(SDPA, num_heads=2),
    "local": partial(LocalSDPA, num_heads=2, window=5),
    "summary": SummaryMixing,
}
REFUSED = ("chapter", "prompt", "onto", "around")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("mixer", STREAMS)
def test_a_stream_equals_the_pass_in_chunks_or_is_refused(mixer, method):
    if mixer == "summary" and method in ("prefix", "llama", "llama-2"):
        return
    stem = ConvolutionStem(20, DIM, 4, channels=8)
    torch.manual_seed(0)
    encoder = Encoder(
        LogMel(n_mels=20, normalise="running"), stem, DIM, 2, STREAMS[mixer], kernel=5, dropout=0.1
    ).eval()
    disturb(METHODS[method].apply(encoder))
    chunks, waveform = Chunks(4, 8), torch.randn(1, 7001)
    if method in REFUSED:
        with pytest.raises(ConfigError, match="expected no"):
            encoder(waveform, torch.ones(1), chunks)
        with pytest.raises(ConfigError, match="expected no"):
            StreamingEncoder(encoder, chunks)
        assert not encoder.streamable
        set_active(encoder, None)
        assert encoder.streamable
        return
    stream = StreamingEncoder(encoder, chunks)
    pieces = [stream.feed(piece) for piece in waveform[0].split(2003)]
    with torch.no_grad():
        whole = encoder(waveform, torch.ones(1), chunks).frames[0]
    torch.testing.assert_close(torch.cat([*pieces, stream.finish()]), whole, atol=1e-4, rtol=1e-4)


def test_an_objective_that_begins_with_features_hears_the_prompts():
    encoder = small(partial(SDPA, num_heads=2))
    features, valid = encoder.features(*batch((6400, 3000)))
    before = encoder.encode(features, valid)
    disturb(PromptTuning(length=4).apply(encoder))
    after = encoder.encode(features, valid)
    assert after.frames.shape == before.frames.shape and torch.equal(after.valid, before.valid)
    assert not torch.equal(after.frames, before.frames)


def test_prompts_keep_the_groups_of_lower_rates():
    encoder = small(SummaryMixing, rates=[1, 4])
    with pytest.raises(ConfigError, match="length is 6; expected a multiple of 4"):
        PromptTuning(length=6).apply(encoder)
    PromptTuning(length=8).apply(encoder)


def test_convolutions_in_groups_are_left_out():
    encoder = Encoder(LogMel(n_mels=20), ConvolutionStem(20, DIM, 4, 8), DIM, 1, SummaryMixing)
    ConvLoRA(rank=2).apply(encoder)
    adapted_ones = {name for name, p in encoder.named_parameters() if p.requires_grad}
    assert {name.partition(".lora")[0] for name in adapted_ones} == {"stem.layers.0.0", "stem.layers.1.1"}


def test_a_front_end_knows_its_lengths_without_a_mask():
    """HuBERT-base was trained without one: its wrapper may hand the model none, but knows the lengths."""

    class Unmasked(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = pretrained("hubert")

        def forward(self, waveform, lengths):
            return self.model.feature_extractor(waveform)

    module = disturb(METHODS["chapter"].apply(Unmasked()))
    waveform, lengths = batch((6400, 2301), fill=100.0)
    together, alone = module(waveform, lengths), module(waveform[1:, :2301], torch.ones(1))
    count = alone.shape[2]
    torch.testing.assert_close(together[1, :, :count], alone[0], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(together[1, :, :count], module.model.feature_extractor(waveform)[1, :, :count], atol=1e-3)


@pytest.mark.parametrize("kind", ["ViT", "AST"])
def test_transformers_of_pictures(kind):
    import transformers

    options = {"image_size": 16, "patch_size": 4} if kind == "ViT" else {"num_mel_bins": 16, "max_length": 24}
    if kind == "AST":
        options |= {"patch_size": 8, "frequency_stride": 8, "time_stride": 8}
    config = getattr(transformers, f"{kind}Config")(
        hidden_size=DIM, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, **options
    )
    model = getattr(transformers, f"{kind}Model")(config).eval().requires_grad_(False)
    picture = torch.randn(2, 3, 16, 16) if kind == "ViT" else torch.randn(2, 24, 16)
    before = model(picture).last_hidden_state
    for method in ("lora", "ia3", "houlsby", "bitfit", "norms", "prefix", "llama", "llama-2"):
        name = method.replace("-", "_")
        METHODS[method].apply(model, name)
        same_at_first = torch.equal(model(picture).last_hidden_state, before)
        assert same_at_first == METHODS[method].identity, method
        disturb(model)
        assert not torch.equal(model(picture).last_hidden_state, before)
    set_active(model, None)
    assert torch.equal(model(picture).last_hidden_state, before)


def test_hidden_states_of_a_prompted_model_have_no_prompts():
    model = adapted("hubert", "prompt")
    waveform = torch.randn(2, 1600)
    output = model(waveform, output_hidden_states=True)
    as_tuple = model(waveform, output_hidden_states=True, return_dict=False)
    n_frames = int(model._get_feat_extract_output_lengths(1600))
    assert {h.shape[1] for h in (output.last_hidden_state, *output.hidden_states)} == {n_frames}
    assert as_tuple[0].shape[1] == n_frames


def test_attention_that_knows_no_prefix_is_refused():
    model = pretrained("hubert")
    model.config._attn_implementation = "eager"
    with pytest.raises(ConfigError, match="attn_implementation of HubertModel is 'eager'; expected 'sdpa'"):
        PrefixTuning().apply(model)
    assert encode(model, *batch()).frames.isfinite().all()


@pytest.mark.parametrize("method", ["prompt", "chapter", "llama", "prefix", "lora"])
def test_gradient_checkpointing_changes_no_gradient(method):
    gradients = []
    for checkpointing in (False, True):
        model = adapted("wrapper", method, trained=True).train()
        if checkpointing:
            model.model.activation_checkpointing_enable({"use_reentrant": False})
        heard = encode(model, *batch())
        (heard.frames.square().sum() + sum(layer.sum() for layer in heard.layers)).backward()
        gradients.append([p.grad for p in model.parameters() if p.requires_grad])
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_relative_positions_are_refused_by_prompts():
    import transformers

    config = transformers.Wav2Vec2ConformerConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24, conv_dim=[8] * 7
    )
    model = transformers.Wav2Vec2ConformerModel(config)
    with pytest.raises(ConfigError, match="Wav2Vec2ConformerModel takes no frames before its own; expected an Encoder"):
        PromptTuning().apply(model)
    with pytest.raises(ConfigError, match="position_embeddings_type of Wav2Vec2ConformerModel is 'relative'"):
        PrefixTuning().apply(model)
    assert roles(model)["ffn"] == 4
    LoRA(targets=["mixer", "ffn"]).apply(model)


def test_a_parameter_of_two_owners_has_one_copy():
    encoder = small(partial(SDPA, num_heads=2), block=PlainBlock)
    encoder.blocks[1].ffn.project.weight = encoder.blocks[0].ffn.project.weight
    before = hear(encoder, *batch())
    FullFineTuning().apply(encoder)
    assert encoder.blocks[1].ffn.project.weight is encoder.blocks[0].ffn.project.weight
    assert same(hear(encoder, *batch()), before)
    disturb(encoder)
    changed = hear(encoder, *batch())
    assert not same(changed, before)
    merge_adapter(encoder)
    assert same(hear(encoder, *batch()), changed)
