"""Encoders as ONNX files: for whole utterances, for streams, and in int8. Needs the extra ``export``."""

from __future__ import annotations

import contextlib
import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import lobes
from lobes.encoders import Encoder, LogMel
from lobes.errors import CheckpointError, ConfigError
from lobes.export.folder import replace_file
from lobes.export.graph import StepGraph, WholeGraph, flattened
from lobes.export.onnx_encoder import METADATA, needed
from lobes.export.onnx_report import OnnxReport, step_example, verify_onnx
from lobes.mixers import mixers_that

OPSET = 20
TOLERANCE = 1e-4  # of an output's standard deviation
# Odd at every subsampling and no multiple of any window, so that no branch of the trace holds by accident.
EXAMPLE_FRAMES = 1009
MACS_AT = (1, 2, 5, 10, 20, 40, 80, 160, 320)  # seconds


def export_onnx(encoder: nn.Module, path: str | Path, *, layers: bool = False) -> OnnxReport:
    """Write an encoder as one ONNX file, from the waveform on, for any number of utterances of any length.

    The graph's inputs are ``waveform`` (B, samples), float32, and ``lengths`` (B,), int64, in samples; what stands in
    the padding is ignored. Its outputs are ``frames`` (B, T, D), ``valid`` (B, T), bool, and, if asked for,
    ``layer_0``, ``layer_1``... The file is kept only if ONNX Runtime agrees with PyTorch; see `verify_onnx`.

    Arguments
    ---------
    encoder : nn.Module
        `Encoder` or `LogMelEncoder`; left as it is.
    path : str or Path
        The file, replaced if it is there.
    layers : bool
        Whether to give the layers too, for probes.

    Returns
    -------
    OnnxReport
        How far ONNX Runtime is from PyTorch.

    Raises
    ------
    ConfigError
        If a mixer cannot be exported, or the extra is not installed.
    CheckpointError
        If the two differ by more than 1e-4 of an output's standard deviation; nothing is written then.
    """
    features = _features(encoder)
    _check_exportable(encoder)
    subsampling = round(features.frame_rate / float(encoder.frame_rate))  # type: ignore[arg-type]
    samples = (EXAMPLE_FRAMES - 1) * subsampling * features.hop_samples + 1
    example = (torch.zeros(2, samples), torch.tensor([samples, samples // 2]))
    free = torch.export.Dim.DYNAMIC
    n_layers = len(encoder.layer_dims) if layers else 0  # type: ignore[arg-type]
    outputs = ["frames", "valid", *(f"layer_{i}" for i in range(n_layers))]
    model = _traced(
        WholeGraph(encoder, layers), example, ({0: free, 1: free}, {0: free}), ["waveform", "lengths"], outputs
    )
    macs = [[seconds, encoder.macs(seconds)] for seconds in MACS_AT]  # type: ignore[operator]
    return _written(model, encoder, Path(path), {"kind": "encoder", "macs": macs})


def export_step(encoder: nn.Module, path: str | Path, chunks: Any, *, audio: bool = False) -> OnnxReport:
    """Write one step of an encoder's stream as an ONNX file, for any number of streams and chunks of one size.

    The graph's inputs are a chunk, ``valid`` (B, feature frames), bool, and ``state_0``, ``state_1``...; its outputs
    are ``frames`` (B, T, D), ``frames_valid`` (B, T), and ``next_state_0``..., the next step's ``state_0``... What the
    states are before the first chunk is in the metadata, and `OnnxStep` makes them. The file is kept only if several
    successive steps agree with PyTorch's; see `verify_onnx`.

    Arguments
    ---------
    encoder : nn.Module
        An `Encoder` of streamable mixers; left as it is.
    path : str or Path
        The file, replaced if it is there.
    chunks : Chunks or DynChunkTrainConfig
        Frames of a chunk, and of its past.
    audio : bool
        Whether a chunk is ``waveform`` (B, (feature frames - 1) · hop + window samples), as for `LogMel.step`, or
        ``features`` (B, feature frames, F), as for `Encoder.step`.

    Returns
    -------
    OnnxReport
        How far ONNX Runtime is from PyTorch.

    Raises
    ------
    ConfigError
        If the encoder does not work in such chunks, its features do not stream but are to be inside, or the extra is
        not installed.
    CheckpointError
        As `export_onnx`.
    """
    if not isinstance(encoder, Encoder):
        raise ConfigError(f"export_step: encoder is a {type(encoder).__name__}; expected an Encoder that streams")
    checked = encoder.checked(chunks)
    if checked is None:
        raise ConfigError("export_step: chunks is None; expected Chunks(size), in frames")
    graph = StepGraph(encoder, checked.left, audio)
    state = flattened(graph.init_state(2))
    chunk, valid = step_example(encoder, checked.size, audio, batch=2)
    free = torch.export.Dim.DYNAMIC
    shapes = ({0: free}, {0: free}, tuple({0: free} for _ in state))
    inputs = ["waveform" if audio else "features", "valid", *(f"state_{i}" for i in range(len(state)))]
    outputs = ["frames", "frames_valid", *(f"next_state_{i}" for i in range(len(state)))]
    model = _traced(graph, (chunk, valid, *state), shapes, inputs, outputs)
    details = {"kind": "step", "audio": audio, "chunk": checked.size, "left": checked.left}
    return _written(model, encoder, Path(path), {**details, "states": [_described(part) for part in state]})


def quantise_onnx(source: str | Path, target: str | Path) -> Path:
    """Write an ONNX file with the weights of its linear layers in int8.

    Weights have one scale per output, activations one per layer and batch, taken as they come: unlike that of the float
    graph, an utterance's output is only nearly independent of the batch. Features, norms, convolutions and weights of
    more than two dimensions (HyperMixing's perceptrons of each head) stay in float. Weights use 7 of the 8 bits:
    processors without VNNI instructions add pairs of products in 16 bits, which larger weights overflow, and then
    nothing is left of the output.

    Arguments
    ---------
    source : str or Path
        What `export_onnx` or `export_step` wrote.
    target : str or Path
        The file, replaced if it is there.

    Returns
    -------
    Path
        The target; see `verify_onnx` for how far it is from the encoder.

    Raises
    ------
    ConfigError
        If the extra is not installed.
    CheckpointError
        If the source is not such a file.
    """
    onnx, quantization = needed("onnx"), needed("onnxruntime.quantization")
    try:
        model = onnx.load(str(source))
    except Exception as error:  # protobuf's own classes of errors
        raise CheckpointError(f"{source}: not an ONNX file ({error}); expected what export_onnx wrote") from error
    # ONNX Runtime has no scales per output of weights that are stacked, as those of HyperMixing's heads are.
    stacked = {weight.name for weight in model.graph.initializer if len(weight.dims) > 2}
    in_float = [
        node.name for node in model.graph.node if any("features." in name or name in stacked for name in node.input)
    ]
    # What the exporter wrote is optimised already; saying so spares a warning.
    onnx.helper.set_model_props(model, {**_properties(model), "onnx.quant.pre_process": "onnxruntime.quant"})

    def write(path: Path) -> None:
        quantization.quantize_dynamic(
            model,
            path,
            op_types_to_quantize=["MatMul", "Gemm"],
            per_channel=True,
            reduce_range=True,
            weight_type=quantization.QuantType.QInt8,
            nodes_to_exclude=in_float,
        )
        quantised = onnx.load(str(path))
        _strip(quantised)
        details = {METADATA: _properties(quantised)[METADATA]}
        onnx.helper.set_model_props(quantised, details)
        onnx.save(quantised, str(path))

    replace_file(Path(target), write)
    return Path(target)


def _features(encoder: nn.Module) -> LogMel:
    features = getattr(encoder, "features", None)
    if not isinstance(features, LogMel):
        raise ConfigError(
            f"export_onnx: encoder is a {type(encoder).__name__}; expected an Encoder with LogMel features"
        )
    return features


def _check_exportable(encoder: nn.Module) -> None:
    for number, block in enumerate(getattr(encoder, "blocks", ())):
        if not block.mixer.exportable:
            name, can = type(block.mixer).__name__, ", ".join(mixers_that("exportable"))
            raise ConfigError(
                f"export_onnx: mixer {name} of block {number} (causal={block.mixer.causal}) has no graph for all "
                f"lengths; export its step (export_step) if it streams, or build the encoder with one of {can}"
            )


def _traced(graph: nn.Module, example: tuple, shapes: tuple, inputs: list[str], outputs: list[str]) -> Any:
    """An ONNX model, its axes named, without the exporter's notes on where each node came from."""
    for module in ("onnx", "onnxscript", "onnxruntime"):
        needed(module)
    with _quiet():
        program = torch.onnx.export(
            graph.eval(),
            example,
            dynamo=True,
            dynamic_shapes=shapes,
            input_names=inputs,
            output_names=outputs,
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None  # there is no path to save to
    model = program.model_proto
    _drop_guards(model)
    _strip(model)
    symbols = {}
    for value in model.graph.input:
        for axis, name in zip(value.type.tensor_type.shape.dim, ("batch", "samples"), strict=False):
            if axis.dim_param:
                symbols[axis.dim_param] = name
    for value in (*model.graph.input, *model.graph.output):
        for axis in value.type.tensor_type.shape.dim:
            for symbol, name in symbols.items():
                if axis.dim_param:
                    axis.dim_param = axis.dim_param.replace(symbol, name)
    return model


def _drop_guards(model: Any) -> None:
    """Take out what makes a softmax over nothing visible zeros instead of NaN.

    No mixer has such a row, verification would see its NaN, and over long utterances the guard takes as long as the
    softmax.
    """
    maker = {name: node for node in model.graph.node for name in node.output}
    guards, guarded = [], {}
    for node in model.graph.node:
        condition = maker.get(node.input[0]) if node.op_type == "Where" else None
        if condition is not None and condition.op_type == "IsNaN" and condition.input[0] == node.input[2]:
            if maker[node.input[2]].op_type == "Softmax":
                guarded[node.output[0]] = node.input[2]
                guards += [condition, node]
    for node in guards:
        model.graph.node.remove(node)
    for node in model.graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = guarded.get(name, name)


def _strip(model: Any) -> None:
    """Leave out what no runtime reads: a seventh of the file of a small encoder."""
    del model.graph.value_info[:], model.graph.metadata_props[:]
    for part in (*model.graph.node, *model.graph.input, *model.graph.output, *model.graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""


def _written(model: Any, encoder: nn.Module, path: Path, details: dict[str, Any]) -> OnnxReport:
    """Write the file with its metadata, verify it, and only then put it where it belongs."""
    onnx = needed("onnx")
    about = {
        "lobes_version": lobes.__version__,
        "sample_rate": encoder.sample_rate,
        "frame_rate": encoder.frame_rate,
        "dim": encoder.dim,
        "layer_dims": encoder.layer_dims,
        "parameters": sum(p.numel() for p in encoder.parameters()),
        **details,
    }
    onnx.helper.set_model_props(model, {METADATA: json.dumps(about)})
    reports = []

    def write(temporary: Path) -> None:
        onnx.save(model, str(temporary))
        report = verify_onnx(encoder, temporary)
        if not report.error <= TOLERANCE:
            raise CheckpointError(
                f"{path}: ONNX Runtime is {report.error:.2g} standard deviations off PyTorch; expected at most "
                f"{TOLERANCE:g}; nothing was written: a mixer or a stem computes something that does not export"
            )
        reports.append(report)

    replace_file(path, write)
    return reports[0]


def _described(state: Tensor) -> dict[str, Any]:
    """What a state is before the first chunk."""
    values = state.flatten().unique().tolist() or [0]
    if len(values) > 1:
        raise ConfigError("export_step: a state begins with several values; expected zeros, or one value throughout")
    return {"shape": list(state.shape[1:]), "dtype": str(state.dtype).removeprefix("torch."), "fill": values[0]}


def _properties(model: Any) -> dict[str, str]:
    return {entry.key: entry.value for entry in model.metadata_props}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's warnings about its own deprecations and about packages that nobody needs."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
