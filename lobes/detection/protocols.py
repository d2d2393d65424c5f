"""How recordings are annotated, and so what a detector trains on and how it is tested: calls in time, or whole windows.

A recipe's YAML names one of the two. Both are asked, in this order, to `check` the manifests, to `cut` recordings into
windows and give the `dataset` of those, for a `control`, to `tune` thresholds on the valid split, and to `test`.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lobes.dataio import AudioDataset, audio_dataset, read_manifest
from lobes.detection.detector import Detector
from lobes.detection.report import by_condition, lenient, write_curves
from lobes.detection.scoring import detect_under, tune_detector
from lobes.detection.windows import check_test_events, recording_events, window_dataset, write_windows
from lobes.encoders import EncoderOutput
from lobes.errors import ConfigError, DataError
from lobes.evaluation import (
    Metric,
    average_precision,
    bootstrap_interval,
    event_f1,
    event_precision,
    event_recall,
    mean_average_precision,
    precision_recall,
    write_precision_recall,
)
from lobes.probes import LogisticProbe, PooledLayers, cache_features, seeded

logger = logging.getLogger(__name__)
#: The lowest threshold that is chosen for a class.
_LOWEST = 1e-4


@dataclass
class Tested:
    """The metric of a test, its records, and further figures by name: for `lobes.evaluation.write_result`."""

    metric: Metric
    records: list[dict[str, Any]]
    figures: dict[str, Any] = field(default_factory=dict)


class Protocol(ABC):
    """What is annotated as calls.

    Parameters
    ----------
    label : str
        The manifests' column.
    classes : sequence of str
        Values of it that count as calls.
    """

    def __init__(self, label: str, classes: Sequence[str]) -> None:
        self.label, self.classes = label, list(classes)

    @abstractmethod
    def check(self, detector: Detector, manifests: Mapping[str, Path]) -> None:
        """Refuse, before anything is trained, what could not be tested in the end."""

    @abstractmethod
    def cut(self, manifest_csv: Path, path: Path, window: float) -> Path:
        """Give the manifest of the windows to train on, in `path` if it has to be written; in one process."""

    @abstractmethod
    def dataset(self, windows_csv: Path, detector: Detector) -> AudioDataset:
        """The windows, with ``targets`` for `frame_loss`."""

    def control(self, detector: Detector, manifests: Mapping[str, Path], device: Any, seed: int) -> dict[str, float]:
        """Figures of a control, made before the detector is trained; none by default."""
        return {}

    @abstractmethod
    def tune(self, detector: Detector, valid_csv: Path) -> None:
        """Choose the thresholds of `Detector.rules`."""

    @abstractmethod
    def test(self, detector: Detector, test_csv: Path, folder: str | Path) -> Tested:
        """Score the test split, and draw precision against recall into `folder`."""


class AnnotatedCalls(Protocol):
    """A row for each call, as a part of its recording: whole recordings are searched, and events are scored.

    Parameters
    ----------
    label, classes
        As for `Protocol`.
    matching : callable
        (truth, found, classes, groups) -> counts of each recording, such as `intersection_records`.
    condition : str, optional
        A label of the test's recordings by whose values F1 is also given.
    """

    def __init__(
        self, label: str, classes: Sequence[str], matching: Callable[..., Any], condition: str | None = None
    ) -> None:
        super().__init__(label, classes)
        self.matching, self.condition = matching, condition

    def check(self, detector: Detector, manifests: Mapping[str, Path]) -> None:
        """See `check_test_events`."""
        check_test_events(manifests["test"], self.label, self.classes)

    def cut(self, manifest_csv: Path, path: Path, window: float) -> Path:
        """See `write_windows`."""
        return write_windows(manifest_csv, path, label=self.label, classes=self.classes, window=window)

    def dataset(self, windows_csv: Path, detector: Detector) -> AudioDataset:
        """See `window_dataset`."""
        return window_dataset(windows_csv, detector)

    def tune(self, detector: Detector, valid_csv: Path) -> None:
        """See `tune_detector`."""
        truth, _ = recording_events(read_manifest(valid_csv), self.label, detector.events)
        tune_detector(detector, truth, records=self.matching)

    def test(self, detector: Detector, test_csv: Path, folder: str | Path) -> Tested:
        """F1 over events of whole recordings, with precision and recall."""
        whole, rows = recording_events(read_manifest(test_csv), self.label, detector.events)
        heard, all_heard = detect_under(detector, whole, [detector.rules, lenient(detector.rules)])
        names = {file: row.get("recording", file) for file, row in rows.items() if file in heard}
        groups = {names[file]: rows[file]["group"] for file in names}
        truth, found, all_found = (
            {name: list(events[file]) for file, name in names.items()} for events in (whole, heard, all_heard)
        )
        write_curves(folder, truth, all_found, detector.rules)
        records = self.matching(truth, found, detector.events, groups)
        if self.condition is not None:
            condition = {names[file]: rows[file][self.condition] for file in names}
            records = [record | {"condition": condition[record["recording"]]} for record in records]
        figures = {"precision": event_precision(records), "recall": event_recall(records), **by_condition(records)}
        return Tested(event_f1, records, figures)


class LabelledWindows(Protocol):
    """A row for each window, with the classes that call in it: each window is scored, in each class, by itself.

    The score is the mean of the classes' average precision, as in the benchmark BEANS (M. Hagiwara et al., ICASSP
    2023): what scikit-learn's `average_precision_score` gives with ``average="macro"``, over the classes that
    occur in the test.

    Parameters
    ----------
    label, classes
        As for `Protocol`; the label names the classes of a window, separated by spaces, and is empty where none calls.
    heard : callable, optional
        A transform for `audio_dataset` on all windows, such as the band that a benchmark's sample rate leaves.
    background : callable, optional
        A transform that leaves what is not the calls'. The control is a logistic regression for each class on the
        pooled layers of the encoder, as it is before it is trained, on such windows: fitted on the train split, its
        figures are ``background_value``, ``_low`` and ``_high``.
    probe : callable
        Makes that regression.

    Raises
    ------
    ConfigError
        In `check`: the detector decides frame by frame.
    """

    def __init__(
        self,
        label: str,
        classes: Sequence[str],
        heard: Callable[..., Tensor] | None = None,
        background: Callable[..., Tensor] | None = None,
        probe: Callable[..., Any] = LogisticProbe,
    ) -> None:
        super().__init__(label, classes)
        self.heard, self.background, self.probe = heard, background, probe

    def check(self, detector: Detector, manifests: Mapping[str, Path]) -> None:
        """Refuse a head that decides on frames, a label that is not there, and classes that cannot be tested."""
        if detector.per_frame:
            raise ConfigError(
                f"head: {detector.head!r} decides on each frame; windows with labels need one that decides on"
                " the whole, such as !name:lobes.probes.LinearHead"
            )
        groups: dict[str, dict[str, set[str]]] = {}
        for split in ("train", "test"):
            manifest = read_manifest(manifests[split])
            if self.label not in manifest.labels:
                raise DataError(f"{manifests[split]} has no label '{self.label}': it has {', '.join(manifest.labels)}")
            groups[split] = {name: set() for name in self.classes}
            for row in manifest.rows:
                for name in set(row[self.label].split()) & set(self.classes):
                    groups[split][name].add(row["group"])
        for name in self.classes:
            for split, found in groups.items():
                if not found[name]:
                    logger.warning("%s calls in no window of the %s split", name, split)
        seen = set().union(*groups["test"].values())
        if len(seen) < 2:
            raise DataError(
                f"{manifests['test']}: {', '.join(self.classes)} call in {len(seen)} groups"
                f" ({', '.join(sorted(seen))}): a test needs two or more; give it more recordings, or choose other"
                " groups or another seed"
            )
        if self.background is not None and len(read_manifest(manifests["train"]).groups) < 2:
            raise DataError(
                f"{manifests['train']} has one group: the control leaves groups out to choose a layer; give it more"
                " recordings, or no background"
            )

    def cut(self, manifest_csv: Path, path: Path, window: float) -> Path:
        """The manifest itself, whose rows are windows."""
        return manifest_csv

    def dataset(
        self, windows_csv: Path, detector: Detector, transform: Callable[..., Tensor] | None = None
    ) -> AudioDataset:
        """Windows with ``targets`` (1, classes), as they are heard or as `transform` makes them."""
        labels = {"targets": (self.label, partial(_present, self.classes))}
        keys = ("id", "sig", "targets", "group")
        return audio_dataset(
            read_manifest(windows_csv), detector.sample_rate, keys, labels=labels, transform=transform or self.heard
        )

    def control(self, detector: Detector, manifests: Mapping[str, Path], device: Any, seed: int) -> dict[str, float]:
        """What a logistic regression makes of the background alone."""
        if self.background is None:
            return {}
        pooled = PooledLayers(detector.model.encoder)
        parts = [
            cache_features(self.dataset(manifests[split], detector, self.background), pooled, device)
            for split in ("train", "test")
        ]
        train, test = ([part[i] for i in range(len(part))] for part in parts)
        x, x_test = (torch.cat([item["layers"] for item in items]).numpy() for items in (train, test))
        groups = [item["group"] for item in train]
        scores = np.zeros((len(test), len(self.classes)))
        for column in range(len(self.classes)):
            calls = ["yes" if item["targets"][0, column] else "no" for item in train]
            if len(set(calls)) == 2:
                probe = seeded(self.probe, seed).fit(x, calls, groups)
                scores[:, column] = probe.probabilities(x_test)[:, probe.classes.index("yes")]
        found = bootstrap_interval(window_records(test, scores, self.classes), mean_average_precision)
        return {f"background_{edge}": getattr(found, edge) for edge in ("value", "low", "high")}

    def tune(self, detector: Detector, valid_csv: Path) -> None:
        """Take, for each class, the threshold with the highest F1 over the windows; 0.5 where none calls."""
        records = self._records(detector, valid_csv)
        for name, rule in detector.rules.items():
            of_class = [record for record in records if record["label"] == name]
            if any(record["annotated"] for record in of_class):
                precision, recall, score = precision_recall(of_class)
                f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
                detector.rules[name] = replace(rule, high=max(float(score[f1.argmax()]), _LOWEST), low=None)

    def test(self, detector: Detector, test_csv: Path, folder: str | Path) -> Tested:
        """Mean average precision over classes, with that of each."""
        records = self._records(detector, test_csv)
        write_precision_recall(folder, records, {name: rule.high for name, rule in detector.rules.items()})
        by_class = {
            f"average_precision_{name}": average_precision([record for record in records if record["label"] == name])
            for name in self.classes
        }
        return Tested(mean_average_precision, records, {name: x for name, x in by_class.items() if np.isfinite(x)})

    def _records(self, detector: Detector, windows_csv: Path) -> list[dict[str, Any]]:
        device = next((p.device for p in detector.parameters()), torch.device("cpu"))
        part = cache_features(self.dataset(windows_csv, detector), _Decisions(detector.model), device)
        items = [part[i] for i in range(len(part))]
        scores = torch.cat([item["layers"] for item in items])[:, 0]
        return window_records(items, scores.numpy(), detector.events)


def window_records(items: Sequence[Mapping[str, Any]], scores: Any, classes: Sequence[str]) -> list[dict[str, Any]]:
    """A record for each window and class, as `average_precision` and `mean_average_precision` read them.

    Parameters
    ----------
    items : sequence of mapping
        N windows, with ``id``, ``group`` and ``targets`` (1, C).
    scores : array (N, C)
        Higher where a class is likelier to call.
    classes : sequence of str
        C names.

    Example
    -------
    >>> window = {"id": "a", "group": "r1", "targets": torch.tensor([[1.0]])}
    >>> window_records([window], [[0.7]], ["duet"])
    [{'id': 'a/duet', 'group': 'r1', 'label': 'duet', 'score': 0.7, 'detected': 1, 'annotated': 1}]
    """
    return [
        {
            "id": f"{item['id']}/{name}",
            "group": item["group"],
            "label": name,
            "score": float(score),
            "detected": 1,
            "annotated": int(present),
        }
        for item, row in zip(items, scores, strict=True)
        for name, score, present in zip(classes, row, item["targets"][0].tolist(), strict=True)
    ]


class _Decisions(nn.Module):
    """A detector's model as an encoder whose one frame is its scores (B, 1, C), for `cache_features` to keep."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, waveform: Tensor, lengths: Tensor) -> EncoderOutput:
        output = self.model.encoder(waveform, lengths)
        scores = self.model.probe(output.layers, output.valid).float().sigmoid()[:, None]
        return EncoderOutput(scores, torch.ones_like(output.valid[:, :1]), [scores])


def _present(classes: Sequence[str], text: str) -> Tensor:
    """(1, C): 1 where a class is named."""
    named = text.split()
    return torch.tensor([[float(name in named) for name in classes]])
