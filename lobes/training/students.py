"""What distillation recipes share: the choice from the pool, the teacher's targets, and what is left at the end."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from torch import nn

from lobes.dataio import AudioDataset, audio_dataset, read_manifest
from lobes.dataio.manifest import atomic_write
from lobes.distillation import DistillationObjective, TargetCache, Teacher, choose_clips, front_end
from lobes.encoders import HuggingFaceEncoder, LogMel
from lobes.errors import ConfigError
from lobes.evaluation import r2, write_result
from lobes.export import save_encoder
from lobes.objectives import SSLModel
from lobes.probes import LogisticProbe, PooledLayers, cache_features
from lobes.training.costs import costs
from lobes.training.parallel import on_main, rank, world_size
from lobes.training.pretraining import FidelityBrain

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ReadOut:
    """How much of a label a logistic regression reads off an encoder's pooled layers.

    Parameters
    ----------
    label : str
        Column of the manifests.
    group : str
        Column by whose values penalty and layer are chosen, each left out once.
    known, tested : str
        Splits to fit on and to test on.
    strengths : sequence of float
        Penalties to choose from, see `lobes.probes.LogisticProbe`.
    """

    label: str
    group: str
    known: str = "valid"
    tested: str = "test"
    strengths: Sequence[float] = (0.01, 0.1)

    def __call__(self, encoder: nn.Module, manifests: dict[str, Path], transform: Any = None) -> float:
        """Return the share of right answers."""
        rate: int = encoder.sample_rate  # type: ignore[assignment]
        keys = ("id", "sig", self.label, self.group)
        parts = [audio_dataset(manifests[s], rate, keys, transform=transform) for s in (self.known, self.tested)]
        known, tested = (
            [part[i] for i in range(len(part))] for part in (cache_features(p, PooledLayers(encoder)) for p in parts)
        )
        features, wanted = (np.stack([item["layers"][0].numpy() for item in items]) for items in (known, tested))
        labels, groups = ([item[name] for item in known] for name in (self.label, self.group))
        found = LogisticProbe(strengths=list(self.strengths)).fit(features, labels, groups).predict(wanted)
        return sum(said == item[self.label] for said, item in zip(found, tested, strict=True)) / len(tested)


def choose(hparams: dict[str, Any], teacher: Teacher, manifests: dict[str, Path], device: str = "cpu") -> Path:
    """The manifest to train on: ``share`` of the pool by ``strategy``, as ``selected.csv``, or all of it.

    Raises
    ------
    ConfigError
        ``share`` is below 1 and ``strategy`` null.
    """
    if hparams["strategy"] is None:
        if hparams["share"] != 1:
            raise ConfigError(
                f"share is {hparams['share']} and strategy null: give a strategy, such as "
                "--strategy '!new:lobes.selection.Random', or leave share at 1.0 for all of the pool"
            )
        return manifests["train"]
    cache = hparams["cache"]
    found = choose_clips(
        manifests,
        Path(hparams["output_folder"]) / "selected.csv",
        teacher.encoder,
        hparams["strategy"],
        hparams["share"],
        layer=hparams["unit_layer"],
        n_units=hparams["n_units"],
        transform=hparams["transform"],
        filters=hparams["filters"],
        cap=hparams["cap"],
        cap_by=hparams["cap_by"],
        scores=hparams["scores"],
        heard=None if cache is None else Path(cache) / "heard",
        seed=hparams["seed"],
        device=device,
    )
    return found.path


def score_pool(
    hparams: dict[str, Any], brain: FidelityBrain, teacher: Teacher, pool: Path, device: str = "cpu"
) -> Path:
    """Write ``pool_scores.csv``: of each clip of the pool, how badly the student follows its teacher there.

    Its column `proxy_loss` is the share of the variance of the teacher's layers, about their mean over all clips, that
    is left unexplained. A small student of a random part makes a proxy by which another run can choose:
    ``--scores <folder>/pool_scores.csv --strategy '!new:lobes.selection.ByColumn'``.

    Arguments
    ---------
    hparams : dict
        With ``output_folder``, ``transform``, ``cache`` and ``test_loader``.
    brain : FidelityBrain
        After `fit`.
    teacher : Teacher
    pool : Path
        A manifest.
    device : str

    Returns
    -------
    Path
    """
    rate = teacher.encoder.sample_rate
    clips = audio_dataset(pool, cast(int, rate), ("id", "sig", "group"), transform=hparams["transform"])
    (clips,) = with_targets(hparams, teacher, [clips], device)
    brain.evaluate(clips, test_loader_kwargs=hparams["test_loader"])
    losses = {item["id"]: item["residual"] / item["total"] for item in brain.records if item["total"] > 0}
    path = Path(hparams["output_folder"]) / "pool_scores.csv"
    lines = [f"{name},{loss:.6g}\n" for name, loss in sorted(losses.items())]
    on_main(atomic_write, path, "id,proxy_loss\n" + "".join(lines))
    return path


def student_of(hparams: dict[str, Any], teacher: Teacher) -> nn.Module:
    """The student: ``encoder``, or what ``encoder`` makes of the teacher, such as ``!name:lobes.distillation.thin``."""
    encoder = hparams["encoder"]
    return encoder if isinstance(encoder, nn.Module) else encoder(teacher.encoder)


def inputs_of(hparams: dict[str, Any], student: nn.Module, objective: DistillationObjective) -> LogMel | None:
    """The front-end whose features are to be kept beside the targets: the student's, with ``cache_inputs``.

    None where the student or the objective needs the audio in each step, which is said; there it is read as ever.
    """
    if hparams["cache"] is None or not hparams["cache_inputs"]:
        return None
    found = front_end(student)
    if found is None:
        logger.info("cache_inputs: %s reads audio, so that only targets are cached", type(student).__name__)
    elif objective.needs_audio:
        logger.info("cache_inputs: %s needs audio, so that only targets are cached", type(objective).__name__)
        return None
    return found


def with_targets(
    hparams: dict[str, Any],
    teacher: Teacher,
    datasets: Sequence[AudioDataset],
    device: str = "cpu",
    inputs: LogMel | None = None,
) -> list[AudioDataset]:
    """The datasets with the teacher's targets, computed now where ``cache`` does not have them, or as they are.

    Raises
    ------
    ConfigError
        ``transform`` makes something else of an utterance in each epoch, and there is a cache.
    """
    if hparams["cache"] is None:
        return list(datasets)
    transform = hparams["transform"]
    if getattr(transform, "varies", False):
        raise ConfigError(
            f"cache is {hparams['cache']}, but transform {type(transform).__name__} changes the audio from epoch to "
            "epoch, and what was computed once does not: give --cache null"
        )
    cache = TargetCache(hparams["cache"], teacher, hparams["cache_precision"], repr(transform), inputs)
    for dataset in datasets:
        bar = rank() == 0 and sys.stderr.isatty()
        cache.extract(dataset, device, part=(rank(), world_size()), max_gib=hparams["cache_gib"], progress=bar)
    on_main(cache.refresh)  # all processes have written before any reads
    cache.refresh()
    return [cache.attach(dataset) for dataset in datasets]


def save_student(
    hparams: dict[str, Any], brain: FidelityBrain, teacher: Teacher, manifests: dict[str, Path], **others: float
) -> dict[str, Any]:
    """Write ``encoder/`` and ``result.json`` into the output folder of a run that has just been evaluated.

    Fidelity is the R² of the teacher's layers. With ``probe``, a `ReadOut`, ``other_metrics`` has `probe` and
    `probe_teacher`, what it reads off the two.

    Arguments
    ---------
    hparams : dict
        With ``output_folder``, ``task``, ``name``, ``seed``, ``data_name``, ``transform`` and ``probe``.
    brain : FidelityBrain
        After `evaluate`.
    teacher : Teacher
    manifests : dict
        Split -> CSV.
    **others : float
        Further figures for ``other_metrics``.

    Returns
    -------
    dict
        The result.
    """
    folder, student = Path(hparams["output_folder"]), cast(SSLModel, brain.unwrapped("ssl")).encoder
    kept = (folder / "hyperparams.yaml").read_text(encoding="utf-8")
    text = student.hparams_text() if isinstance(student, HuggingFaceEncoder) else kept
    save_encoder(student, folder / "encoder", text)
    student.eval()
    probe, macs = hparams["probe"], cast(Any, teacher.encoder).macs(10.0)
    read = {}
    if probe is not None:
        pairs = {"probe": student, "probe_teacher": teacher.encoder}
        read = {name: probe(encoder, manifests, hparams["transform"]) for name, encoder in pairs.items()}
    hours = read_manifest(manifests["train"]).hours
    result = write_result(
        folder,
        task=hparams["task"],
        system=hparams["name"],
        metric=r2,
        records=brain.records,
        other_metrics={**read, "pool_hours": hours, "teacher_macs_per_second": macs / 10, **others},
        seed=hparams["seed"],
        data=manifests,
        data_name=hparams["data_name"],
        **costs(brain, student),
    )
    said = "".join(f"; {name.replace('_', ' of the ')} {value:.3f}" for name, value in read.items())
    print(f"R² {result['metric']['value']:.3f}{said}")
    return result
