"""A detector of calls in recordings of any length: train it, choose its thresholds, test it, save it for detect.py.

    python train.py hparams/tiny.yaml --encoder sm-tiny
    python train.py hparams/tiny.yaml --encoder sm-tiny --untrained True --name untrained        # a control
    python train.py hparams/tiny.yaml --encoder logmel-40-25hz --normalize_layers False --name log-mel  # another
    python train.py hparams/own.yaml --encoder sm-tiny --data_folder /recordings --classes '[great call]'
    python train.py hparams/hainan.yaml --encoder sm-tiny                                     # windows, as in BEANS
    python detect.py results/detector/1/model /recordings --out out/

`protocol` says how recordings are annotated. `result.json` holds F1 over events, by recording, or, of windows, the
mean average precision, with its interval; `precision_recall.csv` and `.svg` what other thresholds would give; `model/`
is the detector.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from speechbrain import Stage

from lobes.adapters import active_adapter, check_mergeable, merge_adapter
from lobes.dataio import read_manifest
from lobes.detection import Detector, frame_loss, save_detector
from lobes.evaluation import write_result
from lobes.export import encoder_text, load_encoder
from lobes.probes import cache_features
from lobes.training import Brain, costs, on_main, run, start_experiment


class Detection(Brain):
    """Trains the head, and the encoder where it is not frozen, inside the module ``model``."""

    def compute_forward(self, batch, stage):
        """Logits (B, T, classes) and the validity (B, T) of their frames."""
        return self.modules.model(batch)

    def compute_objectives(self, predictions, batch, stage):
        """Binary cross-entropy, frame by frame."""
        logits, valid = predictions
        loss = frame_loss(logits, valid, batch.targets.data.to(logits), self.hparams.positive_weight)
        return self.weighted(loss, float(valid.sum()))

    def on_stage_end(self, stage, stage_loss, epoch=None):
        """Keep the checkpoint with the lowest loss on the valid split."""
        if stage == Stage.VALID:
            self.checkpointer.save_and_keep_only(meta={"loss": stage_loss, "epoch": epoch}, min_keys=["loss"])


def main(argv: Sequence[str] | None = None) -> None:
    """Prepare, train on windows, then choose thresholds and test on whole recordings."""
    hparams, run_opts = start_experiment(argv, __file__)
    encoder = load_encoder(hparams["encoder"], untrained=hparams["untrained"], seed=hparams["seed"])
    text = encoder_text(hparams["encoder"], encoder)
    adaptation = hparams["adaptation"]
    if adaptation is not None:
        check_mergeable(adaptation())
        adaptation().apply(encoder)
    rules = dict.fromkeys(hparams["classes"], hparams["rule"])
    shape = {name: hparams[name] for name in ("classes", "window", "bands")}
    detector = Detector(
        encoder,
        hparams["head"],
        **shape,
        rules=rules,
        normalize=hparams["normalize_layers"],
        frozen=None if adaptation else True,
    )

    protocol, manifests = hparams["protocol"], on_main(hparams["prepare"])
    cut = Path(hparams["output_folder"]) / "windows"
    train, valid = (
        protocol.dataset(on_main(protocol.cut, manifests[split], cut / f"{split}.csv", hparams["window"]), detector)
        for split in ("train", "valid")
    )
    protocol.check(detector, manifests)
    control = protocol.control(detector, manifests, run_opts["device"], hparams["seed"])
    if adaptation is None and hparams["features"] == "memory":
        kept = {"device": run_opts["device"], "features_gib": hparams["features_gib"]}
        train, valid = (cache_features(dataset, encoder, **kept) for dataset in (train, valid))
    hparams["checkpointer"].add_recoverable("model", detector.model)
    groups = detector.model.parameter_groups(hparams["encoder_lr"])
    optimizer = lambda _: hparams["opt_class"](groups)  # noqa: E731
    brain = Detection({"model": detector.model}, optimizer, hparams, run_opts, hparams["checkpointer"])
    brain.fit(hparams["epoch_counter"], train, valid, None, hparams["train_loader"], hparams["valid_loader"])
    brain.evaluate(valid, min_key="loss", test_loader_kwargs=hparams["valid_loader"])
    on_main(finish, hparams, brain, detector.eval(), manifests, text, control)


def finish(hparams, brain, detector, manifests, text, control) -> None:
    """Choose thresholds on the valid split, save the detector with the encoder that `text` describes, test it."""
    cost = costs(brain, detector.model.encoder)
    if active_adapter(detector.model.encoder):
        merge_adapter(detector.model.encoder)
    protocol, folder = hparams["protocol"], Path(hparams["output_folder"])
    protocol.tune(detector, manifests["valid"])
    about = {"encoder": hparams["encoder"], "trained_on": read_manifest(manifests["train"]).meta["source"]}
    model = save_detector(detector, folder / "model", text, about)
    print(f"{model}: " + ", ".join(f"{name} from {rule.high:.2f}" for name, rule in detector.rules.items()))

    tested = protocol.test(detector, manifests["test"], folder)
    result = write_result(
        folder,
        task=hparams["task"],
        system=hparams["name"],
        metric=tested.metric,
        records=tested.records,
        other_metrics={**tested.figures, **control},
        seed=hparams["seed"],
        data=manifests,
        data_name=hparams["data_name"],
        **cost,
    )
    ours = result["metric"]
    print(f"{ours['name'].replace('_', ' ')} {ours['value']:.3f} [{ours['low']:.3f}, {ours['high']:.3f}]", end="")
    low, high = (control.get(f"background_{edge}") for edge in ("low", "high"))
    print(f"; of the background alone {control['background_value']:.3f} [{low:.3f}, {high:.3f}]" if control else "")


if __name__ == "__main__":
    run(main)
