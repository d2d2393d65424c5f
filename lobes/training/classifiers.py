"""Encoder and head as one classifier: built to be trained, taken from a finished run, and put before other labels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lobes.errors import CheckpointError, ConfigError
from lobes.export import build_trusted, encoder_yaml, load_encoder
from lobes.probes import Downstream, Probe
from lobes.training.checkpointer import Checkpointer
from lobes.training.downstream import head_of
from lobes.training.hparams import HparamsFile

_OF = "expected the folder of a run that trains a head on its encoder, such as FSDD/digits with finetune.yaml"
#: Where every head of `lobes.probes` for clips has its last layer.
_OUTPUT = "probe.head.output.weight"


def build_classifier(encoder: Any, head: Callable[..., nn.Module], n_classes: int) -> Downstream:
    """A head on the weighted sum of an encoder's normalised layers; what trains of the encoder stays as it is."""
    built = head(encoder.layer_dims[0], n_classes)
    return Downstream(encoder, Probe(encoder.layer_dims, built, normalize=True), frozen=None)


def load_classifier(run: str | Path, *, untrained: bool = False, seed: int = 0) -> Downstream:
    """Load the classifier that a run of `lobes.training.tune_fold` trained: encoder and head, all of it frozen.

    Of the run's file nothing is called but modules of lobes; its weights are read without unpickling.

    Parameters
    ----------
    run : path
        Its output folder, of which the first fold by name is taken, or the folder of one fold, ``<run>/folds/<name>``.
    untrained : bool
        Leave the weights as they were initialised: the control.
    seed : int
        Of that initialisation.

    Returns
    -------
    Downstream
        In evaluation mode, with as many outputs as the run has classes.

    Raises
    ------
    CheckpointError
        The folder is no run of that kind, its head was not kept, or its encoder is not there any more.
    """
    given = Path(run)
    folder = given if (given / "hyperparams.yaml").is_file() else given.resolve().parent.parent
    if not given.is_dir() or not (folder / "hyperparams.yaml").is_file():
        raise CheckpointError(f"{run}: holds no hyperparams.yaml; {_OF}")
    known = HparamsFile(folder / "hyperparams.yaml")
    if known.get("head") is None and "head" not in known.tree:
        raise CheckpointError(f"{run}: has no head (a probe on a frozen encoder, or a pretraining run); {_OF}")
    if known.get("faster") is not None or known.get("adaptation") is not None:
        raise CheckpointError(f"{run}: its encoder was changed by faster or by an adaptation; {_OF}, without those")
    state = _weights(given, given if folder != given else None)
    if _OUTPUT not in state:
        raise CheckpointError(f"{run}: its checkpoint holds no head ({_OUTPUT} is missing); {_OF}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = load_encoder(known.get("encoder"), untrained=True, seed=seed)
        model = build_classifier(encoder, _head(known, str(folder)), len(state[_OUTPUT]))
    try:
        if not untrained:
            model.load_state_dict(state)
    except RuntimeError as error:
        raise CheckpointError(f"{run}: {' '.join(str(error).split())}; {_OF}") from error
    return model.requires_grad_(False).eval()


def _weights(run: Path, fold: Path | None) -> dict[str, Tensor]:
    """The tensors of a fold's last checkpoint."""
    folds = [fold] if fold else sorted(path.parent for path in run.glob("folds/*/save"))
    kept = Checkpointer(folds[0] / "save").find_checkpoint() if folds and (folds[0] / "save").is_dir() else None
    if kept is None or "model" not in kept.paramfiles:
        raise CheckpointError(f"{run}: holds no checkpoint, and so no head; train it to its end; {_OF}")
    return torch.load(kept.paramfiles["model"], map_location="cpu", weights_only=True)  # type: ignore[no-any-return]


def _head(known: HparamsFile, name: str) -> Callable[..., nn.Module]:
    """The constructor of a run's head."""
    built = build_trusted(encoder_yaml(known.text, "head"), name, "encoder")
    return head_of({"head": built})


class MappedHead(nn.Module):
    """A head whose labels are mapped to others.

    Parameters
    ----------
    head : nn.Module
        `head(frames (B, T, D), valid (B, T))`, logits (B, source labels).
    mapping : nn.Module
        Such as `lobes.adapters.LabelMapping`: (B, source labels) to (B, labels).
    """

    def __init__(self, head: nn.Module, mapping: nn.Module) -> None:
        super().__init__()
        self.head, self.mapping = head, mapping

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """(B, labels) from frames (B, T, D) and mask (B, T)."""
        return self.mapping(self.head(x, valid))


def map_labels(classifier: Downstream, mapping: Callable[..., nn.Module], n_classes: int) -> Downstream:
    """Put a label mapping behind a classifier, in place.

    Parameters
    ----------
    classifier : Downstream
        From `load_classifier`.
    mapping : callable
        Constructor, called with the numbers of source labels and of labels: ``!name:lobes.adapters.LabelMapping``.
    n_classes : int
        Labels.

    Raises
    ------
    ConfigError
        The classifier tells too few labels apart.
    """
    head: Any = classifier.probe.head
    n_source = head.output.out_features
    try:
        classifier.probe.head = MappedHead(head, mapping(n_source, n_classes))
    except ConfigError as error:
        raise ConfigError(
            f"the source task has {n_source} labels for {n_classes} classes: {error}; give the run of a task of more "
            "labels, or a lower --mapping.per_target"
        ) from error
    return classifier
