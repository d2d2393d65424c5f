"""From files on disk to batches: audio, manifests, datasets, samplers and corpora; it knows no model."""

from __future__ import annotations

from lobes.dataio.audio import AudioError, AudioInfo, audio_info, check_audio, read_audio, resample
from lobes.dataio.bands import (
    Band,
    BandReport,
    Sound,
    band_report,
    sounds_of_annotations,
    sounds_of_files,
    sounds_of_manifest,
)
from lobes.dataio.blocks import Recording, WindowBatch, prefetch, read_part, window_batches
from lobes.dataio.datasets import AudioDataset, audio_dataset, collate, merge_manifests
from lobes.dataio.folders import data_root
from lobes.dataio.folds import make_folds
from lobes.dataio.manifest import Manifest, data_checksum, read_manifest, validate_splits, write_manifest
from lobes.dataio.pieces import cut_clips
from lobes.dataio.samplers import GlobalBatchSampler
from lobes.dataio.scan import Clip, find_audio, scan_clips
from lobes.dataio.splits import leave_one_group_out, split_by_group
from lobes.dataio.subset import take_clips, take_hours
from lobes.dataio.tagged import Meaning, plain_text, read_tagged, unseen_labels, write_tagged
from lobes.dataio.trials import Trial, make_trials, read_trials, write_trials

__all__ = [
    "AudioDataset",
    "AudioError",
    "AudioInfo",
    "Band",
    "BandReport",
    "Clip",
    "GlobalBatchSampler",
    "Manifest",
    "Meaning",
    "Recording",
    "Sound",
    "Trial",
    "WindowBatch",
    "audio_dataset",
    "audio_info",
    "band_report",
    "check_audio",
    "collate",
    "cut_clips",
    "data_checksum",
    "data_root",
    "find_audio",
    "leave_one_group_out",
    "make_folds",
    "make_trials",
    "merge_manifests",
    "plain_text",
    "prefetch",
    "read_audio",
    "read_manifest",
    "read_part",
    "read_tagged",
    "read_trials",
    "resample",
    "scan_clips",
    "sounds_of_annotations",
    "sounds_of_files",
    "sounds_of_manifest",
    "split_by_group",
    "take_clips",
    "take_hours",
    "unseen_labels",
    "validate_splits",
    "window_batches",
    "write_manifest",
    "write_tagged",
    "write_trials",
]
