"""One module per corpus: `prepare_<corpus>(data_folder, save_folder, **options) -> {split: manifest}`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lobes.dataio.corpora.audio_folder import prepare_audio_folder
from lobes.dataio.corpora.emodb import prepare_emodb
from lobes.dataio.corpora.fsdd import prepare_fsdd
from lobes.dataio.corpora.gcompris_fr import prepare_gcompris_fr
from lobes.dataio.corpora.librispeech import prepare_librispeech
from lobes.dataio.corpora.mix import prepare_mix

if TYPE_CHECKING:
    from lobes.dataio.corpora.minifrench import prepare_minifrench

__all__ = [
    "prepare_audio_folder",
    "prepare_emodb",
    "prepare_fsdd",
    "prepare_gcompris_fr",
    "prepare_librispeech",
    "prepare_minifrench",
    "prepare_mix",
]


def __getattr__(name: str) -> Any:
    # Generated speech needs a synthesiser that most recipes do not: it is imported when asked for.
    if name == "prepare_minifrench":
        from lobes.dataio.corpora.minifrench import prepare_minifrench

        return prepare_minifrench
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
