"""HyperPyYAML files as trees: reading, looking up names, and merging a delta or overrides into them."""

from __future__ import annotations

import copy
import difflib
import re
from collections.abc import Collection, Iterable, Iterator
from io import StringIO
from pathlib import Path
from typing import Any

from hyperpyyaml.core import deref, parse_arithmetic
from ruamel.yaml import YAML, Tag
from ruamel.yaml.comments import CommentedMap, TaggedScalar
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from lobes.errors import ConfigError

CALLS = ("!new:", "!name:", "!apply:", "!applyref:")
INCLUDE = "!include:"
REFERENCE = re.compile(r"<([^<>]*)>")


def tag_of(node: Any) -> str:
    """Return a node's tag, such as ``!new:torch.nn.Linear``; empty where it has none."""
    tag = getattr(node, "tag", None)
    return (tag.value or "") if tag is not None else ""


def is_call(node: Any) -> bool:
    """Whether the node is a call, whose keys are the arguments of a signature."""
    return tag_of(node).startswith(CALLS)


def is_reference(node: Any) -> bool:
    """Whether the node is a ``!ref`` or a ``!copy``."""
    return isinstance(node, TaggedScalar) and tag_of(node) in ("!ref", "!copy")


def parse(text: str, source: str) -> Any:
    """Parse YAML, keeping tags; `source` names it in the error.

    Raises
    ------
    ConfigError
        The text is not YAML.
    """
    try:
        return YAML().load(text)
    except MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark is not None else ""
        problem = (error.problem or "not YAML").splitlines()[0]
        raise ConfigError(f"{source}{line}: {problem}") from error
    except YAMLError as error:
        raise ConfigError(f"{source}: {str(error).splitlines()[0]}") from error


def dump(tree: Any) -> str:
    """Write a tree as YAML with its tags."""
    stream = StringIO()
    YAML().dump(tree, stream)
    return stream.getvalue()


def read(path: Path) -> CommentedMap:
    """Read a file whose root is a mapping; the paths of its includes become absolute.

    Raises
    ------
    ConfigError
        There is no such file, or it holds something else.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
    tree = parse(text, str(path))
    if isinstance(tree, TaggedScalar) and is_call(tree) and not tree.value:
        tree = _as_mapping(tree, "", str(path))  # a part that is a call without arguments
    if not isinstance(tree, CommentedMap):
        raise ConfigError(f"{path}: expected a mapping of keys to values")
    for _, node in walk(tree):
        if tag_of(node).startswith(INCLUDE):
            included = path.resolve().parent / tag_of(node)[len(INCLUDE) :]
            node.yaml_set_ctag(Tag(suffix=f"{INCLUDE}{included}"))
    return tree


def walk(node: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every node of a tree with its dotted name, the root first.

    Examples
    --------
    >>> [name for name, _ in walk({"a": {"b": [1]}})]
    ['', 'a', 'a.b', 'a.b.0']
    """
    yield name, node
    pairs: Iterable[tuple[Any, Any]] = ()
    if isinstance(node, dict):
        pairs = node.items()
    elif isinstance(node, list):
        pairs = enumerate(node)
    for key, value in pairs:
        yield from walk(value, f"{name}.{key}" if name else str(key))


def nearest(word: str, choices: Iterable[str]) -> str:
    """Return a hint, `` (did you mean 'x'?)``, or nothing where no choice is near.

    A choice that ends in the word, such as ``train_loader.batch_seconds`` for ``batch_seconds``, is near.

    Examples
    --------
    >>> nearest("dept", ["depth", "dim"])
    " (did you mean 'depth'?)"
    """
    names = list(dict.fromkeys(choices))
    found = [name for name in names if name.split(".")[-1] == word]
    found = found or difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if not found:
        leaves = {name.split(".")[-1]: name for name in reversed(names)}
        found = [leaves[leaf] for leaf in difflib.get_close_matches(word, leaves, n=1, cutoff=0.75)]
    return f" (did you mean '{found[0]}'?)" if found else ""


def resolve(node: Any, root: CommentedMap, through: tuple[str, ...] = ()) -> Any:
    """Copy a node with its references replaced by what they refer to, through chains of them, and arithmetic done.

    Parameters
    ----------
    node : Any
        Part of the tree, or a value.
    root : CommentedMap
        The tree that references start from.
    through : tuple of str
        References that led here.

    Raises
    ------
    ConfigError
        References go in a circle.
    """
    if isinstance(node, dict | list):
        copied = copy.deepcopy(node)
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            copied[key] = resolve(value, root, through)
        return copied
    if not is_reference(node):
        return node
    text = str(node.value)
    if text in through:
        raise ConfigError(f"the reference {text} leads back to itself, through {' and '.join(through)}")
    through = (*through, text)
    if REFERENCE.fullmatch(text):
        return resolve(_look_up(text[1:-1], root, through), root, through)
    filled = REFERENCE.sub(lambda found: str(resolve(_look_up(found[1], root, through), root, through)), text)
    return parse_arithmetic(filled)


