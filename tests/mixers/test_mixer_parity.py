"""Mixers equal independent implementations of the same equations, with the same weights."""

from __future__ import annotations

import pytest
import torch

from lobes.mixers import SDPA

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
