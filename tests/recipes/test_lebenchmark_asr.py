"""recipes/LeBenchmark/ASR on tones that stand for letters, in the layouts in which the corpora are downloaded."""

from __future__ import annotations

import math

import numpy as np
import pytest
import soundfile
from recipe_runner import QUIET, load, torchrun, train, untrained_encoder
from sounds import tones

from lobes.dataio import read_manifest
from lobes.errors import ConfigError
from lobes.evaluation import char_errors, wer, word_errors
from lobes.probes import CharTokenizer, SentencePieceTokenizer, UnitTokenizer

RECIPE = "LeBenchmark/ASR"
LOGMEL = ("--encoder=logmel-40-25hz", "--normalize_layers=False", "--features=memory")
LETTERS = "aéios"
LINEAR = ("--head=FrameLinear", "--opt_class.lr=0.05", "--train_loader.num_workers=0")
SHORT = ("--train_loader.batch_seconds=12", "--valid_loader.batch_seconds=60", "--valid_loader.num_workers=0")


def say(noise, n_words):
    """A text of words of two or three letters, and what it sounds like at 16 kHz: a tone a letter, a hiss a space."""
    words = ["".join(noise.choice(list(LETTERS), noise.integers(2, 4))) for _ in range(n_words)]
    sounds = []
    for letter in " ".join(words):
        hiss = 0.1 * noise.standard_normal(1920)
        sounds += [hiss if letter == " " else tones(2 * LETTERS.index(letter), 0.12, noise, 16000), np.zeros(640)]
    return " ".join(words), np.concatenate([*sounds, np.zeros(1600)]) + 0.001 * noise.standard_normal()


