"""Detector folders: the encoder's folder, the head's weights, and `detector.yaml`, which describes the rest."""

from __future__ import annotations

import hashlib
import inspect
import io
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import ruamel.yaml
from safetensors.torch import save_file
from torch import nn

import lobes
from lobes.detection.detector import Detector
from lobes.errors import CheckpointError, ConfigError
from lobes.evaluation import EventRule
from lobes.export import build_trusted, load_encoder, load_weights, replace_file, save_encoder

DETECTOR_FILE, HEAD_FILE, ENCODER_FOLDER = "detector.yaml", "head.safetensors", "encoder"
_OPTIONS = ("classes", "background", "activation", "window", "hop", "normalize")
_HEADER = """\
# A detector of lobes: python recipes/Gibbons/detection/detect.py <this folder> recordings/ --out out/
# Thresholds and durations under `rules` may be changed here; seconds, and scores from 0 to 1.
"""


def save_detector(
    detector: Detector, folder: str | Path, encoder_text: str, about: Mapping[str, Any] | None = None
) -> Path:
    """Write a detector as a folder that `load_detector` reads.

    Parameters
    ----------
    detector : Detector
        On any device.
    folder : str or Path
        Where to; made if missing.
    encoder_text : str
        HyperPyYAML text with the encoder under the key ``encoder``, as `lobes.export.encoder_text` gives it for the
        encoder that was loaded. Its weights are saved as they are now, tuned or not.
    about : mapping, optional
        What its users should know, of YAML's own types: data, date, result. It is not read.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    ConfigError
        If the text describes another encoder, or the head is not one that can be built again.
    CheckpointError
        If a weight is not finite.
    """
    folder = Path(folder)
    head = _head_yaml(detector.head)
    save_encoder(detector.model.encoder, folder / ENCODER_FOLDER, encoder_text)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in detector.model.probe.state_dict().items()}
    broken = [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
    if broken:
        raise CheckpointError(f"save_detector: {broken[0]} of the head holds inf or nan; train it with smaller steps")
    options: dict[str, Any] = {name: getattr(detector, name) for name in _OPTIONS}
    options["rules"] = {name: asdict(rule) for name, rule in detector.rules.items()}
    options["bands"] = {name: list(band) for name, band in detector.bands.items()}
    options["about"] = {"lobes": lobes.__version__, **(about or {})}
    text = io.StringIO()
    yaml = ruamel.yaml.YAML(typ="safe", pure=True)
    yaml.default_flow_style = None
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    try:
        yaml.dump(options, text)
    except ruamel.yaml.error.YAMLError as error:
        raise ConfigError(f"save_detector: about cannot be written ({error}); give plain texts and numbers") from error
    described = f"{_HEADER}{text.getvalue()}head: {head}\n"
    replace_file(folder / HEAD_FILE, lambda path: save_file(tensors, path, {"format": "pt"}))
    replace_file(folder / DETECTOR_FILE, lambda path: path.write_text(described, encoding="utf-8"))
    return folder


def load_detector(folder: str | Path) -> Detector:
    """Load a detector; nothing is unpickled and nothing foreign is run.

    Parameters
    ----------
    folder : str or Path
        As `save_detector` wrote it.

    Returns
    -------
    Detector
        On the CPU, in evaluation mode.

    Raises
    ------
    CheckpointError
        If there is no such folder, or its files are damaged, not to be trusted, or do not fit each other.
    """
    folder = Path(folder)
    path = folder / DETECTOR_FILE
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(
            f"{path}: cannot be read ({error}); expected a folder that save_detector wrote"
        ) from error
    described = build_trusted(text, str(path))
    if not isinstance(described, dict) or not {"classes", "head"} <= described.keys():
        raise CheckpointError(f"{path}: no classes or no head; expected a file that save_detector wrote")
    head = described.pop("head")
    described.pop("about", None)
    rules = described.pop("rules", None) or {}
    if not callable(head):
        raise CheckpointError(f"{path}: head is {head!r}; expected !name: of a head of lobes.probes")
    encoder = load_encoder(folder / ENCODER_FOLDER)
    try:
        rules = {name: EventRule(**rule) for name, rule in rules.items()}
        detector = Detector(encoder, head, rules=rules, **described)
    except (ConfigError, TypeError, AttributeError, ValueError) as error:
        raise CheckpointError(f"{path}: {' '.join(str(error).split())}") from error
    load_weights(detector.model.probe, folder / HEAD_FILE)
    return detector.eval()


def detector_checksum(folder: str | Path) -> str:
    """SHA-256 of the files that decide what a detector finds; whatever else lies in the folder does not count."""
    folder = Path(folder)
    digest = hashlib.sha256()
    try:
        for path in [folder / DETECTOR_FILE, folder / HEAD_FILE, *sorted((folder / ENCODER_FOLDER).rglob("*"))]:
            if path.is_file() and path.suffix != ".md":
                digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    except OSError as error:
        raise CheckpointError(
            f"{folder}: cannot be read ({error}); expected a folder that save_detector wrote"
        ) from error
    return digest.hexdigest()


def _head_yaml(head: Any) -> str:
    """``!name:lobes.probes.heads.FrameLinear {dropout: 0.1}`` from the constructor."""
    options: dict[str, Any] = {}
    while isinstance(head, partial):
        if head.args:
            raise ConfigError(f"save_detector: head has the unnamed options {head.args}; give them by name")
        options = {**head.keywords, **options}
        head = head.func
    if not (inspect.isclass(head) and issubclass(head, nn.Module)):
        raise ConfigError(
            f"save_detector: head is {head!r}; expected a head's class, or !name: of one with its options"
        )
    text = io.StringIO()
    yaml = ruamel.yaml.YAML(typ="safe", pure=True)
    yaml.default_flow_style = True
    yaml.width = 10**6
    try:
        yaml.dump(options, text)
    except ruamel.yaml.error.YAMLError as error:
        raise ConfigError(f"save_detector: options of the head are {options}; expected texts and numbers") from error
    written = f"!name:{head.__module__}.{head.__qualname__} {text.getvalue().strip()}"
    build_trusted(f"head: {written}", "save_detector")
    return written
