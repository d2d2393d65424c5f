"""Is the target another thing than the pool? Where it is not, choosing by it loses to chance."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lobes.errors import ConfigError, DataError
from lobes.selection.neighbours import centred
from lobes.selection.pool import Pool


class Shift(NamedTuple):
    """How well target and pool are told apart."""

    auc: float
    """Of a linear classifier on utterances that it was not fitted on; 0.5 where there is nothing to tell."""
    p_value: float
    """Of so large an AUC where there is no difference, by permutation."""
    warranted: bool
    """Whether targeted selection is."""

    @property
    def advice(self) -> str:
        """One line on what to do."""
        found = f"AUC {self.auc:.3f}, p {self.p_value:.3g}"
        if self.warranted:
            return f"target and pool differ ({found}): choose by the target, and cap each group"
        return f"target and pool cannot be told apart ({found}): choose at random, or for diversity"


def shift_test(
    pool: Pool,
    target: Pool,
    *,
    ratio: float = 4.0,
    n_folds: int = 5,
    n_permutations: int = 499,
    auc: float = 0.65,
    p_value: float = 0.01,
    seed: int = 0,
) -> Shift:
    """Test whether a classifier can tell the target's embeddings from the pool's (Lopez-Paz & Oquab, ICLR 2017).

    Ridge regression on labels, cross-validated; how well it ranks what it was not fitted on is compared with what it
    does with shuffled labels. Targeted selection is warranted if both limits are met.

    Clips count one by one: that the target's speakers are others than the pool's is a difference too, and the test
    cannot say whether choosing helps with it.

    Parameters
    ----------
    pool, target : Pool
        With embeddings.
    ratio : float
        Utterances of the pool, drawn at random, for each of the target.
    n_folds : int
        Of the cross-validation.
    n_permutations : int
        Of the labels.
    auc, p_value : float
        The limits: AUC at least, p at most.
    seed : int
        Of the draw, the folds and the permutations.

    Raises
    ------
    ConfigError
        A limit or a number is impossible, or the embeddings do not fit each other.
    DataError
        The target has fewer utterances than there are folds.
    """
    if not (0.5 <= auc <= 1 and 0 < p_value <= 1 and n_folds >= 2 and n_permutations >= 1 and ratio > 0):
        raise ConfigError(
            f"shift_test: auc {auc}, p_value {p_value}, n_folds {n_folds}, n_permutations {n_permutations}, ratio "
            f"{ratio}; expected 0.5 to 1, above 0 to 1, 2 or more, 1 or more, above 0"
        )
    if len(target) < n_folds:
        raise DataError(f"target: {len(target)} utterances, expected at least {n_folds}; give more, or fewer folds")
    random = np.random.default_rng(seed)
    drawn = random.permutation(len(pool))[: max(n_folds, round(ratio * len(target)))]
    few = pool.take(np.sort(drawn))
    embedded, wanted = (part.astype(np.float64) for part in centred(few, target, "shift_test"))
    x = np.concatenate([wanted, embedded])
    label = np.arange(len(x)) < len(wanted)
    smoother = _left_out(x, _folds(label, n_folds, random))
    found = _auc(smoother @ label, label)
    shuffled = [random.permutation(label) for _ in range(n_permutations)]
    by_chance = np.array([_auc(smoother @ labels, labels) for labels in shuffled])
    p = (1 + int((by_chance >= found).sum())) / (n_permutations + 1)
    return Shift(found, p, found >= auc and p <= p_value)


def _folds(label: NDArray[np.bool_], n_folds: int, random: np.random.Generator) -> NDArray[np.int64]:
    """A fold for each, with as many of both kinds in all."""
    fold = np.empty(len(label), dtype=np.int64)
    for kind in (True, False):
        members = random.permutation(np.flatnonzero(label == kind))
        fold[members] = np.arange(len(members)) % n_folds
    return fold


def _left_out(x: NDArray[np.float64], fold: NDArray[np.int64]) -> NDArray[np.float64]:
    """The matrix (N, N) that gives, from labels, each one's prediction by ridge regression on the other folds.

    It does not depend on the labels, so that permutations of these cost a product each.
    """
    matrix = np.zeros((len(x), len(x)))
    for number in np.unique(fold):
        inside, outside = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
        mean, deviation = x[inside].mean(0), x[inside].std(0) + 1e-6
        fitted, tested = ((x[part] - mean) / deviation for part in (inside, outside))
        kernel = fitted @ fitted.T + len(inside) * np.eye(len(inside))
        # Predictions are of labels less their mean; a constant changes no rank, but differs between folds.
        centre = np.eye(len(inside)) - 1.0 / len(inside)
        weights = tested @ fitted.T @ np.linalg.solve(kernel, centre)
        matrix[np.ix_(outside, inside)] = weights
    return matrix


def _auc(scores: NDArray[np.float64], label: NDArray[np.bool_]) -> float:
    from scipy.stats import rankdata

    n_true, n_false = int(label.sum()), int((~label).sum())
    ranks = rankdata(scores)[label].sum()
    return float((ranks - n_true * (n_true + 1) / 2) / (n_true * n_false))
