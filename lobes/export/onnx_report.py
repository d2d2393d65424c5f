"""How far an ONNX file is from the encoder that it was made of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lobes.encoders import EncoderOutput
from lobes.errors import CheckpointError
from lobes.export.graph import StepGraph
from lobes.export.onnx_encoder import OnnxEncoder, OnnxStep, open_session

# Seconds of each utterance of a batch: alone, padded, one frame alone, and both sides of a frame's edge.
CASES: tuple[tuple[float, ...], ...] = ((1.0,), (1.9999, 0.0001, 1.2, 0.0), (0.006,), (0.16, 0.08, 0.0801), (7.3, 3.0))
STEPS = 5


@dataclass(frozen=True)
class OnnxReport:
    """Differences between an ONNX file and PyTorch, over real frames, in standard deviations of an output there.

    Attributes
    ----------
    bytes : int
        Of the file.
    largest : dict of str to float
        For each output that is not a mask, the largest difference of any number.
    typical : dict of str to float
        The same as the root of the mean square.

    Example
    -------
    >>> OnnxReport(10, {"frames": 1e-6, "layer_0": 3e-6}, {"frames": 1e-7, "layer_0": 1e-7}).error
    3e-06
    """

    bytes: int
    largest: dict[str, float]
    typical: dict[str, float]

    @property
    def error(self) -> float:
        """The largest difference of any output."""
        return max(self.largest.values())


def verify_onnx(encoder: nn.Module, path: str | Path) -> OnnxReport:
    """Compare an ONNX file with the encoder that it was made of.

    A file of whole utterances is run on noise of changing level, alone and in padded batches with NaN in the padding,
    down to a single sample; a step on several successive chunks of streams that end at different times.

    Arguments
    ---------
    encoder : nn.Module
        The encoder; left as it is.
    path : str or Path
        What `export_onnx`, `export_step` or `quantise_onnx` wrote.

    Returns
    -------
    OnnxReport

    Raises
    ------
    ConfigError
        If the extra ``export`` is not installed.
    CheckpointError
        If the file is damaged, or its outputs are of another shape or other masks: not of this encoder.
    """
    _, about = open_session(path, None)
    modes = {module: module.training for module in encoder.modules()}
    try:
        with torch.inference_mode():
            compare = _compare_steps if about["kind"] == "step" else _compare_whole
            pairs = compare(encoder.eval(), path)
    finally:
        for module, mode in modes.items():
            module.training = mode
    largest, typical = {}, {}
    for name, (ours, theirs) in pairs.items():
        difference, scale = ours - theirs, theirs.std()
        # NaN has to fail, and it fails every comparison.
        largest[name] = float(difference.abs().max() / scale)
        typical[name] = float(difference.square().mean().sqrt() / scale)
    return OnnxReport(Path(path).stat().st_size, largest, typical)


def step_example(encoder: Any, size: int, audio: bool, batch: int) -> tuple[Tensor, Tensor]:
    """One chunk of ``size`` frames as a stream's step takes it: audio or features, and which feature frames are real.

    Returns
    -------
    tuple[Tensor, Tensor]
        Noise, (B, samples) or (B, feature frames, F), and (B, feature frames), bool, all true.
    """
    features, n_frames = encoder.features, size * encoder.stem.factor
    samples = (n_frames - 1) * features.hop_samples + features.window_samples
    generator = torch.Generator().manual_seed(0)
    shape = (batch, samples) if audio else (batch, n_frames, features.n_mels)
    return torch.randn(shape, generator=generator), torch.ones(batch, n_frames, dtype=torch.bool)


def _compare_whole(encoder: Any, path: str | Path) -> dict[str, tuple[Tensor, Tensor]]:
    """Numbers of each output at real frames: ONNX Runtime's and PyTorch's."""
    ours = OnnxEncoder(path)
    found = _Pairs(path)
    for seed, case in enumerate(CASES):
        lengths = torch.tensor([round(seconds * encoder.sample_rate) for seconds in case])
        waveform = _noise(lengths, seed)
        relative = lengths / waveform.shape[1]
        found.add(ours(waveform, relative), encoder(waveform, relative), layers=ours.has_layers)
    return found.pairs()


def _compare_steps(encoder: Any, path: str | Path) -> dict[str, tuple[Tensor, Tensor]]:
    """The same over the steps of three streams."""
    ours = OnnxStep(path)
    graph = StepGraph(encoder, ours.about["left"], ours.about["audio"])
    chunk, valid = step_example(encoder, ours.about["chunk"], ours.about["audio"], batch=3)
    our_state, their_state = ours.init_state(3), graph.init_state(3)
    n_frames, found = valid.shape[1], _Pairs(path)
    ends = torch.tensor([[STEPS * n_frames], [2 * n_frames + n_frames // 2], [1]])
    for step in range(STEPS):
        part = chunk.roll(step * 7, dims=1)
        real = torch.arange(step * n_frames, (step + 1) * n_frames) < ends
        our_output, our_state = ours(part, real, our_state)
        their_output, their_state = graph.reference(part, real, their_state)
        found.add(our_output, their_output, layers=False)
    return found.pairs()


class _Pairs:
    """Collects outputs of both sides, refusing what differs in more than numbers."""

    def __init__(self, path: str | Path) -> None:
        self.path = path
        self.ours: dict[str, list[Tensor]] = {}
        self.theirs: dict[str, list[Tensor]] = {}

    def add(self, ours: EncoderOutput, theirs: EncoderOutput, layers: bool) -> None:
        """Take one batch."""
        if not torch.equal(ours.valid, theirs.valid):
            raise CheckpointError(f"{self.path}: marks other frames as real than the encoder; export it again")
        names = ["frames", *(f"layer_{i}" for i in range(len(theirs.layers)))] if layers else ["frames"]
        for name, a, b in zip(names, (ours.frames, *ours.layers), (theirs.frames, *theirs.layers), strict=False):
            if a.shape != b.shape:
                raise CheckpointError(f"{self.path}: {name} {tuple(a.shape)}, expected {tuple(b.shape)}; export again")
            if a[~ours.valid].any():
                raise CheckpointError(f"{self.path}: {name} is not zero in the padding; export again")
            self.ours.setdefault(name, []).append(a[ours.valid].flatten())
            self.theirs.setdefault(name, []).append(b[ours.valid].flatten())

    def pairs(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Both sides of each output, in one piece."""
        return {name: (torch.cat(self.ours[name]), torch.cat(self.theirs[name])) for name in self.ours}


def _noise(lengths: Tensor, seed: int) -> Tensor:
    """Noise whose level rises and falls between 1e-3 and 0.3, as speech does; NaN in the padding."""
    generator = torch.Generator().manual_seed(seed)
    samples = int(lengths.max())
    time = torch.linspace(0, 20, samples)
    level = 10 ** (-1.75 + 1.25 * torch.sin(time + torch.arange(len(lengths))[:, None]))
    waveform = torch.randn(len(lengths), samples, generator=generator) * level
    return waveform.masked_fill(torch.arange(samples) >= lengths[:, None], torch.nan)
