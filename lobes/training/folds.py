"""Cross-validation by training: a model per fold, the decisions of all folds together."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from speechbrain import Stage
from speechbrain.utils.epoch_loop import EpochCounter
from torch import Tensor, nn

from lobes.adapters import active_adapter, save_adapter
from lobes.dataio import AudioDataset, audio_dataset, read_manifest
from lobes.evaluation import auc, bootstrap_interval, uar, write_confusion, write_embeddings, write_result
from lobes.export import load_encoder
from lobes.probes import Decision, Downstream, decision_records, probe_fold, seeded
from lobes.training.brain import Brain
from lobes.training.checkpointer import Checkpointer
from lobes.training.classifiers import build_classifier, load_classifier, map_labels
from lobes.training.costs import costs
from lobes.training.downstream import head_of
from lobes.training.parallel import on_main


class DecidingBrain(Brain):
    """A Brain that notes what it decides on each clip of a test set, in all processes: `decisions`."""

    decisions: list[Decision]

    def control(self, stage: Stage) -> Tensor | float:
        """What to add to the loss in training to hold the encoder near the pretrained one: see `tune_fold`."""
        control = getattr(self.hparams, "control", None)
        return control() if control is not None and stage == Stage.TRAIN else 0.0

    def decide(self, logits: Tensor, targets: Sequence[str], classes: Sequence[str], batch: Any) -> None:
        """Note the decisions on a batch; call it out of training.

        Parameters
        ----------
        logits : Tensor
            (B, C).
        targets : sequence of str
            Labels of the B clips.
        classes : sequence of str
            Names of the C outputs.
        batch : PaddedBatch
            With ``id`` and ``group``.
        """
        for row, target, name, group in zip(logits.softmax(-1).tolist(), targets, batch.id, batch.group, strict=True):
            scores = dict(zip(classes, row, strict=True))
            self.decisions.append(Decision(target, max(scores, key=scores.__getitem__), name, group, scores))

    def on_stage_start(self, stage: Stage, epoch: int | None = None) -> None:
        """Begin a new list."""
        self.decisions = []

    def on_stage_end(self, stage: Stage, stage_loss: float, epoch: int | None = None) -> None:
        """Collect what other processes decided; save when training is over."""
        self.decisions = self.gather(self.decisions)
        if stage == Stage.TRAIN and epoch == self.hparams.epochs:
            self.checkpointer.save_and_keep_only(meta={"epoch": epoch})


def tune_fold(
    brain_class: type[DecidingBrain],
    hparams: Mapping[str, Any],
    run_opts: Any,
    folder: Path,
    encoder: nn.Module,
    n_classes: int,
    train: AudioDataset,
    test: AudioDataset,
    valid: AudioDataset | None = None,
) -> tuple[list[Decision], dict[str, Any], list[Decision]]:
    """Train an encoder, as far as it is not frozen, with a head on the weighted sum of its layers, and test it.

    Parameters
    ----------
    brain_class : type
        Its ``modules.model`` is a `Downstream`.
    hparams : mapping
        ``head``, ``opt_class``, ``encoder_lr``, ``epochs``, ``train_loader``, ``test_loader``, ``control`` (None, or
        what is called with the encoder and gives a term of the loss: `lobes.adapters.L2SP`, `replay_pretext`), and what
        a Brain takes.
    run_opts : RunOptions
        From `start_experiment`.
    folder : Path
        Of the fold; checkpoints go into ``save``, from which it goes on where it was stopped, and what was learned of
        an adapted encoder, by itself, into ``adapter``.
    encoder : nn.Module
        Keeps the Encoder contract; what is trained of it has been chosen.
    n_classes : int
        Outputs of the head.
    train, test : AudioDataset
        Of the fold.
    valid : AudioDataset, optional
        What learning rates and the like are chosen by; no epoch is.

    Returns
    -------
    tuple of list, dict and list
        The decision on each clip of `test`; what the training cost, as `lobes.evaluation.write_result` takes it; the
        decision on each clip of `valid`.
    """
    tests = [test] if valid is None else [test, valid]
    model = build_classifier(encoder, head_of(hparams), n_classes)
    found, cost = _tune(brain_class, hparams, run_opts, folder, model, train, tests)
    return found[0], cost, [] if valid is None else found[1]


def _tune(
    brain_class: type[DecidingBrain],
    hparams: Mapping[str, Any],
    run_opts: Any,
    folder: Path,
    model: Downstream,
    train: AudioDataset,
    tests: Sequence[AudioDataset],
) -> tuple[list[list[Decision]], dict[str, Any]]:
    """As `tune_fold`, of a model that is built, with the decisions on several tests."""
    encoder = model.encoder
    groups = model.parameter_groups(hparams["encoder_lr"])
    epochs = EpochCounter(hparams["epochs"])
    checkpointer = Checkpointer(f"{folder}/save", {"model": model, "epochs": epochs})
    control = hparams["control"](encoder) if hparams.get("control") is not None else None
    hparams = {**hparams, "output_folder": str(folder), "control": control}
    brain = brain_class({"model": model}, lambda _: hparams["opt_class"](groups), hparams, run_opts, checkpointer)
    brain.fit(epochs, train, None, None, hparams["train_loader"])
    found = []
    for test in tests:
        brain.evaluate(test, test_loader_kwargs=hparams["test_loader"])
        found.append(brain.decisions)
    if active_adapter(encoder):
        on_main(save_adapter, encoder, folder / "adapter")
    return found, costs(brain, encoder)


def all_folds(outcomes: Iterable[tuple[list[Decision], dict[str, Any]]]) -> tuple[list[Decision], dict[str, Any]]:
    """The decisions of all folds, and what they cost together.

    Hours and seconds add up; parameters and multiply-accumulates are those of one model, the first.
    """
    decisions, spent = zip(*outcomes, strict=True)
    total = {name: sum(fold[name] for fold in spent) for name in ("audio_hours", "wall_seconds")}
    return [decision for found in decisions for decision in found], {**spent[0], **total}


@dataclass
class CrossValidation:
    """What `cross_validate` found.

    Attributes
    ----------
    decisions : list of Decision
        Of all folds.
    cost : dict
        As `lobes.evaluation.write_result` takes it.
    controls : dict
        Name -> decisions: ``background`` and, with a ``swap``, ``swapped``.
    features : dict
        Id of a tested clip -> mean and deviation over time of one layer, (2·D,); empty where the encoder was tuned,
        since no two of its folds' features are of one space.
    features_of : str
        Which encoder's and layer's they are, in words. All are of one encoder: where each fold has one of its own, the
        last fold's, which may have heard the clips of the others. The layer is what most folds of that encoder chose.
    """

    decisions: list[Decision]
    cost: dict[str, Any]
    controls: dict[str, list[Decision]]
    features: dict[str, Tensor] = field(default_factory=dict)
    features_of: str = ""


def cross_validate(
    brain_class: type[DecidingBrain], hparams: Mapping[str, Any], run_opts: Any, folds: Mapping[str, Mapping[str, Path]]
) -> CrossValidation:
    """Tell `label` in each fold's test clips: by a probe on a frozen encoder, or, with an `adaptation`, by a tuned one.

    Beside it, always, what the background alone would give to the probe: on audio out of `background`, and on the
    frozen encoder. A tuned encoder is not tuned again on the background, and may make more of it than the probe does.
    With `swap`, also what the model itself makes of the test's clips when the background of a clip that it was trained
    on, of another group and another label, is mixed into each (Stowell et al. 2019): what rests on the background
    is led astray.

    Parameters
    ----------
    brain_class : type
        For tuning. Its ``hparams`` have ``class_weights`` (C,), with which each class counts the same; batches have
        ``class_number``.
    hparams : mapping
        ``encoder`` (in which ``{fold}`` stands for the fold's name, where each has one of its own), ``untrained``,
        ``seed``, ``label``, ``classes``, ``background`` (a transform for `audio_dataset`), ``swap`` (None, or
        `lobes.dataio.background.BackgroundSwap`, which gets the fold's training clips and ``background`` as its
        filter), ``probe``, ``features_gib`` (as `probe_fold` takes it), ``adaptation`` (None: frozen), and for tuning
        what `tune_fold` takes. With ``mapping``, as `map_labels` takes it, ``encoder`` is a run for `load_classifier`,
        whose frozen head stands in place of ``head`` and is told to mean other labels: what is adapted is all that is
        trained.
    run_opts : RunOptions
        From `start_experiment`.
    folds : mapping
        From `lobes.dataio.make_folds`.

    Returns
    -------
    CrossValidation
        For `save_folds`.
    """
    # Features, as long as the encoder is the same.
    known: dict[str, dict[str, Tensor]] = {"calls": {}, "background": {}}
    layers: list[int] = []  # that the probes chose, of that encoder
    outcomes: list[tuple[list[Decision], dict[str, Any]]] = []
    controls: dict[str, list[Decision]] = defaultdict(list)
    for name, fold in folds.items():
        source = hparams["encoder"].format(fold=name)
        encoder, mapped = _source(hparams, source)
        if source != hparams["encoder"]:
            known, layers = {"calls": {}, "background": {}}, []
        clips = partial(_clips, hparams, sample_rate=encoder.sample_rate)
        probe = partial(_probe, hparams, encoder, run_opts["device"])
        train, test = (clips(fold[split], transform=hparams["background"]) for split in ("train", "test"))
        controls["background"] += probe(train, test, known["background"])[0]
        train, *tests = clips(fold["train"]), clips(fold["test"])
        if hparams.get("swap") is not None:
            differs = ("group", hparams["label"])
            swap = hparams["swap"](fold["train"], differs=differs, filter=hparams["background"])
            tests.append(clips(fold["test"], transform=swap))
        if hparams["adaptation"] is not None:
            tuned = {**hparams, "class_weights": class_weights(train, hparams["label"], hparams["classes"])}
            hparams["adaptation"]().apply(encoder)
            model = mapped or build_classifier(encoder, head_of(hparams), len(hparams["classes"]))
            folder = Path(hparams["output_folder"]) / "folds" / name
            found, cost = _tune(brain_class, tuned, run_opts, folder, model, train, tests)
        else:
            decisions, cost, layer = probe(train, tests[0], known["calls"])
            layers.append(layer)
            trained = {clip: known["calls"][clip] for clip in train.data_ids}  # not those of the test, which are mixed
            found = [decisions, *(probe(clips(fold["train"]), test, dict(trained))[0] for test in tests[1:])]
        outcomes.append((found[0], cost))
        if len(found) > 1:
            controls["swapped"] += found[1]
    decisions, cost = all_folds(outcomes)
    result = CrossValidation(decisions, cost, dict(controls))
    if layers:
        layer = Counter(sorted(layers)).most_common(1)[0][0]  # of equals the lowest
        result.features = {one.id: known["calls"][one.id][0, layer] for one in decisions if one.id in known["calls"]}
        result.features_of = f"{source}{' untrained' * bool(hparams['untrained'])}, layer {layer}"
    return result


def _source(hparams: Mapping[str, Any], source: str) -> tuple[Any, Downstream | None]:
    """The encoder and, where labels are mapped, the classifier that it is of."""
    options = {"untrained": hparams["untrained"], "seed": hparams["seed"]}
    if hparams.get("mapping") is None:
        return load_encoder(source, **options), None
    mapped = map_labels(load_classifier(source, **options), hparams["mapping"], len(hparams["classes"]))
    return mapped.encoder, mapped


def _probe(
    hparams: Mapping[str, Any], encoder: nn.Module, device: Any, train: AudioDataset, test: AudioDataset, known: Any
) -> tuple[list[Decision], dict[str, Any], int]:
    """The decisions on a test, what they cost, and the layer that they rest on."""
    probe = seeded(hparams["probe"], hparams["seed"])
    given = {"device": device, "known": known, "features_gib": hparams["features_gib"]}
    decisions, cost = probe_fold(encoder, probe, train, test, hparams["label"], **given)
    return decisions, cost, probe.layer


def class_weights(dataset: AudioDataset, label: str, classes: Sequence[str]) -> Tensor:
    """Weights (C,) with which each class counts as much as the others; their mean over the clips is 1."""
    labels = [dataset.data[name][label] for name in dataset.data_ids]
    counts = torch.tensor([labels.count(name) for name in classes])
    return len(labels) / ((counts > 0).sum() * counts.clamp(min=1))


def _clips(hparams: Mapping[str, Any], manifest: Path, *, sample_rate: int, transform: Any = None) -> AudioDataset:
    keys = ("id", "sig", "group", hparams["label"], "class_number")
    labels = {"class_number": (hparams["label"], hparams["classes"].index)}
    return audio_dataset(read_manifest(manifest), sample_rate, keys, labels=labels, transform=transform)


def save_folds(hparams: Mapping[str, Any], found: CrossValidation, manifests: Mapping[str, Path]) -> None:
    """Write ``result.json`` and pictures, and print the figure with those of the controls: on one process.

    Pictures are the confusion matrix and, of a frozen encoder, a map of the tested clips (`write_embeddings`).

    The metric is unweighted average recall or, where ``hparams["positive"]`` names one of two classes, the AUC. Each
    control of `cross_validate` is in ``other_metrics`` as ``<control>_value``, ``_low`` and ``_high``.
    """
    positive = hparams["positive"]
    metric = auc if positive else uar
    intervals = {
        name: bootstrap_interval(decision_records(made, positive), metric) for name, made in found.controls.items()
    }
    targets, predictions = ([getattr(made, of) for made in found.decisions] for of in ("target", "prediction"))
    write_confusion(hparams["output_folder"], targets, predictions, hparams["classes"])
    result = write_result(
        hparams["output_folder"],
        task=hparams["task"],
        system=hparams["name"],
        metric=metric,
        records=decision_records(found.decisions, positive),
        other_metrics={
            f"{name}_{edge}": getattr(interval, edge)
            for name, interval in intervals.items()
            for edge in ("value", "low", "high")
        },
        seed=hparams["seed"],
        data=manifests,
        data_name=hparams["data_name"],
        **found.cost,
    )
    _draw_clips(hparams, found)
    ours = result["metric"]
    print(f"{metric.name} {ours['value']:.3f} [{ours['low']:.3f}, {ours['high']:.3f}]", end="")
    said = {"background": "of the background alone", "swapped": "with another background mixed in"}
    for name, interval in intervals.items():
        print(f"; {said[name]} {interval.value:.3f} [{interval.low:.3f}, {interval.high:.3f}]", end="")
    print()


def _draw_clips(hparams: Mapping[str, Any], found: CrossValidation) -> None:
    clips = [made for made in found.decisions if made.id in found.features]
    if len(clips) > 2:
        features = torch.stack([found.features[clip.id] for clip in clips]).numpy()
        by = {hparams["label"]: [clip.target for clip in clips], "group": [clip.group for clip in clips]}
        write_embeddings(hparams["output_folder"], features, [clip.id for clip in clips], by, found.features_of)
