"""An encoder folder from a stranger can name modules of ours and of torch.nn, and nothing else."""

from __future__ import annotations

import pytest
from torch import nn

from lobes.errors import CheckpointError, ConfigError
from lobes.export import build_encoder, encoder_yaml

MODEL = "encoder: !new:torch.nn.Linear [2, 2]\n"

ATTACKS = {
    "apply": "encoder: !apply:os.system ['touch {file}']",
    "apply beside the encoder": MODEL + "other: !apply:os.system ['touch {file}']",
    "class that runs a command": "encoder: !new:subprocess.Popen [['touch', '{file}']]",
    "through a module that a trusted one imports": "encoder: !new:lobes.encoders.features.torch.nn.Linear [2, 2]",
    "an import of a trusted module": "encoder: !new:lobes.encoders.features.Tensor []",
    "trusted package, untrusted class": "encoder: !new:torch.nn.parameter.OrderedDict []",
    "name of a function": "encoder: !new:torch.nn.ReLU {{inplace: !name:os.system}}",
    "module": MODEL + "os: !module:os",
    "include": MODEL + "other: !include:/etc/passwd",
    "python tag": "encoder: !!python/object/apply:os.system ['touch {file}']",
    "python tag by its full name": "encoder: !<tag:yaml.org,2002:python/object/apply:os.system> ['touch {file}']",
    "handle": "%TAG !y! tag:yaml.org,2002:python/object/apply:\n---\nencoder: !y!os.system ['touch {file}']",
    "our own classes that are no encoder": "encoder: !new:lobes.errors.LobesError []",
    "our own pretrainer as the encoder": "encoder: !new:lobes.export.SafetensorsPretrainer {{loadables: {{}}}}",
}


@pytest.mark.parametrize("text", ATTACKS.values(), ids=ATTACKS)
def test_nothing_foreign_is_run(tmp_path, text):
    file = tmp_path / "ran"
    with pytest.raises(CheckpointError) as caught:
        build_encoder(text.format(file=file))
    assert "\n" not in str(caught.value)
    assert not file.exists()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "encoder: 3",
        "encoder: [unclosed",
        "- encoder",
        "encoder: !new:lobes.encoders.Encoderr {dim: 2}",
        "encoder: !new:torch.nn.Linear {in_feature: 2, out_features: 2}",
        "encoder: !new:torch.nn.Linear {in_features: -1, out_features: 2}",
    ],
)
def test_what_does_not_build_is_one_line(text):
    with pytest.raises(CheckpointError) as caught:
        build_encoder(text, "folder/hyperparams.yaml")
    assert "\n" not in str(caught.value) and "folder/hyperparams.yaml" in str(caught.value)


def test_values_are_what_hyperpyyaml_makes_of_them():
    options = ["in_channels: 1", "out_channels: 2", "kernel_size: (3, 5)", "bias: False"]
    convolution = build_encoder("encoder: !new:torch.nn.Conv2d\n    " + "\n    ".join(options))
    assert convolution.kernel_size == (3, 5) and convolution.bias is None
    norm = build_encoder("encoder: !new:torch.nn.LayerNorm {normalized_shape: [4], eps: 1e-3}")
    assert norm.eps == 1e-3


def test_a_shared_node_stays_shared():
    tied = build_encoder("encoder: !new:torch.nn.Sequential [&a !new:torch.nn.Linear [2, 2], *a]")
    assert tied[0] is tied[1]


def test_extraction_resolves_references_and_other_keys():
    text = "n: 4\nnets:\n    a: !new:torch.nn.Linear [!ref <n>, !ref <n> * 2]\nteacher: !ref <nets[a]>"
    built = build_encoder(encoder_yaml(text, key="teacher"))
    assert isinstance(built, nn.Linear) and (built.in_features, built.out_features) == (4, 8)
    with pytest.raises(ConfigError, match="'student'"):
        encoder_yaml(text, key="student")
    with pytest.raises(ConfigError, match="expected HyperPyYAML"):
        encoder_yaml("a: !ref <b>")
