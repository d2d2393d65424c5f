"""The `encoder:` of a HyperPyYAML text: cut out of a recipe's, and built again without trusting who wrote it.

HyperPyYAML imports and calls whatever a tag names, so that to load a stranger's file is to run a stranger's program.
An encoder needs classes of modules and nothing more; here nothing else can be named.
"""

from __future__ import annotations

import functools
import importlib
import io
import re
from collections.abc import Iterator
from typing import Any

import ruamel.yaml
from hyperpyyaml import resolve_references
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from torch import nn

from lobes.errors import CheckpointError, ConfigError

TRUSTED_PACKAGES = ("lobes.encoders", "lobes.mixers", "lobes.probes", "torch.nn")
PRETRAINER_TAG = "!new:lobes.export.SafetensorsPretrainer"

_HEADER = """\
# An encoder of lobes. In Python: lobes.export.load_encoder("<this folder>").
# Below `encoder` stands what SpeechBrain's from_hparams(source="<this folder>") reads.
"""
_FOOTER = f"""\
modules:
    encoder: !ref <encoder>
pretrainer: {PRETRAINER_TAG}
    loadables:
        encoder: !ref <encoder>
"""


def encoder_yaml(hparams_text: str, key: str = "encoder") -> str:
    """Cut one encoder out of the hyperparameters of an experiment.

    Arguments
    ---------
    hparams_text : str
        HyperPyYAML text, such as the ``hyperparams.yaml`` of a run; references in it are resolved.
    key : str
        Top-level key of the encoder.

    Returns
    -------
    str
        HyperPyYAML text of its own with ``encoder`` and the entries that SpeechBrain's ``from_hparams`` needs.

    Raises
    ------
    ConfigError
        If the text does not parse, or has no such key.

    Example
    -------
    >>> text = "width: 16\\nencoder: !new:torch.nn.Linear {in_features: !ref <width>, out_features: 2}"
    >>> print(encoder_yaml(text))
    # An encoder...
    encoder: !new:torch.nn.Linear {in_features: 16, out_features: 2}
    modules:
    ...
    """
    yaml = ruamel.yaml.YAML()
    try:
        tree = yaml.load(resolve_references(hparams_text))
    except (YAMLError, ValueError) as error:
        raise ConfigError(f"hyperparameters: {_one_line(error)}; expected HyperPyYAML") from error
    if not isinstance(tree, dict) or key not in tree:
        raise ConfigError(f"hyperparameters: no key '{key}' at the top; expected `{key}: !new:lobes.encoders.Encoder`")
    text = io.StringIO()
    yaml.dump({"encoder": tree[key]}, text)
    return _HEADER + text.getvalue() + _FOOTER


def build_encoder(text: str, name: str = "hyperparams.yaml") -> nn.Module:
    """Build the ``encoder`` of such a text with fresh weights, refusing every tag that is not a module's class.

    ``!new:`` and ``!name:`` may name subclasses of `torch.nn.Module` that are defined in `lobes.encoders`,
    `lobes.mixers`, `lobes.probes` or `torch.nn`. Nothing is imported from elsewhere, and nothing but those classes is
    called.

    Arguments
    ---------
    text : str
        What `encoder_yaml` gives.
    name : str
        What error messages call the text.

    Returns
    -------
    nn.Module

    Raises
    ------
    CheckpointError
        If the text does not parse, names anything else, or does not fit the classes it names.

    Example
    -------
    >>> build_encoder("encoder: !new:torch.nn.Linear {in_features: 16, out_features: 2}")
    Linear(in_features=16, out_features=2, bias=True)
    >>> build_encoder("encoder: !apply:os.system [echo hello]")
    Traceback (most recent call last):
    lobes.errors.CheckpointError: hyperparams.yaml: tag '!apply:os.system'; ...
    """
    encoder = build_trusted(text, name, "encoder")
    if not isinstance(encoder, nn.Module):
        raise CheckpointError(f"{name}: encoder is a {type(encoder).__name__}; expected !new:lobes.encoders.Encoder")
    return encoder


def check_encoder(text: str, name: str) -> None:
    """Refuse such a text by its tags, as `build_encoder` does, without building anything.

    Raises
    ------
    CheckpointError
        If it names anything but a module's class of the trusted packages.
    """
    try:
        for node in _walk(_child(_EncoderLoader(text).get_single_node(), "encoder")):
            _check_tag(node)
    except CheckpointError as error:
        raise CheckpointError(f"{name}: {error}") from error


