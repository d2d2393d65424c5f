"""BLEU and chrF as sacreBLEU defines them, from counts per sentence, so that they can be bootstrapped.

A record holds a sentence's sufficient statistics; the metrics add them up over items, by weight, and then compute the
score, which is what sacreBLEU's `corpus_score` does with all weights 1. Like every rate here they are
fractions: 0.18 is a BLEU of 18.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lobes.errors import ConfigError
from lobes.evaluation.metrics import Metric
from lobes.evaluation.records import Table, _named

#: Longest n-grams: words for BLEU, characters for chrF.
BLEU_ORDER, CHRF_ORDER = 4, 6
#: chrF's weight of recall.
_BETA = 2.0


def translation_records(
    references: Sequence[str],
    hypotheses: Sequence[str],
    ids: Sequence[str] | None = None,
    groups: Sequence[Any] | None = None,
) -> list[dict[str, Any]]:
    """Return one record per translated sentence with the counts that `bleu` and `chrf` read.

    Parameters
    ----------
    references, hypotheses : sequence of str
        One reference each, detokenised: sacreBLEU tokenises.
    ids : sequence of str, optional
        The sentences' names; 0, 1, 2... by default.
    groups : sequence, optional
        The talk or speaker of each, over which intervals are clustered.

    Returns
    -------
    list of dict
        `id`, `group` (when given), `bleu_counts` (words of the hypothesis and of the reference, matches of 1- to
        4-grams, 1- to 4-grams) and `chrf_counts` (of the hypothesis, of the reference and common, for 1- to 6-grams).

    Raises
    ------
    ConfigError
        sacreBLEU is not installed.
    DataError
        If the numbers of items differ.

    Example
    -------
    >>> records = translation_records(["le chat dort sur le lit"], ["le chat dort sur un lit"])
    >>> round(bleu(records), 4), round(chrf(records), 4)
    (0.5373, 0.7312)
    """
    # It keeps n-grams of sentences too short for the longest; the counts are those of a corpus.
    scorer = _sacrebleu().BLEU(effective_order=True)
    records = _named(len(references), ids, groups, hypotheses=hypotheses)
    for record, reference, hypothesis in zip(records, references, hypotheses, strict=True):
        score = scorer.sentence_score(hypothesis, [reference])
        record["bleu_counts"] = [int(n) for n in (score.sys_len, score.ref_len, *score.counts, *score.totals)]
        record["chrf_counts"] = _chrf_counts(reference, hypothesis)
    return records


def translation_signatures() -> str:
    """Return sacreBLEU's signatures of BLEU and chrF, which name its version and every option.

    Raises
    ------
    ConfigError
        sacreBLEU is not installed.
    """
    library = _sacrebleu()
    parts = []
    for name, scorer in (("BLEU", library.BLEU()), ("chrF2", library.CHRF())):
        scorer.corpus_score(["a"], [["a"]])  # only then is the number of references known
        parts.append(f"{name}|{scorer.get_signature()}")
    return " ".join(parts)


def _sacrebleu() -> Any:
    try:
        from sacrebleu import metrics
    except ImportError as error:
        raise ConfigError(
            "sacrebleu is not installed, expected for BLEU and chrF: pip install 'lobes[translation]'"
        ) from error
    return metrics


def _chrf_counts(reference: str, hypothesis: str) -> list[int]:
    """Numbers of n-grams of the hypothesis, of the reference, and common to both, for n from 1 on."""
    texts = ["".join(text.split()) for text in (hypothesis, reference)]
    counts = []
    for n in range(1, CHRF_ORDER + 1):
        found, wanted = (Counter(text[i : i + n] for i in range(len(text) - n + 1)) for text in texts)
        # As in sacreBLEU: nothing is held against a hypothesis where the reference is too short.
        counts += [found.total() if wanted else 0, wanted.total(), (found & wanted).total()]
    return counts


def _bleu(table: Table, weights: NDArray[Any]) -> NDArray[Any]:
    """Papineni et al. (ACL 2002) over the whole corpus; precisions of 0 are smoothed exponentially, as is standard."""
    sums = weights @ table["bleu_counts"].astype(float)
    ours, theirs = sums[..., 0], sums[..., 1]
    matches, totals = sums[..., 2 : 2 + BLEU_ORDER], sums[..., 2 + BLEU_ORDER :]
    # The k-th order without a match counts 1 / 2^k of one.
    smoothed = np.where(matches > 0, matches, 0.5 ** np.cumsum(matches == 0, axis=-1))
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(np.where(totals > 0, smoothed / totals, 0.0)).mean(-1)
        penalty = np.minimum(0.0, 1 - theirs / ours)
        score = np.exp(logs + penalty)
    score = np.where((matches > 0).any(-1), score, 0.0)
    return np.where(weights.sum(-1) > 0, score, np.nan)


def _chrf(table: Table, weights: NDArray[Any]) -> NDArray[Any]:
    """Popović (WMT 2015): F of precision and recall, each a mean over the orders that both texts have."""
    sums = (weights @ table["chrf_counts"].astype(float)).reshape(*weights.shape[:-1], CHRF_ORDER, 3)
    ours, theirs, common = np.moveaxis(sums, -1, 0)
    both = (ours > 0) & (theirs > 0)
    orders = np.maximum(both.sum(-1), 1)
    precision = np.where(both, common / np.where(both, ours, 1), 0).sum(-1) / orders
    recall = np.where(both, common / np.where(both, theirs, 1), 0).sum(-1) / orders
    below = _BETA**2 * precision + recall
    score = (1 + _BETA**2) * precision * recall / np.where(below > 0, below, 1)
    return np.where(weights.sum(-1) > 0, score, np.nan)


#: Corpus BLEU with sacreBLEU's defaults (13a, mixed case, exponential smoothing), as a fraction.
bleu = Metric("bleu", ["bleu_counts"], _bleu, bounds=(0.0, 1.0), higher_is_better=True)
#: Corpus chrF2 of characters (chrF with β = 2) with sacreBLEU's defaults, as a fraction.
chrf = Metric("chrf", ["chrf_counts"], _chrf, bounds=(0.0, 1.0), higher_is_better=True)
