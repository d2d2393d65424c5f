"""Every hyperparameter file of every recipe fits the library; the real configurations are as large as they say."""

from __future__ import annotations

import math
import re
import shutil
from pathlib import Path

import pytest
import torch
from recipe_runner import RECIPES, steps, train, untrained_encoder

from lobes.distillation import first_layers
from lobes.errors import ConfigError
from lobes.export import load_encoder
from lobes.training import HparamsFile
from lobes.training.experiment import _IDENTITY

FILES = sorted(RECIPES.glob("*/*/hparams/*.yaml"))
BASES = [path for path in FILES if path.name == "base.yaml"]
#: Of encoders that a recipe pretrains or distils, fewest and most parameters, by recipe or by file.
SIZES = {
    "MiniFrench/SSL": (0.6e6, 0.7e6),
    "FSDD/distillation/teacher.yaml": (0.4e6, 0.5e6),
    "FSDD/distillation/tiny.yaml": (0.07e6, 0.09e6),
    "LibriSpeech/distillation/tiny.yaml": (0.13e6, 0.15e6),
    "LibriSpeech/distillation/hubert.yaml": (0.5e6, 0.6e6),
}
#: What may be given anew to a run that is gone on with, or that is finished and tested again.
MAY_CHANGE = {
    "where things are; the data in them are compared": ("data_folder", "output_folder"),
    "names for tables": ("task", "data_name"),
    "how long it trains": ("steps", "optimizer_step_limit", "epochs", "epoch_counter", "ckpt_interval_steps"),
    "how a step is taken, from here on": ("lr_scheduler", "sparsity_warmup", "max_grad_norm", "precision",
        "grad_accumulation_factor", "find_unused_parameters", "train_loader", "valid_loader", "test_loader"),
    "where features are kept": ("features", "features_gib", "cache_features", "cache", "cache_gib", "cache_inputs",
        "cache_precision"),
    "how it is decoded": ("decoder", "search", "language_model", "thresholds", "average", "rule", "bands"),
    "how it is tested": ("positive", "matching", "condition", "background", "swap", "test_trials", "s_norm", "p_target",
        "score_pool"),
    "fitted anew each time": ("probe",),
    "built of the others": ("modules", "checkpointer"),
}  # fmt: skip
#: Multiply-accumulates per second of audio, over 10 s, of hparams/encoders/base.yaml.
BASE_MACS = 2.2464e9


def recipe_of(path: Path) -> str:
    """`<Corpus>/<task>`."""
    return path.parents[1].relative_to(RECIPES).as_posix()


def pretrains(path: Path) -> bool:
    """Whether the file describes an encoder, instead of asking for one."""
    return given(path).get("encoder") is not None and not isinstance(given(path).get("encoder"), str)


def given(path: Path) -> HparamsFile:
    """The file, with something in the place of what a user must give."""
    texts = _with_bases(path)
    overrides = dict.fromkeys(re.findall(r"^(\w+): !PLACEHOLDER", texts, re.MULTILINE), "given")
    if "hparams/downstream/" in texts:
        overrides["encoder"] = "given"  # its placeholder is in the shared file
    if "\nteacher:" in path.read_text(encoding="utf-8"):
        overrides["teacher"] = "sm-tiny"  # in place of the run before
    return HparamsFile(path, overrides)


def _with_bases(path: Path) -> str:
    """Its text, and that of the files of which it is a delta, but for what they ask for and it gives."""
    text = path.read_text(encoding="utf-8")
    base = re.search(r"^base: (\S+)", text, re.MULTILINE)
    rest = _with_bases(path.parent / base[1]) if base else ""
    for key in re.findall(r"^(\w+): ", text, re.MULTILINE):
        rest = re.sub(rf"^{key}: !PLACEHOLDER", f"{key}:", rest, flags=re.MULTILINE)
    return text + rest


def name_of(path: Path) -> str:
    """For the test's id."""
    return f"{recipe_of(path)}/{path.name}"


