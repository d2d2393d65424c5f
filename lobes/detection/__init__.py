"""Detectors of calls in recordings of any length: built, saved, loaded, and run over folders."""

from __future__ import annotations

from lobes.detection.detector import Detector, frame_loss, frame_targets
from lobes.detection.folder import detector_checksum, load_detector, save_detector
from lobes.detection.protocols import AnnotatedCalls, LabelledWindows, Protocol, window_records
from lobes.detection.report import by_condition, lenient, write_curves
from lobes.detection.run import DetectionOptions, Summary, detect_folder
from lobes.detection.scoring import (
    detect_recording,
    detect_recordings,
    detect_under,
    events_of,
    score_recording,
    tune_detector,
)
from lobes.detection.windows import check_test_events, recording_events, window_dataset, write_windows

__all__ = [
    "AnnotatedCalls",
    "DetectionOptions",
    "Detector",
    "LabelledWindows",
    "Protocol",
    "Summary",
    "by_condition",
    "check_test_events",
    "detect_folder",
    "detect_recording",
    "detect_recordings",
    "detect_under",
    "detector_checksum",
    "events_of",
    "frame_loss",
    "frame_targets",
    "lenient",
    "load_detector",
    "recording_events",
    "save_detector",
    "score_recording",
    "tune_detector",
    "window_dataset",
    "window_records",
    "write_curves",
    "write_windows",
]
