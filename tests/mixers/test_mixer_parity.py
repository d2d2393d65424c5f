"""Mixers equal independent implementations of the same equations, with the same weights."""

from __future__ import annotations

import pytest
import torch

from lobes.mixers import SDPA, SSD, ConvNeXt, ConvolutionalGating, FNet, HyperMixing, Linformer, Luna

DIM = 16


def test_sdpa_equals_llama_attention_of_transformers():
    llama = pytest.importorskip("transformers.models.llama.modeling_llama")
    config = llama.LlamaConfig(
        hidden_size=DIM, num_attention_heads=2, num_key_value_heads=2, attention_bias=True, attn_implementation="eager"
    )
    theirs = llama.LlamaAttention(config, layer_idx=0).eval()
    ours = SDPA(DIM, num_heads=2).eval()
    with torch.no_grad():
        projections = (theirs.q_proj, theirs.k_proj, theirs.v_proj)
        ours.qkv.weight.copy_(torch.cat([p.weight for p in projections]))
        ours.qkv.bias.copy_(torch.cat([p.bias for p in projections]))
        ours.out.weight.copy_(theirs.o_proj.weight)
        ours.out.bias.copy_(theirs.o_proj.bias)
    x = torch.randn(1, 9, DIM)
    rotary = llama.LlamaRotaryEmbedding(config)(x, torch.arange(9)[None])
    expected = theirs(x, position_embeddings=rotary, attention_mask=None)[0]
    torch.testing.assert_close(ours(x, torch.ones(1, 9, dtype=torch.bool)), expected, atol=1e-5, rtol=0)


def test_ssd_equals_mamba2_of_transformers():
    mamba2 = pytest.importorskip("transformers.models.mamba2.modeling_mamba2")
    config = mamba2.Mamba2Config(
        hidden_size=DIM, num_heads=4, head_dim=8, state_size=6, n_groups=1, chunk_size=5, num_hidden_layers=1
    )
    theirs = mamba2.Mamba2Mixer(config, layer_idx=0).eval()
    ours = SSD(DIM, state=6, head_dim=8, segment=7).eval()
    torch.nn.init.normal_(theirs.D)
    torch.nn.init.normal_(theirs.norm.weight)
    part = ours.recurrence
    with torch.no_grad():
        ours.input.weight.copy_(theirs.in_proj.weight)
        ours.norm.weight.copy_(theirs.norm.weight)
        ours.output.weight.copy_(theirs.out_proj.weight)
        part.convolution.conv.weight.copy_(theirs.conv1d.weight[..., None])
        part.convolution.conv.bias.copy_(theirs.conv1d.bias)
        for name, parameter in (("log_rate", theirs.A_log), ("step_bias", theirs.dt_bias), ("skip", theirs.D)):
            getattr(part, name).copy_(parameter)
    x = torch.randn(2, 23, DIM)
    torch.testing.assert_close(ours(x, torch.ones(2, 23, dtype=torch.bool)), theirs(x), atol=1e-5, rtol=0)


@pytest.mark.parametrize("version", [1, 2])
def test_convnext_equals_transformers_on_an_image_of_one_column(version):
    name = "ConvNext" if version == 1 else "ConvNextV2"
    module = pytest.importorskip(f"transformers.models.{name.lower()}.modeling_{name.lower()}")
    theirs = getattr(module, f"{name}Layer")(getattr(module, f"{name}Config")(), DIM).eval()
    ours = ConvNeXt(DIM, kernel=7, version=version).eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    with torch.no_grad():
        ours.convolution.conv.weight.copy_(theirs.dwconv.weight[..., 3:4])
        ours.convolution.conv.bias.copy_(theirs.dwconv.bias)
    pairs = [(ours.norm, theirs.layernorm), (ours.expand, theirs.pwconv1), (ours.project, theirs.pwconv2)]
    for our_part, their_part in pairs:
        our_part.load_state_dict(their_part.state_dict())
    if version == 1:
        ours.scale.data = theirs.layer_scale_parameter.data
    else:
        ours.response.weight.data = theirs.grn.weight.data.flatten()
        ours.response.bias.data = theirs.grn.bias.data.flatten()
    x = torch.randn(2, 23, DIM)
    expected = theirs(x.transpose(1, 2)[..., None])[..., 0].transpose(1, 2) - x  # their residual
    torch.testing.assert_close(ours(x, torch.ones(2, 23, dtype=torch.bool)), expected, atol=1e-5, rtol=1e-5)


def test_convolutional_gating_equals_speechbrain():
    branchformer = pytest.importorskip("speechbrain.lobes.models.transformer.Branchformer")
    theirs = branchformer.ConvolutionBranch(DIM, linear_units=6 * DIM, kernel_size=5).eval()
    ours = ConvolutionalGating(DIM, expand=6, kernel=5).eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    width = 3 * DIM
    with torch.no_grad():
        for part, rows in ((ours.expand, slice(width)), (ours.expand_gate, slice(width, None))):
            part.weight.copy_(theirs.pre_channel_proj.weight[rows])
            part.bias.copy_(theirs.pre_channel_proj.bias[rows])
        ours.convolution.conv.weight.copy_(theirs.csgu.conv.conv.weight[..., None])
        ours.convolution.conv.bias.copy_(theirs.csgu.conv.conv.bias)
    ours.norm.load_state_dict(theirs.csgu.norm.norm.state_dict())
    ours.project.load_state_dict(theirs.post_channel_proj.state_dict())
    # SpeechBrain reflects a recording at its ends, where ours reads zeros: compare the frames in between.
    x = torch.randn(2, 23, DIM)
    y = ours(x, torch.ones(2, 23, dtype=torch.bool))
    torch.testing.assert_close(y[:, 2:-2], theirs(x)[:, 2:-2], atol=1e-5, rtol=1e-5)