def build_trusted(text: str, name: str, key: str | None = None) -> Any:
    """Build a YAML document, or one entry at its top, with the same restriction.

    Arguments
    ---------
    text : str
        YAML with tags ``!new:`` and ``!name:``; references are not resolved.
    name : str
        What error messages call it.
    key : str, optional
        The entry; by default everything.

    Returns
    -------
    Any
        Modules, their constructors (classes, or partials of them), and YAML's own types.

    Raises
    ------
    CheckpointError
        As `build_encoder`.

    Example
    -------
    >>> build_trusted("{width: 16, head: !name:torch.nn.Linear {bias: false}}", "model.yaml")["head"](4, 2)
    Linear(in_features=4, out_features=2, bias=False)
    """
    try:
        loader = _EncoderLoader(text)
        root = loader.get_single_node()
        for node in _walk(root):
            _check_tag(node)
        return loader.construct_document(root if key is None else _child(root, key))
    except CheckpointError as error:
        raise CheckpointError(f"{name}: {error}") from error
    except (YAMLError, ConfigError, TypeError, ValueError, RuntimeError, RecursionError) as error:
        expected = f"an {key} that this version builds" if key else "a file that this version wrote"
        raise CheckpointError(f"{name}: {_one_line(error)}; expected {expected}") from error


class _EncoderLoader(ruamel.yaml.SafeLoader):
    """YAML's own types, HyperPyYAML's tuples, and the two tags."""


def _construct_new(loader: Any, dotted: str, node: Node) -> nn.Module:
    args, kwargs = _arguments(loader, node)
    return _trusted_class(dotted)(*args, **kwargs)


def _construct_name(loader: Any, dotted: str, node: Node) -> Any:
    args, kwargs = _arguments(loader, node)
    cls = _trusted_class(dotted)
    return functools.partial(cls, *args, **kwargs) if args or kwargs else cls


def _construct_tuple(loader: Any, node: Node) -> tuple:
    inside = ruamel.yaml.YAML(typ="safe", pure=True).load(f"[{loader.construct_scalar(node)[1:-1]}]")
    return tuple(inside)


_EncoderLoader.add_multi_constructor("!new:", _construct_new)
_EncoderLoader.add_multi_constructor("!name:", _construct_name)
_EncoderLoader.add_constructor("!tuple", _construct_tuple)
_EncoderLoader.add_implicit_resolver("!tuple", re.compile(r"^\(.*\)$"), ["("])


def _arguments(loader: Any, node: Node) -> tuple[list, dict]:
    if isinstance(node, MappingNode):
        return [], loader.construct_mapping(node, deep=True)
    if isinstance(node, SequenceNode):
        return loader.construct_sequence(node, deep=True), {}
    return [], {}


def _trusted_class(dotted: str) -> type[nn.Module]:
    """Find a module's class by its name, looking nowhere but in the trusted packages."""
    module_name, _, class_name = dotted.rpartition(".")
    if _is_trusted(module_name):
        try:
            found = getattr(importlib.import_module(module_name), class_name, None)
        except ImportError:
            found = None
        # A trusted module also holds what it imports itself: what counts is where the class was defined.
        if isinstance(found, type) and issubclass(found, nn.Module) and _is_trusted(found.__module__):
            return found
    raise CheckpointError(f"'{dotted}'; expected a module's class of {', '.join(TRUSTED_PACKAGES)}: nothing was loaded")


def _is_trusted(module_name: str) -> bool:
    return any(module_name == package or module_name.startswith(package + ".") for package in TRUSTED_PACKAGES)


def _check_tag(node: Node) -> None:
    tag = str(node.tag)
    if tag.startswith("tag:yaml.org,2002:") and not tag.startswith("tag:yaml.org,2002:python"):
        return
    if tag in (PRETRAINER_TAG, "!tuple") or tag == "!ref" and isinstance(node, ScalarNode):
        return
    kind, _, dotted = tag.partition(":")
    if kind not in ("!new", "!name"):
        raise CheckpointError(f"tag '{tag}'; expected !new: or !name: of a module's class: nothing was loaded")
    _trusted_class(dotted)


def _walk(node: Node | None, seen: set[int] | None = None) -> Iterator[Node]:
    """Every node of a YAML graph, once."""
    seen = set() if seen is None else seen
    if node is None or id(node) in seen:
        return
    seen.add(id(node))
    yield node
    children: list[Node] = []
    if isinstance(node, MappingNode):
        children = [child for pair in node.value for child in pair]
    elif isinstance(node, SequenceNode):
        children = node.value
    for child in children:
        yield from _walk(child, seen)


def _child(root: Node | None, key: str) -> Node:
    for name, value in root.value if isinstance(root, MappingNode) else []:
        if name.value == key:
            return value
    raise CheckpointError(f"no key '{key}'; expected the folder that save_encoder wrote")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