def _look_up(reference: str, root: CommentedMap, through: tuple[str, ...]) -> Any:
    if "." in reference:
        return deref(reference, root, copy_mode=True)  # an attribute of an object that is yet to be made
    branch: Any = root
    for part in reference.split("["):
        branch = resolve(branch, root, through) if is_reference(branch) else branch
        try:
            branch = branch[part.strip("]")]
        except (KeyError, TypeError) as error:
            raise ConfigError(f"the reference <{reference}> leads to no key '{part.strip(']')}'") from error
    return branch


def merge(
    tree: Any, delta: Any, source: str, adds: Collection[str] = (), name: str = "", hints: Collection[str] = ()
) -> None:
    """Merge a mapping into another in place.

    An untagged mapping is merged key by key into what is there, which keeps its tag; anything else replaces it, but
    that nothing (``--key=``) leaves an empty text empty, where None would be the word None in what refers to it. A key
    must exist already, unless it is listed in `adds` or is an argument of a call, whose signature is checked later.

    Parameters
    ----------
    tree : mapping
        Changed in place.
    delta : mapping
        What to change.
    source : str
        Named in errors: the file or the command line.
    adds : collection of str
        Dotted names that may be new.
    name : str
        Dotted name of `tree`, empty for the root.
    hints : collection of str
        What an unknown key of the root may have been meant for, besides the keys of the tree.

    Raises
    ------
    ConfigError
        A key of the delta does not exist, a mapping meets something that is none, or text meets a number or a truth
        value.
    """
    for key, value in delta.items():
        full = f"{name}.{key}" if name else str(key)
        open_ended = is_call(tree) or tag_of(tree).startswith(INCLUDE)
        if key not in tree and not open_ended and full not in adds:
            prefix = f"{name}." if name else ""
            choices = [*(f"{prefix}{below}" for below, _ in walk(tree) if below), *hints]
            raise ConfigError(f"{source}: there is no key '{full}'{nearest(full, choices)}")
        if isinstance(value, dict) and not tag_of(value) and key in tree:
            if tree[key] is None:
                tree[key] = CommentedMap()
                adds = [*adds, *(f"{full}.{below}" for below in value)]
            tree[key] = _as_mapping(tree[key], full, source)
            merge(tree[key], value, source, adds, full)
        elif value is not None or tree.get(key) != "":
            _check_kind(tree.get(key), value, full, source)
            tree[key] = value


def _check_kind(old: Any, new: Any, name: str, source: str) -> None:
    """Refuse text in the place of a number or a truth value: ``no`` is text in YAML 1.2, and as such true."""
    if isinstance(new, str) and isinstance(old, bool | int | float):
        expected = "True or False" if isinstance(old, bool) else f"a number, such as {old}"
        raise ConfigError(f"{source}: {name} is '{new}': expected {expected}")


def _as_mapping(node: Any, name: str, source: str) -> dict[Any, Any]:
    """Let a call or an include without arguments take some."""
    if isinstance(node, dict):
        return node
    tag = tag_of(node)
    if isinstance(node, TaggedScalar) and tag.startswith((*CALLS, INCLUDE)):
        mapping = CommentedMap()
        mapping.yaml_set_ctag(Tag(suffix=tag))
        return mapping
    what = f"the reference {node.value}: change what it refers to" if tag == "!ref" else "not a mapping"
    raise ConfigError(f"{source}: '{name}' is {what}, so no key below it can be set")


def parse_overrides(overrides: str | dict[str, Any], tree: CommentedMap) -> CommentedMap:
    """Parse overrides given as YAML lines or a dict; ``a.b: 1`` becomes ``a: {b: 1}`` unless `tree` has a key 'a.b'.

    Raises
    ------
    ConfigError
        The text is not YAML, or an override is given twice.
    """
    given = parse(overrides, "command line") if isinstance(overrides, str) else CommentedMap(overrides)
    if given is None:
        return CommentedMap()
    if not isinstance(given, dict):
        raise ConfigError(f"command line: expected --key=value, got {overrides!r}")
    nested = CommentedMap()
    for key, value in given.items():
        parts = [key] if key in tree else str(key).split(".")
        branch = nested
        for part in parts[:-1]:
            branch = branch.setdefault(part, CommentedMap())
            if not isinstance(branch, dict):
                raise ConfigError(f"command line: '{key}' and '{part}' cannot both be given")
        if isinstance(value, dict) and isinstance(branch.get(parts[-1]), dict):
            branch[parts[-1]].update(value)
        else:
            branch[parts[-1]] = value
    return nested
