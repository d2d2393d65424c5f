"""French cardinal numbers, clock times and dates in words.

The spelling is the traditional one (hyphens inside numbers below one hundred, none around *et*), with the agreement
rules of *vingt*, *cent*, *mille* and *million* as given in Grevisse and Goosse, *Le Bon Usage*, § 595-599.
"""

from __future__ import annotations

UNITS = (
    "zéro un deux trois quatre cinq six sept huit neuf dix onze douze treize quatorze quinze seize "
    "dix-sept dix-huit dix-neuf"
).split()
TENS = {20: "vingt", 30: "trente", 40: "quarante", 50: "cinquante", 60: "soixante"}
WEEKDAYS = tuple("lundi mardi mercredi jeudi vendredi samedi dimanche".split())
MONTHS = tuple("janvier février mars avril mai juin juillet août septembre octobre novembre décembre".split())
LARGEST = 999_999_999


def _below_hundred(n: int) -> str:
    if n < 20:
        return UNITS[n]
    if n == 80:
        return "quatre-vingts"
    if n > 80:
        return f"quatre-vingt-{UNITS[n - 80]}"
    # Seventy counts on from sixty: soixante-dix, soixante et onze, soixante-douze.
    ten = min(n // 10 * 10, 60)
    unit = n - ten
    if unit == 0:
        return TENS[ten]
    return f"{TENS[ten]} et {UNITS[unit]}" if unit in (1, 11) else f"{TENS[ten]}-{UNITS[unit]}"


def _below_thousand(n: int) -> str:
    hundreds, rest = divmod(n, 100)
    if hundreds == 0:
        return _below_hundred(rest)
    head = "cent" if hundreds == 1 else f"{UNITS[hundreds]} cent"
    if rest == 0:
        return head + ("s" if hundreds > 1 else "")
    return f"{head} {_below_hundred(rest)}"


def _before_mille(n: int) -> str:
    """Words of `n` in front of *mille*, an adjective: *vingt* and *cent* lose their plural s there."""
    words = _below_thousand(n)
    return words[:-1] if words.endswith(("vingts", "cents")) else words


def number_words(n: int, feminine: bool = False) -> str:
    """The cardinal number `n` in French words.

    Parameters
    ----------
    n : int
        From 0 to 999 999 999.
    feminine : bool
        Agree a final *un* with a feminine noun: *vingt et une heures*.

    Returns
    -------
    str
        Lower-case words.

    Raises
    ------
    ValueError
        If `n` is out of range.

    Examples
    --------
    >>> number_words(91), number_words(71), number_words(80_000), number_words(280)
    ('quatre-vingt-onze', 'soixante et onze', 'quatre-vingt mille', 'deux cent quatre-vingts')
    >>> number_words(21, feminine=True)
    'vingt et une'
    """
    if not 0 <= n <= LARGEST:
        raise ValueError(f"n={n}: expected a number from 0 to {LARGEST}")
    if n == 0:
        return UNITS[0]
    millions, rest = divmod(n, 1_000_000)
    thousands, rest = divmod(rest, 1000)
    parts = []
    if millions:
        # "million" is a noun, so quatre-vingts and deux cents keep their s in front of it.
        parts.append(f"{_below_thousand(millions)} million{'s' if millions > 1 else ''}")
    if thousands:
        parts.append("mille" if thousands == 1 else f"{_before_mille(thousands)} mille")
    if rest:
        parts.append(_below_thousand(rest))
    words = " ".join(parts)
    return f"{words}e" if feminine and (words == "un" or words.endswith((" un", "-un"))) else words


def _hour(hour: int) -> str:
    if hour == 0:
        return "minuit"
    if hour == 12:
        return "midi"
    return f"{number_words(hour, feminine=True)} heure{'s' if hour > 1 else ''}"


def clock_words(hour: int, minute: int = 0, conversational: bool = False) -> str:
    """A time of day in French words.

    Parameters
    ----------
    hour, minute : int
        0 to 23 and 0 to 59.
    conversational : bool
        Say quarters, halves and the minutes that are missing to the next hour: *midi et demi*, *neuf heures moins dix*.

    Examples
    --------
    >>> clock_words(21, 1), clock_words(1)
    ('vingt et une heures une', 'une heure')
    >>> clock_words(12, 30, True), clock_words(23, 45, True), clock_words(8, 50, True)
    ('midi et demi', 'minuit moins le quart', 'neuf heures moins dix')
    """
    if not (0 <= hour < 24 and 0 <= minute < 60):
        raise ValueError(f"time={hour}:{minute:02d}: expected 0:00 to 23:59")
    if minute == 0:
        return _hour(hour)
    if conversational and minute == 15:
        return f"{_hour(hour)} et quart"
    if conversational and minute == 30:
        return f"{_hour(hour)} et demi{'' if hour in (0, 12) else 'e'}"
    if conversational and minute > 30 and minute % 5 == 0:
        missing = "le quart" if minute == 45 else number_words(60 - minute)
        return f"{_hour((hour + 1) % 24)} moins {missing}"
    return f"{_hour(hour)} {number_words(minute, feminine=True)}"


def date_words(day: int, month: int, year: int | None = None, weekday: int | None = None) -> str:
    """A date in French words, without its article (*le*).

    Parameters
    ----------
    day, month : int
        1 to 31 and 1 to 12; that the day exists in the month is not checked.
    year : int, optional
        Said as a number.
    weekday : int, optional
        0 (Monday) to 6 (Sunday).

    Examples
    --------
    >>> date_words(1, 3), date_words(21, 6, year=2024, weekday=4)
    ('premier mars', 'vendredi vingt et un juin deux mille vingt-quatre')
    """
    if not (1 <= day <= 31 and 1 <= month <= 12):
        raise ValueError(f"date={day}/{month}: expected a day from 1 to 31 and a month from 1 to 12")
    parts = [] if weekday is None else [WEEKDAYS[weekday]]
    parts += ["premier" if day == 1 else number_words(day), MONTHS[month - 1]]
    if year is not None:
        parts.append(number_words(year))
    return " ".join(parts)
