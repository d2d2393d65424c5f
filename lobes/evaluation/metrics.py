"""Metrics computed from per-item records, so that each of them can be bootstrapped.

A `Metric` reduces records (see `lobes.evaluation.records`) to one number, and takes a weight per item: to draw an
item k times is to give it the weight k, which makes a whole bootstrap one matrix product. Every rate is a
fraction (0.18, not 18); tables and plots show percentages.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lobes.evaluation.records import Records, Table, columns


class Metric:
    """A named number computed from weighted records.

    Parameters
    ----------
    name : str
        As it stands in result files and tables, for example `"wer"`.
    fields : sequence of str
        The fields that each record must have.
    function : callable
        `function(table, weights)`: a dict of columns (n,) and weights (..., n) in, values (...) out; NaN where the
        weights leave the metric undefined.
    bounds : tuple of float
        Smallest and largest possible value; intervals are cut to it.
    higher_is_better : bool
        The direction in which a system improves.

    Example
    -------
    >>> share = Metric("long", ["seconds"], lambda t, w: w @ (t["seconds"] > 5) / w.sum(-1))
    >>> share([{"seconds": 2.0}, {"seconds": 8.0}])
    0.5
    """

    def __init__(
        self,
        name: str,
        fields: Sequence[str],
        function: Callable[[Table, NDArray[Any]], NDArray[Any]],
        *,
        bounds: tuple[float, float] = (-np.inf, np.inf),
        higher_is_better: bool = False,
    ) -> None:
        self.name = name
        self.fields = tuple(fields)
        self.function = function
        self.bounds = bounds
        self.higher_is_better = higher_is_better

    def table(self, records: Records) -> Table:
        """Return the columns that the metric reads; a table passes through."""
        return columns(records, self.fields)

    def __call__(self, records: Records, weights: ArrayLike | None = None) -> Any:
        """Return the value, a float, or one value per row of weights.

        Parameters
        ----------
        records : sequence of dict, or dict of arrays
            n items.
        weights : array-like, optional
            (n,) or (resamples, n), not negative; all ones by default.

        Raises
        ------
        DataError
            If a record lacks one of the fields.
        """
        table = self.table(records)
        n_items = len(next(iter(table.values())))
        weight = np.ones(n_items) if weights is None else np.asarray(weights, dtype=np.float64)
        value = self.function(table, weight)
        return float(value) if np.ndim(value) == 0 else value

    def __repr__(self) -> str:
        return f"Metric({self.name!r})"


def _divide(numerator: NDArray[Any], denominator: NDArray[Any]) -> NDArray[Any]:
    """Divide, NaN where the denominator is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(denominator > 0, np.divide(numerator, denominator), np.nan)


def ratio_metric(name: str, numerator: str, denominator: str, **options: Any) -> Metric:
    """Return the metric Σ numerator / Σ denominator over items, both of them fields of the record.

    Example
    -------
    >>> ratio_metric("rate", "hits", "of")([{"hits": 1, "of": 2}, {"hits": 0, "of": 2}])
    0.25
    """

    def ratio(table: Table, weights: NDArray[Any]) -> NDArray[Any]:
        return _divide(weights @ table[numerator].astype(float), weights @ table[denominator].astype(float))

    return Metric(name, [numerator, denominator], ratio, **options)


def _r2(table: Table, weights: NDArray[Any]) -> NDArray[Any]:
    return 1.0 - _divide(weights @ table["residual"].astype(float), weights @ table["total"].astype(float))


#: R², the share of the variance that is explained: 1 - Σ residual / Σ total, sums of squares of each item.
r2 = Metric("r2", ["residual", "total"], _r2, bounds=(-np.inf, 1.0), higher_is_better=True)


def mean_metric(name: str, field: str, **options: Any) -> Metric:
    """Return the metric that is the mean of one field over items.

    Example
    -------
    >>> mean_metric("loss", "loss")([{"loss": 1.0}, {"loss": 4.0}])
    2.5
    """
    return Metric(name, [field], lambda table, w: _divide(w @ table[field].astype(float), w.sum(-1)), **options)


def _accuracy(table: Table, weights: NDArray[Any]) -> NDArray[Any]:
    return _divide(weights @ (table["target"] == table["prediction"]).astype(float), weights.sum(-1))


def _uar(table: Table, weights: NDArray[Any]) -> NDArray[Any]:
    correct = table["target"] == table["prediction"]
    seen = np.zeros(weights.shape[:-1])
    total = np.zeros(weights.shape[:-1])
    for label in set(table["target"].tolist()):
        of_class = table["target"] == label
        recall = _divide(weights @ (of_class & correct).astype(float), weights @ of_class.astype(float))
        total += np.nan_to_num(recall)
        seen += np.isfinite(recall)
    return _divide(total, seen)


