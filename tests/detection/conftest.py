"""A small detector, trained in seconds on calls made of sweeps in noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from synthetic_calls import RATE, new_detector, random_calls, with_calls

from lobes.detection import Detector, frame_loss, frame_targets, save_detector
from lobes.export import encoder_text


@pytest.fixture(scope="session")
def detector() -> Detector:
    """Trained on two minutes for a few seconds."""
    model = new_detector(bands={"whoop": (400.0, 1200.0), "hoot": (1700.0, 2600.0)})
    calls = random_calls(120.0, seed=1)
    audio = torch.from_numpy(with_calls(120.0, calls, seed=1)).unfold(0, 4 * RATE, 4 * RATE)
    targets = [frame_targets(calls, model.events, model.frame_rate, 100, start=4.0 * k) for k in range(len(audio))]
    target = torch.from_numpy(np.stack(targets))
    with torch.no_grad():
        output = model.model.encoder(audio, torch.ones(len(audio)))
    optimizer = torch.optim.Adam(model.model.probe.parameters(), 0.02)
    model.train()
    for _ in range(60):
        loss = frame_loss(model.model.probe(output.layers, output.valid), output.valid, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


@pytest.fixture(scope="session")
def detector_folder(detector: Detector, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, saved."""
    return save_detector(
        detector, tmp_path_factory.mktemp("detector") / "model", encoder_text("logmel-40-25hz"), {"data": "sweeps"}
    )
