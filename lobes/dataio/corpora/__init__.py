"""One module per corpus: `prepare_<corpus>(data_folder, save_folder, **options) -> {split: manifest}`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lobes.dataio.corpora.allosat import prepare_allosat
from lobes.dataio.corpora.annotated_folder import prepare_annotated_folder
from lobes.dataio.corpora.att_hack import prepare_att_hack
from lobes.dataio.corpora.audio_folder import prepare_audio_folder
from lobes.dataio.corpora.borneo_sulawesi import prepare_borneo_sulawesi
from lobes.dataio.corpora.cafe import prepare_cafe
from lobes.dataio.corpora.common_voice import prepare_common_voice
from lobes.dataio.corpora.covost2 import prepare_covost2
from lobes.dataio.corpora.danum_clips import prepare_danum_clips
from lobes.dataio.corpora.emodb import prepare_emodb
from lobes.dataio.corpora.etape import prepare_etape
from lobes.dataio.corpora.fsdd import prepare_fsdd
from lobes.dataio.corpora.fsdd_pool import prepare_fsdd_pool
from lobes.dataio.corpora.gcompris_fr import prepare_gcompris_fr
from lobes.dataio.corpora.gibbon_females import prepare_gibbon_females
from lobes.dataio.corpora.gibbon_scenes import prepare_gibbon_scenes
from lobes.dataio.corpora.hainan_gibbon import prepare_hainan_gibbon
from lobes.dataio.corpora.held_out import prepare_held_out, prepare_parts
from lobes.dataio.corpora.infant_marmosets import prepare_infant_marmosets
from lobes.dataio.corpora.librispeech import prepare_librispeech
from lobes.dataio.corpora.macaque_coos import prepare_macaque_coos
from lobes.dataio.corpora.mboshi_french import prepare_mboshi_french
from lobes.dataio.corpora.media import prepare_media
from lobes.dataio.corpora.mix import prepare_mix
from lobes.dataio.corpora.mls import prepare_mls
from lobes.dataio.corpora.mtedx import prepare_mtedx
from lobes.dataio.corpora.orfeo import prepare_orfeo
from lobes.dataio.corpora.picovoice_intents import prepare_picovoice_intents
from lobes.dataio.corpora.pxcorpus import prepare_pxcorpus
from lobes.dataio.corpora.recola import prepare_recola
from lobes.dataio.corpora.siamang import prepare_siamang
from lobes.dataio.corpora.speech_pool import prepare_speech_pool
from lobes.dataio.corpora.yellow_cheeked_gibbon import prepare_yellow_cheeked_gibbon

if TYPE_CHECKING:
    from lobes.dataio.corpora.minifrench import prepare_minifrench

__all__ = [
    "prepare_allosat",
    "prepare_annotated_folder",
    "prepare_att_hack",
    "prepare_audio_folder",
    "prepare_borneo_sulawesi",
    "prepare_cafe",
    "prepare_common_voice",
    "prepare_covost2",
    "prepare_danum_clips",
    "prepare_emodb",
    "prepare_etape",
    "prepare_fsdd",
    "prepare_fsdd_pool",
    "prepare_gcompris_fr",
    "prepare_gibbon_females",
    "prepare_gibbon_scenes",
    "prepare_hainan_gibbon",
    "prepare_held_out",
    "prepare_infant_marmosets",
    "prepare_librispeech",
    "prepare_macaque_coos",
    "prepare_mboshi_french",
    "prepare_media",
    "prepare_minifrench",
    "prepare_mix",
    "prepare_mls",
    "prepare_mtedx",
    "prepare_orfeo",
    "prepare_parts",
    "prepare_picovoice_intents",
    "prepare_pxcorpus",
    "prepare_recola",
    "prepare_siamang",
    "prepare_speech_pool",
    "prepare_yellow_cheeked_gibbon",
]


def __getattr__(name: str) -> Any:
    # Generated speech needs a synthesiser that most recipes do not: it is imported when asked for.
    if name == "prepare_minifrench":
        from lobes.dataio.corpora.minifrench import prepare_minifrench

        return prepare_minifrench
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
