"""Hyperparameter files: what is merged how, and that whatever is misspelt is refused by its nearest name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from lobes.errors import ConfigError
from lobes.training import HparamsFile, load_hparams

BASE = """
seed: 7
dim: 4
output_folder: results/<seed>
train_loader:
  batch_seconds: 30
  num_workers: 2
layer: !new:torch.nn.Linear
  in_features: !ref <dim>
  out_features: 3
activation: !name:torch.nn.Dropout
opt_class: !name:torch.optim.AdamW
  lr: 0.001
encoder: !include:parts/encoder.yaml
  dim: !ref <dim>
pair: (1, 2)
lr_scheduler: null
"""
PART = """
dim: 2
depth: 1
block:
  width: !ref <dim> * 10
layers: !new:torch.nn.LayerNorm
  normalized_shape: !ref <dim>
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "encoder.yaml").write_text(PART)
    (tmp_path / "base.yaml").write_text(BASE)
    return tmp_path


def delta(folder: Path, text: str, base: str = "base.yaml") -> Path:
    (folder / "deltas").mkdir(exist_ok=True)
    path = folder / "deltas" / "delta.yaml"
    path.write_text(f"base: ../{base}\n{text}")
    return path


def test_a_whole_file(folder: Path) -> None:
    hparams = load_hparams(folder / "base.yaml")
    assert hparams["layer"].in_features == 4
    assert hparams["encoder"]["layers"].normalized_shape == (4,)
    assert hparams["encoder"]["block"]["width"] == 40
    assert hparams["pair"] == (1, 2)


@pytest.mark.parametrize(
    ("override", "read", "expected"),
    [
        ("seed: 8", lambda h: h["seed"], 8),
        ("train_loader.batch_seconds: 60", lambda h: h["train_loader"], {"batch_seconds": 60, "num_workers": 2}),
        ("train_loader: {num_workers: 0}", lambda h: h["train_loader"], {"batch_seconds": 30, "num_workers": 0}),
        ("encoder.depth: 6", lambda h: h["encoder"]["depth"], 6),
        ("encoder.dim: 5", lambda h: h["encoder"]["block"]["width"], 50),
        ("encoder.block.width: 1", lambda h: h["encoder"]["block"]["width"], 1),
        ("dim: 6", lambda h: (h["layer"].in_features, h["encoder"]["dim"]), (6, 6)),
        ("layer.bias: false", lambda h: h["layer"].bias, None),
        ("activation.p: 0.25", lambda h: h["activation"]().p, 0.25),
        ("opt_class: !name:torch.optim.SGD", lambda h: h["opt_class"], torch.optim.SGD),
        ("lr_scheduler: !new:lobes.training.WarmupCosine {warmup: 1, total: 2}", lambda h: h["lr_scheduler"].total, 2),
        ("a_b.c: 1", None, "no key 'a_b'"),
    ],
)
def test_overrides_reach_everywhere(folder: Path, override: str, read: Any, expected: Any) -> None:
    if read is None:
        with pytest.raises(ConfigError, match=expected):
            load_hparams(folder / "base.yaml", override)
    else:
        assert read(load_hparams(folder / "base.yaml", override)) == expected


def test_a_delta_changes_what_it_names_and_keeps_the_rest(folder: Path) -> None:
    text = """
train_loader: {batch_seconds: 5}
layer: {out_features: 1, bias: False}
opt_class: !name:torch.optim.SGD
  lr: !ref <speed>
speed: 0.5
notes: nothing refers to this
adds: [notes, train_loader.pin_memory]
"""
    path = delta(folder, text + "encoder: {depth: 9}\n")
    path.write_text(path.read_text().replace("batch_seconds: 5}", "batch_seconds: 5, pin_memory: true}"))
    hparams = load_hparams(path)
    assert hparams["train_loader"] == {"batch_seconds": 5, "num_workers": 2, "pin_memory": True}
    assert (hparams["layer"].in_features, hparams["layer"].out_features, hparams["layer"].bias) == (4, 1, None)
    assert hparams["opt_class"]([torch.nn.Parameter(torch.ones(1))]).param_groups[0]["lr"] == 0.5
    assert hparams["encoder"]["depth"] == 9
    assert hparams["notes"]
    assert "base" not in hparams and "adds" not in hparams


