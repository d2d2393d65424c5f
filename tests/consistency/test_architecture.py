"""The house rules of CONTRIBUTING.md that a machine can check: which way imports run, sizes, docstrings."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "lobes"

# Each package may import itself, the modules directly under `lobes`, and what is named here; nothing else of ours.
DATA = {"dataio", "selection", "evaluation"}
MODELS = {"mixers", "encoders", "objectives", "distillation", "adapters", "probes", "export"}
ABOVE_ENCODERS = MODELS - {"mixers", "encoders"}
ALLOWED = {
    "mixers": set(),
    "encoders": {"mixers"},
    **{name: {"mixers", "encoders"} | DATA for name in ABOVE_ENCODERS},
    "distillation": {"mixers", "encoders", "objectives"} | DATA,
    **{name: DATA - {name} for name in DATA},
    "hyperyaml": set(),
    "export": {"mixers", "encoders", "hyperyaml"} | DATA,
    "detection": MODELS | DATA,
    "training": MODELS | DATA | {"hyperyaml"},
}


def sources() -> list[Path]:
    """Every module of the package."""
    return sorted(PACKAGE.rglob("*.py"))


def committed(pattern: str) -> list[Path]:
    """Files of the repository; a run copies its train.py and YAML into a folder `results`, which is not part of it."""
    return [path for path in ROOT.glob(pattern) if "results" not in path.relative_to(ROOT).parts]


def imported_modules(path: Path) -> Iterator[str]:
    """Yield the dotted name of everything that a module imports anywhere, relative imports resolved."""
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def subpackage(dotted: str) -> str | None:
    """Name the sub-package of `lobes` that a dotted name lies in; None for others and for modules at the root."""
    parts = dotted.split(".")
    if parts[0] != "lobes" or len(parts) < 2 or not (PACKAGE / parts[1]).is_dir():
        return None
    return parts[1]


def uses() -> dict[str, dict[str, list[str]]]:
    """Map each sub-package to the sub-packages it imports, with the files that do so."""
    graph: dict[str, dict[str, list[str]]] = {}
    for path in sources():
        owner = subpackage(".".join(path.relative_to(ROOT).parent.parts)) or ""
        for name in imported_modules(path):
            target = subpackage(name)
            if target and target != owner:
                graph.setdefault(owner, {}).setdefault(target, []).append(str(path.relative_to(ROOT)))
    return graph


def test_every_subpackage_has_its_place():
    found = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert found <= set(ALLOWED), f"say in ALLOWED what {found - set(ALLOWED)} may import"
    without_init = {path.parent for path in sources()} - {path.parent for path in PACKAGE.rglob("__init__.py")}
    assert not without_init, "a package without __init__.py is not installed"


def test_imports_run_one_way():
    wrong = [
        f"{owner or 'lobes'} imports {target}: {', '.join(sorted(set(files)))}"
        for owner, targets in uses().items()
        for target, files in targets.items()
        if target not in ALLOWED.get(owner, set())
    ]
    assert not wrong, "\n".join(wrong)


def test_no_circle_between_subpackages():
    graph = {owner: set(targets) for owner, targets in uses().items()}

    def reach(node: str, trail: tuple[str, ...]) -> None:
        assert node not in trail, "circle: " + " -> ".join([*trail[trail.index(node) :], node])
        for target in graph.get(node, ()):
            reach(target, (*trail, node))

    for node in graph:
        reach(node, ())


def test_nothing_in_the_package_imports_a_recipe_or_a_tool():
    outside = ("recipes", "tools", "tests")
    wrong = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in sources()
        for name in imported_modules(path)
        if name.split(".")[0] in outside
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("pattern", "limit"),
    [("lobes/**/*.py", 400), ("recipes/**/train.py", 150), ("recipes/**/*.yaml", 120), ("hparams/**/*.yaml", 120)],
)
def test_files_stay_small(pattern, limit):
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in committed(pattern)}
    long = {str(path.relative_to(ROOT)): count for path, count in lines.items() if count > limit}
    assert not long, f"more than {limit} lines: {long}"


def test_recipes_keep_one_depth():
    train_scripts = committed("recipes/**/train.py")
    wrong = [str(path) for path in train_scripts if len(path.relative_to(ROOT / "recipes").parts) != 3]
    assert not wrong, f"a recipe is recipes/<Corpus>/<task>/train.py: {wrong}"
    for path in train_scripts:
        folder = path.parent
        for needed in ("README.md", "hparams/tiny.yaml"):
            assert (folder / needed).is_file(), f"{folder.relative_to(ROOT)} has no {needed}"


def undocumented(path: Path) -> Iterator[str]:
    """Yield `file:line name` of every public module, class, function and method without a docstring.

    `forward`, dunder methods, and methods that override a documented method of a base class of the same file need
    none: their contract is written where it begins.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    where = path.relative_to(ROOT)
    if not ast.get_docstring(tree):
        yield f"{where}:1 module"
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}

    def methods(node: ast.ClassDef) -> set[str]:
        names = {item.name for item in node.body if isinstance(item, ast.FunctionDef)}
        bases = [base.id for base in node.bases if isinstance(base, ast.Name) and base.id in classes]
        return names.union(*(methods(classes[base]) for base in bases))

    def inherited(node: ast.ClassDef) -> set[str]:
        bases = [base.id for base in node.bases if isinstance(base, ast.Name) and base.id in classes]
        return set().union(*(methods(classes[base]) for base in bases))

    def walk(body: list[ast.stmt], prefix: str, known: set[str]) -> Iterator[str]:
        for node in body:
            if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                continue
            if node.name.startswith("_") or node.name in known or "overload" in map(ast.unparse, node.decorator_list):
                continue
            if not ast.get_docstring(node):
                yield f"{where}:{node.lineno} {prefix}{node.name}"
            if isinstance(node, ast.ClassDef):
                yield from walk(node.body, f"{prefix}{node.name}.", {"forward"} | inherited(node))

    yield from walk(tree.body, "", set())


def test_everything_public_is_documented():
    missing = [line for path in sources() for line in undocumented(path)]
    assert not missing, "no docstring:\n" + "\n".join(missing)