def test_fnet_equals_transformers():
    fnet = pytest.importorskip("transformers.models.fnet.modeling_fnet")
    theirs = fnet.FNetBasicFourierTransform(fnet.FNetConfig(hidden_size=DIM, use_tpu_fourier_optimizations=False))
    x = torch.randn(2, 23, DIM)
    expected = theirs(x)[0] / (23 * DIM) ** 0.5  # theirs is not orthonormal
    torch.testing.assert_close(FNet(DIM)(x, torch.ones(2, 23, dtype=torch.bool)), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("tied", [False, True])
def test_hyper_mixing_equals_speechbrain(tied):
    """With one head: with several theirs takes heads for frames, where it reshapes (B, T, H, k) as (B H, T, k)."""
    hypermixing = pytest.importorskip("speechbrain.nnet.hypermixing")
    theirs = hypermixing.HyperMixing(DIM, 6, tied=tied, num_heads=1).eval()
    ours = HyperMixing(DIM, num_heads=1, hidden=6, tied=tied).eval()
    theirs.positional_encoding.pe.zero_()
    with torch.no_grad():
        for name, made in {"write": theirs.hyper.w1_gen, **({} if tied else {"read": theirs.hyper.w2_gen})}.items():
            part = ours.get_submodule(name)
            part.first.copy_(made.fc1_weights.mT)
            part.first_bias.copy_(made.fc1_biases[:, None])
            part.second.copy_(made.fc2_weights.mT)
            part.second_bias.copy_(made.fc2_biases[:, None])
    x = torch.randn(2, 23, DIM)
    # Theirs is a sum over frames and ours a mean.
    theirs.activation.register_forward_pre_hook(lambda _, arguments: (arguments[0] / 23,))
    expected = theirs(x, x, x)[0]
    torch.testing.assert_close(ours(x, torch.ones(2, 23, dtype=torch.bool)), expected, atol=1e-5, rtol=0)


def attention_of_torch() -> torch.nn.MultiheadAttention:
    """With random biases, but none of the values: ours has that in its output."""
    attention = torch.nn.MultiheadAttention(DIM, 2, batch_first=True)
    torch.nn.init.normal_(attention.in_proj_bias[: 2 * DIM])
    torch.nn.init.normal_(attention.out_proj.bias)
    return attention.double().requires_grad_(False)


def test_luna_equals_two_attentions_of_torch():
    """Torch has the memory and the maps of its queries and of the keys apart; ours learns their product."""
    pack, unpack, memory = attention_of_torch(), attention_of_torch(), torch.randn(1, 3, DIM, dtype=torch.float64)
    pack.out_proj.weight.copy_(torch.eye(DIM))
    pack.out_proj.bias.zero_()
    ours = Luna(DIM, num_heads=2, memory=3).double().requires_grad_(False)
    queries = torch.nn.functional.linear(memory[0], pack.in_proj_weight[:DIM], pack.in_proj_bias[:DIM])
    keys = pack.in_proj_weight[DIM : 2 * DIM].view(2, DIM // 2, DIM)
    ours.pack.weight.copy_(torch.einsum("phd,hde->hpe", queries.view(3, 2, DIM // 2), keys).flatten(0, 1))
    ours.value.weight.copy_(pack.in_proj_weight[2 * DIM :])
    parts = (ours.query, ours.memory_key, ours.memory_value)
    for part, weight in zip(parts, unpack.in_proj_weight.chunk(3), strict=True):
        part.weight.copy_(weight)
    ours.query.bias.copy_(unpack.in_proj_bias[:DIM])
    ours.out.load_state_dict(unpack.out_proj.state_dict())

    x, valid = torch.randn(2, 9, DIM, dtype=torch.float64), torch.ones(2, 9, dtype=torch.bool)
    valid[0, 5:] = False
    packed, _ = pack(memory.expand(2, -1, -1), x, x, key_padding_mask=~valid)
    expected, _ = unpack(x, packed, packed)
    torch.testing.assert_close(ours(x, valid)[valid], expected[valid], atol=1e-12, rtol=0)


@pytest.mark.parametrize("share", [True, False])
def test_linformer_equals_attention_of_torch_to_mixed_frames(share):
    theirs = attention_of_torch()
    ours = Linformer(DIM, num_heads=2, rank=5, max_frames=12, share=share).double().requires_grad_(False)
    for part, weight in zip((ours.query, ours.key, ours.value), theirs.in_proj_weight.chunk(3), strict=True):
        part.weight.copy_(weight)
    ours.query.bias.copy_(theirs.in_proj_bias[:DIM])
    ours.out.load_state_dict(theirs.out_proj.state_dict())
    x = torch.randn(1, 9, DIM, dtype=torch.float64)
    for_keys = ours.key_mixtures[:9].T @ x / 3
    for_values = for_keys if share else ours.value_mixtures[:9].T @ x / 3
    expected, _ = theirs(x, for_keys, for_values)
    torch.testing.assert_close(ours(x, torch.ones(1, 9, dtype=torch.bool)), expected, atol=1e-12, rtol=0)
