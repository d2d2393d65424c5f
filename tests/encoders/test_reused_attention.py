"""Attention maps that several blocks share: against a slow loop, padded, counted, saved."""

from __future__ import annotations

import pytest
import torch

from lobes.encoders import HuggingFaceEncoder, ReusedAttention
from lobes.errors import ConfigError
from lobes.evaluation.cost import counted_macs
from lobes.export import load_encoder, save_encoder

TINY = {"model_type": "hubert", "hidden_size": 16, "num_hidden_layers": 5, "num_attention_heads": 2,
        "intermediate_size": 32, "conv_dim": [8] * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4,
        "hidden_dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0,
        "feat_proj_dropout": 0.0}  # fmt: skip


def shaken(encoder):
    torch.manual_seed(1)
    for parameter in encoder.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return encoder.eval()


def slow_blocks(encoder, x):
    """The blocks on (T, D), one head and frame at a time, with the map of the first block of each two."""
    for number, block in enumerate(encoder.model.encoder.layers):
        a = block.attention
        if number % 2 == 0:
            query, key = a.q_proj(x).view(len(x), 2, 8), a.k_proj(x).view(len(x), 2, 8)
            maps = torch.zeros(2, len(x), len(x))
            for head in range(2):
                for t in range(len(x)):
                    maps[head, t] = torch.softmax(key[:, head] @ query[t, head] / 8**0.5, 0)
        value = a.v_proj(x).view(len(x), 2, 8)
        mixed = torch.stack([maps[head] @ value[:, head] for head in range(2)], 1).flatten(1)
        x = block.layer_norm(x + a.out_proj(mixed))
        x = block.final_layer_norm(x + block.feed_forward(x))
    return x


@torch.no_grad()
def test_maps_are_those_of_the_block_before():
    encoder = shaken(ReusedAttention(TINY, every=2))
    output = encoder(torch.randn(1, 4000), torch.ones(1))
    torch.testing.assert_close(slow_blocks(encoder, output.layers[0][0]), output.frames[0], atol=1e-5, rtol=0)
    names = dict(encoder.model.encoder.layers.named_parameters())
    assert [i for i in range(5) if f"{i}.attention.q_proj.weight" in names] == [0, 2, 4]
    assert all(block.attention.seen.map is None for block in encoder.model.encoder.layers), "no map is kept"


@torch.no_grad()
@pytest.mark.parametrize("kind", ["hubert", "wav2vec2", "unispeech"])
def test_a_map_for_each_block_is_the_model_itself(kind):
    whole = shaken(HuggingFaceEncoder({**TINY, "model_type": kind}))
    alike = ReusedAttention({**TINY, "model_type": kind}, every=1).eval()
    alike.load_state_dict(whole.state_dict())
    batch = torch.randn(2, 5000), torch.tensor([1.0, 0.6])
    torch.testing.assert_close(alike(*batch).frames, whole(*batch).frames, atol=1e-5, rtol=0)


def test_an_utterance_does_not_hear_its_padding():
    encoder = shaken(ReusedAttention(TINY, every=3))
    alone = torch.randn(1, 3000)
    padded = torch.cat([torch.nn.functional.pad(alone, (0, 2000), value=torch.nan), torch.randn(1, 5000)])
    one, both = encoder(alone, torch.ones(1)), encoder(padded, torch.tensor([0.6, 1.0]))
    count = one.frames.shape[1]
    assert int(both.valid[0].sum()) == count
    torch.testing.assert_close(both.frames[0, :count], one.frames[0], atol=1e-5, rtol=1e-5)
    both.frames.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in encoder.model.encoder.parameters())


@pytest.mark.parametrize("samples", [300, 4000, 16001])
def test_macs_equal_the_counted_products(samples):
    encoder, wave = ReusedAttention(TINY, every=2).eval(), torch.randn(1, samples)
    assert encoder.macs(samples / 16000) == counted_macs(lambda: encoder(wave, torch.ones(1))).total
    assert samples == 300 or encoder.macs(samples / 16000) < HuggingFaceEncoder(TINY).macs(samples / 16000)


def test_saved_and_loaded_it_is_the_same(tmp_path):
    encoder = shaken(ReusedAttention(TINY, every=2))
    save_encoder(encoder, tmp_path / "saved", encoder.hparams_text())
    loaded = load_encoder(tmp_path / "saved")
    batch = torch.randn(2, 4000), torch.tensor([1.0, 0.5])
    assert isinstance(loaded, ReusedAttention) and loaded.every == 2
    assert torch.equal(loaded(*batch).frames, encoder(*batch).frames)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"source": {**TINY, "model_type": "wavlm"}}, "model_type is 'wavlm'; expected one of hubert"),
        ({"every": 6}, "every is 6; expected 1 to 5, its blocks"),
        ({"gradient_checkpointing": True}, "expected False"),
    ],
)
def test_what_cannot_be_is_named(options, message):
    with pytest.raises(ConfigError, match=message):
        ReusedAttention(**{"source": TINY, **options})
