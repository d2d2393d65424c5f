"""Encoder folders: ``hyperparams.yaml``, ``encoder.safetensors`` and a model card, written and read."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import lobes
from lobes.errors import CheckpointError, ConfigError
from lobes.export.card import ModelCard
from lobes.export.leaf import is_leaf, leaf_text, load_leaf
from lobes.export.trusted import build_encoder, encoder_yaml
from lobes.export.upstream import is_upstream, load_upstream, upstream_text

WEIGHTS_FOLDER = Path(__file__).parent / "weights"
HPARAMS_FILE, WEIGHTS_FILE, CARD_FILE = "hyperparams.yaml", "encoder.safetensors", "README.md"


def save_encoder(
    encoder: nn.Module,
    folder: str | Path,
    hparams_text: str,
    *,
    half: bool = False,
    card: ModelCard | None = None,
) -> Path:
    """Write an encoder as a folder that `load_encoder` reads.

    Arguments
    ---------
    encoder : nn.Module
        The encoder, on any device.
    folder : str or Path
        Where to; made if missing, its three files replaced if not.
    hparams_text : str
        HyperPyYAML text of the experiment, with the encoder under the key ``encoder``.
    half : bool
        Store float16: half the size, features within about 1e-3 of the original's.
    card : ModelCard, optional
        What to tell its users.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    ConfigError
        If the text has no encoder, one that `load_encoder` would refuse, or one of other shapes than this.
    CheckpointError
        If a weight is not finite, or not in float16's range when ``half``.
    """
    text = encoder_yaml(hparams_text)
    tensors = {name: _stored(name, tensor, half) for name, tensor in encoder.state_dict().items()}
    try:
        differences = _differences(_build(text, HPARAMS_FILE, seed=0), tensors)
    except CheckpointError as error:
        raise ConfigError(str(error)) from error
    if differences:
        raise ConfigError(f"save_encoder: the hyperparameters' `encoder` is another than the one given: {differences}")

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    stored_as = "float16" if half else "float32"
    metadata = {"format": "pt", "lobes_version": lobes.__version__}
    card_text = (card or ModelCard(folder.resolve().name)).markdown(encoder, stored_as)
    replace_file(folder / WEIGHTS_FILE, lambda path: save_file(tensors, path, metadata))
    replace_file(folder / CARD_FILE, lambda path: path.write_text(card_text, encoding="utf-8"))
    replace_file(folder / HPARAMS_FILE, lambda path: path.write_text(text, encoding="utf-8"))
    return folder


def load_encoder(source: str | Path, *, untrained: bool = False, seed: int = 0) -> nn.Module:
    """Load an encoder; nothing is unpickled, and nothing foreign is run but a leaf, which its user trusts.

    Arguments
    ---------
    source : str or Path
        An encoder folder, the output folder of a run (which has one as ``encoder/``), a name out of
        `available_encoders`, or an ``.onnx`` file, which gives an `OnnxEncoder`. From elsewhere: a folder or an id of
        Hugging Face, a ``.ckpt`` file of SpeechBrain beside such a ``config.json``, or a ``.pt`` file of torchaudio,
        such as AVES'; see `lobes.export.upstream.load_upstream`. A ``.yaml`` file is a leaf, which may name any code,
        as a recipe's may: see `lobes.export.leaf`.
    untrained : bool
        Leave the weights as they were initialised: the control that pretraining has to beat.
    seed : int
        Of that initialisation. The global random state is left as it was.

    Returns
    -------
    nn.Module
        In float32 on the CPU, in evaluation mode.

    Raises
    ------
    CheckpointError
        If there is no such folder or name, or its files are damaged, not to be trusted, or do not fit each other.
    ConfigError
        If it is a model from elsewhere that is not there or not known, or a leaf that is not there, describes no
        encoder, or one that breaks the contract.
    """
    if is_leaf(source):
        return load_leaf(source, untrained, seed)
    if Path(source).suffix == ".onnx":
        if untrained:
            raise CheckpointError(
                f"{source}: untrained is True; expected an encoder folder, whose weights can be left out"
            )
        from lobes.export.onnx_encoder import OnnxEncoder

        return OnnxEncoder(source).eval()
    if _our_folder(source) is None and is_upstream(source):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return load_upstream(source, untrained).float().eval()
    folder = find_encoder(source)
    encoder = _build(encoder_text(folder), str(folder / HPARAMS_FILE), seed)
    if not untrained:
        load_weights(encoder, folder / WEIGHTS_FILE)
    return encoder.float().eval()


def encoder_text(source: str | Path, encoder: nn.Module | None = None) -> str:
    """The HyperPyYAML text that describes an encoder: what `save_encoder` takes, to save it again after it was tuned.

    Arguments
    ---------
    source : str or Path
        An encoder folder, the output folder of a run, a shipped name, or a leaf.
    encoder : nn.Module, optional
        What `load_encoder` gave for it: an encoder from elsewhere has no text but what it says itself.

    Raises
    ------
    CheckpointError
        If there is none, as of an ONNX file, or its text cannot be read.
    ConfigError
        If it is a leaf with code of one's own, which no folder may name.
    """
    if encoder is not None and is_leaf(source):
        return leaf_text(source, encoder)
    if encoder is not None and Path(source).suffix != ".onnx" and _our_folder(source) is None and is_upstream(source):
        return upstream_text(source, encoder)
    path = find_encoder(source) / HPARAMS_FILE
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}); save the encoder again") from error


def load_weights(encoder: nn.Module, path: str | Path, prefix: str = "") -> None:
    """Load a safetensors file into an encoder, in the encoder's own types.

    Arguments
    ---------
    encoder : nn.Module
        Changed in place, or not at all.
    path : str or Path
        The file.
    prefix : str
        What the names in the file begin with.

    Raises
    ------
    CheckpointError
        If the file is missing or damaged, or its tensors are not the encoder's.
    """
    try:
        tensors = {name.removeprefix(prefix): tensor for name, tensor in load_file(str(path)).items()}
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such file; save the encoder again, or ask for untrained=True") from error
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: not a safetensors file ({error}); copy or save it again") from error
    differences = _differences(encoder, tensors)
    if differences:
        raise CheckpointError(f"{path}: weights of another encoder than {HPARAMS_FILE} describes: {differences}")
    encoder.load_state_dict(tensors)


def available_encoders() -> list[str]:
    """Names of the encoders that come with the package.

    Returns
    -------
    list[str]
        Sorted; each can be given to `load_encoder`.
    """
    return sorted(path.parent.name for path in WEIGHTS_FOLDER.glob(f"*/{HPARAMS_FILE}"))


def find_encoder(source: str | Path) -> Path:
    """The folder that `load_encoder` reads for a folder, a run's output folder, or a shipped name.

    Raises
    ------
    CheckpointError
        If there is none.
    """
    folder = _our_folder(source)
    if folder is None:
        names = ", ".join(available_encoders()) or "none"
        raise CheckpointError(f"encoder '{source}': no folder with {HPARAMS_FILE}, nor a shipped name ({names})")
    return folder


def _our_folder(source: str | Path) -> Path | None:
    # A run's output folder has hyperparameters of its own beside its encoder.
    folders = (Path(source) / "encoder", Path(source), WEIGHTS_FOLDER / source)
    return next((folder for folder in folders if (folder / HPARAMS_FILE).is_file()), None)


def _build(text: str, name: str, seed: int) -> nn.Module:
    # Saving in the middle of training must not change what training draws next.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_encoder(text, name)


def _stored(name: str, tensor: Tensor, half: bool) -> Tensor:
    """A tensor's own copy on the CPU; float32, or float16 when ``half``, if it is of floats."""
    tensor = tensor.detach().cpu()
    if tensor.is_floating_point():
        tensor = tensor.to(torch.float16 if half else torch.float32)
        if not tensor.isfinite().all():
            where = "finite numbers in the range of float16 (or half=False)" if half else "finite numbers"
            raise CheckpointError(f"save_encoder: {name} holds inf or nan; expected {where}")
    return tensor.clone(memory_format=torch.contiguous_format)


def _differences(encoder: nn.Module, tensors: dict[str, Tensor]) -> str:
    """Say in one line how stored tensors differ in name or shape from an encoder's; empty if not at all."""
    expected = encoder.state_dict()
    kinds = {
        "missing": [name for name in expected if name not in tensors],
        "unexpected": [name for name in tensors if name not in expected],
        "of another shape": [
            f"{name} {tuple(tensors[name].shape)}, expected {tuple(tensor.shape)}"
            for name, tensor in expected.items()
            if name in tensors and tensors[name].shape != tensor.shape
        ],
    }
    return "; ".join(f"{len(names)} {kind} (first: {names[0]})" for kind, names in kinds.items() if names)


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Have it written beside the file, then rename, so that nobody ever reads half of one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
