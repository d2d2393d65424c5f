"""An epoch with targets and inputs from the cache, and one with the teacher beside, reading audio included."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hyperpyyaml import load_hyperpyyaml
from torch.utils.data import DataLoader

from lobes.dataio import GlobalBatchSampler, audio_dataset, collate, write_manifest
from lobes.distillation import Distillation, TargetCache, Teacher, front_end
from lobes.encoders import Encoder, LogMel, StackingStem
from lobes.export import load_encoder
from lobes.mixers import SummaryMixing

SMALL = Path(__file__).parents[2] / "hparams" / "encoders" / "small.yaml"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("teacher_name", "at_least"),
    [
        ("sm-tiny", 2.5),  # with a linear mixer itself, and thirty times as fast as HuBERT-base
        ("small", 8.0),  # 12 million parameters
    ],
)
def test_a_cached_epoch_is_faster(teacher_name, at_least, tmp_path):
    noise, rows = np.random.default_rng(0), []
    for number in range(60):
        seconds = 4.0 + 6.0 * noise.random()
        soundfile.write(tmp_path / f"{number}.wav", 0.1 * noise.standard_normal(round(16000 * seconds)), 16000)
        where = {"id": f"u{number}", "wav": f"$data_root/{number}.wav", "start": 0.0, "stop": seconds}
        rows.append({**where, "duration": seconds, "sample_rate": 16000, "channel": None, "group": f"s{number}"})
    path = write_manifest(tmp_path / "all.csv", rows, data_root=tmp_path, source="noise", licence="CC0-1.0")
    small = load_hyperpyyaml(f"encoder: !include:{SMALL}")["encoder"] if teacher_name == "small" else None
    teacher = Teacher(small or load_encoder(teacher_name), [2, 4])
    student = Encoder(LogMel(n_mels=40), StackingStem(40, 64), 64, 2, SummaryMixing, ffn_factor=2.0, kernel=9)
    datasets = {name: audio_dataset(path, 16000, ("id", "sig", "group")) for name in ("online", "targets", "inputs")}
    for name, inputs in (("targets", None), ("inputs", front_end(student))):
        cache = TargetCache(tmp_path / "cache", teacher, inputs=inputs)
        cache.extract(datasets[name], progress=False)
        cache.attach(datasets[name])
    objective = Distillation(student, teacher)
    objective.mean.zero_()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    seconds = {name: [] for name in datasets}
    for name in ("online", "targets", "inputs") * 3:
        sampler = GlobalBatchSampler(datasets[name].durations, 40.0, shuffle=False)
        started = time.process_time()
        for batch in DataLoader(datasets[name], batch_sampler=sampler, collate_fn=collate):
            objective(student, batch).loss.backward()
        seconds[name].append(time.process_time() - started)
    torch.set_num_threads(threads)
    print({name: min(found) for name, found in seconds.items()})
    assert min(seconds["online"]) >= at_least * min(seconds["inputs"]), seconds
    assert min(seconds["targets"]) > min(seconds["inputs"]), seconds