def _rejected(table: Table, weights: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Weight of the targets and of the others below each threshold: none first, all last; tied scores go together."""
    order = np.argsort(table["score"], kind="stable")
    score = table["score"][order].astype(float)
    target = table["target"][order].astype(bool)
    weights = weights[..., order]
    last = np.append(np.flatnonzero(np.diff(score)), len(score) - 1)
    start = np.zeros((*weights.shape[:-1], 1))
    targets = np.concatenate([start, np.cumsum(weights * target, axis=-1)[..., last]], axis=-1)
    return targets, np.concatenate([start, np.cumsum(weights * ~target, axis=-1)[..., last]], axis=-1)


def _eer(table: Table, weights: NDArray[Any]) -> NDArray[Any]:
    rejected, dropped = _rejected(table, weights)
    miss = _divide(rejected, rejected[..., -1:])
    false_alarm = 1 - _divide(dropped, dropped[..., -1:])
    gap = miss - false_alarm  # grows from -1 to 1
    after = np.argmax(gap >= 0, axis=-1)[..., None]
    before = np.maximum(after - 1, 0)
    gap_before, gap_after = np.take_along_axis(gap, before, -1), np.take_along_axis(gap, after, -1)
    share = _divide(-gap_before, gap_after - gap_before)
    miss_before, miss_after = np.take_along_axis(miss, before, -1), np.take_along_axis(miss, after, -1)
    return (miss_before + share * (miss_after - miss_before))[..., 0]


def _auc(table: Table, weights: NDArray[Any]) -> NDArray[Any]:
    rejected, dropped = _rejected(table, weights)
    # The targets above each group of tied others, and half of those in it.
    above = rejected[..., -1:] - (rejected[..., 1:] + rejected[..., :-1]) / 2
    return _divide((np.diff(dropped, axis=-1) * above).sum(-1), rejected[..., -1] * dropped[..., -1])


#: Word error rate: Σ edits / Σ reference words over the corpus (not a mean of rates); reads `word_errors`.
wer = ratio_metric("wer", "errors", "length", bounds=(0.0, np.inf))
#: Character error rate: Σ edits / Σ reference characters over the corpus; reads `char_errors`.
cer = ratio_metric("cer", "errors", "length", bounds=(0.0, np.inf))
#: Phone error rate: Σ edits / Σ reference phones over the corpus; reads `word_errors` of phones with spaces between.
per = ratio_metric("per", "errors", "length", bounds=(0.0, np.inf))
#: Share of items whose prediction equals their target; reads `label_records`.
accuracy = Metric("accuracy", ["target", "prediction"], _accuracy, bounds=(0.0, 1.0), higher_is_better=True)
#: Unweighted average recall: the mean over classes of each class's recall (Schuller et al., Interspeech 2009), over
#: the classes that occur among the targets, also in each resample; reads `label_records`.
uar = Metric("uar", ["target", "prediction"], _uar, bounds=(0.0, 1.0), higher_is_better=True)
#: Equal error rate: where the miss rate equals the false-alarm rate, on the straight line between the two operating
#: points around it (tied scores are one point); NaN without targets or without non-targets; reads `trial_records`.
eer = Metric("eer", ["target", "score"], _eer, bounds=(0.0, 1.0))
#: Area under the receiver operating characteristic: how often a target's score is above another's, ties counted half
#: (Hanley & McNeil 1982); NaN without targets or without others; reads `trial_records`.
auc = Metric("auc", ["target", "score"], _auc, bounds=(0.0, 1.0), higher_is_better=True)
#: Of the predictions of a pretext task at masked frames, the share that is right.
masked_accuracy = ratio_metric("masked accuracy", "correct", "predictions", higher_is_better=True)

#: Of detected events; `lobes.evaluation.event_metrics` has them.
EVENT_METRICS = frozenset(
    {
        *(f"{kind}_f1{macro}" for kind in ("event", "intersection", "segment") for macro in ("", "_macro")),
        *("event_precision", "event_recall", "average_precision", "mean_average_precision"),
    }
)
#: Of dependency parses, understanding and ratings; `lobes.evaluation.{parsing,understanding,agreement}` have them.
PARSING_METRICS = frozenset({"upos", "uas", "las"})
SLOT_METRICS = frozenset({"slot_f1", "slot_precision", "slot_recall", "intent_accuracy"})
CONCEPT_METRICS = frozenset({"concept_error_rate", "concept_value_error_rate"})
AGREEMENT_METRICS = frozenset({"ccc", "ccc_per_file"})
TRANSLATION_METRICS = frozenset({"bleu", "chrf"})
_RATES = EVENT_METRICS | PARSING_METRICS | SLOT_METRICS | TRANSLATION_METRICS
#: Metrics that tables and plots show in percent.
PERCENT = frozenset({"wer", "cer", "per", "accuracy", "uar", "eer", "auc"}) | _RATES | CONCEPT_METRICS
#: Those in which more is better, by name: what tables and plots know of a metric read back from a file.
HIGHER_IS_BETTER = frozenset({"accuracy", "uar", "auc", "r2"}) | _RATES | AGREEMENT_METRICS
