"""Parameter-efficient tuning of pretrained encoders, ours and Hugging Face's, chosen by one key of a recipe."""

from lobes.adapters.anatomy import roles
from lobes.adapters.base import (
    Adaptation,
    active_adapter,
    adaptations,
    adapter_macs,
    check_mergeable,
    merge_adapter,
    remove_adapter,
    set_active,
    summary,
    trainable_share,
)
from lobes.adapters.chapter import CHAPTER
from lobes.adapters.controls import EWC, L2SP, Replay, fisher
from lobes.adapters.files import load_adapter, save_adapter
from lobes.adapters.houlsby import Houlsby
from lobes.adapters.llama_adapter import LLaMAAdapter, LLaMAAdapterV2
from lobes.adapters.low_rank import IA3, ConvLoRA, DoRA, LoRA, VeRA
from lobes.adapters.prefix import PrefixTuning
from lobes.adapters.prompt import PromptTuning
from lobes.adapters.reprogramming import LabelMapping, Reprogramming
from lobes.adapters.retention import WeightChange, compare_layers, interpolate, total_change, weight_change
from lobes.adapters.tuning import BitFit, FrozenProbe, FullFineTuning, LayerNormTuning

__all__ = [
    "CHAPTER",
    "EWC",
    "IA3",
    "L2SP",
    "Adaptation",
    "BitFit",
    "ConvLoRA",
    "DoRA",
    "FrozenProbe",
    "FullFineTuning",
    "Houlsby",
    "LLaMAAdapter",
    "LLaMAAdapterV2",
    "LabelMapping",
    "LayerNormTuning",
    "LoRA",
    "PrefixTuning",
    "PromptTuning",
    "Replay",
    "Reprogramming",
    "VeRA",
    "WeightChange",
    "active_adapter",
    "adaptations",
    "adapter_macs",
    "compare_layers",
    "fisher",
    "interpolate",
    "load_adapter",
    "check_mergeable",
    "merge_adapter",
    "remove_adapter",
    "roles",
    "save_adapter",
    "set_active",
    "summary",
    "total_change",
    "trainable_share",
    "weight_change",
]
