"""Copy a recipe to another corpus, so that it runs there at once and is then yours to change.

    python tools/new_recipe.py recipes/FSDD/digits MyCorpus/digits
    python tools/new_recipe.py recipes/FSDD/digits MyCorpus/digits --corpus   # and its prepare function

The copy has the new name in train.py, YAML files and README, a results.csv with no rows yet, and a smoke test in
tests/recipes/. Until you change `prepare:` in its YAML files, it reads the corpus of the original. Nothing is
overwritten.
"""

from __future__ import annotations

import argparse
import keyword
import re
import shutil
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from lobes.errors import ConfigError, LobesError

ROOT = Path(__file__).resolve().parent.parent
CORPORA = Path("lobes/dataio/corpora")
SMOKE_TESTS = Path("tests/recipes")
NAME = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:[-_][A-Za-z0-9]+)*")
# What a run leaves behind is not part of the recipe.
LEFT_OUT = shutil.ignore_patterns("results", "__pycache__", ".*", "*.pyc")
PREPARE = re.compile(r"\blobes\.dataio\.corpora(?:\.(\w+))?(?:\.| import )prepare_(\w+)")
RESULTS = re.compile(r"^(<!--\s*results:.*?-->)[ \t]*\n.*?^(<!--\s*/results\s*-->)[ \t]*$", re.MULTILINE | re.DOTALL)
NO_RESULTS = """No results yet. After a run, add its row to `results.csv`, put these two lines in place of this
paragraph, and run `python tools/tables.py --write`:

```
{opening}
{closing}
```"""

SMOKE_TEST = '''"""{recipe} is whole: its hyperparameter files fit the library, and its script can be imported."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from lobes.training.hparams import HparamsFile

RECIPE = Path(__file__).resolve().parents[2] / "{recipe}"
FILES = sorted((RECIPE / "hparams").glob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_hparams_fit_the_library(path):
    text = "".join(file.read_text(encoding="utf-8") for file in FILES)
    placeholders = re.findall(r"^(\\w+): !PLACEHOLDER", text, re.MULTILINE)
    given = HparamsFile(path, dict.fromkeys(placeholders, "given")).tree
    assert "prepare" in given and "output_folder" in given


def test_train_script_imports():
    spec = importlib.util.spec_from_file_location("{module}_train", RECIPE / "train.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert callable(module.main)


def test_has_a_tiny_configuration_and_a_readme():
    assert RECIPE / "hparams" / "tiny.yaml" in FILES
    assert (RECIPE / "README.md").is_file()
'''


def identifier(name: str) -> str:
    """The name of a corpus as that of a module: `GCompris-French` becomes `gcompris_french`."""
    return name.lower().replace("-", "_")


