"""One fold of a cross-validation: a probe on a frozen encoder, tested on the group that was left out."""

from __future__ import annotations

import inspect
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lobes.dataio import AudioDataset
from lobes.evaluation import label_records
from lobes.probes.downstream import cache_features
from lobes.probes.mlp import MLPProbe
from lobes.probes.pooled import PooledLayers, PooledProbe

logger = logging.getLogger(__name__)


class Decision(NamedTuple):
    """What was decided on a clip."""

    target: str
    """Its label."""
    prediction: str
    id: str
    group: str
    scores: dict[str, float] = {}
    """Of each class, higher for a likelier one."""


def decision_records(decisions: Sequence[Decision], positive: str | None = None) -> list[dict[str, Any]]:
    """Records of decisions, for `accuracy` and `uar`; with a positive class, for `auc` and `eer` too.

    Parameters
    ----------
    decisions : sequence of Decision
        Of all folds.
    positive : str, optional
        Of two classes the one to detect: target and prediction are then 1 for it and 0 for the other, and `score` is
        the class's own.

    Example
    -------
    >>> found = [Decision("duet", "noise", "a", "S10", {"duet": 0.4, "noise": 0.6})]
    >>> decision_records(found, positive="duet")
    [{'id': 'a', 'group': 'S10', 'target': 1, 'prediction': 0, 'score': 0.4}]
    """
    if not decisions:
        return []
    targets, predictions, ids, groups, scores = zip(*decisions, strict=True)
    if positive is None:
        return label_records(targets, predictions, ids, groups)
    records = label_records(
        [int(t == positive) for t in targets], [int(p == positive) for p in predictions], ids, groups
    )
    return [record | {"score": float(score[positive])} for record, score in zip(records, scores, strict=True)]


def seeded(make: Callable[..., Any], seed: int) -> Any:
    """Make a probe, and give the seed to one that draws at random and was not given another.

    Example
    -------
    >>> from functools import partial
    >>> from lobes.probes import KNNProbe
    >>> seeded(MLPProbe, 3).seed, seeded(partial(MLPProbe, seed=7), 3).seed, type(seeded(KNNProbe, 3)).__name__
    (3, 7, 'KNNProbe')
    """
    draws = "seed" in inspect.signature(make).parameters
    return make(seed=seed) if draws and "seed" not in getattr(make, "keywords", {}) else make()


def probe_fold(
    encoder: Any,
    probe: PooledProbe | MLPProbe,
    train: AudioDataset,
    test: AudioDataset,
    label: str,
    device: str | torch.device = "cpu",
    known: dict[str, Tensor] | None = None,
    features_gib: float = 4.0,
) -> tuple[list[Decision], dict[str, Any]]:
    """Fit a probe on the pooled layers of a frozen encoder, and test it.

    Parameters
    ----------
    encoder : nn.Module
        Keeps the Encoder contract.
    probe : LogisticProbe, KNNProbe or MLPProbe
        Fitted here, on `train` alone; layer and options are chosen by leaving out its groups.
    train, test : AudioDataset
        From `lobes.dataio.audio_dataset`, with keys ``id``, ``sig``, ``group`` and `label`; changed in place.
    label : str
        What to tell.
    device : str or torch.device
        Where the encoder runs.
    known : dict, optional
        As for `cache_features`: shared by all folds, features are computed once.
    features_gib : float
        As for `cache_features`: the most that those of `train`, and of `test`, may take, GiB.

    Returns
    -------
    tuple of list and dict
        The decision on each clip of `test`; what they cost, as `lobes.evaluation.write_result` takes it.

    Raises
    ------
    DataError
        `train` has fewer than two groups or labels, or the features take more memory.
    """
    started = time.perf_counter()
    heard, tested = (
        [dataset[i] for i in range(len(dataset))]
        for dataset in (
            cache_features(part, PooledLayers(encoder), device, features_gib=features_gib, known=known)
            for part in (train, test)
        )
    )
    x, x_test = (torch.cat([item["layers"] for item in items]).numpy() for items in (heard, tested))
    probe.fit(x, [item[label] for item in heard], [item["group"] for item in heard])
    left_out = ", ".join(sorted({item["group"] for item in tested}))
    logger.info("%s: layer %d, strength %g", left_out, probe.layer, probe.strength)
    likely = [dict(zip(probe.classes, row, strict=True)) for row in probe.probabilities(x_test).tolist()]
    decisions = [
        Decision(item[label], decision, item["id"], item["group"], scores)
        for item, decision, scores in zip(tested, probe.predict(x_test), likely, strict=True)
    ]
    # One that runs elsewhere than in PyTorch says how many it has.
    n_parameters = getattr(encoder, "n_parameters", None) or sum(p.numel() for p in encoder.parameters())
    return decisions, {
        "parameters_trained": probe.n_parameters,
        "parameters_total": probe.n_parameters + n_parameters,
        "audio_hours": sum(train.durations) / 3600,
        "wall_seconds": time.perf_counter() - started,
        "macs_per_second": encoder.macs(10.0) / 10,
    }
