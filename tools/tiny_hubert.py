"""Write a HuBERT with random weights as a folder of the hub, small enough for a laptop; no network is asked.

    python tools/tiny_hubert.py results/tiny-hubert              # what tools/leaderboard.yaml has a row for
    python train.py hparams/tiny.yaml --encoder results/tiny-hubert

It has what a folder that `hf download` wrote has: `config.json`, `preprocessor_config.json`, `model.safetensors`. So
a recipe reads it as it reads `facebook/hubert-base-ls960`, whose architecture it has with four blocks of width 128. It
has learnt nothing: what a task gives with it is a control for models of the hub. Equal seeds give equal weights.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from lobes.encoders.hf_source import quiet_transformers
from lobes.errors import LobesError
from lobes.training import run

SIZES = {"hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 512,
         "conv_dim": [32] * 7, "num_conv_pos_embeddings": 32, "num_conv_pos_embedding_groups": 8}  # fmt: skip


def write(folder: Path, seed: int = 1) -> Path:
    """Write it.

    Raises
    ------
    LobesError
        There is something else in the folder.
    """
    from transformers import HubertConfig, HubertModel, Wav2Vec2FeatureExtractor

    if folder.exists() and not _is_ours(folder):
        raise LobesError(f"{folder}: is there, and no HuBERT of this tool's sizes; give the name of a new folder")
    with torch.random.fork_rng(devices=[]), quiet_transformers():
        torch.manual_seed(seed)
        HubertModel(HubertConfig(**SIZES)).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=False).save_pretrained(folder)
    return folder


def _is_ours(folder: Path) -> bool:
    from transformers import HubertConfig

    try:
        config = HubertConfig.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError):
        return False
    return all(getattr(config, name) == size for name, size in SIZES.items())


def main() -> None:
    """Write it, and say where."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where to")
    parser.add_argument("--seed", type=int, default=1, help="of the weights")
    options = parser.parse_args()
    print(write(options.folder, options.seed))


if __name__ == "__main__":
    run(main)