@dataclass(frozen=True)
class Copy:
    """A recipe and what it becomes: corpus and task of both, and, where the corpus is copied too, its old module."""

    corpus: str
    task: str
    new_corpus: str
    new_task: str
    siblings: tuple[str, ...] = ()
    prepare_module: str = ""
    prepare_name: str = ""

    def rename(self, text: str) -> str:
        """Put the new names into the text of a file.

        Only whole words change. Addresses on the web, names out of `lobes` and paths to the original corpus's other
        recipes stay what they are.
        """
        if self.prepare_module:
            text = self._rename_prepare(text)
        words = {self.corpus: self.new_corpus, self.corpus.lower(): self.new_corpus.lower()}
        words |= {identifier(self.corpus): identifier(self.new_corpus)}
        options = "|".join(sorted(map(re.escape, words), key=len, reverse=True))
        others = "|".join(map(re.escape, self.siblings)) or "(?!)"
        kept = [r"https?://\S+", r"\blobes(?:\.\w+)+", r"\bprepare_\w+", rf"(?<!\w)(?:{options})/(?:{others})(?!\w)"]
        if not self.prepare_module:
            kept.append(rf"LOBES_DATA/(?:{options})(?!\w)")  # where the original's prepare function looks
        task = rf"(?:(?P<gap>[-/ _]){re.escape(self.task)})?"
        pattern = re.compile(rf"(?P<kept>{'|'.join(kept)})|(?<!\w)(?P<name>{options}){task}(?!\w)")

        def swap(match: re.Match[str]) -> str:
            if match["kept"]:
                return match["kept"]
            return words[match["name"]] + (f"{match['gap']}{self.new_task}" if match["gap"] else "")

        text = pattern.sub(swap, text)
        # ../SSL, seen from the original recipe, is ../../MiniFrench/SSL seen from another corpus's.
        return re.sub(rf"(?<![\w.])((?:\.\./)+)({others})(?!\w)", rf"\1../{self.corpus}/\2", text)

    def _rename_prepare(self, text: str) -> str:
        new, home = identifier(self.new_corpus), "lobes.dataio.corpora"
        for old, renamed in (
            (rf"{home}(?:\.{self.prepare_module})?\.prepare_{self.prepare_name}", f"{home}.{new}.prepare_{new}"),
            (rf"{home} import prepare_{self.prepare_name}", f"{home}.{new} import prepare_{new}"),
            (rf"{home}\.{self.prepare_module}", f"{home}.{new}"),
            (rf"prepare_{self.prepare_name}", f"prepare_{new}"),
        ):
            text = re.sub(rf"\b{old}\b", renamed, text)
        return text


def new_recipe(source: str, target: str, with_corpus: bool = False, root: Path = ROOT) -> list[Path]:
    """Copy a recipe.

    Parameters
    ----------
    source : str
        Folder of the original, `recipes/<Corpus>/<task>`.
    target : str
        `<Corpus>/<task>` of the copy.
    with_corpus : bool
        Copy the module of the original's prepare function as well.
    root : Path
        The repository.

    Returns
    -------
    list of Path
        What was made: the recipe's folder, its smoke test and, when asked for, the corpus module.

    Raises
    ------
    ConfigError
        The source is no recipe, the target's name is not a good one, or something that would be made exists.
    """
    original = _find_source(source, root)
    corpus, task = _names(target)
    folder = root / "recipes" / corpus / task
    test = root / SMOKE_TESTS / f"test_{identifier(corpus)}_{identifier(task)}.py"
    copy = Copy(original.parent.name, original.name, corpus, task, _siblings(original, folder))
    module = root / CORPORA / f"{identifier(corpus)}.py"
    if with_corpus:
        prepare_module, prepare_name = _prepare_of(original)
        copy = replace(copy, prepare_module=prepare_module, prepare_name=prepare_name)
    made = [folder, test, *([module] if with_corpus else [])]
    for path in made:
        if _exists(path, root):
            raise ConfigError(f"{path.relative_to(root)}: exists already; choose another name or delete it first")
    if with_corpus:
        prepare = root / CORPORA / f"{copy.prepare_module}.py"
        _write(module, copy.rename(prepare.read_text(encoding="utf-8")))
    _write(test, _smoke_test(copy, root))
    _copy_folder(original, folder, copy)
    return made


def _find_source(source: str, root: Path) -> Path:
    recipes = (root / "recipes").resolve()
    for path in (Path(source).resolve(), (root / source).resolve(), (recipes / source).resolve()):
        if (path / "train.py").is_file() and path.parent.parent == recipes:
            return path
    known = sorted(str(path.parent.relative_to(root)) for path in (root / "recipes").glob("*/*/train.py"))
    raise ConfigError(f"{source}: not a recipe; expected one of {', '.join(known)}")


def _names(target: str) -> tuple[str, str]:
    parts = target.removeprefix("recipes/").rstrip("/").split("/")
    if len(parts) != 2 or not all(NAME.fullmatch(part) for part in parts) or keyword.iskeyword(identifier(parts[0])):
        raise ConfigError(f"{target}: expected <Corpus>/<task>, two names of letters, digits, - and _: MyCorpus/digits")
    return parts[0], parts[1]


