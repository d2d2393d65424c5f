"""Which detected events are which of the annotated ones.

A criterion takes the times of R annotated and E detected events of one recording and class, (R, 2) and (E, 2) in
seconds, and says for each pair whether it may be a match, (R, E). `collar` and `overlap` are the two in use; options
are set by `functools.partial`, or by `!name:` in YAML.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lobes.errors import DataError

if TYPE_CHECKING:
    from lobes.dataio.annotations import Annotation

Times = NDArray[np.float64]
Criterion = Callable[[Times, Times], NDArray[np.bool_]]
Events = Mapping[str, Sequence["Annotation"]]

#: Seconds that rounding may add to a difference of two times.
_SLACK = 1e-9


def collar(
    reference: Times,
    detected: Times,
    onset: float = 0.2,
    offset: float | None = 0.2,
    offset_ratio: float = 0.5,
) -> NDArray[np.bool_]:
    """Pairs that begin and end alike (Mesaros, Heittola & Virtanen 2016, "Metrics for polyphonic SED", section 3.2).

    Parameters
    ----------
    reference, detected : array (R, 2), (E, 2)
        Beginning and end of each, seconds.
    onset : float
        Largest difference of the beginnings, seconds.
    offset : float, optional
        The same of the ends; None leaves the ends out of it.
    offset_ratio : float
        The ends may also differ by this share of the annotated event's length: by the larger of the two.

    Returns
    -------
    array (R, E), bool

    Example
    -------
    >>> collar(np.array([[1.0, 3.0]]), np.array([[1.1, 3.9], [1.3, 3.0]])).tolist()
    [[True, False]]
    """
    possible = np.abs(reference[:, None, 0] - detected[None, :, 0]) <= onset + _SLACK
    if offset is not None:
        allowed = np.maximum(offset, offset_ratio * (reference[:, 1] - reference[:, 0]))[:, None]
        possible &= np.abs(reference[:, None, 1] - detected[None, :, 1]) <= allowed + _SLACK
    return possible


def overlap(reference: Times, detected: Times, minimum: float = 0.3) -> NDArray[np.bool_]:
    """Pairs whose intersection is at least `minimum` of their union: for annotations with vague ends.

    The criterion of DCASE's few-shot bioacoustic detection task (Nolasco et al. 2023, section 3.3), with its default.

    Example
    -------
    >>> overlap(np.array([[1.0, 3.0]]), np.array([[2.0, 4.0], [2.5, 4.0]])).tolist()
    [[True, False]]
    """
    shared = intersections(reference, detected)
    lengths = (reference[:, 1] - reference[:, 0])[:, None] + (detected[:, 1] - detected[:, 0])[None, :]
    return (shared > 0) & (shared >= minimum * (lengths - shared) - _SLACK)


def intersections(reference: Times, detected: Times) -> NDArray[np.float64]:
    """Seconds that each pair has in common, (R, E)."""
    latest = np.maximum(reference[:, None, 0], detected[None, :, 0])
    earliest = np.minimum(reference[:, None, 1], detected[None, :, 1])
    return np.maximum(earliest - latest, 0.0)


def lies_in(spans: Times, events: Times, share: float) -> NDArray[np.bool_]:
    """Whether at least `share` of each of N spans, and something of it, lies in any of K events, (N,).

    What events share with each other counts once.

    Example
    -------
    >>> lies_in(np.array([[0.0, 10.0]]), np.array([[0.0, 3.0], [1.0, 4.0]]), 0.5).tolist()
    [False]
    """
    shared = intersections(_union(events), spans).sum(0)
    return (shared > 0) & (shared >= share * (spans[:, 1] - spans[:, 0]) - _SLACK)


def _union(events: Times) -> Times:
    """The stretches that events cover, none of which overlap, in order."""
    ordered = events[np.argsort(events[:, 0], kind="stable")]
    ends = np.maximum.accumulate(ordered[:, 1])
    first = np.ones(len(ordered), dtype=bool)
    first[1:] = ordered[1:, 0] > ends[:-1]
    last = np.append(first[1:], True)[: len(ordered)]
    return np.stack([ordered[first, 0], ends[last]], axis=1)


def times(events: Iterable[Annotation]) -> Times:
    """Beginning and end of each event, (n, 2), seconds."""
    return np.array([(event.start, event.end) for event in events], dtype=np.float64).reshape(-1, 2)


def one_to_one(possible: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """As many pairs (reference, detected) as possible, each event in one at most (Hopcroft & Karp 1973).

    Example
    -------
    >>> one_to_one(np.array([[True, True], [True, False]]))
    [(0, 1), (1, 0)]
    """
    if not possible.any():
        return []
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import maximum_bipartite_matching

    partner = maximum_bipartite_matching(csr_matrix(possible), perm_type="column")
    return [(row, int(column)) for row, column in enumerate(partner) if column >= 0]


def by_score(possible: NDArray[np.bool_], scores: Sequence[float]) -> list[tuple[int, int]]:
    """Pairs as they are given when detections are accepted one by one, the highest score first.

    Each takes a free annotated event if that is possible; one that is taken stays taken, though it may be handed from
    one detection to another (an augmenting path), so that any number of the first detections has as many matches as
    `one_to_one` gives them alone, and a precision-recall curve can be read off their order.

    Example
    -------
    >>> by_score(np.array([[True, True], [True, False]]), [0.9, 0.8])
    [(1, 0), (0, 1)]
    """
    owner: dict[int, int] = {}
    matched = []

    def place(detection: int, seen: set[int]) -> bool:
        # A loop, not a recursion: a chain of calls may be as long as the recording.
        stack = [(detection, iter(np.flatnonzero(possible[:, detection])))]
        path: list[tuple[int, int]] = []
        while stack:
            current, candidates = stack[-1]
            row = next((int(r) for r in candidates if r not in seen), None)
            if row is None:
                stack.pop()
                if path:
                    path.pop()
                continue
            seen.add(row)
            path.append((row, current))
            if row not in owner:
                owner.update(path)
                return True
            stack.append((owner[row], iter(np.flatnonzero(possible[:, owner[row]]))))
        return False

    for detection in np.argsort(-np.asarray(scores, dtype=float), kind="stable"):
        if place(int(detection), set()):
            matched.append(int(detection))
    row_of = {detection: row for row, detection in owner.items()}
    return [(row_of[detection], detection) for detection in matched]


def events_by_file(events: Iterable[Annotation], files: Iterable[str] = ()) -> dict[str, list[Annotation]]:
    """Sort annotations by their `file`; those of `files` without any have an empty list.

    Raises
    ------
    DataError
        An annotation names no file.

    Example
    -------
    >>> from lobes.dataio.annotations import Annotation
    >>> list(events_by_file([Annotation(0.0, 1.0, "duet", file="b.wav")], ["a.wav", "b.wav"]))
    ['a.wav', 'b.wav']
    """
    found: dict[str, list[Annotation]] = {str(name): [] for name in files}
    for event in events:
        if not event.file:
            raise DataError(
                f"annotation '{event.label}' at {event.start:g} s: names no file; read it with load_annotations"
            )
        found.setdefault(event.file, []).append(event)
    return found


def recordings(reference: Events, detected: Events) -> list[str]:
    """All recordings, those of the reference first.

    Raises
    ------
    DataError
        There is none; a recording without any call counts too, as an empty list.
    """
    names = list(dict.fromkeys([*reference, *detected]))
    if not names:
        raise DataError("reference: no recordings, expected at least one; one without calls is an empty list")
    return names


def labels_of(reference: Events, detected: Events, labels: Sequence[str] | None) -> list[str]:
    """The classes to score: as given, or all that occur, sorted."""
    if labels is not None:
        return list(labels)
    return sorted({event.label for events in (reference, detected) for found in events.values() for event in found})


def of_label(events: Sequence[Annotation], label: str) -> list[Annotation]:
    """Those of one class."""
    return [event for event in events if event.label == label]


def confusion(
    reference: Events,
    detected: Events,
    labels: Sequence[str] | None = None,
    criterion: Criterion = overlap,
) -> tuple[NDArray[np.int64], list[str]]:
    """Count which annotated class was detected as which.

    In each recording, as many events as possible are matched with detections of their own class; what is left then,
    with those of other classes.

    Parameters
    ----------
    reference, detected : mapping of str to sequence of Annotation
        The events of each recording.
    labels : sequence of str, optional
        Classes; all that occur, sorted, by default.
    criterion : callable
        See the module's docstring.

    Returns
    -------
    counts : array (C + 1, C + 1)
        Row: annotated, column: detected. The last row holds detections of nothing, the last column missed events.
    labels : list of str
        Of the first C rows and columns.
    """
    names = labels_of(reference, detected, labels)
    counts = np.zeros((len(names) + 1, len(names) + 1), dtype=np.int64)
    for name in recordings(reference, detected):
        truth, found = (
            [event for event in events.get(name, ()) if event.label in names] for events in (reference, detected)
        )
        possible = criterion(times(truth), times(found))
        same = np.array([[a.label == b.label for b in found] for a in truth], dtype=bool).reshape(possible.shape)
        pairs = one_to_one(possible & same)
        free_rows, free_columns = (
            np.setdiff1d(np.arange(size), [pair[axis] for pair in pairs]) for axis, size in enumerate(possible.shape)
        )
        confused = one_to_one(possible[np.ix_(free_rows, free_columns)])
        pairs += [(int(free_rows[row]), int(free_columns[column])) for row, column in confused]
        for row, column in pairs:
            counts[names.index(truth[row].label), names.index(found[column].label)] += 1
        taken_rows, taken_columns = {row for row, _ in pairs}, {column for _, column in pairs}
        for row, event in enumerate(truth):
            counts[names.index(event.label), -1] += row not in taken_rows
        for column, event in enumerate(found):
            counts[-1, names.index(event.label)] += column not in taken_columns
    return counts, names


def with_scores(events: Sequence[Annotation]) -> list[float]:
    """The score of each event.

    Raises
    ------
    DataError
        One has none.
    """
    for event in events:
        if event.score is None:
            raise DataError(
                f"event '{event.label}' at {event.start:g} s of {event.file or 'a recording'}: has no score, which its"
                " place on a precision-recall curve depends on; give detections, not annotations"
            )
    return [float(event.score) for event in events if event.score is not None]
