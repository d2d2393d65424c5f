"""Our own encoders, mixers and masks, put to the same checks."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from contract.public import Data2VecAudio, Wav2Vec2, Wav2Vec2Conformer
from contract.subject import DIM, HEADS, Masks, NotOfferedError, Subject
from lobes.encoders import Encoder, HuggingFaceEncoder, LogMel, StackingStem, StreamingEncoder, frame_mask
from lobes.mixers import SDPA, Chunks, FNet, HyperMixing, LocalSDPA, SummaryMixing, TokenMixer
from lobes.objectives import BestRQ


class OurMixer(Subject):
    """One of our mixers by itself."""

    library = "lobes"
    call = "mixer(x, valid, chunks), mixer.step"

    def __init__(self, name: str, mixer: Callable[..., TokenMixer]) -> None:
        super().__init__(name)
        self.mixer = mixer

    def build(self, causal: bool = False) -> nn.Module:
        """With its defaults."""
        if not causal:
            return self.mixer(DIM)
        if "causal" not in inspect.signature(self.mixer).parameters:
            raise NotOfferedError
        return self.mixer(DIM, causal=True)

    def encode(self, model: Any, x: Tensor, lengths: Tensor, chunks: Chunks | None = None) -> Tensor:
        """With a mask of real frames."""
        if not model.streamable:
            self.whole_only(chunks=chunks)
        return model(x, frame_mask(lengths, x.shape[1]), chunks)

    def stream(self, model: Any, x: Tensor, chunks: Chunks) -> Tensor:
        """``step`` from ``init_state``."""
        if not model.streamable:
            raise NotOfferedError
        state, outputs = model.init_state(len(x), chunks.left), []
        for part in x.split(chunks.size, 1):
            y, state = model.step(part, torch.ones(part.shape[:2], dtype=torch.bool), state)
            outputs.append(y)
        return torch.cat(outputs, 1)


class OurEncoder(Subject):
    """Our encoder, from the waveform on."""

    library = "lobes"
    call = "Encoder(waveform, lengths, chunks), StreamingEncoder, exported as WholeGraph"
    width = 0
    hop, lookahead = 640, 240  # four log-mel frames of 10 ms; a window of 25 ms ends 15 ms after its frame

    def __init__(self, name: str, mixer: Callable[..., TokenMixer]) -> None:
        super().__init__(name)
        self.mixer = mixer

    def build(self, causal: bool = False) -> nn.Module:
        """Features normalised by running statistics, as streaming and the causal form need."""
        features, mixer = LogMel(n_mels=20, normalise="running"), partial(self.mixer, causal=causal)
        return Encoder(features, StackingStem(20, DIM, 4), DIM, self.depth, mixer, ffn_factor=2, causal=causal)

    def encode(self, model: Any, x: Tensor, lengths: Tensor, chunks: Chunks | None = None) -> Tensor:
        """With relative lengths."""
        return model(x, lengths / max(x.shape[1], 1), chunks).frames

    def stream(self, model: Any, x: Tensor, chunks: Chunks) -> Tensor:
        """Audio in pieces that have nothing to do with the chunks."""
        stream = StreamingEncoder(model, chunks)
        return torch.cat([*(stream.feed(piece) for piece in x[0].split(1000)), stream.finish()])[None]

    def traced(self, model: Any) -> nn.Module:
        """As `lobes.export` does, whose features are made of operations that every runtime has."""
        from lobes.export.graph import WholeGraph

        return _First(WholeGraph(model, layers=False))

    def inputs(self, n_frames: int) -> int:
        """640 samples, 40 ms, each."""
        return self.hop * n_frames


class _First(nn.Module):
    """The first output of a module."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        return self.module(x, lengths)[0]


class OurUpstream(Subject):
    """A public model behind our contract, from the waveform on."""

    library = "lobes"
    call = "HuggingFaceEncoder(waveform, lengths)"
    width = 0

    def __init__(self, name: str, origin: Wav2Vec2) -> None:
        super().__init__(name)
        self.origin = origin

    def build(self, causal: bool = False) -> nn.Module:
        """Of the same configuration."""
        self.whole_only(causal)
        self.origin.depth = self.depth
        return HuggingFaceEncoder(self.origin.config())

    def encode(self, model: Any, x: Tensor, lengths: Tensor, chunks: Chunks | None = None) -> Tensor:
        """With relative lengths."""
        self.whole_only(chunks=chunks)
        return model(x, lengths / max(x.shape[1], 1)).frames

    def traced(self, model: Any) -> nn.Module:
        """Not offered."""
        raise NotOfferedError("which frames are real is read as numbers")

    def inputs(self, n_frames: int) -> int:
        """As the origin."""
        return self.origin.inputs(n_frames)


class OurMasks(Masks):
    """The masks of our BEST-RQ recipe: 6 frames of 40 ms, each a start with probability 0.08."""

    name = "BEST-RQ masks"
    library = "lobes"
    call = "BestRQ.draw(ids, valid, step)"

    def share(self, seconds: float, others: list[float]) -> float:
        """Each utterance has masks of its own."""
        encoder = Encoder(LogMel(n_mels=20), StackingStem(20, DIM, 4), DIM, 1, SummaryMixing)
        n_frames = torch.tensor([round(25 * length) for length in (seconds, *others)])
        ids = [f"utterance-{row}" for row in range(len(n_frames))]
        objective = BestRQ(encoder, codebook_size=8)
        mask, _ = objective.draw(ids, frame_mask(n_frames, int(n_frames.max())), step=0)
        return mask[0].sum().item() / n_frames[0].item()


_ATTENTION = partial(SDPA, num_heads=HEADS)
SUBJECTS: tuple[Subject, ...] = (
    OurEncoder("Encoder, SummaryMixing", SummaryMixing),
    OurEncoder("Encoder, SDPA", _ATTENTION),
    OurUpstream("HuggingFaceEncoder, Wav2Vec2, group norm", Wav2Vec2("", "group", mask=True)),
    OurUpstream("HuggingFaceEncoder, data2vec-audio", Data2VecAudio("", "layer", mask=True)),
    OurUpstream("HuggingFaceEncoder, Wav2Vec2-Conformer", Wav2Vec2Conformer("", "layer", mask=True)),
    OurMixer("SummaryMixing", SummaryMixing),
    OurMixer("SDPA", _ATTENTION),
    OurMixer("LocalSDPA", partial(LocalSDPA, num_heads=HEADS, window=8)),
    OurMixer("HyperMixing", partial(HyperMixing, num_heads=HEADS)),
    OurMixer("FNet", FNet),
)
