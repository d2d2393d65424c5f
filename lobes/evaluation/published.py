"""Other people's figures, for a leaderboard's rows of their own kind."""

from __future__ import annotations

import csv
import math
from pathlib import Path

from lobes.errors import DataError
from lobes.evaluation.leaderboard import ROW_COLUMNS, Row, metric_named
from lobes.evaluation.metrics import HIGHER_IS_BETTER, PERCENT

PUBLISHED_COLUMNS = ("task", "model", "mode", "head", "metric", "unit", "value", "deviation", "mark", "source")


def read_published(path: str | Path) -> list[Row]:
    """Read published figures: rows like those of a board, with `published` and `source`.

    Raises
    ------
    DataError
        The file has other columns, a value is not a number, a row has no source, or a metric that is a fraction here is
        not in percent there.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file, expected a CSV of published figures")
    with path.open(encoding="utf-8", newline="") as stream:
        reader = csv.DictReader(stream)
        if tuple(reader.fieldnames or ()) != PUBLISHED_COLUMNS:
            raise DataError(f"{path}: columns {reader.fieldnames}, expected {','.join(PUBLISHED_COLUMNS)}")
        rows = []
        for line in reader:
            place = f"{path}: line {reader.line_num}"
            if None in line or None in line.values():
                raise DataError(f"{place}: has another number of columns; quote what has a comma in it")
            if not line["source"].strip():
                raise DataError(f"{place}: source is empty, expected where the figure was read")
            percent = line["unit"] == "%"
            if line["metric"] in PERCENT and not percent:
                raise DataError(
                    f"{place}: unit is {line['unit']!r}, expected % for {line['metric']}, for BLEU as for error rates"
                )
            try:
                value, deviation = (
                    float(line[name] or "nan") / (100 if percent else 1) for name in ("value", "deviation")
                )
            except ValueError as error:
                raise DataError(f"{place}: {error}, expected a number such as 12.6") from error
            if not math.isfinite(value):
                raise DataError(f"{place}: value is {line['value']!r}, expected a number such as 12.6")
            row: Row = dict.fromkeys((*ROW_COLUMNS, "higher_is_better", "best"))
            row |= {name: line[name] for name in ("task", "model", "mode", "head", "metric")}
            row |= {"value": value, "seed_deviation": None if math.isnan(deviation) else deviation, "percent": percent}
            row |= {"published": True, "generated": False, "source": f"{line['source']} [{line['mark']}]"}
            rows.append(row | {"higher_is_better": _higher_is_better(line["metric"])})
    return rows


def _higher_is_better(name: str) -> bool:
    """Of our own metrics as they say, of others by their names: errors and costs are better when lower."""
    metric = metric_named(name)
    if metric is not None:
        return metric.higher_is_better or name in HIGHER_IS_BETTER
    words = name.lower().split("_")
    return not (words[-1].endswith(("er", "error", "rate", "loss")) or {"dcf", "cllr", "error"} & set(words))