def trains(recipe: str) -> bool:
    """Whether anything in it is trained by steps, so that it needs a size for a cluster too; a probe's fit does not."""
    return any("opt_class" in given(path).tree for path in FILES if recipe_of(path) == recipe)


def test_each_key_either_says_what_a_run_is_of_or_may_change():
    """A new one goes into `_IDENTITY` of lobes/training/experiment.py, or, with the reason, into MAY_CHANGE above."""
    used = {key for path in FILES for key in given(path).tree}
    may_change = [key for keys in MAY_CHANGE.values() for key in keys]
    assert sorted([*_IDENTITY, *may_change]) == sorted(used), "each once, and none that no recipe has"


def test_each_recipe_has_both_sizes():
    names = {recipe: {path.name for path in FILES if recipe_of(path) == recipe} for recipe in map(recipe_of, FILES)}
    assert names.keys() >= {"EmoDB/speakers", "FSDD/digits", "Gibbons/call_type", "LibriSpeech/SSL", "MiniFrench/SSL"}
    assert all("tiny.yaml" in found for found in names.values())
    assert all("base.yaml" in found for recipe, found in names.items() if trains(recipe))
    assert not trains("EmoDB/speakers") and trains("FSDD/digits")


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_file_fits_the_library(path):
    file, lines = given(path), path.read_text(encoding="utf-8").splitlines()
    assert {"seed", "task", "name", "data_name", "output_folder", "data_folder", "prepare"} <= file.tree.keys()
    assert "<seed>" in str(file.tree["output_folder"].value), "runs of several seeds must not meet in one folder"
    assert len(lines) <= 120 and lines[0].startswith("# "), "short, and headed by what it is for"


@pytest.mark.parametrize("given", ["held_out: ", "held_out: S11", ""], ids=["empty", "one", "not given"])
@pytest.mark.parametrize("name", ["tiny.yaml", "base.yaml"])
def test_nothing_held_out_is_no_part_of_the_folder(name, given):
    overrides = f"data_folder: /recordings\n{given}"  # as `--held_out=` reaches a recipe
    folder = Path(HparamsFile(RECIPES / "Gibbons" / "SSL" / "hparams" / name, overrides).get("output_folder"))
    assert folder.parts[2:] == (("S11", "1") if "S11" in given else ("1",))


def test_no_two_files_of_a_recipe_share_an_output_folder():
    for recipe in {recipe_of(path) for path in FILES}:
        folders = [given(path).get("output_folder") for path in FILES if recipe_of(path) == recipe]
        assert len(set(folders)) == len(folders), folders


@pytest.mark.parametrize("path", [path for path in FILES if path.name != "base.yaml"], ids=name_of)
def test_file_can_be_constructed(path):
    hparams = given(path).load()
    assert callable(hparams["prepare"]) and callable(hparams["opt_class" if "opt_class" in hparams else "probe"])
    if pretrains(path) and isinstance(hparams["encoder"], torch.nn.Module):  # not what makes it of a teacher
        low, high = SIZES.get(name_of(path), SIZES.get(recipe_of(path), (1.1e6, 1.5e6)))
        assert low < sum(p.numel() for p in hparams["encoder"].parameters()) < high


@pytest.mark.parametrize("path", BASES, ids=name_of)
def test_base_is_a_real_configuration(path):
    hparams = given(path).load()
    assert hparams["precision"] == "bf16" and hparams["train_loader"]["num_workers"] > 0
    if recipe_of(path).endswith("distillation"):
        encoder = hparams["encoder"]  # or what makes it of the teacher
        small = isinstance(encoder, torch.nn.Module) and 11e6 < sum(p.numel() for p in encoder.parameters()) < 14e6
        assert small or encoder.func is first_layers
    elif pretrains(path):
        assert hparams["train_loader"]["batch_seconds"] == 7200, "two hours of audio per step"
        check_size(hparams["encoder"])
        assert hparams["modules"]["ssl"].encoder is hparams["encoder"]
    else:
        chosen = "mode" in hparams or hparams.get("frozen") is False
        assert callable(hparams["head"]) and (chosen or callable(hparams["adaptation"]))


