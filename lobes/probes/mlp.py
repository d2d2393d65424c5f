"""HEAR's downstream probe: a multilayer perceptron whose options are drawn from a grid."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from lobes.errors import ConfigError, DataError
from lobes.evaluation import label_records
from lobes.probes.logistic import LogisticProbe

logger = logging.getLogger(__name__)

_WIDTH, _DROPOUT, _BATCH = 1024, 0.1, 1024
_PATIENCE, _CHECK_EPOCHS = 20, 3


class MLPOptions(NamedTuple):
    """A point of the grid."""

    layers: int
    learning_rate: float
    initialisation: str


#: HEAR's grid (Turian et al. 2022): 16 points.
GRID = tuple(
    itertools.starmap(MLPOptions, itertools.product((1, 2), (3.2e-3, 1e-3, 3.2e-4, 1e-4), ("uniform", "normal")))
)


class _Fit(NamedTuple):
    score: float
    epochs: int
    decided: list[int]
    model: nn.Module


class MLPProbe:
    """One or two hidden layers of 1024 on the features of one layer; the best of a few points of HEAR's grid.

    J. Turian et al., "HEAR: Holistic evaluation of audio representations", NeurIPS 2021 competition (PMLR 2022). HEAR
    draws 8 points with one seed and stops early on a validation split. Here that split is one or more of the training
    groups, drawn by the seed and never in the test; the layer is the one that a logistic regression prefers; and the
    perceptron that is kept is the best point's, fitted once more to all training groups for as many epochs. Run several
    seeds: the draw of the points alone moves results.

    Parameters
    ----------
    n_points : int
        Of the grid, drawn without repetition.
    max_epochs : int
        Of each fit.
    valid_share : float
        Of the training groups, to stop and to choose by.
    seed : int
        Of points, split, weights and batches.

    Raises
    ------
    ConfigError
        `n_points` is not 1 to 16.

    Attributes
    ----------
    classes, layer, n_parameters
        As for `LogisticProbe`.
    options : MLPOptions
        The point that was chosen.
    strength : float
        Its learning rate.
    held_out : list of dict
        Records of the decisions of the best point on the training utterances that were validated on.
    """

    def __init__(self, n_points: int = 8, max_epochs: int = 500, valid_share: float = 0.2, seed: int = 0) -> None:
        if not 1 <= n_points <= len(GRID):
            raise ConfigError(f"MLPProbe: n_points is {n_points}; expected 1 to {len(GRID)}, the grid's")
        self.n_points, self.max_epochs, self.valid_share, self.seed = n_points, max_epochs, valid_share, seed
        self.classes: list[str] = []
        self.layer, self.strength, self.n_parameters = 0, 0.0, 0
        self.options = GRID[0]
        self.held_out: list[dict[str, Any]] = []

    def fit(self, features: np.ndarray, labels: Sequence[str], groups: Sequence[str]) -> MLPProbe:
        """Choose layer and point, and fit; see `LogisticProbe.fit`."""
        chosen = LogisticProbe(strengths=[0.01, 0.1]).fit(features, labels, groups)
        self.layer, self.classes = chosen.layer, chosen.classes
        x = torch.as_tensor(np.asarray(features, dtype=np.float32)[:, self.layer])
        y = torch.tensor([self.classes.index(label) for label in labels])
        self.mean, self.deviation = x.mean(0), x.std(0).clamp_min(1e-6)
        x = (x - self.mean) / self.deviation
        random = np.random.default_rng(self.seed)
        valid = torch.as_tensor(self._held_out(groups, labels, random))
        found: list[tuple[MLPOptions, _Fit]] = []
        for number in random.permutation(len(GRID))[: self.n_points]:
            fit = self._train(GRID[number], x[~valid], y[~valid], x[valid], y[valid], self.max_epochs)
            found.append((GRID[number], fit))
        self.options, best = max(found, key=lambda one: one[1].score)
        decided = [self.classes[index] for index in best.decided]
        self.held_out = label_records(np.asarray(labels)[valid.numpy()].tolist(), decided)
        logger.info("MLP: %s, %d epochs, %.3f on the groups held out", self.options, best.epochs, best.score)
        self._model = self._train(self.options, x, y, None, None, best.epochs).model
        self.strength = self.options.learning_rate
        self.n_parameters = sum(p.numel() for p in self._model.parameters())
        return self

    def predict(self, features: np.ndarray) -> list[str]:
        """Labels of M utterances, from features (M, L, F)."""
        return [self.classes[index] for index in self.probabilities(features).argmax(-1).tolist()]

    @torch.no_grad()
    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """Of each of `classes`, (M, C), for M utterances with features (M, L, F)."""
        x = torch.as_tensor(np.asarray(features, dtype=np.float32)[:, self.layer])
        return self._model((x - self.mean) / self.deviation).softmax(-1).numpy()

    def _held_out(self, groups: Sequence[str], labels: Sequence[str], random: Any) -> np.ndarray:
        """Which utterances are of the groups to validate on, (N,): such that each label is still trained on."""
        names, g, y = sorted(set(groups)), np.asarray(groups), np.asarray(labels)
        count = max(1, round(self.valid_share * len(names)))
        for _ in range(20):
            out = np.isin(g, random.permutation(names)[:count])
            if len(np.unique(y[~out])) == len(np.unique(y)):
                return out
        raise DataError(
            f"labels: some are of one group only, so that none of {len(names)} groups can be held out; train on more"
        )

    def _train(
        self, options: MLPOptions, x: Tensor, y: Tensor, x_valid: Tensor | None, y_valid: Tensor | None, epochs: int
    ) -> _Fit:
        """Best accuracy on the held-out groups, after how many epochs, what was decided, and the model at the end."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            model = _perceptron(x.shape[1], len(self.classes), options)
            optimizer = torch.optim.Adam(model.parameters(), options.learning_rate)
            best, best_epoch = -1.0, epochs
            decided: list[int] = []
            for epoch in range(1, epochs + 1):
                model.train()
                for batch in torch.randperm(len(x)).split(_BATCH):
                    if len(batch) > 1:  # a batch norm over one has no variance
                        optimizer.zero_grad()
                        nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
                        optimizer.step()
                if x_valid is not None and y_valid is not None and epoch % _CHECK_EPOCHS == 0:
                    model.eval()
                    with torch.no_grad():
                        said = model(x_valid).argmax(-1)
                    score = float((said == y_valid).float().mean())
                    if score > best:
                        best, best_epoch, decided = score, epoch, said.tolist()
                    elif epoch - best_epoch >= _PATIENCE * _CHECK_EPOCHS:
                        break
        return _Fit(best, best_epoch, decided, model.eval())


def _perceptron(n_features: int, n_classes: int, options: MLPOptions) -> nn.Module:
    parts: list[nn.Module] = []
    for width in [n_features, *[_WIDTH] * (options.layers - 1)]:
        parts += [nn.Linear(width, _WIDTH), nn.BatchNorm1d(_WIDTH), nn.ReLU(), nn.Dropout(_DROPOUT)]
    parts.append(nn.Linear(_WIDTH, n_classes))
    start = nn.init.xavier_uniform_ if options.initialisation == "uniform" else nn.init.xavier_normal_
    for part in parts:
        if isinstance(part, nn.Linear):
            start(part.weight)
            nn.init.zeros_(part.bias)
    return nn.Sequential(*parts)
