"""Compare systems on the same items: each result with its interval, then the first minus each other one.

    python tools/compare.py results/pretrained/1 results/untrained/1 results/log-mel/1
    python tools/compare.py results/pretrained/1 results/untrained/1 --metric uar
    python tools/compare.py results/pretrained/1 --append results.csv   # keep rows for the README's table

Arguments are `result.json` files, or the folders that hold one. Differences come with a paired interval and a p-value,
clustered by group, and adjusted for their number by Holm's method.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from lobes.errors import DataError
from lobes.evaluation import Metric, append_row, bootstrap_interval, holm, paired_bootstrap, read_result
from lobes.evaluation.leaderboard import known_metrics
from lobes.training import run

METRICS = known_metrics()
#: Of records with `errors` and `length`, which do not say of what.
RATES = {"wer", "cer", "per"}


def same_metric(results: list[dict[str, Any]]) -> Metric:
    """The main metric that all results share."""
    names = {result["metric"]["name"] for result in results}
    if len(names) > 1 or not names <= set(METRICS):
        raise DataError(f"metrics are {sorted(names)}: expected the same one of {sorted(METRICS)} in all results")
    return METRICS[names.pop()]


def check_metric(name: str, results: list[dict[str, Any]]) -> None:
    """Refuse an error rate that the records do not hold: words, characters and phones are counted alike."""
    for result in results:
        main = result["metric"]["name"]
        if name != main and main in RATES and name in RATES:
            raise DataError(
                f"--metric {name}: the records of {result['system']} count the errors of its {main}; expected {main}, "
                f"or results of a run with --metric {name}"
            )
        if name in RATES - {"wer"} and main != name and main not in RATES:
            raise DataError(f"--metric {name}: the records of {result['system']} hold none; expected {main}")


def main() -> None:
    """Print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="+", type=Path, help="result.json files or their folders")
    parser.add_argument("--append", type=Path, help="append a row for each to this results.csv")
    parser.add_argument("--metric", choices=sorted(METRICS), help="another of their records than the main one")
    options = parser.parse_args()
    results = [read_result(path) for path in options.results]
    if options.metric:
        check_metric(options.metric, results)
    metric = METRICS[options.metric] if options.metric else same_metric(results)
    for result in results:
        found = bootstrap_interval(result["records"], metric)
        print(f"{result['system']:32} {metric.name} {found.value:.4f} [{found.low:.4f}, {found.high:.4f}]")
        if options.append:
            append_row(options.append, result)
    first, *others = results
    differences = [paired_bootstrap(first["records"], other["records"], metric) for other in others]
    for other, difference, p_value in zip(others, differences, holm([d.p_value for d in differences]), strict=True):
        edges = f"[{difference.low:+.4f}, {difference.high:+.4f}]"
        print(f"{first['system']} minus {other['system']}: {difference.difference:+.4f} {edges}, p {p_value:.2g}")


if __name__ == "__main__":
    run(main)