@pytest.fixture(scope="module")
def mls_folder(tmp_path_factory):
    """mls_french/{train,dev,test}/audio/<speaker>/<book>/*.flac, transcripts.txt and the lists of handles."""
    noise, folder = np.random.default_rng(0), tmp_path_factory.mktemp("mls") / "mls_french"
    handles = {}
    for split, speakers in {"train": (11, 12, 13), "dev": (21, 22), "test": (31, 32, 33)}.items():
        lines = []
        for speaker in speakers:
            (folder / split / "audio" / str(speaker) / "7").mkdir(parents=True)
            for number in range(12 if split == "train" else 5):
                name, (text, sound) = f"{speaker}_7_{number:06d}", say(noise, 3)
                soundfile.write(folder / split / "audio" / str(speaker) / "7" / f"{name}.flac", sound, 16000)
                lines.append(f"{name}\t{text}")
        handles[split] = [line.split("\t")[0] for line in lines]
        (folder / split / "transcripts.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for place, names in {"9hr": handles["train"][:-6], "1hr/0": handles["train"][-6:]}.items():
        (folder / "train" / "limited_supervision" / place).mkdir(parents=True)
        (folder / "train" / "limited_supervision" / place / "handles.txt").write_text("\n".join(names) + "\n")
    return folder


@pytest.fixture
def common_voice_folder(tmp_path):
    """{train,dev,test}.tsv and clips/*.mp3; a test sentence is one word, in letters that no other has."""
    noise, folder = np.random.default_rng(1), tmp_path / "fr"
    (folder / "clips").mkdir(parents=True)
    for split, count in {"train": 24, "dev": 6, "test": 8}.items():
        rows = ["client_id\tpath\tsentence\tup_votes\tdown_votes\tage\tgender\taccent\tlocale\tsegment"]
        for number in range(count):
            text, sound = say(noise, 3)
            text = "Żółć!" if split == "test" and number == 0 else f"{text.capitalize()}."
            soundfile.write(folder / "clips" / f"{split}{number}.mp3", sound, 16000, format="MP3")
            rows.append(f"{split}{number % 3}\t{split}{number}.mp3\t{text}\t2\t0\t\t\t\tfr\t")
        (folder / f"{split}.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder


def test_mls_is_spelt_as_it_sounds(mls_folder, tmp_path):
    options = (f"--data_folder={mls_folder}", *LOGMEL, *LINEAR, *SHORT, "--steps=120", "--metric=cer")
    result = train(RECIPE, tmp_path, *options, hparams="mls.yaml")
    metric = result["metric"]
    assert metric["name"] == "cer" and (metric["n_items"], metric["n_groups"]) == (15, 3)
    assert metric["value"] < 0.35, f"{metric['value']}; nothing written would be 1"
    texts = {row["id"]: row["text"] for row in read_manifest(tmp_path / "manifests" / "test.csv").rows}
    ids = [record["id"] for record in result["records"]]
    hypotheses = [record["hypothesis"] for record in result["records"]]
    words = word_errors([texts[name] for name in ids], hypotheses)
    assert wer(words) == pytest.approx(result["other_metrics"]["wer"])
    assert {"valid_cer", "valid_wer"} <= result["other_metrics"].keys()
    shifted = char_errors([texts[name] for name in ids[1:] + ids[:1]], hypotheses)
    assert sum(r["errors"] for r in shifted) > 1.5 * sum(r["errors"] for r in result["records"]), "another's text"
    assert len(CharTokenizer.load(tmp_path / "tokenizer.json")) == 2 + 1 + len(LETTERS)


def test_the_decoder_is_asked_for_and_the_checkpoint_is_not_another(mls_folder, tmp_path):
    """Of one trained head: the run is found complete, and only the decoder differs."""
    options = (f"--data_folder={mls_folder}", *LOGMEL, *LINEAR, *SHORT, "--steps=40", "--prepare.hours=1")
    best_path = train(RECIPE, tmp_path, *options, hparams="mls.yaml")
    beam = train(RECIPE, tmp_path, *options, "--decoder.beam=8", "--decoder.lm_order=3", hparams="mls.yaml")
    assert best_path["cost"]["audio_hours"] == beam["cost"]["audio_hours"], "not trained again"
    assert len(read_manifest(tmp_path / "manifests" / "train.csv").rows) == 6
    assert [r["hypothesis"] for r in best_path["records"]] != [r["hypothesis"] for r in beam["records"]]
    with pytest.raises(ConfigError, match="needs a beam"):
        load(RECIPE).main(["hparams/mls.yaml", f"--output_folder={tmp_path}", *QUIET, *options, "--decoder.lm_order=3"])


def test_a_model_of_words_mends_them(mls_folder, tmp_path):
    """An oracle that knows which words there are, of the test too, gets more of them right."""
    options = (f"--data_folder={mls_folder}", *LOGMEL, *LINEAR, *SHORT, "--steps=40")
    lines = [
        line for split in ("dev", "test") for line in (mls_folder / split / "transcripts.txt").open(encoding="utf-8")
    ]
    words = sorted({word for line in lines for word in line.split("\t")[1].split()})
    grams = [f"{-math.log10(len(words) + 1):.4f}\t{word}" for word in [*words, "</s>"]] + ["-5\t<unk>"]
    arpa = tmp_path / "words.arpa"
    arpa.write_text(
        "\n".join(["\\data\\", f"ngram 1={len(grams)}", "", "\\1-grams:", *grams, "", "\\end\\"]), encoding="utf-8"
    )
    beam = ("--decoder.beam=24", "--decoder.word_weight=2")
    plain, counted, known = (
        train(RECIPE, tmp_path / "run", *options, *given, hparams="mls.yaml")["metric"]["value"]
        for given in ((), (*beam, "--language_model=2"), (*beam, f"--language_model={arpa}"))
    )
    assert known < plain - 0.15 and counted != plain, (plain, counted, known)
    others = [option for option in options if option != LINEAR[0]]
    attends = ("--head=AttentionHead", "--search={beam: 2}", "--decoder.beam=4")
    with pytest.raises(ConfigError, match="the head attends: expected 1; its beam is search.beam"):
        load(RECIPE).main(["hparams/mls.yaml", f"--output_folder={tmp_path / 'attends'}", *QUIET, *others, *attends])


def test_common_voice_in_pieces_keeps_what_it_cannot_spell(common_voice_folder, tmp_path):
    options = (f"--data_folder={common_voice_folder}", *LOGMEL, *LINEAR, *SHORT, "--steps=120")
    pieces = "--tokenizer=!name:lobes.probes.SentencePieceTokenizer.from_texts {size: 14}"
    result = train(RECIPE, tmp_path, *options, pieces, "--decoder.beam=4", hparams="commonvoice.yaml")
    assert result["metric"]["name"] == "wer" and result["metric"]["n_items"] == 8
    records = {record["id"]: record for record in result["records"]}
    assert records["test0"]["length"] == 1 and records["test0"]["errors"] >= 1
    assert "4 symbols of the test texts are in no training text" in result["notes"]
    tokenizer = SentencePieceTokenizer.load(tmp_path / "tokenizer.json")
    assert 1 in tokenizer.encode("żółć") and len(tokenizer) <= 14
    # A piece is several tones, of which a frame hears one: harder than letters. Nothing written would be 1.
    assert result["other_metrics"]["valid_cer"] < 0.75, result["other_metrics"]


@pytest.fixture
def etape_folder(tmp_path):
    """{train,dev,test}/trs/<show>.trs and wav/<show>.wav, of several utterances; in the test two speak at once."""
    noise, root = np.random.default_rng(2), tmp_path / "ETAPE"
    for split, shows in {"train": 5, "dev": 1, "test": 2}.items():
        for number in range(shows):
            turns, sounds, time = [], [], 0.0
            for _ in range(8):
                text, sound = say(noise, 3)
                stop = time + len(sound) / 16000
                turns.append((time, stop, text))
                sounds, time = [*sounds, sound], stop
            lines = [
                f'<Turn speaker="spk1" startTime="{start}" endTime="{stop}"><Sync time="{start}"/>\n{text}\n</Turn>'
                for start, stop, text in turns
            ]
            if split == "test":
                both = 'speaker="spk1 spk2"'
                lines[0] = lines[0].replace('speaker="spk1"', both).replace("</Turn>", '<Who nb="2"/>\noui\n</Turn>')
            for kind in ("trs", "wav"):
                (root / split / kind).mkdir(parents=True, exist_ok=True)
            text = f'<Section type="report" startTime="0" endTime="{time}">{"".join(lines)}</Section>'
            path = root / split / "trs" / f"{split}{number}.trs"
            head = (
                '<?xml version="1.0" encoding="ISO-8859-1"?>\n<!DOCTYPE Trans SYSTEM "trans-14.dtd">\n<Trans><Episode>'
            )
            path.write_text(f"{head}{text}</Episode></Trans>", encoding="ISO-8859-1")
            soundfile.write(root / split / "wav" / f"{split}{number}.wav", np.concatenate(sounds), 16000)
    return root


def test_etape_is_tested_where_two_speak_at_once_too(etape_folder, tmp_path):
    options = (f"--data_folder={etape_folder}", *LOGMEL, *LINEAR, *SHORT, "--steps=150", "--metric=cer")
    result = train(RECIPE, tmp_path / "run", *options, hparams="etape.yaml")
    metric = result["metric"]
    assert (metric["n_items"], metric["n_groups"]) == (16, 2) and metric["value"] < 0.5, metric
    rows = {row["id"]: row for row in read_manifest(tmp_path / "run" / "manifests" / "test.csv").rows}
    both = [row for row in rows.values() if row["voices"] == "2"]
    assert len(both) == 2 and all(row["text"].endswith(" oui") for row in both)


PHONES = {"AH0": 0, "S": 3, "T": 6, "IY1": 9}
LEXICON = {"SEE": "S IY1", "TEA": "T IY1", "US": "AH0 S", "EAST": "IY1 S T", "A": "AH0"}


@pytest.fixture(scope="module")
def openslr(tmp_path_factory):
    """LibriSpeech/<subset>/<speaker>/<chapter>/ in words of the lexicon, a tone a phone; and the lexicon beside it."""
    noise, root = np.random.default_rng(3), tmp_path_factory.mktemp("phones")
    for subset, speakers in {"train-clean-100": (19, 26), "dev-clean": (84,), "test-clean": (61, 121)}.items():
        for speaker in speakers:
            chapter = root / "LibriSpeech" / subset / str(speaker) / "9"
            chapter.mkdir(parents=True)
            lines = []
            for number in range(16 if subset.startswith("train") else 5):
                words = noise.choice(list(LEXICON), noise.integers(2, 5)).tolist()
                phones = " ".join(LEXICON[word] for word in words).split()
                sound = [part for p in phones for part in (tones(PHONES[p], 0.12, noise, 16000), np.zeros(640))]
                soundfile.write(chapter / f"{speaker}-9-{number:04d}.flac", np.concatenate(sound), 16000)
                lines.append(f"{speaker}-9-{number:04d} {' '.join(words)}")
            (chapter / f"{speaker}-9.trans.txt").write_text("\n".join(lines) + "\n")
    others = ["A\tEY1", "NEVER  N EH1 V ER0"]  # a second pronunciation, and a word that nobody says
    lines = [f"{word}\t{phones}" for word, phones in LEXICON.items()] + others
    (root / "lexicon.txt").write_text("\n".join(lines) + "\n")
    return root


def test_phones_of_a_lexicon_are_recognised(openslr, tmp_path):
    options = (f"--data_folder={openslr}", *LOGMEL, LINEAR[2], *SHORT, "--steps=80", "--head.projection=32")
    given = (f"--lexicon={openslr / 'lexicon.txt'}", "--opt_class.lr=0.02")
    result = train(RECIPE, tmp_path, *options, *given, hparams="phones.yaml")
    metric = result["metric"]
    assert metric["name"] == "per" and (metric["n_items"], metric["n_groups"]) == (10, 2)
    assert metric["value"] < 0.3, f"{metric['value']}; nothing written would be 1"
    assert result["other_metrics"].keys() == {"valid", "valid_per"}
    rows = {row["id"]: row for row in read_manifest(tmp_path / "manifests" / "test.csv").rows}
    for record in result["records"]:
        said = " ".join(LEXICON[word] for word in rows[record["id"]]["text"].split())
        assert rows[record["id"]]["phones"] == said and record["length"] == len(said.split())
        assert set(record["hypothesis"].split()) <= set(PHONES)
    assert UnitTokenizer.load(tmp_path / "tokenizer.json").alphabet == sorted(PHONES)


@pytest.mark.slow
def test_a_decoder_that_attends_writes_what_it_hears(mls_folder, tmp_path):
    head = "!name:lobes.probes.AttentionHead {width: 48, hidden: 96, heads: 4, depth: 1, dropout: 0.0}"
    asked = (f"--head={head}", "--search={beam: 2, tokens_per_frame: 1.0}", "--metric=cer", "--opt_class.lr=0.004")
    given = (f"--data_folder={mls_folder}", *LOGMEL, *SHORT, *asked, "--train_loader.num_workers=0", "--steps=400")
    result = train(RECIPE, tmp_path, *given, hparams="mls.yaml")
    # It knows the few words of the training texts better than those of the test; nothing written would be 1.
    assert result["metric"]["name"] == "cer" and result["metric"]["value"] < 0.7, result["metric"]
    assert {"valid_cer", "valid_wer"} <= result["other_metrics"].keys()


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["finetune", "LoRA"])
def test_every_mode_trains_what_it_says(mls_folder, tmp_path, mode):
    folder = untrained_encoder(tmp_path / "encoder", dim=32, depth=1)
    given = (f"--encoder={folder}", "--untrained=True", f"--mode={mode}", *LINEAR, *SHORT, "--steps=3")
    result = train(RECIPE, tmp_path / "run", f"--data_folder={mls_folder}", *given, hparams="mls.yaml")
    cost = result["cost"]
    whole = cost["parameters_trained"] == cost["parameters_total"]
    assert whole == (mode == "finetune") and cost["parameters_trained"] > 500


@pytest.mark.slow
def test_two_processes_learn_what_one_does(mls_folder, tmp_path):
    given = (
        f"--data_folder={mls_folder}",
        *LOGMEL,
        LINEAR[0],
        *SHORT,
        "--train_loader.num_workers=0",
        "--opt_class.lr=0.02",
        "--steps=60",
        "--metric=cer",
    )
    one, two = (
        torchrun(RECIPE, tmp_path / str(count), *given, hparams="mls.yaml", processes=count) for count in (1, 2)
    )
    assert two["metric"]["value"] == pytest.approx(one["metric"]["value"], abs=1e-4)
    assert one["metric"]["value"] < 0.9