def test_the_merged_text_is_a_file_of_its_own(folder: Path, tmp_path: Path) -> None:
    document = HparamsFile(delta(folder, "seed: 9\n"), "encoder.depth: 3")
    saved = tmp_path / "elsewhere" / "hyperparams.yaml"
    saved.parent.mkdir()
    saved.write_text(document.text)
    assert document.get("seed") == 9
    again = load_hparams(saved, "dim: 5")  # references are alive still
    assert (again["seed"], again["encoder"]["depth"], again["layer"].in_features) == (9, 3, 5)


TYPOS = {
    "override": ("", "sed: 1", "no key 'sed'.*'seed'"),
    "nested override": (
        "",
        "train_loader.batch_secnds: 1",
        "'train_loader.batch_secnds'.*'train_loader.batch_seconds'",
    ),
    "override without its parent": ("", "batch_seconds: 1", "'batch_seconds'.*'train_loader.batch_seconds'"),
    "override in a mapping": ("", "train_loader: {num_worker: 1}", "'train_loader.num_worker'.*'.*num_workers'"),
    "override of an include": ("", "encoder.dept: 1", "no key 'dept'.*'depth'"),
    "override deep in an include": ("", "encoder.block.widht: 1", "no key 'block.widht'.*'block.width'"),
    "override of an argument": ("", "layer.out_feature: 1", "layer: .*no argument 'out_feature'.*'out_features'"),
    "override below a number": ("", "seed.x: 1", "'seed' is not a mapping"),
    "override of a run option": ("", "max_grad_nrm: 1", "'max_grad_nrm'.*'max_grad_norm'"),
    "override given twice": ("", "seed: 1\nseed: 2", 'command line, line 2: found duplicate key "seed"'),
    "key of a delta": ("sed: 1", "", "delta.yaml: there is no key 'sed'.*'seed'"),
    "nested key of a delta": ("train_loader: {num_worker: 1}", "", "'train_loader.num_worker'.*'.*num_workers'"),
    "include key of a delta": ("encoder: {dep: 1}", "", "encoder.yaml: there is no key 'dep'.*'depth'"),
    "adds": ("adds: [nots]\nnotes: 1", "", "adds lists 'nots'.*'notes'"),
    "base": ("adds: []\n", "", None),
    "argument of !new:": ("layer: {in_featurs: 3}", "", "torch.nn.Linear has no argument 'in_featurs'.*'in_features'"),
    "argument of !name:": ("opt_class: {weight_decy: 3}", "", "AdamW has no argument 'weight_decy'.*'weight_decay'"),
    "class": ("layer: !new:torch.nn.Linaer {in_features: 1}", "", "no 'torch.nn.Linaer'.*'Linear'"),
    "module": ("layer: !new:lobes.traning.WarmupCosine {warmup: 1}", "", "no 'lobes.traning.WarmupCosine'"),
    "missing argument": ("layer: !new:torch.nn.Linear {in_features: 1}", "", "layer: .*missing.*'out_features'"),
    "too many arguments": ("layer: !new:torch.nn.Identity\nactivation: !new:torch.nn.ReLU [1, 2]", "", "too many"),
    "a function with !new:": ("layer: !new:torch.nn.functional.relu {input: 1}", "", "is not a class"),
    "reference": ("layer: {in_features: !ref <dimm>}", "", "refers to <dimm>, but there is no 'dimm'.*'dim'"),
    "nested reference": ("dim: !ref <train_loader[batch_second]>", "", "no 'batch_second'.*'batch_seconds'"),
    "reference to itself": ("dim: !ref <seed>\nseed: !ref <dim>", "", "leads back to itself"),
    "reference below a number": ("dim: !ref <seed[x]>", "", "reference <seed.x.> leads to no key 'x'"),
    "reference in a string": ("output_folder: !ref a/<sed>", "", "<sed>.*'seed'"),
    "option": ("optimizer_step_limt: !ref <dim>\nadds: [optimizer_step_limt]", "", None),
    "include": ("encoder: !include:../parts/encodr.yaml", "", "encodr.yaml is not a file"),
    "placeholder": ("seed: !PLACEHOLDER", "", "'seed' has no value yet: give it with --seed="),
    "YAML": ("seed: [1", "", "delta.yaml, line [0-9]+: "),
    "a refusing constructor": ("lr_scheduler: !new:lobes.training.WarmupCosine [9, 2]", "", "warmup is 9"),
    "a failing constructor": ("layer: !new:torch.nn.Conv1d [3, 3, 1, 1, 0, 1, 2]", "", "in_channels must be divisible"),
}