HEADS = ["LeBenchmark/AER", "LeBenchmark/ASR", "LeBenchmark/AST", "LeBenchmark/ASV", "LeBenchmark/SLU",
         "LeBenchmark/Syntax", "MiniFrench/ASR"]  # fmt: skip


@pytest.mark.parametrize("recipe", [*HEADS, "FSDD/digits"])
def test_a_head_that_is_none_is_told_before_anything_is_prepared(recipe, tmp_path):
    hparams = "finetune.yaml" if recipe == "FSDD/digits" else "tiny.yaml"
    given = ("--encoder=logmel-40-25hz", f"--data_folder={tmp_path / 'nowhere'}", "--head=BiLSTM")
    with pytest.raises(ConfigError, match="head is 'BiLSTM': expected one of AttentionHead, .*BiLSTMHead"):
        train(recipe, tmp_path / "run", *given, hparams=hparams)


def test_base_encoder_loads_without_weights(tmp_path):
    check_size(load_encoder(untrained_encoder(tmp_path / "encoder", "base.yaml"), untrained=True))


def check_size(encoder):
    """That it is the encoder of hparams/encoders/base.yaml."""
    assert 90e6 < sum(p.numel() for p in encoder.parameters()) < 98e6
    assert encoder.macs(10.0) / 10 == pytest.approx(BASE_MACS, rel=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["LibriSpeech/SSL", "MiniFrench/SSL"])
def test_base_pretrains_for_one_step(recipe, request, tmp_path):
    folder = request.getfixturevalue("librispeech_folder" if recipe.startswith("Libri") else "minifrench_folder")
    size = ("--prepare.train=[train-clean-100]",) if recipe.startswith("Libri") else ("--prepare.hours=0.01",)
    result = one_step(recipe, tmp_path, f"--data_folder={folder}", *size, "--train_loader.batch_seconds=10")
    assert 90e6 < result["cost"]["parameters_total"] < 110e6
    check_size(load_encoder(tmp_path / "run"))


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["FSDD/digits", "MiniFrench/ASR"])
def test_base_fine_tunes_for_one_step(recipe, request, fsdd_folder, tmp_path):
    if recipe.startswith("FSDD"):
        data = (f"--data_folder={fsdd_folder(takes=1, speakers=('ann', 'bob'))}", "--epochs=1")
    else:
        folder = request.getfixturevalue("minifrench_folder")
        data = (f"--data_folder={folder}", "--prepare.hours=0.01", "--train_loader.batch_seconds=10")
    encoder = untrained_encoder(tmp_path / "encoder", "base.yaml")
    result = one_step(recipe, tmp_path, f"--encoder={encoder}", "--untrained=True", *data)
    assert result["cost"]["parameters_trained"] == result["cost"]["parameters_total"] > 90e6


def one_step(recipe, tmp_path, *options):
    """Take one optimizer step of base.yaml at its full learning rate, on about 10 s of audio; return the result."""
    loaders = ("--train_loader.num_workers=0", "--optimizer_step_limit=1")
    quick = () if recipe.startswith("FSDD") else ("--steps=10",)
    folder = tmp_path / "run"
    try:
        result = train(recipe, folder, *options, *loaders, *quick, hparams="base.yaml")
    finally:
        for saved in folder.rglob("save"):
            shutil.rmtree(saved)  # a gigabyte each
    logs = [steps(path.parent) for path in folder.rglob("train_log.csv")]
    assert logs and all([row["step"] for row in rows] == ["1"] for rows in logs)
    assert all(math.isfinite(float(rows[0][name])) for rows in logs for name in ("loss", "grad_norm"))
    assert "--precision=bf16" in (folder / "log.txt").read_text(encoding="utf-8")
    return result
