"""tools/new_recipe.py on a miniature repository: the copy has its own names, runs its smoke test, harms nothing."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import pytest

from lobes.errors import ConfigError
from lobes.evaluation.tables import update_text

ROOT = Path(__file__).resolve().parents[2]

TRAIN = '''"""Digits of FSDD.

    python train.py hparams/tiny.yaml --encoder ../SSL/results/1
"""

from lobes.dataio.corpora.fsdd import prepare_fsdd

RESULTS = "results/fsdd/digits"
KEYS = ["digits", "fsdd_folder"]  # neither is the name of the corpus alone


def main(argv=None):
    """Do nothing."""
    return prepare_fsdd
'''
TINY = """# FSDD digits, from https://example.org/FSDD/digits; python train.py hparams/tiny.yaml
encoder: !PLACEHOLDER
task: FSDD digits
output_folder: results/fsdd_digits/1
data_folder: null  # null: $LOBES_DATA/fsdd
prepare: !name:lobes.dataio.corpora.prepare_fsdd
    save_folder: !ref <output_folder>/manifests
    data_folder: !ref <data_folder>
"""
DELTA = "base: tiny.yaml\ntask: FSDD digits, other\n"
README = """# FSDD digits

`recipes/FSDD/digits` needs an encoder of `recipes/FSDD/SSL`.

<!-- results: results.csv columns=system,result task="FSDD digits" -->

| system | accuracy |
| --- | --- |
| ours | 99 |

<!-- /results -->

The end.
"""
CORPUS = '''"""FSDD."""

from lobes.dataio.corpora.common import Corpus

CORPUS = Corpus("fsdd", "https://example.org/fsdd", "CC BY-SA 4.0")


def prepare_fsdd(data_folder, save_folder):
    """Prepare FSDD."""
'''


def load(path: Path):
    """A Python file as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def tool():
    """The script as a module."""
    return load(ROOT / "tools" / "new_recipe.py")


@pytest.fixture
def repository(tmp_path):
    """A repository with two recipes of one corpus."""
    files = {
        "recipes/FSDD/digits/train.py": TRAIN,
        "recipes/FSDD/digits/README.md": README,
        "recipes/FSDD/digits/results.csv": "date,task,value\n2026-01-01,FSDD digits,0.99\n",
        "recipes/FSDD/digits/hparams/tiny.yaml": TINY,
        "recipes/FSDD/digits/hparams/fsdd.yaml": DELTA,
        "recipes/FSDD/digits/results/1/log.txt": "of a run",
        "recipes/FSDD/SSL/train.py": '"""Pretrain."""\n',
        "lobes/dataio/corpora/fsdd.py": CORPUS,
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "recipes/FSDD/digits/plot.png").write_bytes(b"\x89PNG FSDD \xff")
    return tmp_path


def snapshot(root: Path) -> dict[str, bytes]:
    """Relative name -> content of every file."""
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_copy_has_the_new_name_everywhere(tool, repository, capsys):
    before = snapshot(repository)
    assert tool.main(["recipes/FSDD/digits", "MyCorpus/words"], repository) == 0
    assert "recipes/MyCorpus/words: made" in capsys.readouterr().out
    after = snapshot(repository)
    assert before.items() <= after.items(), "nothing that was there has changed"
    made = {name.removeprefix("recipes/MyCorpus/words/"): after[name] for name in sorted(after.keys() - before.keys())}
    assert set(made) == {
        "README.md",
        "hparams/mycorpus.yaml",
        "hparams/tiny.yaml",
        "plot.png",
        "results.csv",
        "tests/recipes/test_mycorpus_words.py",
        "train.py",
    }
    assert made["results.csv"] == b"date,task,value\n"
    assert made["plot.png"] == before["recipes/FSDD/digits/plot.png"]
    train = made["train.py"].decode()
    assert train.startswith('"""Digits of MyCorpus.')
    assert "from lobes.dataio.corpora.fsdd import prepare_fsdd" in train, "the original's prepare function stays in use"
    assert '"results/mycorpus/words"' in train and '["digits", "fsdd_folder"]' in train
    assert "--encoder ../../FSDD/SSL/results/1" in train, "the path to the sibling recipe still leads there"
    tiny = made["hparams/tiny.yaml"].decode()
    assert "# MyCorpus words, from https://example.org/FSDD/digits;" in tiny
    assert "task: MyCorpus words\n" in tiny and "results/mycorpus_words/1" in tiny
    assert "$LOBES_DATA/fsdd" in tiny and "corpora.prepare_fsdd" in tiny


