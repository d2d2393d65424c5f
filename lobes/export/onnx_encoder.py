"""ONNX files run by ONNX Runtime, behind the encoders' own interface."""

from __future__ import annotations

import importlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lobes.encoders import EncoderOutput, absolute_lengths
from lobes.errors import CheckpointError, ConfigError

METADATA = "lobes"


def needed(module: str) -> Any:
    """Import a module that comes with the extra ``export``.

    Raises
    ------
    ConfigError
        If it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(f"{module}: cannot be imported ({error}); pip install 'lobes[export]'") from error


class OnnxEncoder(nn.Module):
    """An encoder out of an ONNX file, float or int8, on the CPU: to measure it, and to deploy it.

    Arguments
    ---------
    path : str or Path
        What `export_onnx` or `quantise_onnx` wrote.
    threads : int, optional
        Threads of ONNX Runtime; as many as PyTorch has if not given.

    Attributes
    ----------
    sample_rate : int
        Hz.
    frame_rate : float
        Frames per second, Hz.
    dim : int
        Width D of the frames.
    layer_dims : list of int
        Width of each layer: of the encoder's layers if the file has them, otherwise of the frames, the only layer.
    has_layers : bool
        Whether it has them.
    n_parameters : int
        Of the encoder that was exported; as a module this has none.

    Raises
    ------
    ConfigError
        If the extra ``export`` is not installed.
    CheckpointError
        If there is no such file, or it is another.
    """

    def __init__(self, path: str | Path, threads: int | None = None) -> None:
        super().__init__()
        self._session, self.about = open_session(path, "encoder", threads)
        self.sample_rate: int = self.about["sample_rate"]
        self.frame_rate: float = self.about["frame_rate"]
        self.dim: int = self.about["dim"]
        self.n_parameters: int = self.about["parameters"]
        self.has_layers = len(self._session.get_outputs()) > 2
        self.layer_dims: list[int] = self.about["layer_dims"] if self.has_layers else [self.dim]

    def forward(self, waveform: Tensor, lengths: Tensor) -> EncoderOutput:
        """As `lobes.encoders.Encoder.forward`, without chunks and without gradients."""
        samples = waveform.shape[1]
        if samples == 0:
            empty = [waveform.new_zeros(len(waveform), 0, dim) for dim in self.layer_dims]
            return EncoderOutput(
                waveform.new_zeros(len(waveform), 0, self.dim),
                waveform.new_zeros(len(waveform), 0, dtype=torch.bool),
                empty,
            )
        inputs = {"waveform": waveform.float(), "lengths": absolute_lengths(lengths, samples)}
        frames, valid, *layers = _run(self._session, inputs, waveform.device)
        return EncoderOutput(frames, valid, layers if self.has_layers else [frames])

    def macs(self, seconds: float) -> int:
        """Multiply-accumulates of the encoder for one utterance of that length, interpolated between known lengths."""
        known, macs = zip(*self.about["macs"], strict=True)
        return round(float(np.interp(seconds, (0, *known), (0, *macs))))


class OnnxStep:
    """One step of an encoder's stream out of an ONNX file.

    Arguments
    ---------
    path : str or Path
        What `export_step` wrote, or `quantise_onnx` of it.
    threads : int, optional
        As `OnnxEncoder`.

    Raises
    ------
    ConfigError, CheckpointError
        As `OnnxEncoder`.
    """

    def __init__(self, path: str | Path, threads: int | None = None) -> None:
        self._session, self.about = open_session(path, "step", threads)

    def init_state(self, batch: int) -> list[Tensor]:
        """The states of ``batch`` streams before their first chunk."""
        return [
            torch.full((batch, *state["shape"]), state["fill"], dtype=getattr(torch, state["dtype"]))
            for state in self.about["states"]
        ]

    def __call__(self, chunk: Tensor, valid: Tensor, state: Sequence[Tensor]) -> tuple[EncoderOutput, list[Tensor]]:
        """Encode the next chunk of each stream.

        Arguments
        ---------
        chunk : Tensor
            (B, samples) or (B, feature frames, F), as it was exported.
        valid : Tensor
            (B, feature frames), bool; false after a stream's end.
        state : list of Tensor
            After the chunk before.

        Returns
        -------
        tuple[EncoderOutput, list[Tensor]]
            The frames, which are the only layer, and the new state.
        """
        inputs = {"waveform" if self.about["audio"] else "features": chunk.float(), "valid": valid}
        inputs |= {f"state_{i}": part for i, part in enumerate(state)}
        frames, frames_valid, *after = _run(self._session, inputs, chunk.device)
        return EncoderOutput(frames, frames_valid, [frames]), after


def open_session(path: str | Path, kind: str | None, threads: int | None = None) -> tuple[Any, dict[str, Any]]:
    """Open an ONNX file that lobes wrote.

    Arguments
    ---------
    path : str or Path
        The file.
    kind : str or None
        ``encoder`` or ``step``, which it has to be; None for either.
    threads : int, optional
        As many as PyTorch has if not given.

    Returns
    -------
    tuple[InferenceSession, dict]
        ONNX Runtime's session, and what the file says of itself.
    """
    onnxruntime = needed("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or torch.get_num_threads()
    options.log_severity_level = 4  # what goes wrong is raised, and need not be printed too
    if not Path(path).is_file():
        raise CheckpointError(f"{path}: no such file; expected what export_onnx wrote")
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        about = json.loads(session.get_modelmeta().custom_metadata_map[METADATA])
    except (KeyError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path}: no metadata '{METADATA}' in it; expected what export_onnx wrote") from error
    except Exception as error:  # ONNX Runtime's errors have no base class of their own
        runtime = f"ONNX Runtime {onnxruntime.__version__}"
        raise CheckpointError(f"{path}: {runtime} cannot run it ({_one_line(error)}); export it again") from error
    if kind and about.get("kind") != kind:
        raise CheckpointError(f"{path}: kind is '{about.get('kind')}'; expected '{kind}' (export_onnx or export_step)")
    return session, about


def _run(session: Any, inputs: dict[str, Tensor], device: torch.device) -> list[Tensor]:
    arrays = {name: tensor.detach().cpu().contiguous().numpy() for name, tensor in inputs.items()}
    return [torch.from_numpy(array).to(device) for array in session.run(None, arrays)]


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
