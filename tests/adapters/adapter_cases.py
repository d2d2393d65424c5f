"""Tiny encoders, ours and Hugging Face's, and every method that adapts them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lobes.adapters import (
    CHAPTER,
    IA3,
    Adaptation,
    BitFit,
    ConvLoRA,
    DoRA,
    FrozenProbe,
    FullFineTuning,
    Houlsby,
    LayerNormTuning,
    LLaMAAdapter,
    LLaMAAdapterV2,
    LoRA,
    PrefixTuning,
    PromptTuning,
    Reprogramming,
    VeRA,
    adaptations,
)
from lobes.adapters.sites import adapter_tensors
from lobes.encoders import (
    ConformerBlock,
    ConvolutionStem,
    Encoder,
    EncoderOutput,
    LogMel,
    PlainBlock,
    absolute_lengths,
    frame_mask,
)
from lobes.mixers import SDPA, SummaryMixing

DIM, MELS = 16, 20

METHODS: dict[str, Adaptation] = {
    "probe": FrozenProbe(),
    "full": FullFineTuning(),
    "lora": LoRA(rank=2, targets=["mixer", "ffn"]),
    "dora": DoRA(rank=2),
    "ia3": IA3(),
    "vera": VeRA(rank=8),
    "houlsby": Houlsby(bottleneck=4),
    "chapter": CHAPTER(channels=4, bottleneck=4),
    "conv-lora": ConvLoRA(rank=2),
    "bitfit": BitFit(),
    "norms": LayerNormTuning(),
    "prefix": PrefixTuning(length=3, std=1.0),
    "llama": LLaMAAdapter(length=3),
    "llama-2": LLaMAAdapterV2(length=3, layers=1),
    "prompt": PromptTuning(length=4, std=1.0),
    "onto": Reprogramming(seconds=0.15),
    "around": Reprogramming(seconds=0.6, place="around", offset=0.13),
}
ATTENTION_ONLY = ("prefix", "llama", "llama-2")


class Heard(NamedTuple):
    """What an encoder gives of a batch, whichever its kind."""

    frames: Tensor
    valid: Tensor
    layers: list[Tensor]


class Wrapper(nn.Module):
    """A model of Hugging Face behind our contract, part by part: not even its own forward is called.

    With ``by_length`` its convolutions hear each utterance alone, as a norm over time makes necessary.
    """

    def __init__(self, model: nn.Module, by_length: bool = False) -> None:
        super().__init__()
        self.model, self.by_length = model, by_length
        self.sample_rate, self.frame_rate, self.dim = 16000, 400.0, DIM

    def n_frames(self, samples: Tensor) -> Tensor:
        """Kernels 10 and 3, strides 10 and 4."""
        return (torch.div(samples - 30, 40, rounding_mode="floor") + 1).clamp_min(0)

    def forward(self, waveform: Tensor, lengths: Tensor) -> EncoderOutput:
        """(B, S), (B,) -> frames."""
        counts = absolute_lengths(lengths, waveform.shape[1])
        waveform = waveform.masked_fill(~frame_mask(counts, waveform.shape[1]), 0.0)
        if self.by_length:
            alone = [self.convolve(row[None, :count])[0] for row, count in zip(waveform, counts.tolist(), strict=True)]
            features = nn.utils.rnn.pad_sequence(alone, batch_first=True)
        else:
            features = self.convolve(waveform)
        valid = frame_mask(self.n_frames(counts), features.shape[1])
        states: list[Tensor] = []
        handles = [layer.register_forward_hook(partial(self.record, states)) for layer in self.blocks()]
        last = self.transform(features, valid)
        for handle in handles:
            handle.remove()
        hidden = [state.masked_fill(~valid[..., None], 0.0) for state in (*states, last)]
        return EncoderOutput(hidden[-1], valid, hidden[:-1])

    @staticmethod
    def record(states: list[Tensor], layer: nn.Module, args: Any, output: Any) -> None:
        """What the first layer reads, and what each gives."""
        if not states:
            states.append(args[0])
        states.append(output[0] if isinstance(output, tuple) else output)

    def blocks(self) -> Any:
        """Its layers."""
        return self.model.encoder.layers

    def convolve(self, waveform: Tensor) -> Tensor:
        """(b, s) to (b, t, C)."""
        x = waveform[:, None]
        for layer in self.model.feature_extractor.conv_layers:
            x = layer(x)
        return x.transpose(1, 2)

    def transform(self, features: Tensor, valid: Tensor) -> Tensor:
        """(B, T, C) to the last (B, T, D)."""
        x = self.model.feature_projection(features)
        return self.model.encoder(x, attention_mask=valid).last_hidden_state


class TorchaudioWrapper(Wrapper):
    """The same of torchaudio's model, the format of AVES."""

    def blocks(self) -> Any:
        """Its layers."""
        return self.model.encoder.transformer.layers

    def convolve(self, waveform: Tensor) -> Tensor:
        """(b, s) to (b, t, C)."""
        return self.model.feature_extractor(waveform, None)[0]

    def transform(self, features: Tensor, valid: Tensor) -> Tensor:
        """(B, T, C) to the last (B, T, D)."""
        x = self.model.encoder.feature_projection(features).masked_fill(~valid[..., None], 0.0)
        mask = valid[:, None, None].expand(-1, 1, valid.shape[1], -1)
        return self.model.encoder.transformer(x, attention_mask=mask)


