"""The attention head: padding, steps against one pass, its losses, and beam search against brute force."""

from __future__ import annotations

import itertools
import math
from types import SimpleNamespace

import pytest
import torch

from lobes.errors import ConfigError, DataError
from lobes.probes import (
    AttentionHead,
    Downstream,
    FrameLinear,
    Probe,
    Seq2Seq,
    Seq2SeqOutput,
    attention_loss,
    beam_search,
    ctc_loss,
    seq2seq_loss,
)
from lobes.probes.seq2seq import with_begin

DIM, VOCABULARY = 6, 5


def make_head(**options) -> AttentionHead:
    options = {"width": 16, "hidden": 24, "heads": 2, "depth": 2, "dropout": 0.3, **options}
    head = AttentionHead(DIM, VOCABULARY, **options).eval()
    # Away from the initial state, in which some of it is 0 or 1.
    head.norm.running_mean.normal_()
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return head


def make_mask(counts: list[int], n_frames: int) -> torch.Tensor:
    return torch.arange(n_frames) < torch.tensor(counts).unsqueeze(1)


@pytest.mark.parametrize("garbage", [1e4, math.nan])
@pytest.mark.parametrize(("subsample", "encoder_depth"), [(1, 0), (2, 1), (4, 2)])
@torch.no_grad()
def test_padding_of_frames_and_of_tokens_is_never_read(subsample, encoder_depth, garbage):
    head = make_head(subsample=subsample, encoder_depth=encoder_depth)
    counts, lengths = [13, 6, 5, 1, 0], [4, 2, 0, 3, 1]
    valid = make_mask(counts, 15)
    frames = torch.randn(len(counts), 15, DIM)
    tokens = torch.randint(1, VOCABULARY, (len(counts), 4))
    memory = head(frames.masked_fill(~valid.unsqueeze(-1), garbage), valid)
    memory_valid = head.memory_valid(valid)
    assert memory_valid.sum(1).tolist() == [math.ceil(count / subsample) for count in counts]
    assert memory.shape[:2] == memory_valid.shape and (memory[~memory_valid] == 0).all()
    spoilt = tokens.masked_fill(torch.arange(4) >= torch.tensor(lengths).unsqueeze(1), 10**6)
    inputs = with_begin(spoilt, torch.tensor(lengths), head.begin)
    together = head.decoder(inputs, memory, memory_valid)
    for row, (count, length) in enumerate(zip(counts, lengths, strict=True)):
        mask = make_mask([count], count)
        alone = head(frames[row : row + 1, :count], mask)
        real = int(memory_valid[row].sum())
        assert torch.allclose(alone[0, :real], memory[row, :real], atol=1e-5)
        own = with_begin(tokens[row : row + 1, :length], torch.tensor([length]), head.begin)
        logits = head.decoder(own, alone, head.memory_valid(mask))
        assert torch.isfinite(logits).all()
        assert torch.allclose(logits[0], together[row, : length + 1], atol=1e-5)


@torch.no_grad()
def test_step_by_step_equals_one_pass_and_sees_no_later_token():
    head = make_head(subsample=2, encoder_depth=1)
    valid = make_mask([9, 4], 9)
    memory, mask = head(torch.randn(2, 9, DIM), valid), head.memory_valid(valid)
    inputs = torch.cat([torch.full((2, 1), head.begin), torch.randint(0, VOCABULARY, (2, 6))], 1)
    logits = head.decoder(inputs, memory, mask)
    state = head.decoder.start(memory, mask)
    for place in range(7):
        log_probs, state = head.decoder.step(inputs[:, place], state)
        assert torch.allclose(log_probs, logits[:, place].log_softmax(-1), atol=1e-5)
        if place == 3:  # other rows: the second twice, in the first one's place too
            swapped = state.select(torch.tensor([1, 1, 0]))
            after, _ = head.decoder.step(inputs[[1, 1, 0], 4], swapped)
            assert torch.allclose(after, logits[[1, 1, 0], 4].log_softmax(-1), atol=1e-5)
    changed = inputs.clone()
    changed[:, 4:] = 1 + (changed[:, 4:] % 3)
    assert torch.equal(head.decoder(changed, memory, mask)[:, :4], logits[:, :4])


