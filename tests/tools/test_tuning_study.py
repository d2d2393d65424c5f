"""Which methods fit an encoder is found out before anything runs, and is what the recipe's README says."""

from __future__ import annotations

import csv
import re
import sys
from functools import partial
from pathlib import Path

import pytest

from lobes.encoders import ConvolutionStem, Encoder, HuggingFaceEncoder, LogMel
from lobes.errors import DataError, LobesError
from lobes.export import load_encoder
from lobes.mixers import SDPA

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import tuning_study  # noqa: E402


@pytest.fixture
def study(tmp_path, monkeypatch):
    """Call it with methods and what a run is to do; return what was run, and what was measured."""

    def call(*methods, fails=()):
        ran, measured = [], []

        def tune(name, seed, ssl, folder, parts, settings):
            ran.append(name)
            if name in fails:
                raise DataError("the clips are gone")
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "result.json").touch()

        def measure():
            measured.extend(sys.argv[1 : sys.argv.index("--ssl")])
            assert sys.argv[sys.argv.index("--tables") + 1] == str(tmp_path / "docs" / "sm-tiny")
            return "| a table |"

        monkeypatch.setattr(tuning_study, "tune", tune)
        monkeypatch.setattr(tuning_study.retention, "main", measure)
        arguments = ["--ssl", "sm-tiny", "--out", str(tmp_path / "out"), "--docs", str(tmp_path / "docs")]
        monkeypatch.setattr(sys, "argv", ["study", *arguments, "--methods", *methods])
        tuning_study.main()
        return ran, [Path(folder).parent.name for folder in measured]

    return call


def test_methods_that_do_not_fit_are_left_out_and_named(study, tmp_path, capsys):
    assert study("prefix", "LoRA", "CHAPTER") == (["LoRA"], ["LoRA"])
    printed = capsys.readouterr().out
    assert "skipped: prefix: PrefixTuning: an Encoder of SummaryMixing has no softmax attention" in printed
    with (tmp_path / "docs" / "sm-tiny" / "skipped.csv").open(encoding="utf-8") as stream:
        named = [row["method"] for row in csv.DictReader(stream)]
    assert named == ["Conv-LoRA", "CHAPTER", "prefix", "LLaMA-Adapter", "LLaMA-Adapter v2"], "whatever was asked for"
    assert study("prefix") == ([], ["LoRA"]), "nothing to run is no error either; what was run before is in the table"


def test_the_table_goes_into_the_page_where_that_has_a_place_for_the_encoder(study, tmp_path):
    page = tmp_path / "docs" / "README.md"
    page.parent.mkdir()
    for text in ("<!-- other -->\n<!-- /other -->\n", "<!-- sm-tiny -->\n<!-- /sm-tiny -->\n"):
        page.write_text(text, encoding="utf-8")
        study("LoRA")
        assert page.read_text(encoding="utf-8") == text.replace("<!-- /sm", "| a table |\n<!-- /sm")


def test_a_run_that_fails_is_an_error_at_the_end(study):
    with pytest.raises(LobesError, match="^LoRA: the clips are gone$"):
        study("LoRA", "IA3", "prefix", fails=["LoRA"])


def test_l2sp_and_ewc_hold_with_the_same_strength():
    options = (tuning_study.METHODS[name][2] for name in ("full, L2-SP", "full, EWC"))
    l2sp, ewc = (re.findall(r"strength: ([\d.]+)", " ".join(given)) for given in options)
    assert l2sp == ewc and len(ewc) == 1


def test_the_readme_says_what_fits_what(monkeypatch):
    from transformers import HubertConfig

    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    hubert = HubertConfig(**sizes, conv_dim=[8] * 7, num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=2)
    encoders = [
        partial(load_encoder, "sm-tiny"),
        lambda: Encoder(LogMel(n_mels=20), ConvolutionStem(20, 16, 4, channels=8), 16, 1, partial(SDPA, num_heads=2)),
        partial(HuggingFaceEncoder, hubert),
    ]
    text = (ROOT / "recipes" / "Gibbons" / "call_type" / "README.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1:-1] for line in text.splitlines() if re.match(r"\| `\w+`.*\| (yes|no) \|", line)]
    said = {name: [cell.strip() for cell in cells] for first, *cells in rows for name in re.findall(r"`(\w+)`", first)}
    for column, encoder in enumerate(encoders):
        monkeypatch.setattr(tuning_study, "load_encoder", lambda ssl, make=encoder: make())
        fitting, skipped = tuning_study.sort_out(list(tuning_study.METHODS), Path())
        for word, names in (("yes", fitting), ("no", skipped)):
            for name in names:
                method = tuning_study.METHODS[name][0].split()[0]
                assert said[method][column] == word, (column, method)
    assert set(said) == {method.split()[0] for method, *_ in tuning_study.METHODS.values()}
