"""Per-item records: what was scored, item by item, as plain dicts that go into `result.json` as they are.

`word_errors`, `char_errors`, `label_records` and `trial_records` make them; `lobes.evaluation.metrics` reads them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lobes.errors import DataError

Record = Mapping[str, Any]
Table = dict[str, NDArray[Any]]
Records = Sequence[Record] | Table


def columns(records: Records, fields: Sequence[str]) -> Table:
    """Return the given fields of the records as arrays (n,), in order.

    Raises
    ------
    DataError
        If there are no records, or one lacks a field.

    Example
    -------
    >>> columns([{"errors": 1}, {"errors": 3}], ["errors"])["errors"].tolist()
    [1, 3]
    """
    if isinstance(records, dict):
        missing = [name for name in fields if name not in records]
        if missing:
            raise DataError(f"records: column {missing[0]!r} missing, have {sorted(records)}; add it to the table")
        return {name: np.asarray(records[name]) for name in fields}
    if not records:
        raise DataError("records: none given, expected at least one scored item; check that the test set is not empty")
    table: dict[str, list[Any]] = {name: [] for name in fields}
    for index, record in enumerate(records):
        for name in fields:
            if name not in record:
                raise DataError(
                    f"records[{index}] (id {record.get('id')!r}): field {name!r} missing, expected {list(fields)};"
                    " make the records with the function that belongs to the metric"
                )
            table[name].append(record[name])
    return {name: _array(values) for name, values in table.items()}


def _array(values: list[Any]) -> NDArray[Any]:
    """Return a 1-D array; labels of mixed types stay Python objects, where NumPy would turn 1 into '1'."""
    if len({type(value) for value in values}) > 1 and any(isinstance(value, str) for value in values):
        mixed = np.empty(len(values), dtype=object)
        mixed[:] = values
        return mixed
    return np.asarray(values)


# --------------------------------------------------------------------------- words and characters


def edit_counts(reference: Sequence[Hashable], hypothesis: Sequence[Hashable]) -> tuple[int, int, int]:
    """Return substitutions, deletions and insertions of a minimal alignment (Levenshtein, 1966).

    Their sum is unique; where several alignments are minimal, the one that matches or substitutes earliest from the
    end is counted.

    Parameters
    ----------
    reference, hypothesis : sequence of hashable
        Words or characters. O(N·M) time, row by row in NumPy, and 4·N·M bytes.

    Example
    -------
    >>> edit_counts("the cat sat".split(), "the bat sat down".split())
    (1, 0, 1)
    """
    codes: dict[Hashable, int] = {}
    ref = [codes.setdefault(token, len(codes)) for token in reference]
    hyp = np.array([codes.setdefault(token, len(codes)) for token in hypothesis], dtype=np.int64)
    offset = np.arange(len(hyp) + 1, dtype=np.int32)
    distance = np.empty((len(ref) + 1, len(hyp) + 1), dtype=np.int32)
    distance[0] = offset
    for i, token in enumerate(ref, start=1):
        above = distance[i - 1]
        row = above + 1
        row[1:] = np.minimum(row[1:], above[:-1] + (hyp != token))
        # An insertion costs 1 per step to the right: a running minimum once that slope is taken off.
        distance[i] = np.minimum.accumulate(row - offset) + offset
    return _trace_back(distance, ref, hyp.tolist())


def _trace_back(distance: NDArray[Any], ref: list[int], hyp: list[int]) -> tuple[int, int, int]:
    """Count the operations along one minimal path from the last cell to the first."""
    substitutions = deletions = insertions = 0
    i, j = len(ref), len(hyp)
    while i or j:
        here = distance[i, j]
        differ = int(i > 0 and j > 0 and ref[i - 1] != hyp[j - 1])
        if i and j and here == distance[i - 1, j - 1] + differ:
            substitutions += differ
            i, j = i - 1, j - 1
        elif i and here == distance[i - 1, j] + 1:
            deletions += 1
            i -= 1
        else:
            insertions += 1
            j -= 1
    return substitutions, deletions, insertions


def word_errors(
    references: Sequence[str],
    hypotheses: Sequence[str],
    ids: Sequence[str] | None = None,
    groups: Sequence[Any] | None = None,
) -> list[dict[str, Any]]:
    """Return one record per utterance with its word edit counts; `wer(records)` is the corpus word error rate.

    Texts are split at white space and otherwise compared as they are: case, accents and punctuation count.

    Parameters
    ----------
    references, hypotheses : sequence of str
        What was said, what was recognised; same length.
    ids : sequence of str, optional
        The utterances' names; 0, 1, 2... by default.
    groups : sequence, optional
        The speaker (or recording, dialogue) of each, over which intervals are clustered.

    Returns
    -------
    list of dict
        `id`, `group` (when given), `substitutions`, `deletions`, `insertions`, `errors` and `length` (of the
        reference), in words.

    Raises
    ------
    DataError
        If the numbers of items differ.

    Example
    -------
    >>> from lobes.evaluation.metrics import wer
    >>> records = word_errors(["le chat dort", "oui"], ["le chat", "oui"], groups=["anne", "luc"])
    >>> records[0]["errors"], wer(records)
    (1, 0.25)
    """
    return _text_records(references, hypotheses, ids, groups, str.split)


def char_errors(
    references: Sequence[str],
    hypotheses: Sequence[str],
    ids: Sequence[str] | None = None,
    groups: Sequence[Any] | None = None,
) -> list[dict[str, Any]]:
    """Return one record per utterance with its character edit counts; `cer(records)` is the corpus rate.

    A run of white space counts as one character, none at the ends; everything else as it is. The parameters and
    the records are those of `word_errors`, in characters.

    Example
    -------
    >>> from lobes.evaluation.metrics import cer
    >>> cer(char_errors(["été"], ["ete"])) == 2 / 3
    True
    """
    return _text_records(references, hypotheses, ids, groups, lambda text: " ".join(text.split()))


def _text_records(
    references: Sequence[str],
    hypotheses: Sequence[str],
    ids: Sequence[str] | None,
    groups: Sequence[Any] | None,
    split: Callable[[str], Sequence[str]],
) -> list[dict[str, Any]]:
    records = _named(len(references), ids, groups, hypotheses=hypotheses)
    for record, reference, hypothesis in zip(records, references, hypotheses, strict=True):
        tokens = split(reference)
        substitutions, deletions, insertions = edit_counts(tokens, split(hypothesis))
        record |= {
            "substitutions": substitutions,
            "deletions": deletions,
            "insertions": insertions,
            "errors": substitutions + deletions + insertions,
            "length": len(tokens),
        }
    return records


# --------------------------------------------------------------------------- labels and trials


def label_records(
    targets: Sequence[Any],
    predictions: Sequence[Any],
    ids: Sequence[str] | None = None,
    groups: Sequence[Any] | None = None,
) -> list[dict[str, Any]]:
    """Return one record per classified item (`target`, `prediction`), for `accuracy` and `uar`.

    Example
    -------
    >>> from lobes.evaluation.metrics import accuracy
    >>> accuracy(label_records(["cat", "dog"], ["cat", "cat"]))
    0.5
    """
    records = _named(len(targets), ids, groups, predictions=predictions)
    for record, target, prediction in zip(records, targets, predictions, strict=True):
        record |= {"target": target, "prediction": prediction}
    return records


def trial_records(
    targets: Sequence[Any],
    scores: Sequence[float],
    ids: Sequence[str] | None = None,
    groups: Sequence[Any] | None = None,
) -> list[dict[str, Any]]:
    """Return one record per verification trial (`target` 1 or 0, `score` higher for a target), for `eer`.

    Example
    -------
    >>> from lobes.evaluation.metrics import eer
    >>> eer(trial_records([1, 1, 0, 0], [0.9, 0.6, 0.4, 0.1]))
    0.0
    """
    records = _named(len(targets), ids, groups, scores=scores)
    for record, target, score in zip(records, targets, scores, strict=True):
        record |= {"target": int(target), "score": float(score)}
    return records


def _named(n_items: int, ids: Sequence[str] | None, groups: Sequence[Any] | None, **others: Any) -> list[dict]:
    """Return a record with `id` and `group` per item, after checking that everything is as long as the targets."""
    for name, values in {"ids": ids, "groups": groups, **others}.items():
        if values is not None and len(values) != n_items:
            raise DataError(f"{name}: {len(values)} items, expected {n_items} as in the references; pass one each")
    names = [str(i) for i in range(n_items)] if ids is None else [str(i) for i in ids]
    if groups is None:
        return [{"id": name} for name in names]
    return [{"id": name, "group": group} for name, group in zip(names, groups, strict=True)]