def torchaudio_model() -> nn.Module:
    """A tiny one."""
    import torchaudio

    return torchaudio.models.wav2vec2_model(
        "layer_norm", [(12, 10, 10), (12, 3, 4)], True, DIM, 0.0, 8, 2, 2, 2, 0.0, 24, 0.0, 0.0, False, 0.0, None
    )


def through_huggingface(model: Any, waveform: Tensor, lengths: Tensor) -> Heard:
    """Frames, validity and layers, zero where not valid."""
    counts = absolute_lengths(lengths, waveform.shape[1])
    mask = frame_mask(counts, waveform.shape[1])
    output = model(waveform.masked_fill(~mask, 0.0), attention_mask=mask.long(), output_hidden_states=True)
    frames = model._get_feat_extract_output_lengths(counts)
    valid = frame_mask(frames, output.last_hidden_state.shape[1])
    layers = [layer.masked_fill(~valid[..., None], 0.0) for layer in output.hidden_states]
    return Heard(output.last_hidden_state.masked_fill(~valid[..., None], 0.0), valid, layers)


@torch.no_grad()
def hear(encoder: nn.Module, waveform: Tensor, lengths: Tensor) -> Heard:
    """Encode a batch with an encoder of any kind; with gradients PyTorch's attention may round otherwise."""
    return encode(encoder, waveform, lengths)


def encode(encoder: nn.Module, waveform: Tensor, lengths: Tensor) -> Heard:
    """The same, with gradients."""
    if hasattr(encoder, "_get_feat_extract_output_lengths"):
        return through_huggingface(encoder, waveform, lengths)
    output = encoder(waveform, lengths)
    return Heard(output.frames, output.valid, output.layers)


def own(mixer: Callable[..., Any], block: Callable[..., Any] = ConformerBlock, **options: Any) -> Encoder:
    """A tiny encoder of ours, whose log-mel features can be learned through."""
    stem = ConvolutionStem(MELS, DIM, 4, channels=8)
    return Encoder(LogMel(n_mels=MELS, **options), stem, DIM, 2, mixer, kernel=5, block=block)


def foreign(kind: str, **options: Any) -> nn.Module:
    """A tiny speech model of Hugging Face, in which no frame is computed from padding."""
    import transformers

    config = getattr(transformers, f"{kind}Config")(
        hidden_size=DIM,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        conv_dim=(12, 12),
        conv_kernel=(10, 3),
        conv_stride=(10, 4),
        conv_bias=True,
        num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=2,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        activation_dropout=0.0,
        apply_spec_augment=False,
        layerdrop=0.5,
        **{"feat_extract_norm": "layer", **options},
    )
    model = getattr(transformers, f"{kind}Model")(config)
    for parameter in model.parameters():  # as begun, its biases are zero
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model


