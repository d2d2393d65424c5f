"""A detector of calls in recordings of any length: train it, choose its thresholds, test it, save it for detect.py.

    python train.py hparams/tiny.yaml --encoder sm-tiny
    python train.py hparams/tiny.yaml --encoder sm-tiny --untrained True --name untrained        # a control
    python train.py hparams/tiny.yaml --encoder logmel-40-25hz --normalize_layers False --name log-mel  # another
    python train.py hparams/own.yaml --encoder sm-tiny --data_folder /recordings --classes '[great call]'
    python detect.py results/detector/1/model /recordings --out out/

`result.json` holds F1 over events, by recording, with its interval; `precision_recall.csv` and `.svg` what other
thresholds would give; `model/` is the detector.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from speechbrain import Stage

from lobes.adapters import active_adapter, check_mergeable, merge_adapter
from lobes.dataio import read_manifest
from lobes.detection import (
    Detector,
    by_condition,
    check_test_events,
    detect_under,
    frame_loss,
    lenient,
    recording_events,
    save_detector,
    tune_detector,
    window_dataset,
    write_curves,
    write_windows,
)
from lobes.evaluation import event_f1, event_precision, event_recall, write_result
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

    manifests = on_main(hparams["prepare"])
    windows = Path(hparams["output_folder"]) / "windows"
    cut = {name: hparams[name] for name in ("label", "classes", "window")}
    train, valid = (
        window_dataset(on_main(write_windows, manifests[split], windows / f"{split}.csv", **cut), detector)
        for split in ("train", "valid")
    )
    check_test_events(manifests["test"], hparams["label"], hparams["classes"])
    if adaptation is None:
        train, valid = (cache_features(dataset, encoder, run_opts["device"]) for dataset in (train, valid))
    hparams["checkpointer"].add_recoverable("model", detector.model)
    groups = detector.model.parameter_groups(hparams["encoder_lr"])
    optimizer = lambda _: hparams["opt_class"](groups)  # noqa: E731
    brain = Detection({"model": detector.model}, optimizer, hparams, run_opts, hparams["checkpointer"])
    brain.fit(hparams["epoch_counter"], train, valid, None, hparams["train_loader"], hparams["valid_loader"])
    brain.evaluate(valid, min_key="loss", test_loader_kwargs=hparams["valid_loader"])
    on_main(finish, hparams, brain, detector.eval(), manifests, text)


def finish(hparams, brain, detector, manifests, text) -> None:
    """Choose thresholds on the valid recordings, save the detector with the encoder that `text` describes, test it."""
    cost = costs(brain, detector.model.encoder)
    if active_adapter(detector.model.encoder):
        merge_adapter(detector.model.encoder)
    truth, _ = recording_events(read_manifest(manifests["valid"]), hparams["label"], detector.events)
    tune_detector(detector, truth, records=hparams["matching"])
    about = {"encoder": hparams["encoder"], "trained_on": read_manifest(manifests["train"]).meta["source"]}
    model = save_detector(detector, Path(hparams["output_folder"]) / "model", text, about)
    print(f"{model}: " + ", ".join(f"{name} from {rule.high:.2f}" for name, rule in detector.rules.items()))

    truth, rows = recording_events(read_manifest(manifests["test"]), hparams["label"], detector.events)
    found, all_found = detect_under(detector, truth, [detector.rules, lenient(detector.rules)])
    names = {file: row.get("recording", file) for file, row in rows.items() if file in found}
    groups = {names[file]: rows[file]["group"] for file in names}
    truth, found, all_found = ({names[file]: events[file] for file in names} for events in (truth, found, all_found))
    write_curves(hparams["output_folder"], truth, all_found, detector.rules)
    records = hparams["matching"](truth, found, detector.events, groups)
    if hparams["condition"] is not None:
        condition = {names[file]: rows[file][hparams["condition"]] for file in names}
        records = [record | {"condition": condition[record["recording"]]} for record in records]
    result = write_result(
        hparams["output_folder"],
        task=hparams["task"],
        system=hparams["name"],
        metric=event_f1,
        records=records,
        other_metrics={"precision": event_precision(records), "recall": event_recall(records), **by_condition(records)},
        seed=hparams["seed"],
        data=manifests,
        data_name=hparams["data_name"],
        **cost,
    )
    print(f"event F1 {result['metric']['value']:.3f} [{result['metric']['low']:.3f}, {result['metric']['high']:.3f}]")


if __name__ == "__main__":
    run(main)
