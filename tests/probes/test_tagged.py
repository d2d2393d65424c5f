"""Tagged texts to targets and back, a class for each slot, and the head that looks for words everywhere."""

from __future__ import annotations

import random
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from lobes.dataio import plain_text, read_tagged, unseen_labels, write_tagged
from lobes.errors import ConfigError, DataError
from lobes.probes import (
    AttentionHead,
    Downstream,
    FrameLinear,
    PeakHead,
    Probe,
    SlotClasses,
    TagCTC,
    TaggedTokenizer,
    TagSeq2Seq,
    attention_loss,
)

ORDERS = ["#order <size small > <drink tea >", "#order <drink iced tea >", "#cancel", "#order <size large >"]


def random_parts(chance):
    words = ["été", "deux", "l'hôtel", "à", "nuit"]
    parts = []
    for _ in range(chance.randint(0, 5)):
        said = " ".join(chance.choices(words, k=chance.randint(1, 3)))
        parts.append(
            (chance.choice(["nombre", "lieu", "date"]), chance.choice([said, ""])) if chance.random() < 0.5 else said
        )
    return parts  # fmt: skip


def test_what_is_written_is_read_back_through_tokens_too():
    chance = random.Random(0)
    cases = [(random_parts(chance), chance.choice(["", "dire", "refuser"])) for _ in range(100)]
    texts = [write_tagged(parts, intent) for parts, intent in cases]
    tokenizer = TaggedTokenizer(texts)
    for text, (parts, intent) in zip(texts, cases, strict=True):
        expected = tuple(part for part in parts if not isinstance(part, str))
        assert read_tagged(text) == (intent, expected)
        tokens = tokenizer.encode(text)
        assert tokenizer.decode(tokens) == text and tokenizer.blank not in tokens
        said = " ".join(part if isinstance(part, str) else part[1] for part in parts).split()
        assert plain_text(text).split() == said


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("", ("", ())),
        ("> > un", ("", ())),
        ("<a un <b deux", ("", (("a", "un"), ("b", "deux")))),
        ("#x <a un > deux > #y", ("x", (("a", "un"),))),
        ("< un > #", ("", ())),
    ],
)
def test_any_hypothesis_means_something(text, meaning):
    assert read_tagged(text) == meaning


def test_marks_in_a_transcript_are_not_taken_for_tags():
    assert write_tagged(["moins < de > deux #1", ("a", "<b >")]) == "moins de deux 1 <a b >"
    for name in ("", "deux mots", "a>"):
        with pytest.raises(DataError, match="expected a name without white space"):
            write_tagged([(name, "x")])


def test_unseen_labels_and_characters_are_encoded_and_counted():
    coding = TagCTC(ORDERS)
    new = "#leave <size small > <milk soy >"
    assert coding.unseen([new, new]) == {"#leave": 2, "<milk": 2}
    tokens = coding.encode(new)
    assert 1 in tokens and max(tokens) < len(coding)
    decoded = coding.tokenizer.decode(tokens)
    assert read_tagged(decoded).intent == "" and read_tagged(decoded).concepts == (("size", "small"),)
    assert SlotClasses(ORDERS).unseen([new]) == {"#leave": 1, "<milk soy >": 1}
    assert unseen_labels(ORDERS, ["<size huge >"]) == {}


def test_ctc_learns_to_write_a_meaning_and_pads_alone():
    coding = TagCTC(["#a <b un >", "<c deux >"])
    tokens = [coding.encode(text) for text in coding.texts]
    longest = max(map(len, tokens))
    padded = torch.tensor([row + [0] * (longest - len(row)) for row in tokens])
    lengths = torch.tensor([len(row) / longest for row in tokens])
    valid = torch.arange(2 * longest) < torch.tensor([[2 * longest], [2 * longest - 4]])
    logits = torch.zeros(2, 2 * longest, len(coding), requires_grad=True)
    for _ in range(100):
        loss, weight = coding.loss(logits, valid, padded, lengths)
        (slope,) = torch.autograd.grad(loss, logits)
        logits = (logits - 4 * slope).detach().requires_grad_()
    assert int(weight) == 2 and float(loss.detach()) < 0.1
    assert coding.decode(logits.masked_fill(~valid.unsqueeze(-1), float("nan")), valid) == coding.texts