def test_readme_says_that_there_are_no_results(tool, repository):
    tool.main(["recipes/FSDD/digits", "MyCorpus/digits"], repository)
    folder = repository / "recipes/MyCorpus/digits"
    readme = (folder / "README.md").read_text()
    assert "| ours | 99 |" not in readme and "No results yet." in readme and readme.endswith("The end.\n")
    assert '<!-- results: results.csv columns=system,result task="MyCorpus digits" -->' in readme
    assert "`recipes/MyCorpus/digits` needs an encoder of `recipes/FSDD/SSL`." in readme
    assert update_text(readme, folder) == readme, "the drift test must pass on the copy"


def test_smoke_test_passes_at_once(tool, repository, tmp_path):
    tool.main(["recipes/FSDD/digits", "MyCorpus/digits"], repository)
    smoke = load(repository / "tests/recipes/test_mycorpus_digits.py")
    assert [path.name for path in smoke.FILES] == ["mycorpus.yaml", "tiny.yaml"]
    for path in smoke.FILES:
        smoke.test_hparams_fit_the_library(path)
    smoke.test_train_script_imports()
    smoke.test_has_a_tiny_configuration_and_a_readme()
    tiny = smoke.RECIPE / "hparams" / "tiny.yaml"
    tiny.write_text(tiny.read_text().replace("save_folder", "save_fodler"))
    with pytest.raises(ConfigError, match="save_folder"):
        smoke.test_hparams_fit_the_library(tiny)


def test_smoke_test_of_the_original_is_copied(tool, repository):
    own = repository / "tests/recipes/test_fsdd_digits.py"
    own.parent.mkdir(parents=True)
    own.write_text('RECIPE = "recipes/FSDD/digits"\nprepare = "lobes.dataio.corpora.prepare_fsdd"\n')
    tool.main(["recipes/FSDD/digits", "MyCorpus/digits"], repository)
    copy = own.with_name("test_mycorpus_digits.py").read_text()
    assert copy == own.read_text().replace("FSDD", "MyCorpus")


def test_corpus_is_copied_when_asked_for(tool, repository, capsys):
    assert tool.main(["FSDD/digits", "My-Words/digits", "--corpus"], repository) == 0
    assert "lobes/dataio/corpora/my_words.py" in capsys.readouterr().out
    module = (repository / "lobes/dataio/corpora/my_words.py").read_text()
    assert "def prepare_my_words(" in module and 'Corpus("my_words", "https://example.org/fsdd"' in module
    assert "from lobes.dataio.corpora.common import Corpus" in module
    folder = repository / "recipes/My-Words/digits"
    tiny = (folder / "hparams/tiny.yaml").read_text()
    assert "!name:lobes.dataio.corpora.my_words.prepare_my_words" in tiny and "$LOBES_DATA/my_words" in tiny
    train = (folder / "train.py").read_text()
    assert "from lobes.dataio.corpora.my_words import prepare_my_words" in train
    left = re.findall(r"fsdd\w*", train + tiny, re.IGNORECASE)
    assert left == ["FSDD", "fsdd_folder", "FSDD"], "only the sibling's path, a key that holds the letters, and the URL"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["recipes/FSDD/digits", "FSDD/digits"], "exists already"),
        (["recipes/FSDD/digits", "fsdd/DIGITS"], "exists already"),
        (["recipes/FSDD/digits", "MyCorpus"], "expected <Corpus>/<task>"),
        (["recipes/FSDD/digits", "../outside/digits"], "expected <Corpus>/<task>"),
        (["recipes/FSDD/digits", "My Corpus/digits"], "expected <Corpus>/<task>"),
        (["recipes/FSDD/digits", "3rd/digits"], "expected <Corpus>/<task>"),
        (["recipes/FSDD/digits", "Class/digits"], "expected <Corpus>/<task>"),
        (["recipes/FSDD/words", "MyCorpus/digits"], "expected one of recipes/FSDD/SSL, recipes/FSDD/digits"),
        (["recipes/FSDD/SSL", "MyCorpus/SSL", "--corpus"], "--corpus: expected SSL to use one prepare function"),
        (["recipes/FSDD/digits", "Common/digits", "--corpus"], "lobes/dataio/corpora/common.py: exists already"),
    ],
)
def test_refusals_are_one_line_and_change_nothing(tool, repository, capsys, arguments, message):
    (repository / "lobes/dataio/corpora/common.py").write_text("")
    before = snapshot(repository)
    assert tool.main(arguments, repository) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert snapshot(repository) == before
    assert not (repository / "recipes/MyCorpus").exists()
