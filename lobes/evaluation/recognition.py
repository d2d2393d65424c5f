"""Which error rates a recogniser is told by: of text its words and characters, of phones their own."""

from __future__ import annotations

from collections.abc import Callable

from lobes.errors import ConfigError
from lobes.evaluation.metrics import Metric, cer, per, wer
from lobes.evaluation.records import char_errors, word_errors

#: The rate, and what makes its records.
Rate = tuple[Metric, Callable[..., list]]


def recognition_rates(metric: str) -> dict[str, Rate]:
    """Return the rates of a recogniser by name, the one that is asked for first.

    Parameters
    ----------
    metric : str
        `wer` or `cer`, beside which the other stands; or `per`, of phones with spaces between, alone.

    Raises
    ------
    ConfigError
        It is another.

    Example
    -------
    >>> list(recognition_rates("wer")), list(recognition_rates("per"))
    (['wer', 'cer'], ['per'])
    """
    rates: dict[str, Rate] = {"wer": (wer, word_errors), "cer": (cer, char_errors), "per": (per, word_errors)}
    if metric not in rates:
        raise ConfigError(f"metric is {metric!r}: expected one of {', '.join(rates)}")
    names = [metric, *({"wer", "cer"} - {metric})] if metric != "per" else [metric]
    return {name: rates[name] for name in names}