def slow_loss(logits, tokens, counts, end, smoothing):
    """Sum over symbols of -q log p, token by token; q is 1 for the target, smoothed over all symbols."""
    losses = []
    for row, count in enumerate(counts):
        for place, target in enumerate([*tokens[row][:count], end]):
            scores = logits[row][place]
            normaliser = math.log(sum(math.exp(score) for score in scores))
            for symbol, score in enumerate(scores):
                wanted = smoothing / len(scores) + (1 - smoothing) * (symbol == target)
                losses.append(-wanted * (score - normaliser))
    return sum(losses) / sum(count + 1 for count in counts)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_attention_loss_is_a_slow_loop(smoothing):
    logits = torch.randn(3, 5, 8, dtype=torch.float64)
    tokens, counts = torch.randint(1, 5, (3, 4)), [4, 0, 2]
    expected = slow_loss(logits.tolist(), tokens.tolist(), counts, 7, smoothing)
    spoilt = tokens.masked_fill(torch.arange(4) >= torch.tensor(counts).unsqueeze(1), 10**6)
    beyond = (torch.arange(5) > torch.tensor(counts).unsqueeze(1)).unsqueeze(-1)
    for lengths in (torch.tensor(counts), torch.tensor(counts) / 4):
        loss, weight = attention_loss(logits.masked_fill(beyond, math.nan), spoilt, lengths, 7, smoothing)
        assert float(loss) == pytest.approx(expected, abs=1e-5) and weight == 9
    with pytest.raises(DataError, match="tokens: 1000000, expected 0 to 7"):
        attention_loss(logits, spoilt, torch.tensor([4, 4, 4]), 7)


def test_ctc_is_joined_by_its_share():
    logits, ctc_logits, valid = torch.randn(2, 4, 8), torch.randn(2, 6, 5), make_mask([6, 1], 6)
    batch = SimpleNamespace(
        tokens=(torch.tensor([[1, 2, 3], [1, 1, 0]]), torch.tensor([1.0, 2 / 3])),
        source_tokens=(torch.tensor([[1, 2], [3, 3]]), torch.tensor([1.0, 1.0])),
    )
    output = Seq2SeqOutput(torch.zeros(2, 6, 4), valid, logits, ctc_logits)
    loss, weight = seq2seq_loss(output, batch, end=7, smoothing=0.1, ctc_weight=0.25)
    attention, _ = attention_loss(logits, *batch.tokens, end=7, smoothing=0.1)
    ctc = ctc_loss(ctc_logits, valid, *batch.source_tokens)
    assert ctc.excluded == 1, "one frame cannot hold two tokens"
    assert float(loss) == pytest.approx(float(0.75 * attention + 0.25 * ctc.loss / 7), abs=1e-6) and weight == 7
    with pytest.raises(ConfigError, match="ctc_weight is 0.25"):
        seq2seq_loss(output._replace(ctc_logits=None), batch, end=7, ctc_weight=0.25)


class Table:
    """A model of random log-probabilities that depend on all tokens before, for a `beam_search`; rows are prefixes."""

    def __init__(self, n_symbols: int, rows: list[tuple[int, ...]], seeds: list[int]) -> None:
        self.n_symbols, self.rows, self.seeds = n_symbols, rows, seeds

    def select(self, rows, same_memory=False):
        seeds = self.seeds if same_memory else [self.seeds[int(row)] for row in rows]
        return Table(self.n_symbols, [self.rows[int(row)] for row in rows], seeds)

    def log_probs(self, seed: int, prefix: tuple[int, ...]) -> torch.Tensor:
        generator = torch.Generator().manual_seed(hash((seed, prefix)) % 2**31)
        return (2 * torch.randn(self.n_symbols, generator=generator, dtype=torch.float64)).log_softmax(-1)

    @staticmethod
    def step(tokens, state):
        rows = [(*prefix, int(token)) for prefix, token in zip(state.rows, tokens, strict=True)]
        after = Table(state.n_symbols, rows, state.seeds)
        found = [after.log_probs(seed, prefix) for seed, prefix in zip(after.seeds, rows, strict=True)]
        return torch.stack(found), after


BEGIN, END, BLANK = 4, 5, 0


def score_of(seed: int, tokens: tuple[int, ...], power: float) -> float:
    table = Table(6, [], [])
    prefixes = [(BEGIN, *tokens[:place]) for place in range(len(tokens) + 1)]
    total = sum(float(table.log_probs(seed, p)[t]) for p, t in zip(prefixes, [*tokens, END], strict=True))
    return total / (len(tokens) + 1) ** power