def test_slot_classes_equal_a_slow_loop():
    slots = SlotClasses(ORDERS)
    assert slots.values == {"": ["cancel", "order"], "drink": ["iced tea", "tea"], "size": ["large", "small"]}
    tokens = torch.tensor([slots.encode(text) for text in [*ORDERS, "#order <drink milk >"]])
    assert tokens[-1].tolist() == [2, -100, 0], "a value that training has not is left out of the loss"
    logits, valid = torch.randn(5, len(slots)), torch.ones(5, 7, dtype=torch.bool)
    valid[3] = False
    loss, weight = slots.loss(logits, valid, tokens, torch.ones(5))
    slow = 0.0
    for number in (0, 1, 2, 4):
        for slot, choice in enumerate(tokens[number].tolist()):
            if choice >= 0:
                slow -= float(F.log_softmax(logits[number, 3 * slot : 3 * slot + 3], 0)[choice])
    assert float(loss) == pytest.approx(slow / 4, abs=1e-5) and int(weight) == 4


def test_slot_classes_decode_what_they_encode():
    slots = SlotClasses(ORDERS)
    rows = []
    for text in ORDERS:
        choices = slots.encode(text)
        rows.append(torch.cat([F.one_hot(torch.tensor(c), 3).float() for c in choices]))
    decoded = slots.decode(torch.stack(rows), torch.ones(4, 3, dtype=torch.bool))
    assert [sorted(read_tagged(d).concepts) for d in decoded] == [sorted(read_tagged(t).concepts) for t in ORDERS]
    assert [read_tagged(d).intent for d in decoded] == [read_tagged(t).intent for t in ORDERS]


def test_slot_classes_refuse_what_they_cannot_hold():
    with pytest.raises(DataError, match="fills a slot twice"):
        SlotClasses(["<a b > <a c >"])
    with pytest.raises(DataError, match="no slot and no intent"):
        SlotClasses(["", "un deux"])


def test_peak_head_alone_equals_padded_with_garbage():
    head = PeakHead(6, 4, width=5, hidden=8).eval()
    head.norm.running_mean.normal_()
    lengths = (9, 3, 1, 0)
    x = torch.full((4, 12, 6), float("nan"))
    valid = torch.zeros(4, 12, dtype=torch.bool)
    for row, n in enumerate(lengths):
        x[row, :n] = torch.randn(n, 6)
        valid[row, :n] = True
    together = head(x, valid)
    for row, n in enumerate(lengths[:3]):
        torch.testing.assert_close(together[row], head(x[row : row + 1, :n], valid[row : row + 1, :n])[0])
    assert together[3].tolist() == [0.0] * 4
    together.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in head.parameters())


def test_peak_head_equals_a_slow_loop_and_goes_from_mean_to_maximum():
    x, valid = torch.randn(1, 6, 3), torch.ones(1, 6, dtype=torch.bool)
    found = {}
    for sharpness in (1e-3, 1.0, 1e3):
        torch.manual_seed(1)
        head = PeakHead(3, 2, width=3, hidden=4, sharpness=sharpness).eval()
        around = F.pad(head.norm(x, valid)[0], (0, 0, 1, 1))
        scores = []
        for t in range(6):
            hidden = torch.einsum("kd,hdk->h", around[t : t + 3], head.surroundings.weight) + head.surroundings.bias
            scores.append(head.output(F.gelu(hidden)))
        scores = torch.stack(scores)
        slow = (sharpness * scores).exp().mean(0).log() / sharpness if sharpness == 1.0 else None
        found[sharpness] = (head(x, valid)[0], slow, scores)
    torch.testing.assert_close(found[1.0][0], found[1.0][1])
    torch.testing.assert_close(found[1e-3][0], found[1e-3][2].mean(0), atol=1e-2, rtol=0)
    torch.testing.assert_close(found[1e3][0], found[1e3][2].amax(0), atol=1e-2, rtol=0)
    for options in ({"width": 4}, {"sharpness": 0.0}):
        with pytest.raises(ConfigError, match="expected"):
            PeakHead(3, 2, **options)


