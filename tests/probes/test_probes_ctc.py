"""CTC loss against the definition, its exclusions, greedy decoding, and the character tokenizer."""

from __future__ import annotations

import itertools
import json
import math

import pytest
import torch

from lobes.errors import DataError
from lobes.probes import CharTokenizer, UnitTokenizer, ctc_frames_needed, ctc_greedy, ctc_loss, unseen_characters


def collapse(path: tuple[int, ...]) -> list[int]:
    return [token for token, _ in itertools.groupby(path) if token != 0]


def slow_loss(logits: torch.Tensor, tokens: list[int]) -> float:
    """-log of the summed probability of all paths that collapse to the tokens."""
    probabilities = logits.double().softmax(-1)
    total = 0.0
    for path in itertools.product(range(logits.shape[1]), repeat=logits.shape[0]):
        if collapse(path) == tokens:
            total += math.prod(float(probabilities[t, v]) for t, v in enumerate(path))
    return -math.log(total)


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    valid = torch.arange(5) < torch.tensor([5, 4, 2]).unsqueeze(1)
    logits = torch.randn(3, 5, 3).masked_fill(~valid.unsqueeze(-1), math.nan)
    return logits, valid, torch.tensor([[1, 1, 2], [2, 1, 1], [2, 0, 0]]), torch.tensor([3, 2, 1])


def test_loss_equals_the_sum_over_paths(batch) -> None:
    logits, valid, tokens, lengths = batch
    out = ctc_loss(logits, valid, tokens, lengths)
    slow = [slow_loss(logits[b, valid[b]], tokens[b, : lengths[b]].tolist()) for b in range(3)]
    assert float(out.loss) == pytest.approx(sum(slow) / 3, abs=1e-5)
    assert (float(out.weight), float(out.excluded)) == (3.0, 0.0)


def test_loss_of_a_batch_is_the_weighted_mean_of_its_parts(batch) -> None:
    logits, valid, tokens, lengths = batch
    whole = ctc_loss(logits, valid, tokens, lengths)
    parts = [ctc_loss(logits[s], valid[s], tokens[s], lengths[s]) for s in (slice(0, 1), slice(1, 3))]
    mean = sum(p.loss * p.weight for p in parts) / sum(p.weight for p in parts)
    torch.testing.assert_close(whole.loss, mean)


def test_relative_lengths_are_those_of_speechbrain(batch) -> None:
    logits, valid, tokens, lengths = batch
    torch.testing.assert_close(ctc_loss(logits, valid, tokens, lengths / 3), ctc_loss(logits, valid, tokens, lengths))


def test_too_short_utterances_are_excluded_and_counted(batch) -> None:
    logits, valid, tokens, lengths = batch
    logits, tokens = logits.clone().requires_grad_(), tokens.clone()
    tokens[2] = torch.tensor([2, 2, 0])  # 2 frames; "2 2" needs 3
    lengths = torch.tensor([3, 2, 2])
    out = ctc_loss(logits, valid, tokens, lengths)
    assert (float(out.weight), float(out.excluded)) == (2.0, 1.0)
    torch.testing.assert_close(out.loss, ctc_loss(logits[:2], valid[:2], tokens[:2], lengths[:2]).loss)
    out.loss.backward()
    assert torch.isfinite(logits.grad).all() and (logits.grad[2] == 0).all() and (logits.grad[~valid] == 0).all()


def test_nothing_left_gives_zero_loss_and_zero_gradient() -> None:
    logits = torch.full((2, 3, 4), math.nan, requires_grad=True)
    out = ctc_loss(logits, torch.zeros(2, 3, dtype=torch.bool), torch.tensor([[1], [2]]), torch.tensor([1, 0]))
    out.loss.backward()
    assert (out.loss.item(), out.weight.item(), out.excluded.item()) == (0.0, 0.0, 2.0)
    assert (logits.grad == 0).all()


def test_an_empty_transcript_is_scored() -> None:
    logits, valid = torch.randn(1, 3, 3), torch.ones(1, 3, dtype=torch.bool)
    out = ctc_loss(logits, valid, torch.zeros(1, 0, dtype=torch.long), torch.tensor([0]))
    assert float(out.loss) == pytest.approx(slow_loss(logits[0], []), abs=1e-5)


@pytest.mark.parametrize("tokens", [[1, 2, 3], [3, 3, 3], [], [1, 1, 2, 2], [4]])
def test_frames_needed_is_the_shortest_path(tokens: list[int]) -> None:
    padded = torch.tensor([[*tokens, 4, 4]])
    needed = int(ctc_frames_needed(padded, torch.tensor([len(tokens)])))
    alphabet = range(5)
    paths = (
        length for length in range(8) if any(collapse(p) == tokens for p in itertools.product(alphabet, repeat=length))
    )
    assert needed == next(paths)


