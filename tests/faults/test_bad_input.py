"""What a user or a stranger can get wrong: one clear line and exit code 2, or the bad item is skipped and counted."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from recipe_runner import RECIPES, SMALL, leave, skipped, steps, untrained_encoder

SSL, DIGITS, ASR = "LibriSpeech/SSL", "FSDD/digits", "MiniFrench/ASR"
TINY = "hparams/tiny.yaml"
FEW = ("--train_loader.batch_seconds=8", "--objective.codebook_size=32", *SMALL)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LibriSpeech as OpenSLR packs it, in miniature."""
    noise = np.random.default_rng(0)
    root = tmp_path_factory.mktemp("LibriSpeech")
    for subset, speakers in {"train-clean-100": (19, 26), "dev-clean": (84,)}.items():
        for speaker in speakers:
            chapter = root / subset / str(speaker) / "7"
            chapter.mkdir(parents=True)
            names = [f"{speaker}-7-{number:04d}" for number in range(6)]
            for name in names:
                soundfile.write(chapter / f"{name}.flac", 0.1 * noise.standard_normal(24_000), 16_000)
            (chapter / f"{speaker}-7.trans.txt").write_text("".join(f"{name} A WORD\n" for name in names))
    return root


def refusal(recipe: str, folder: Path, *options: str, hparams: str | Path = TINY) -> str:
    """The one line that a run ends with."""
    code, stderr = leave(recipe, str(hparams), f"--output_folder={folder}", *options)
    lines = stderr.splitlines()
    assert code == 2, stderr
    assert len(lines) == 1 and lines[0].startswith("error: "), stderr
    return lines[0]


def delta(folder: Path, text: str, recipe: str = SSL) -> Path:
    """A file of the user's own on the recipe's tiny.yaml."""
    path = folder / "own.yaml"
    path.write_text(f"base: {RECIPES / recipe / TINY}\n{text}\n", encoding="utf-8")
    return path


def test_wrong_data_folder(tmp_path):
    line = refusal(DIGITS, tmp_path / "run", "--encoder=logmel", f"--data_folder={tmp_path / 'none'}")
    assert f"data_folder is {tmp_path / 'none'}, which is not a folder" in line and "--data_folder=" in line
    (tmp_path / "other").mkdir()
    line = refusal(DIGITS, tmp_path / "run", "--encoder=logmel", f"--data_folder={tmp_path / 'other'}")
    assert "does not look like fsdd" in line and "recordings/{digit}_{speaker}_{take}.wav" in line


def test_no_data_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("LOBES_DATA", raising=False)
    line = refusal(SSL, tmp_path / "run")
    assert "no folder is given for librispeech" in line and "--data_folder=" in line and "LOBES_DATA" in line


def test_empty_split(corpus, tmp_path):
    folder = tmp_path / "LibriSpeech"
    shutil.copytree(corpus, folder)
    for path in (folder / "dev-clean").rglob("*.flac"):
        path.write_bytes(b"")
    line = refusal(SSL, tmp_path / "run", f"--data_folder={folder}", *FEW)
    assert "valid" in line
    for path in (folder / "dev-clean").rglob("*.flac"):
        path.unlink()
    line = refusal(SSL, tmp_path / "run", f"--data_folder={folder}", *FEW)
    assert "dev-clean" in line
    line = refusal(SSL, tmp_path / "run", f"--data_folder={folder}", "--prepare.valid=[dev-other]", *FEW)
    assert "no subset dev-other" in line and "dev-clean, train-clean-100" in line


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("stepz: 3", "no key 'stepz' (did you mean 'steps'?)"),
        ("train_loader:\n  batch_secnds: 3", "key 'train_loader.batch_secnds' (did you mean 'train_loader.batch_"),
        ("objective:\n  codebook_sice: 3", "has no argument 'codebook_sice' (did you mean 'codebook_size'?)"),
        ("encoder:\n  mixer: !name:lobes.mixers.SumaryMixing", "no 'lobes.mixers.SumaryMixing' (did you mean 'S"),
        ("lr_scheduler:\n  total: !ref <stepz>", "stepz"),
        ("steps: many", "steps is 'many': expected a number"),
        ("train_loader: [1, 2", "own.yaml, line 3: expected ',' or ']'"),
    ],
)
def test_typo_in_the_yaml(text, expected, tmp_path):
    line = refusal(SSL, tmp_path / "run", hparams=delta(tmp_path, text))
    assert line.startswith(f"error: {tmp_path / 'own.yaml'}") and expected in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("--stepz=3", "command line: there is no key 'stepz' (did you mean 'steps'?)"),
        ("--encoder.dept=3", "has no argument 'dept' (did you mean 'depth'?)"),
        ("--train_loader.batch_secs=3", "(did you mean 'train_loader.batch_seconds'?)"),
        ("--precison=bf16", "(did you mean 'precision'?)"),
        ("--seed=one", "command line: seed is 'one': expected a number, such as 1"),
        ("--seed=-1", "seed is -1: expected a whole number, 0 or more"),
        ("--encoder.depth=two", "depth is 'two': expected a number, such as 4"),
        ("--opt_class.lr=fast", "command line: opt_class.lr is 'fast': expected a number"),
        ("--prepare.download=no", "command line: prepare.download is 'no': expected True or False"),
        ("--optimizer_step_limit=many", "optimizer_step_limit is 'many', expected a whole number"),
    ],
)
def test_typo_in_an_override(option, expected, tmp_path):
    assert expected in refusal(SSL, tmp_path / "run", option)
    assert not (tmp_path / "run").exists()