SMALL = partial(AttentionHead, width=16, hidden=32, heads=2, depth=1, dropout=0.0)


def on_frames(coding, head):
    """A head on an encoder whose layers are given."""
    return Downstream(torch.nn.Identity(), Probe([6], head(6, len(coding)), False), frozen=None)


class Batch(SimpleNamespace):
    """Frames as cached layers (B, T, 1, D), and tokens."""


def batch_of(coding, texts):
    torch.manual_seed(0)
    tokens = [torch.tensor(coding.encode(text)) for text in texts]
    lengths = torch.tensor([len(t) for t in tokens])
    padded = torch.nn.utils.rnn.pad_sequence(tokens, batch_first=True)
    layers = torch.randn(len(texts), 40, 1, 6)
    return Batch(layers=(layers, torch.ones(len(texts))), tokens=(padded, lengths / padded.shape[1]))


def test_a_decoder_that_attends_learns_what_it_is_shown_and_never_reads_the_reference():
    coding = TagSeq2Seq(ORDERS, beam=2)
    model = coding.model(partial(on_frames, coding), SMALL)
    batch, optimizer = batch_of(coding, ORDERS), torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(150):
        optimizer.zero_grad()
        loss, weight = coding.loss(*model.train()(batch), *batch.tokens)
        loss.backward()
        optimizer.step()
    assert int(weight) == sum(len(coding.encode(text)) + 1 for text in ORDERS), "ends included"
    model.eval()
    assert coding.decode(*model(batch)) == ORDERS
    shuffled = Batch(layers=batch.layers, tokens=(batch.tokens[0].flip(0), batch.tokens[1].flip(0)))
    assert coding.decode(*model(shuffled)) == ORDERS
    assert coding.unseen(["#pay <milk soy >"]) == {"#pay": 1, "<milk": 1}


def test_smoothing_and_ctc_are_for_training_alone():
    coding = TagSeq2Seq(ORDERS, label_smoothing=0.2, ctc_weight=0.5)
    model = coding.model(partial(on_frames, coding), SMALL)
    batch = batch_of(coding, ORDERS)
    trained = coding.loss(*model(batch), *batch.tokens)[0]
    output = model.eval()(batch)
    plain = attention_loss(output.logits, *batch.tokens, end=model.head.end)[0]
    assert coding.loss(*output, *batch.tokens)[0] == plain != trained
    assert TagSeq2Seq(ORDERS, ctc_weight=0).model(partial(on_frames, coding), SMALL).head.ctc is None


def test_heads_that_do_not_fit_a_coding_are_refused():
    for coding in (TagCTC(ORDERS), SlotClasses(ORDERS)):
        for head in (AttentionHead, SMALL):
            with pytest.raises(ConfigError, match="the head attends: expected lobes.probes.TagSeq2Seq"):
                coding.model(partial(on_frames, coding), head)
    with pytest.raises(ConfigError, match="expected lobes.probes.AttentionHead, which writes"):
        TagSeq2Seq(ORDERS).model(partial(on_frames, TagSeq2Seq(ORDERS)), partial(FrameLinear, dropout=0.1))
    with pytest.raises(ConfigError, match="ctc_weight is 1.5: expected a share"):
        TagSeq2Seq(ORDERS, ctc_weight=1.5)
