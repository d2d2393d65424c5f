"""Generated speech: French sentences spoken by eSpeak NG, which runs in a process of its own."""

from lobes.dataio.synthesis.espeak import Espeak
from lobes.dataio.synthesis.french_grammar import Sentence, draw_sentence
from lobes.dataio.synthesis.french_numbers import clock_words, date_words, number_words
from lobes.dataio.synthesis.french_text import FRENCH_ALPHABET, normalise_text
from lobes.dataio.synthesis.store import SpeechStore
from lobes.dataio.synthesis.utterances import Utterance, plan_utterance
from lobes.dataio.synthesis.voices import Speaker, speakers

__all__ = [
    "FRENCH_ALPHABET",
    "Espeak",
    "Sentence",
    "Speaker",
    "SpeechStore",
    "Utterance",
    "clock_words",
    "date_words",
    "draw_sentence",
    "normalise_text",
    "number_words",
    "plan_utterance",
    "speakers",
]