def test_clip_that_breaks_after_preparation_is_skipped_and_counted(corpus, tmp_path):
    folder = tmp_path / "LibriSpeech"
    shutil.copytree(corpus, folder)
    common = (f"--output_folder={tmp_path / 'run'}", f"--data_folder={folder}", "--steps=4", *FEW)
    assert leave(SSL, TINY, *common, "--optimizer_step_limit=1")[0] == 0
    clip = folder / "train-clean-100" / "19" / "7" / "19-7-0003.flac"
    clip.write_bytes(b"\0" * clip.stat().st_size)  # of the same size, so that the manifest stays in use
    code, stderr = leave(SSL, TINY, *common)
    assert code == 0, stderr
    assert list(skipped(tmp_path / "run")) == ["19-7-0003"]
    assert [row["step"] for row in steps(tmp_path / "run")] == ["1", "2", "3", "4"]
    assert "1 items were skipped, such as 19-7-0003" in (tmp_path / "run" / "log.txt").read_text(encoding="utf-8")


def test_encoder_that_does_not_exist(tmp_path):
    line = refusal(ASR, tmp_path / "run", "--encoder=logmeel", f"--data_folder={tmp_path}")
    assert "encoder 'logmeel': no folder with hyperparams.yaml" in line and "logmel" in line
    assert not (tmp_path / "run" / "manifests").exists(), "before the corpus is prepared, which may take hours"


def test_encoder_that_is_not_given(tmp_path):
    line = refusal(ASR, tmp_path / "run")
    assert "'encoder' has no value yet" in line


@pytest.fixture(scope="module")
def trained(corpus, tmp_path_factory) -> Path:
    """A run of two steps; copy before changing."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    folders = (f"--output_folder={folder}", f"--data_folder={corpus}")
    code, stderr = leave(SSL, TINY, *folders, *FEW, "--optimizer_step_limit=2")
    assert code == 0, stderr
    return folder


def test_checkpoint_of_another_architecture(trained, corpus, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(trained, folder)
    line = refusal(SSL, folder, f"--data_folder={corpus}", *FEW[:-1], "--encoder.depth=1")
    assert f"output_folder {folder}: holds a run with encoder.depth=2, not 1" in line
    (folder / "hyperparams.yaml").unlink()  # so that the checkpoint has to tell
    line = refusal(SSL, folder, f"--data_folder={corpus}", *FEW[:-1], "--encoder.depth=1")
    assert "'ssl' does not fit: parameter 'encoder.blocks.1" in line and "absent in this model" in line
    assert "another output_folder" in line


def test_folder_of_another_run(trained, corpus):
    line = refusal(SSL, trained, f"--data_folder={corpus}", *FEW, "--seed=2")
    assert f"output_folder {trained}: holds a run with seed=1, not 2" in line and "--output_folder" in line


class Malice:
    """Pickled, it makes a folder when it is loaded."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def poison(path: Path, mark: Path) -> None:
    """Replace a file of a checkpoint by one that runs a program in whoever trusts it."""
    try:
        path.read_text(encoding="utf-8")
        path.write_text(f"!!python/object/apply:os.mkdir ['{mark}']\n", encoding="utf-8")
    except UnicodeDecodeError:
        torch.save(Malice(mark), path)


def test_poisons_work(tmp_path):
    torch.save(Malice(tmp_path / "mark"), tmp_path / "pickle")
    torch.load(tmp_path / "pickle", weights_only=False)
    assert (tmp_path / "mark").is_dir()


def test_nothing_in_a_checkpoint_is_run(trained, corpus, tmp_path):
    names = sorted(path.name for path in trained.glob("save/*/*"))
    assert {"CKPT.yaml", "ssl.ckpt", "optimizer.ckpt", "brain.ckpt", "random_state.ckpt"} <= set(names)
    more = (f"--data_folder={corpus}", *FEW, "--optimizer_step_limit=3")
    for name in names:
        folder, mark = tmp_path / name / "run", tmp_path / name / "mark"
        shutil.copytree(trained, folder)
        (path,) = folder.glob(f"save/*/{name}")
        poison(path, mark)
        if name.startswith("dataloader"):  # not read where an epoch was complete
            assert leave(SSL, TINY, f"--output_folder={folder}", *more)[0] == 0
        else:
            line = refusal(SSL, folder, *more)
            assert f"no checkpoint in {folder / 'save'} can be read" in line and line.endswith("to start anew")
            assert steps(folder) == steps(trained), "nothing is lost"
        assert not mark.exists(), name


def test_nothing_in_an_encoder_folder_is_run(tmp_path):
    good, mark = untrained_encoder(tmp_path / "good", dim=16, depth=1), tmp_path / "mark"
    texts = {
        "tag": f"encoder: !apply:os.mkdir ['{mark}']\n",
        "python": f"encoder: !!python/object/apply:os.mkdir ['{mark}']\n",
        "name": "encoder: !new:subprocess.Popen {args: [mkdir, " + str(mark) + "]}\n",
        "beside": (good / "hyperparams.yaml").read_text() + f"more: !apply:os.mkdir ['{mark}']\n",
    }
    for name, text in texts.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "hyperparams.yaml").write_text(text, encoding="utf-8")
        line = refusal(ASR, tmp_path / "run", f"--encoder={tmp_path / name}", "--untrained=True")
        assert str(tmp_path / name / "hyperparams.yaml") in line and not mark.exists()
    torch.save(Malice(mark), good / "encoder.safetensors")
    line = refusal(ASR, tmp_path / "run", f"--encoder={good}")
    assert "encoder.safetensors: not a safetensors file" in line and not mark.exists()