@pytest.mark.parametrize("kind", TYPOS)
def test_misspelt(folder: Path, kind: str) -> None:
    text, override, message = TYPOS[kind]
    path = delta(folder, text)
    if message is None:
        load_hparams(path, override)
        return
    with pytest.raises(ConfigError, match=message) as error:
        load_hparams(path, override)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ckpt_interval_step: 5", "'ckpt_interval_step' is not an option .*'ckpt_interval_steps'"),
        ("sede: 5", "sede"),
        ("base: base.yaml", "is its own base"),
        ("base: nowhere.yaml", "base 'nowhere.yaml' is not a file"),
        ("- 1", "expected a mapping"),
        ("", "expected a mapping"),
    ],
)
def test_whole_files_are_checked(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "base.yaml").write_text(text)
    if text == "sede: 5":
        # Far enough from every option to be the recipe's own key.
        assert load_hparams(tmp_path / "base.yaml") == {"sede": 5}
        return
    with pytest.raises(ConfigError, match=message):
        load_hparams(tmp_path / "base.yaml")


def test_references_are_followed_through_others(folder: Path) -> None:
    text = """
a: {b: 3}
c: !ref <a>
dim: !ref <c[b]> + 1
root: !ref x/<dim>
where: !ref <root>/y
encoder: !include:parts/encoder.yaml
  dim: !ref <dim>
  block: {width: !ref <where>}
output_folder: !ref <where>
"""
    (folder / "top.yaml").write_text(text)
    hparams = load_hparams(folder / "top.yaml")
    assert hparams["encoder"]["layers"].normalized_shape == (4,)
    assert hparams["encoder"]["block"]["width"] == hparams["output_folder"] == "x/4/y"
    assert HparamsFile(folder / "top.yaml").get("output_folder") == "x/4/y"
    with pytest.raises(ConfigError, match="<dim> leads back to itself"):
        load_hparams(folder / "top.yaml", "a: {b: !ref <dim>}")


def test_a_typo_in_the_part_of_a_whole_file(folder: Path) -> None:
    """HyperPyYAML ignores it in silence."""
    (folder / "base.yaml").write_text(BASE.replace("  dim: !ref <dim>\n", "  dimm: !ref <dim>\n"))
    with pytest.raises(ConfigError, match="no key 'dimm'.*'dim'"):
        load_hparams(folder / "base.yaml")


def test_nothing_runs_before_everything_is_checked(folder: Path) -> None:
    marker = folder / "ran"
    text = f"layer: !apply:pathlib.Path.touch\n  self: !new:pathlib.Path [{marker}]\nactivation: {{pp: 1}}"
    with pytest.raises(ConfigError, match="no argument 'pp'"):
        load_hparams(delta(folder, text))
    assert not marker.exists()


def test_a_missing_key_is_explained(folder: Path) -> None:
    hparams = load_hparams(folder / "base.yaml")
    with pytest.raises(ConfigError, match="base.yaml: 'train_loder' is missing .*'train_loader'"):
        hparams["train_loder"]
    assert hparams.get("train_loder") is None


def test_parts_of_parts_and_calls_as_parts(folder: Path) -> None:
    (folder / "parts" / "linear.yaml").write_text("!new:torch.nn.Linear\nin_features: 1\nout_features: 2\n")
    (folder / "parts" / "outer.yaml").write_text("inner: !include:linear.yaml\n  in_features: 3\n")
    (folder / "top.yaml").write_text("outer: !include:parts/outer.yaml\n")
    layer = load_hparams(folder / "top.yaml", "outer.inner.bias: false")["outer"]["inner"]
    assert (layer.in_features, layer.out_features, layer.bias) == (3, 2, None)