@pytest.mark.parametrize("power", [0.0, 0.6, 1.0])
def test_a_wide_beam_finds_what_brute_force_finds(power):
    seeds, limits = list(range(8)), [3, 2, 0, 1] * 2
    found = beam_search(
        Table.step,
        Table(6, [()] * 8, seeds),
        limits,
        begin=BEGIN,
        end=END,
        beam=3**3 * 4,
        length_power=power,
        forbidden=[BLANK],
    )
    lengths = []
    for seed, limit, hypothesis in zip(seeds, limits, found, strict=True):
        every = itertools.chain.from_iterable(itertools.product((1, 2, 3), repeat=n) for n in range(limit + 1))
        best = max(every, key=lambda tokens: score_of(seed, tokens, power))
        assert tuple(hypothesis.tokens) == best
        assert hypothesis.score == pytest.approx(score_of(seed, best, power), abs=1e-5)
        lengths.append(len(best))
    assert power == 0 or max(lengths) > 1, "normalised by length, some are longer"


def test_a_beam_of_one_is_greedy_and_utterances_do_not_disturb_each_other():
    seeds, limits = list(range(20)), [7, 2] * 10

    def search(chosen: list[int], beam: int):
        table = Table(6, [()] * len(chosen), [seeds[i] for i in chosen])
        given = [limits[i] for i in chosen]
        return beam_search(Table.step, table, given, begin=BEGIN, end=END, beam=beam, forbidden=[BLANK])

    for seed, limit, hypothesis in zip(seeds, limits, search(list(range(20)), 1), strict=True):
        written: list[int] = []
        while len(written) < limit:
            best = Table(6, [], []).log_probs(seed, (BEGIN, *written)).masked_fill(torch.arange(6) % 4 == 0, -math.inf)
            if int(best.argmax()) == END:
                break
            written.append(int(best.argmax()))
        assert hypothesis.tokens == written
    together = search(list(range(20)), 3)
    assert together == [search([i], 3)[0] for i in range(20)]
    greedy, wide = search(list(range(20)), 1), search(list(range(20)), 4)
    assert sum(h.score for h in wide) > sum(h.score for h in greedy)
    with pytest.raises(ConfigError, match="beam is 0"):
        search([0], 0)


def test_the_head_learns_to_copy_and_writes_it_with_either_beam():
    """Frames are one-hot symbols, each three times; the text is the symbols, so that attention must move along."""
    torch.manual_seed(0)
    head = AttentionHead(DIM, VOCABULARY, width=32, hidden=64, heads=2, depth=1, dropout=0.0, subsample=1)
    tokens = torch.randint(1, VOCABULARY, (64, 4))
    frames = torch.nn.functional.one_hot(tokens, DIM).float().repeat_interleave(3, dim=1)
    valid = torch.ones(64, 12, dtype=torch.bool)
    optimizer = torch.optim.Adam(head.parameters(), 0.01)
    counts = torch.full((64,), 4)
    for _ in range(120):
        logits = head.decoder(with_begin(tokens, counts, head.begin), head(frames, valid), valid)
        loss, _ = attention_loss(logits, tokens, counts, head.end)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    head.eval()
    with torch.no_grad():
        memory = head(frames, valid)
    for beam in (1, 4):
        found = [hypothesis.tokens for hypothesis in head.search(memory, valid, beam=beam, max_tokens=9)]
        right = sum(ours == theirs for ours, theirs in zip(found, tokens.tolist(), strict=True))
        assert right > 57, f"{right} of 64 with a beam of {beam}"
    few = head.search(memory[:2], valid[:2], tokens_per_frame=0.1)
    assert [len(hypothesis.tokens) for hypothesis in few] == [2, 2], "12 frames, a tenth of a token each"


def test_options_that_do_not_fit_are_one_line():
    with pytest.raises(ConfigError, match="subsample is 3: expected a power of 2"):
        AttentionHead(DIM, 5, subsample=3)
    with pytest.raises(ConfigError, match="heads is 3: expected a divisor of width=16"):
        AttentionHead(DIM, 5, width=16, heads=3)
    with pytest.raises(ConfigError, match="head is FrameLinear"):
        Seq2Seq(Downstream(torch.nn.Linear(1, 1), Probe([DIM], FrameLinear(DIM, 5))))
