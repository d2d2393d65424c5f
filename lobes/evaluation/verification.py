"""Speaker verification: scores of trials from embeddings, their normalisation and calibration, and what errors cost.

A score is higher where two utterances are more likely of one speaker. A calibrated score is the natural logarithm of
how much likelier it is on the hypothesis of one speaker than of two, a log-likelihood ratio (LLR), on which a threshold
can be set without looking at the test trials.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lobes.errors import ConfigError, DataError
from lobes.evaluation.metrics import Metric, _divide, _rejected, eer
from lobes.evaluation.records import Table, trial_records

logger = logging.getLogger(__name__)

#: Whether it is a target trial, and the ids of its two utterances: `lobes.dataio.Trial`.
TrialLike = tuple[Any, str, str]


# --------------------------------------------------------------------------- scores


def cosine_scores(embeddings: Mapping[str, ArrayLike], trials: Sequence[TrialLike]) -> NDArray[np.float64]:
    """Return the cosine of the two embeddings of each trial, (N,).

    Parameters
    ----------
    embeddings : mapping
        Utterance id -> (E,); a vector of zeros has a cosine of 0 with all.
    trials : sequence of (target, enrolment, test)
        As `lobes.dataio.read_trials` gives them.

    Raises
    ------
    DataError
        An utterance has no embedding.

    Example
    -------
    >>> cosine_scores({"a": [1.0, 0.0], "b": [2.0, 0.0], "c": [0.0, 1.0]}, [(1, "a", "b"), (0, "a", "c")]).tolist()
    [1.0, 0.0]
    """
    unit, place = _directions(embeddings, trials)
    enrol, test = (np.array([place[trial[side]] for trial in trials]) for side in (1, 2))
    return np.einsum("ne,ne->n", unit[enrol], unit[test])


def trials_eer(embeddings: Mapping[str, ArrayLike], trials: Sequence[TrialLike]) -> float:
    """Return the equal error rate of plain cosines: what a checkpoint or a layer is chosen by, on development."""
    target = np.array([bool(trial[0]) for trial in trials])
    return eer({"target": target, "score": cosine_scores(embeddings, trials)})


def s_norm(
    embeddings: Mapping[str, ArrayLike],
    trials: Sequence[TrialLike],
    cohort: Mapping[str, ArrayLike],
    top: int | None = None,
) -> NDArray[np.float64]:
    """Return cosines normalised symmetrically by what each side scores against a cohort of other speakers, (N,).

    A score less the mean, over the deviation, of one side's scores with the cohort, averaged over both sides (S-norm:
    Kenny, Odyssey 2010), or over each side's `top` highest ones (adaptive S-norm: Matějka et al., Interspeech 2017).

    Parameters
    ----------
    embeddings, trials
        As for `cosine_scores`.
    cohort : mapping
        Embeddings (E,) of speakers that are in none of the trials: `speaker_means` of those trained on.
    top : int, optional
        None for the whole cohort.

    Raises
    ------
    DataError
        An utterance has no embedding, or the cohort is of fewer than two.
    ConfigError
        `top` is less than 2.
    """
    if len(cohort) < 2:
        raise DataError(f"cohort: {len(cohort)} speakers, expected two or more; train on more, or leave s_norm out")
    if top is not None and top < 2:
        raise ConfigError(f"top is {top}: expected 2 or more speakers of the cohort, or null for all of them")
    unit, place = _directions(embeddings, trials)
    others = _unit(np.stack([np.asarray(vector, dtype=np.float64) for vector in cohort.values()]))
    against = np.sort(unit @ others.T, axis=1)[:, -min(top or len(others), len(others)) :]
    # A deviation of 0, from a cohort of equals, would not scale but blow up.
    mean, deviation = against.mean(1), np.maximum(against.std(1), 1e-6)
    enrol, test = (np.array([place[trial[side]] for trial in trials]) for side in (1, 2))
    raw = np.einsum("ne,ne->n", unit[enrol], unit[test])
    return ((raw - mean[enrol]) / deviation[enrol] + (raw - mean[test]) / deviation[test]) / 2


def speaker_means(embeddings: Mapping[str, ArrayLike], speakers: Mapping[str, str]) -> dict[str, NDArray[np.float64]]:
    """Return the mean direction of each speaker's embeddings, by speaker: a cohort.

    Parameters
    ----------
    embeddings : mapping
        Utterance id -> (E,).
    speakers : mapping
        Utterance id -> speaker; utterances without an embedding are left out.
    """
    of_speaker: dict[str, list[NDArray[np.float64]]] = {}
    for name, speaker in speakers.items():
        if name in embeddings:
            of_speaker.setdefault(speaker, []).append(_unit(np.asarray(embeddings[name], dtype=np.float64)))
    return {speaker: np.mean(found, axis=0) for speaker, found in sorted(of_speaker.items())}


def verification_records(
    trials: Sequence[TrialLike], scores: ArrayLike, speakers: Mapping[str, str], llr: ArrayLike | None = None
) -> list[dict[str, Any]]:
    """Return `trial_records` whose group is the pair of speakers, over which intervals are clustered.

    Parameters
    ----------
    trials : sequence of (target, enrolment, test)
        N.
    scores : array (N,)
        For `eer` and `min_dcf`.
    speakers : mapping
        Utterance id -> speaker.
    llr : array (N,), optional
        The scores calibrated, for `cllr` and `act_dcf`.

    Example
    -------
    >>> verification_records([(0, "a", "b")], [0.5], {"a": "ann", "b": "bob"})[0]["group"]
    ['ann', 'bob']
    """
    groups = [[speakers[enrol], speakers[test]] for _, enrol, test in trials]
    names = [f"{enrol} {test}" for _, enrol, test in trials]
    records = trial_records([trial[0] for trial in trials], np.asarray(scores).tolist(), names, groups)
    if llr is None:
        return records
    return [record | {"llr": value} for record, value in zip(records, np.asarray(llr).tolist(), strict=True)]


# --------------------------------------------------------------------------- costs


def min_dcf(p_target: float = 0.01, c_miss: float = 1.0, c_fa: float = 1.0) -> Metric:
    """Return the metric that is the lowest detection cost over all thresholds, normalised (NIST's evaluation plans).

    The cost is c_miss · P(miss) · p_target + c_fa · P(false alarm) · (1 - p_target), over that of the better of the two
    systems that accept all or nothing: 1 is what a system is worth that hears nothing. As the threshold is
    chosen on the trials themselves, it says what the scores could do, not what they do.

    Parameters
    ----------
    p_target : float
        How often a target is expected: 0.01, or 0.05 as VoxCeleb's challenges have it.
    c_miss, c_fa : float
        What a miss and a false alarm cost.

    Raises
    ------
    ConfigError
        A number is out of range.

    Example
    -------
    >>> from lobes.evaluation import trial_records
    >>> min_dcf(0.5)(trial_records([1, 1, 0, 0], [0.9, 0.3, 0.4, 0.1]))
    0.5
    """
    miss_cost, false_cost = _costs(p_target, c_miss, c_fa)

    def lowest(table: Table, weights: NDArray[Any]) -> NDArray[Any]:
        rejected, dropped = _rejected(table, weights)
        miss, false = _divide(rejected, rejected[..., -1:]), 1 - _divide(dropped, dropped[..., -1:])
        return (miss_cost * miss + false_cost * false).min(-1)

    return Metric(f"min_dcf_{p_target:g}", ["target", "score"], lowest, bounds=(0.0, 1.0))


def act_dcf(p_target: float = 0.01, c_miss: float = 1.0, c_fa: float = 1.0) -> Metric:
    """Return the metric that is the normalised detection cost at the threshold that Bayes' rule sets for LLRs.

    It is what the calibrated scores do; above 1, worse than without them. Parameters and errors are those of `min_dcf`;
    reads ``llr``.
    """
    miss_cost, false_cost = _costs(p_target, c_miss, c_fa)
    threshold = math.log(c_fa * (1 - p_target) / (c_miss * p_target))

    def cost(table: Table, weights: NDArray[Any]) -> NDArray[Any]:
        target, accepted = table["target"].astype(bool), table["llr"].astype(float) >= threshold
        miss = _divide(weights @ (target & ~accepted), weights @ target)
        false = _divide(weights @ (~target & accepted), weights @ ~target)
        return miss_cost * miss + false_cost * false

    return Metric(f"act_dcf_{p_target:g}", ["target", "llr"], cost, bounds=(0.0, math.inf))


def _cllr(table: Table, weights: NDArray[Any]) -> NDArray[Any]:
    target, llr = table["target"].astype(bool), table["llr"].astype(float)
    bits = np.logaddexp(0.0, np.where(target, -llr, llr)) / math.log(2)
    return (
        _divide(weights @ (bits * target), weights @ target) + _divide(weights @ (bits * ~target), weights @ ~target)
    ) / 2


#: Cost of log-likelihood ratios, in bits: 0 for a perfect system, 1 for one that says nothing, more for one that
#: misleads (Brümmer & du Preez 2006, "Application-independent evaluation of speaker detection"); reads ``llr``.
cllr = Metric("cllr", ["target", "llr"], _cllr, bounds=(0.0, math.inf))


def _costs(p_target: float, c_miss: float, c_fa: float) -> tuple[float, float]:
    """What a miss rate and a false-alarm rate of 1 cost, normalised."""
    if not (0 < p_target < 1 and c_miss > 0 and c_fa > 0):
        raise ConfigError(
            f"p_target is {p_target}, c_miss {c_miss}, c_fa {c_fa}: expected a share between 0 and 1, and costs above 0"
        )
    miss, false = c_miss * p_target, c_fa * (1 - p_target)
    return miss / min(miss, false), false / min(miss, false)


# --------------------------------------------------------------------------- calibration


@dataclass(frozen=True)
class Calibration:
    """The map from scores to log-likelihood ratios: slope · score + offset."""

    slope: float
    offset: float

    def __call__(self, scores: ArrayLike) -> NDArray[np.float64]:
        """Scores (N,) to LLRs (N,), in nats."""
        return self.slope * np.asarray(scores, dtype=np.float64) + self.offset


def calibrate(targets: ArrayLike, scores: ArrayLike, p_target: float = 0.5, smooth: bool = True) -> Calibration:
    """Fit the map from scores to log-likelihood ratios by logistic regression; on development trials only.

    Target and non-target trials together weigh `p_target` and 1 - `p_target`, however many there are of each (Brümmer
    & du Preez 2006). The slope is never negative: where higher scores are of non-targets, the map says nothing, 0 for
    all.

    Parameters
    ----------
    targets : array (N,)
        1 or 0.
    scores : array (N,)
        Of the development trials.
    p_target : float
        Where the fit is to be best.
    smooth : bool
        Count each kind of trial as if it had two more, one of which was of the other kind (Platt 1999): where scores
        separate the kinds, the slope would be infinite without it.

    Raises
    ------
    DataError
        One kind is missing, or a score is not finite.
    ConfigError
        `p_target` is not between 0 and 1.

    Example
    -------
    >>> found = calibrate([1, 1, 0, 0], [2.0, 1.0, 1.5, 0.0])
    >>> bool(found.slope > 0), bool(abs(found([1.125])[0]) < 0.01)
    (True, True)
    """
    _costs(p_target, 1.0, 1.0)
    target, score = np.asarray(targets).astype(bool), np.asarray(scores, dtype=np.float64)
    if target.all() or not target.any() or not np.isfinite(score).all():
        raise DataError(
            f"calibration: {int(target.sum())} target and {int((~target).sum())} non-target trials,"
            f" {int((~np.isfinite(score)).sum())} scores not finite: expected some of each kind, all of them finite"
        )
    n_target, n_other = int(target.sum()), int((~target).sum())
    wanted = target.astype(float)
    if smooth:
        wanted = np.where(target, (n_target + 1) / (n_target + 2), 1 / (n_other + 2))
    weight = np.where(target, p_target / n_target, (1 - p_target) / n_other)
    slope, offset = _logistic(score, wanted, weight, math.log(p_target / (1 - p_target)))
    if slope < 0:
        logger.warning("calibration: on dev, higher scores are of non-targets; calibrated scores will say nothing")
        return Calibration(0.0, 0.0)
    return Calibration(slope, offset)


def _logistic(
    score: NDArray[Any], wanted: NDArray[Any], weight: NDArray[Any], prior: float, steps: int = 200
) -> tuple[float, float]:
    """Slope and offset of the weighted cross-entropy's minimum, by Newton's method with halved steps."""
    from scipy.special import expit

    centre, spread = float(score.mean()), max(float(score.std()), 1e-12)
    design = np.stack([(score - centre) / spread, np.ones_like(score)], axis=1)

    def loss(solution: NDArray[Any]) -> float:
        logit = design @ solution + prior
        return float(weight @ (np.logaddexp(0.0, logit) - wanted * logit))

    found = np.zeros(2)
    for _ in range(steps):
        share = expit(design @ found + prior)
        gradient = design.T @ (weight * (share - wanted))
        curvature = (design * (weight * share * (1 - share))[:, None]).T @ design + 1e-12 * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        before, size = loss(found), 1.0
        while size > 1e-10 and loss(found - size * step) > before:
            size /= 2
        if size <= 1e-10 or np.abs(size * step).max() < 1e-12:
            break
        found = found - size * step
    slope = float(found[0]) / spread
    return slope, float(found[1]) - slope * centre


# --------------------------------------------------------------------------- inside


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    norm = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(norm > 0, norm, 1.0)


def _directions(
    embeddings: Mapping[str, ArrayLike], trials: Sequence[TrialLike]
) -> tuple[NDArray[np.float64], dict[str, int]]:
    """Embeddings of the utterances in the trials, (U, E), of length 1, and the row of each."""
    names = dict.fromkeys(name for trial in trials for name in trial[1:])
    missing = [name for name in names if name not in embeddings]
    if missing:
        raise DataError(
            f"id: '{missing[0]}' ({len(missing)} in all) has no embedding, but is in the trials; could its audio not be"
            " read? See skipped.csv, and mend the file or take the trial off the list"
        )
    table = np.stack([np.asarray(embeddings[name], dtype=np.float64) for name in names])
    if not np.isfinite(table).all():
        odd = next(name for name, row in zip(names, table, strict=True) if not np.isfinite(row).all())
        raise DataError(f"id: the embedding of '{odd}' is not finite; was the training stable?")
    return _unit(table), {name: row for row, name in enumerate(names)}
