"""Metrics with honest intervals, result files, and the tables, plots and reports made from them.

Nothing here knows a model: everything starts from per-item records (see `lobes.evaluation.records`).
"""

from __future__ import annotations

from lobes.evaluation.activity import Heard, NamePattern, calls_per_hour
from lobes.evaluation.event_matching import collar, confusion, events_by_file, overlap
from lobes.evaluation.event_metrics import (
    average_precision,
    event_f1,
    event_f1_macro,
    event_precision,
    event_recall,
    event_records,
    intersection_f1,
    intersection_f1_macro,
    intersection_records,
    mean_average_precision,
    precision_recall,
    scored_records,
    segment_f1,
    segment_f1_macro,
    segment_records,
)
from lobes.evaluation.event_plots import (
    activity_figure,
    confusion_figure,
    embedding_figure,
    embedding_map,
    precision_recall_figure,
)
from lobes.evaluation.events import EventFinder, EventRule, OverlapAverage, find_events
from lobes.evaluation.metrics import Metric, accuracy, auc, cer, eer, mean_metric, r2, ratio_metric, uar, wer
from lobes.evaluation.plots import inline_svg, layer_weights_figure, loss_figure, results_figure, save_figure
from lobes.evaluation.psds import PSDS, psds
from lobes.evaluation.records import char_errors, edit_counts, label_records, trial_records, word_errors
from lobes.evaluation.report import write_report
from lobes.evaluation.results import append_row, read_result, read_rows, result_row, write_result
from lobes.evaluation.review import ReviewItem, choose_items, write_review
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
from lobes.evaluation.thresholds import OperatingPoint, tune_rules
from lobes.evaluation.translation import bleu, chrf, translation_records, translation_signatures

__all__ = [
    "Comparison",
    "EventFinder",
    "EventRule",
    "Heard",
    "Interval",
    "Metric",
    "NamePattern",
    "OperatingPoint",
    "OverlapAverage",
    "PSDS",
    "ReviewItem",
    "accuracy",
    "activity_figure",
    "append_row",
    "auc",
    "average_precision",
    "bleu",
    "bootstrap_interval",
    "calls_per_hour",
    "cer",
    "char_errors",
    "choose_items",
    "chrf",
    "collar",
    "confusion",
    "confusion_figure",
    "edit_counts",
    "eer",
    "embedding_figure",
    "embedding_map",
    "event_f1",
    "event_f1_macro",
    "event_precision",
    "event_recall",
    "event_records",
    "events_by_file",
    "find_events",
    "holm",
    "inline_svg",
    "intersection_f1",
    "intersection_f1_macro",
    "intersection_records",
    "jackknife_interval",
    "label_records",
    "layer_weights_figure",
    "loss_figure",
    "markdown_table",
    "mcnemar",
    "mean_average_precision",
    "mean_metric",
    "overlap",
    "paired_bootstrap",
    "precision_recall",
    "precision_recall_figure",
    "psds",
    "r2",
    "ratio_metric",
    "read_result",
    "read_rows",
    "result_row",
    "results_figure",
    "save_figure",
    "scored_records",
    "segment_f1",
    "segment_f1_macro",
    "segment_records",
    "sign_flip_test",
    "translation_records",
    "translation_signatures",
    "trial_records",
    "tune_rules",
    "uar",
    "update_file",
    "update_text",
    "wer",
    "word_errors",
    "write_report",
    "write_result",
    "write_review",
]