def _siblings(original: Path, folder: Path) -> tuple[str, ...]:
    """Other recipes of the original's corpus, which the copy's corpus does not have."""
    others = (path.parent.name for path in original.parent.glob("*/train.py") if path.parent != original)
    return tuple(sorted(name for name in others if not (folder.parent / name).exists()))


def _prepare_of(original: Path) -> tuple[str, str]:
    """Module and name of the prepare function that a recipe uses, its variants on other corpora aside."""
    files = [path for path in (original / "train.py", original / "hparams" / "tiny.yaml") if path.is_file()]
    found = {
        (match[1] or match[2], match[2])
        for path in files
        for match in PREPARE.finditer(path.read_text(encoding="utf-8"))
    }
    if len(found) != 1:
        names = ", ".join(sorted(f"prepare_{name}" for _, name in found)) or "none"
        raise ConfigError(
            f"--corpus: expected {original.name} to use one prepare function of lobes.dataio.corpora, found {names}; "
            "leave --corpus out and write the module by hand"
        )
    return found.pop()


def _exists(path: Path, root: Path) -> bool:
    """Whether there is such a file, in whatever case: some file systems do not tell `fsdd` from `FSDD`."""
    folders = [root]
    for part in path.relative_to(root).parts:
        folders = [entry for folder in folders if folder.is_dir() for entry in _named(folder, part)]
    return bool(folders)


def _named(folder: Path, name: str) -> list[Path]:
    return [entry for entry in folder.iterdir() if entry.name.lower() == name.lower()]


def _smoke_test(copy: Copy, root: Path) -> str:
    """The original's own smoke test under the new name, or else one that checks that the recipe is whole."""
    own = root / SMOKE_TESTS / f"test_{identifier(copy.corpus)}_{identifier(copy.task)}.py"
    if own.is_file():
        return copy.rename(own.read_text(encoding="utf-8"))
    recipe = f"recipes/{copy.new_corpus}/{copy.new_task}"
    return SMOKE_TEST.format(recipe=recipe, module=f"{identifier(copy.new_corpus)}_{identifier(copy.new_task)}")


def _copy_folder(original: Path, folder: Path, copy: Copy) -> None:
    """Copy all files with new names in them, beside their place first: a recipe is there as a whole or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".new-recipe-") as temporary:
        draft = Path(temporary) / folder.name
        shutil.copytree(original, draft, ignore=LEFT_OUT)
        for path in sorted(path for path in draft.rglob("*") if path.is_file()):
            try:
                text = path.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                continue  # a picture, say: as it is
            if path.name == "results.csv":
                text = text.partition("\n")[0] + "\n"
            elif path.name == "README.md":
                text = RESULTS.sub(lambda mark: NO_RESULTS.format(opening=mark[1], closing=mark[2]), text)
            path.write_text(text if path.name == "results.csv" else copy.rename(text), encoding="utf-8")
            path.rename(path.with_name(copy.rename(path.name)))
        draft.rename(folder)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("x", encoding="utf-8") as file:
        file.write(text)


def main(argv: list[str] | None = None, root: Path = ROOT) -> int:
    """Run the command; return its exit code: 0, or 2 after one line that says what is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="the recipe to copy: recipes/<Corpus>/<task>")
    parser.add_argument("target", help="the recipe to make: <Corpus>/<task>")
    parser.add_argument("--corpus", action="store_true", help="also copy the module with its prepare function")
    options = parser.parse_args(argv)
    try:
        folder, test, *module = (
            path.relative_to(root) for path in new_recipe(options.source, options.target, options.corpus, root)
        )
    except (LobesError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{folder}: made; cd there and run python train.py hparams/tiny.yaml")
    print(f"{test}: its smoke test; run python -m pytest {test}")
    if module:
        print(f"{module[0]}: reads the original corpus under the new name; change files, labels, source and licence")
    else:
        print("It reads the original corpus; for yours, change `prepare:` in its YAML files, for example to")
        print("    prepare: !name:lobes.dataio.corpora.prepare_audio_folder")
    return 0


if __name__ == "__main__":
    sys.exit(main())