@pytest.mark.parametrize("wrong", [0, 3, -1])
def test_tokens_outside_the_vocabulary_are_named(batch, wrong: int) -> None:
    logits, valid, tokens, lengths = batch
    tokens = tokens.clone()
    tokens[0, 1] = wrong
    with pytest.raises(DataError, match=f"tokens: {wrong}, expected 0 to 2"):
        ctc_loss(logits, valid, tokens, lengths)


def test_what_pads_the_tokens_does_not_matter(batch) -> None:
    logits, valid, tokens, lengths = batch
    other = tokens.masked_fill(torch.arange(3) >= lengths.unsqueeze(1), -100)
    torch.testing.assert_close(
        ctc_loss(logits, valid, other, lengths).loss, ctc_loss(logits, valid, tokens, lengths).loss
    )


def test_greedy_equals_a_slow_loop() -> None:
    torch.manual_seed(1)
    counts = [20, 7, 0]
    valid = torch.arange(20) < torch.tensor(counts).unsqueeze(1)
    logits = torch.randn(3, 20, 3).masked_fill(~valid.unsqueeze(-1), math.nan)
    slow = [collapse(tuple(int(logits[b, t].argmax()) for t in range(n))) for b, n in enumerate(counts)]
    assert ctc_greedy(logits, valid) == slow
    assert slow[2] == []


# --------------------------------------------------------------------------- tokenizer

TEXTS = ["l'été", "où ça ?", "noël"]


@pytest.mark.parametrize("unknown", [False, True])
def test_tokenizer_round_trip_and_file(tmp_path, unknown: bool) -> None:
    tokenizer = CharTokenizer.from_texts(TEXTS, unknown=unknown)
    loaded = CharTokenizer.load(tokenizer.save(tmp_path / "deep" / "tokens.json"))
    for text in TEXTS:
        tokens = tokenizer.encode(text)
        assert 0 not in tokens and max(tokens) < len(tokenizer)
        assert loaded.encode(text) == tokens and loaded.decode(tokens) == text
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["tokens.json"]


def test_units_are_what_white_space_divides(tmp_path) -> None:
    tokenizer = UnitTokenizer.from_texts(["HH AH0 L OW1", " AH0\tS "], unknown=True)
    assert tokenizer.alphabet == ["AH0", "HH", "L", "OW1", "S"] and len(tokenizer) == 7
    loaded = UnitTokenizer.load(tokenizer.save(tmp_path / "units.json"))
    assert loaded.encode("S  AH0 X") == [6, 2, 1] and loaded.decode([6, 0, 2, 1]) == "S AH0 \ufffd"
    assert unseen_characters(tokenizer, ["X S", "X Y AH0"]) == {"X": 2, "Y": 1}
    assert "".join(tokenizer.surfaces()[token] for token in tokenizer.encode("HH S")).split() == ["HH", "S"]
    with pytest.raises(DataError, match="text 'S X': unit 'X' is not among the 1 of"):
        UnitTokenizer(["S"]).encode("S X")
    with pytest.raises(DataError, match="alphabet: 'S T', expected distinct units without white space"):
        UnitTokenizer(["S T"])


def test_tokenizer_does_not_depend_on_the_order_of_texts() -> None:
    assert CharTokenizer.from_texts(TEXTS).alphabet == CharTokenizer.from_texts(TEXTS[::-1]).alphabet


def test_combined_accents_are_the_composed_ones() -> None:
    tokenizer = CharTokenizer.from_texts(["été"])
    assert tokenizer.encode("e\u0301te\u0301") == tokenizer.encode("été")


def test_unseen_characters() -> None:
    with pytest.raises(DataError, match=r"character 'z' \(U\+007A\).*unknown=True"):
        CharTokenizer.from_texts(TEXTS).encode("zoé")
    tokenizer = CharTokenizer.from_texts(TEXTS, unknown=True)
    assert tokenizer.encode("zo")[0] == 1
    assert tokenizer.decode(tokenizer.encode("zo")) == "\ufffdo"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not a saved"),
        ("[1]", "not a saved"),
        ("{}", "not a saved"),
        ('{"alphabet": [], "unknown": false}', "alphabet"),
    ],
)
def test_a_file_of_something_else_is_refused(tmp_path, content: str, message: str) -> None:
    path = tmp_path / "tokens.json"
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        CharTokenizer.load(path)
    with pytest.raises(DataError, match="no such file"):
        CharTokenizer.load(tmp_path / "none.json")


def test_wrong_alphabets_and_tokens() -> None:
    for alphabet in ([], ["a", "a"], ["ab"]):
        with pytest.raises(DataError, match="alphabet"):
            CharTokenizer(alphabet)
    with pytest.raises(DataError, match="token: 9"):
        CharTokenizer(["a"]).decode([9])


def test_saved_file_is_readable(tmp_path) -> None:
    path = CharTokenizer.from_texts(["éa"]).save(tmp_path / "tokens.json")
    assert json.loads(path.read_text(encoding="utf-8"))["alphabet"] == ["a", "é"]
