"""Metrics with honest intervals, result files, and the tables, plots and reports made from them.

Nothing here knows a model: everything starts from per-item records (see `lobes.evaluation.records`).
"""

from __future__ import annotations

from lobes.evaluation.metrics import Metric, accuracy, auc, cer, eer, mean_metric, ratio_metric, uar, wer
from lobes.evaluation.plots import inline_svg, layer_weights_figure, loss_figure, results_figure, save_figure
from lobes.evaluation.records import char_errors, edit_counts, label_records, trial_records, word_errors
from lobes.evaluation.report import write_report
from lobes.evaluation.results import append_row, read_result, read_rows, result_row, write_result
from lobes.evaluation.statistics import (
    Comparison,
    Interval,
    bootstrap_interval,
    holm,
    jackknife_interval,
    mcnemar,
    paired_bootstrap,
    sign_flip_test,
)
from lobes.evaluation.tables import markdown_table, update_file, update_text

__all__ = [
    "Comparison",
    "Interval",
    "Metric",
    "accuracy",
    "append_row",
    "auc",
    "bootstrap_interval",
    "cer",
    "char_errors",
    "edit_counts",
    "eer",
    "holm",
    "inline_svg",
    "jackknife_interval",
    "label_records",
    "layer_weights_figure",
    "loss_figure",
    "markdown_table",
    "mcnemar",
    "mean_metric",
    "paired_bootstrap",
    "ratio_metric",
    "read_result",
    "read_rows",
    "result_row",
    "results_figure",
    "save_figure",
    "sign_flip_test",
    "trial_records",
    "uar",
    "update_file",
    "update_text",
    "wer",
    "word_errors",
    "write_report",
    "write_result",
]