ENCODERS: dict[str, Callable[[], nn.Module]] = {
    "sdpa": partial(own, partial(SDPA, num_heads=2), PlainBlock),
    "summary": partial(own, SummaryMixing),
    "hubert": partial(foreign, "Hubert"),
    "wav2vec2": partial(foreign, "Wav2Vec2", do_stable_layer_norm=True),
    "wavlm": partial(foreign, "WavLM"),
    "wrapper": lambda: Wrapper(foreign("Hubert")),
    "by-length": lambda: Wrapper(foreign("Hubert", feat_extract_norm="group"), by_length=True),
    "torchaudio": lambda: TorchaudioWrapper(torchaudio_model()),
}
#: The methods that an encoder is no repetition for: WavLM's attention is another, Wav2Vec2's norms stand elsewhere.
OF_FEW = {
    "sdpa": ("lora", "ia3", "vera", "bitfit", "houlsby", "prompt", *ATTENTION_ONLY),
    "wavlm": ("full", "lora", "dora", "ia3", "vera", "houlsby", *ATTENTION_ONLY),
    "wav2vec2": ("full", "norms", "chapter", "prompt"),
    "wrapper": ("lora", "prefix", "chapter", "prompt", "onto", "around"),
    "by-length": ("chapter", "norms", "onto"),
    "torchaudio": ("full", "lora", "conv-lora", "chapter", "prefix", "llama-2", "prompt", "onto", "around"),
    "summary": [method for method in METHODS if method not in ATTENTION_ONLY],
}
CASES = [(encoder, method) for encoder in ENCODERS for method in OF_FEW.get(encoder, METHODS)]
#: Of the encoders that differ from the first ones in a part only: what that part decides.
OF_DEFAULT = {
    "sdpa": ATTENTION_ONLY,
    "wav2vec2": ("norms",),
    "wrapper": ("onto",),
    "by-length": ("chapter",),
    "torchaudio": ("conv-lora", "prefix", "onto"),
}
#: The others run with the slow tests.
LATER = [(e, m) for e, m in CASES if m not in OF_DEFAULT.get(e, METHODS)]
#: One of each kind, where more would tell no more.
FEW = [(e, m) for e, m in CASES if e in ("summary", "wavlm") or (e == "hubert" and m not in OF_FEW["wavlm"])]


@cache
def _pretrained(encoder: str) -> nn.Module:
    torch.manual_seed(1)
    return ENCODERS[encoder]().eval().requires_grad_(False)


def pretrained(encoder: str) -> nn.Module:
    """One of the tiny encoders, always with the same weights, frozen.

    A product with a matrix that trains is computed otherwise by PyTorch where its other factor is not contiguous, as in
    WavLM, even without gradients: what is compared to the last bit has to be frozen, or to train, alike.
    """
    return copy.deepcopy(_pretrained(encoder))


def adapted(encoder: str, method: str, trained: bool = False) -> nn.Module:
    """One of the encoders with one of the methods; if ``trained``, with an adapter that does something."""
    module = pretrained(encoder)
    torch.manual_seed(4)
    METHODS[method].apply(module)
    return disturb(module) if trained else module


def disturb(module: nn.Module, strength: float = 0.1) -> nn.Module:
    """Move the parameters of all adapters from where they began."""
    generator = torch.Generator().manual_seed(2)
    for name in adaptations(module):
        for tensor in adapter_tensors(module, name).values():
            if isinstance(tensor, nn.Parameter):
                tensor.data += strength * torch.randn(tensor.shape, generator=generator)
    return module


def batch(samples: tuple[int, ...] = (6400, 2301, 5000), fill: float = 0.0) -> tuple[Tensor, Tensor]:
    """Waveforms (B, S) of noise, padded with a number, and relative lengths."""
    generator = torch.Generator().manual_seed(3)
    waveform = torch.full((len(samples), max(samples)), fill)
    for row, count in zip(waveform, samples, strict=True):
        row[:count] = 0.3 * torch.randn(count, generator=generator)
    return waveform, torch.tensor(samples) / max(samples)


def same(ours: Heard, theirs: Heard) -> bool:
    """Whether two encoders gave exactly the same."""
    pairs = zip([ours.frames, *ours.layers], [theirs.frames, *theirs.layers], strict=True)
    return torch.equal(ours.valid, theirs.valid) and all(torch.equal(a, b) for a, b in pairs)
