"""Students that papers have: of the teacher's own kind, shallower or thinner."""

from __future__ import annotations

from typing import Any

from lobes.encoders import HuggingFaceEncoder, ReusedAttention, first_blocks
from lobes.errors import ConfigError


def first_layers(teacher: HuggingFaceEncoder, n_layers: int = 2) -> HuggingFaceEncoder:
    """The teacher with its first blocks only, and their weights: DistilHuBERT's student (Chang et al. 2022).

    Of HuBERT-base, two blocks are 23.5 M parameters of 94.4 M.

    Parameters
    ----------
    teacher : HuggingFaceEncoder
        Of any family, pruned or not.
    n_layers : int
        Blocks to keep.

    Raises
    ------
    ConfigError
        It has not so many, or is no model of Hugging Face.
    """
    check_foreign(teacher, "first_layers")
    if not 1 <= n_layers <= teacher.n_blocks:
        raise ConfigError(
            f"first_layers: n_layers is {n_layers}; expected 1 to {teacher.n_blocks}, the teacher's blocks"
        )
    student: HuggingFaceEncoder = first_blocks(teacher, n_layers)
    student.requires_grad_(True).freeze("nothing")
    return student


def thin(
    teacher: HuggingFaceEncoder, dim: int = 480, ffn: int | None = None, reduction: int = 2, reuse: int = 1
) -> HuggingFaceEncoder:
    """As deep as the teacher, thinner, and at a lower rate, as FitHuBERT's student (Lee et al. 2022).

    The time reduction is one more convolution of the front-end, of width and stride `reduction`, before the blocks.
    Of HuBERT-base, width 480 is 23.5 M parameters at 25 frames per second; the paper says 22.5 M of its own.

    Parameters
    ----------
    teacher : HuggingFaceEncoder
        HuBERT, wav2vec 2.0 or their like, whose configuration has convolutions.
    dim : int
        Width of the blocks, a multiple of the teacher's number of heads.
    ffn : int, optional
        Hidden width of the feed-forwards; `dim` by default.
    reduction : int
        By how much the rate is lower than the teacher's; 1 leaves it.
    reuse : int
        Blocks that share an attention map (`lobes.encoders.ReusedAttention`): 2, with a wider feed-forward for what
        that saves, is ARMHuBERT's student (Jang et al. 2023); 1 shares none.

    Raises
    ------
    ConfigError
        The teacher is no model of Hugging Face, has no such convolutions, or the width does not fit its heads.
    """
    check_foreign(teacher, "thin")
    arguments = teacher.arguments()
    for own in ("sizes", "every"):  # of a pruned teacher, or of one that shares maps
        arguments.pop(own, None)
    source: dict[str, Any] = dict(arguments.pop("source"))
    config = teacher.model.config
    if not hasattr(config, "conv_stride"):
        raise ConfigError(f"thin: a model of type {config.model_type} has no convolutions on the waveform")
    if dim % config.num_attention_heads or dim % config.num_conv_pos_embedding_groups:
        raise ConfigError(
            f"thin: dim is {dim}; expected a multiple of {config.num_attention_heads} heads and of "
            f"{config.num_conv_pos_embedding_groups} groups of the positions"
        )
    source |= {"hidden_size": dim, "intermediate_size": ffn or dim}
    if reduction > 1:
        source["conv_dim"] = [*config.conv_dim, config.conv_dim[-1]]
        source["conv_kernel"] = [*config.conv_kernel, reduction]
        source["conv_stride"] = [*config.conv_stride, reduction]
        source["num_feat_extract_layers"] = len(source["conv_dim"])
    options: dict[str, Any] = arguments | {"frozen": "nothing", "untrained": True}
    return ReusedAttention(source, reuse, **options) if reuse > 1 else HuggingFaceEncoder(source, **options)


def check_foreign(encoder: Any, asker: str) -> None:
    """Refuse what is no model of Hugging Face, whose parts are not where `asker` looks for them.

    Raises
    ------
    ConfigError
        With what to do instead.
    """
    if not isinstance(encoder, HuggingFaceEncoder):
        raise ConfigError(
            f"{asker}: the teacher is {type(encoder).__name__}; expected a model of Hugging Face, such as "
            "hf:facebook/hubert-base-ls960: for others describe a student of its own, as tiny.yaml does"
        )
