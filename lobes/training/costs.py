"""What a run cost, for its result file."""

from __future__ import annotations

from typing import Any

from lobes.adapters import active_adapter, adaptations, adapter_macs
from lobes.training.brain import Brain


def costs(brain: Brain, encoder: Any) -> dict[str, Any]:
    """The cost arguments of `lobes.evaluation.write_result`.

    Arguments
    ---------
    brain : Brain
        After training.
    encoder : Encoder
        Or whatever else keeps the Encoder contract; its multiply-accumulates are those of 10 s of audio, or of the most
        that it takes, an adapter's included unless it can be merged.

    Returns
    -------
    dict
        ``parameters_trained``, ``parameters_total`` (of all modules), ``audio_hours`` heard in training, repeats
        included, ``wall_seconds`` of training over all resumes, ``macs_per_second`` of audio.
    """
    parameters = list(brain.modules.parameters())
    adapter = active_adapter(encoder)
    seconds = min(10.0, adaptations(encoder)[adapter].max_seconds) if adapter else 10.0
    return {
        "parameters_trained": sum(p.numel() for p in parameters if p.requires_grad),
        "parameters_total": sum(p.numel() for p in parameters),
        "audio_hours": brain.audio_seconds / 3600,
        "wall_seconds": brain.wall_seconds,
        "macs_per_second": (encoder.macs(seconds) + adapter_macs(encoder, seconds)) / seconds,
    }
