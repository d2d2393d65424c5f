"""What every strategy keeps, and what each is for."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from lobes.errors import ConfigError, DataError
from lobes.selection import (
    FLMI,
    FLQMI,
    ByColumn,
    ClusterBalance,
    ContrastiveLM,
    Duration,
    FacilityLocation,
    InRange,
    Longest,
    NoDuplicates,
    Pool,
    Random,
    RandomAsLong,
    Strategy,
    TargetKNN,
    TargetLM,
    UnitKL,
    Units,
    read_pool,
    select,
    shift_test,
    submodular,
    with_scores,
    write_pool,
)
from lobes.selection.neighbours import centred, clusters
from lobes.selection.submodular import greedy

STRATEGIES: list[Strategy] = [
    Random(),
    RandomAsLong(),
    Longest(),
    ByColumn("snr_db"),
    ContrastiveLM(),
    TargetLM(),
    UnitKL(candidates=30),
    TargetKNN(),
    ClusterBalance(n_clusters=6),
    FacilityLocation(of=80),
    FLQMI(),
    FLMI(of=300),
]
#: FLMI represents what the target is near to, and so need not choose only what is of its kind: a test of its own.
TARGETED = [s for s in STRATEGIES if s.needs_target and not isinstance(s, (RandomAsLong, FLMI))]


def made(count: int, kinds: int, seed: int, prefix: str, only: int | None = None) -> Pool:
    """Utterances of some kinds, each with its favourite units and its corner of the embedding space."""
    random = np.random.default_rng(seed)
    kind = np.full(count, only) if only is not None else random.integers(0, kinds, count)
    lengths = random.integers(10, 40, count)
    favourite = [np.where(random.random(n) < 0.7, k * 4 + random.integers(0, 4, n), random.integers(0, 4 * kinds, n)) for n, k in zip(lengths, kind, strict=True)]  # fmt: skip  # noqa: E501
    corners = np.eye(kinds)[kind] + 0.3 * random.standard_normal((count, kinds))
    return Pool(
        [f"{prefix}{i:04d}" for i in range(count)],
        lengths / 10.0,
        [f"speaker{k}" for k in kind],
        Units.of(favourite),
        corners,
        {"snr_db": random.normal(20, 5, count), "kind": kind},
    )


@pytest.fixture
def pool() -> Pool:
    return made(400, 5, 0, "pool")


@pytest.fixture
def target() -> Pool:
    return made(25, 5, 1, "target", only=2)


@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda strategy: type(strategy).__name__)
def test_a_strategy_fills_the_budget_and_repeats_itself(strategy, pool, target):
    chosen = select(pool, target, 60.0, strategy, seed=3)
    assert 60.0 - pool.seconds.max() < chosen.seconds <= 60.0
    assert len(set(chosen.indices)) == len(chosen.indices)
    assert chosen.pool.ids.tolist() == pool.ids[chosen.indices].tolist()
    again = select(pool, target, 60.0, strategy, seed=3)
    assert again.indices.tolist() == chosen.indices.tolist()
    order = strategy.order(pool, target, 60.0, 3)
    assert sorted(order.tolist()) == list(range(400)), "all of the pool is ranked"
    text = chosen.provenance["strategy"]
    assert text.startswith(type(strategy).__name__) and chosen.provenance["utterances"] == len(chosen.indices)


@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda strategy: type(strategy).__name__)
def test_a_cap_holds_for_each_group(strategy, pool, target):
    chosen = select(pool, target, 60.0, strategy, cap=0.25, seed=0)
    for group in np.unique(chosen.pool.groups):
        assert chosen.pool.seconds[chosen.pool.groups == group].sum() <= 15.0 + 1e-9
    assert chosen.seconds > 54.0


def test_a_cap_may_count_by_cluster(pool, target):
    """Fifty clusters of five kinds: a target of one kind has to be met from other corners too."""
    free, capped = (select(pool, target, 60.0, TargetKNN(), cap=cap, cap_by="cluster") for cap in (None, 0.05))
    label = clusters(centred(pool, None, "test")[0], 50, 0)
    most = [max(np.bincount(label[found.indices], weights=found.pool.seconds)) for found in (free, capped)]
    assert most[0] > 3.0 and most[1] <= 3.0 + 1e-9 and capped.provenance["left_out_by_cap"] > 0
    with pytest.raises(ConfigError, match="cap_by is 'speaker': expected group or cluster"):
        select(pool, target, 60.0, TargetKNN(), cap=0.1, cap_by="speaker")


@pytest.mark.parametrize("strategy", TARGETED, ids=lambda strategy: type(strategy).__name__)
def test_a_targeted_strategy_finds_what_the_target_is_of(strategy, pool, target):
    chosen = select(pool, target, 20.0, strategy, seed=0)
    assert (chosen.pool.columns["kind"] == 2).mean() > 0.6, "chance is 0.2"


@pytest.mark.parametrize(
    "strategy", [ContrastiveLM(), TargetLM(), TargetKNN(), FacilityLocation(of=400), FLMI(of=400), Longest()]
)
def test_a_rank_does_not_depend_on_the_order_of_the_pool(strategy, pool, target):
    mixed = np.random.default_rng(9).permutation(len(pool))
    first = select(pool, target, 60.0, strategy)
    other = select(pool.take(mixed), target, 60.0, strategy)
    assert len(set(first.pool.ids) & set(other.pool.ids)) >= len(first.indices) - 2, "but for ties"


def test_longest_and_columns_take_the_extremes(pool):
    chosen = select(pool, None, 50.0, Longest())
    assert chosen.pool.seconds.min() >= np.sort(pool.seconds)[-len(chosen.indices)]
    low = select(pool, None, 50.0, ByColumn("snr_db", largest=False))
    assert low.pool.columns["snr_db"].max() <= np.sort(pool.columns["snr_db"])[len(low.indices)]


def test_lengths_of_the_target_are_matched(pool):
    long = made(60, 5, 4, "t")
    long = long.take(np.flatnonzero(long.seconds > 2.5))
    chosen = select(pool, long, 80.0, RandomAsLong())
    assert chosen.pool.seconds.mean() > 2.6 > pool.seconds.mean() + 0.1


def test_clusters_are_balanced():
    random = np.random.default_rng(0)
    kind = np.concatenate([np.zeros(800, dtype=int), random.integers(0, 5, 400)])
    corners = np.eye(5)[kind] + 0.02 * random.standard_normal((1200, 5))
    pool = Pool([str(i) for i in range(1200)], np.ones(1200), embeddings=corners, columns={"kind": kind})
    chosen = select(pool, None, 100.0, ClusterBalance(n_clusters=5))
    assert np.bincount(chosen.pool.columns["kind"], minlength=5).tolist() == [20] * 5, (
        "of which one is ten times as large"
    )


def test_unit_distribution_comes_near_the_target(pool, target):
    def distance(part: Pool) -> float:
        p, q = (np.bincount(x.units.collapsed().values, minlength=20) + 0.5 for x in (target, part))
        p, q = p / p.sum(), q / q.sum()
        return float((p * np.log(p / q)).sum())

    by_units, at_random = (select(pool, target, 60.0, s) for s in (UnitKL(), Random()))
    assert distance(by_units.pool) < 0.5 * distance(at_random.pool)


def test_lazy_greedy_is_greedy():
    random = np.random.default_rng(0)
    similar, bonus, lengths = random.random((30, 12)), random.random(30), random.uniform(1, 3, 30)
    order = greedy(similar, bonus, lengths, 1e9, np.random.default_rng(1))
    covered, left, expected = np.zeros(12), list(range(30)), []
    while left:
        gains = [np.maximum(similar[j] - covered, 0).sum() + bonus[j] for j in left]
        best = left.pop(int(np.argmax(gains)))
        expected.append(best)
        covered = np.maximum(covered, similar[best])
    # Once everything is covered, the bonus decides: equal in both.
    assert order.tolist() == expected


def test_facility_location_is_nearly_the_best_of_all():
    random = np.random.default_rng(2)
    vectors = random.standard_normal((12, 3))
    pool = Pool([str(i) for i in range(12)], np.ones(12), embeddings=vectors)
    chosen = select(pool, None, 3.0, FacilityLocation())
    centred = vectors - vectors.mean(0)
    unit = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    similar = np.maximum(unit @ unit.T, 0)

    def value(members) -> float:
        return similar[list(members)].max(0).sum()

    best = max(value(members) for members in itertools.combinations(range(12), 3))
    assert value(chosen.indices) >= (1 - 1 / np.e) * best and value(chosen.indices) >= 0.9 * best


def cosines(pool: Pool, target: Pool) -> tuple[np.ndarray, np.ndarray]:
    """Of the pool with itself and with the target, without the pool's mean, 0 at least, one by one."""
    mean = pool.embeddings.mean(0)
    units = [[(x - mean) / np.linalg.norm(x - mean) for x in part.embeddings] for part in (pool, target)]
    return tuple(np.array([[max(0.0, float(a @ b)) for b in part] for a in units[0]]) for part in units)


def slow_flmi(members, within: np.ndarray, to_target: np.ndarray, relevance: float) -> float:
    """Iyer et al. 2021, with η."""
    total = 0.0
    for i in range(len(within)):
        ours = max((within[i, j] for j in members), default=0.0)
        total += min(ours, relevance * max(to_target[i]))
    return total


@pytest.mark.parametrize("relevance", [0.4, 1.0, 3.0])
def test_flmi_is_the_greedy_choice_by_its_equation(relevance):
    pool, target = made(40, 4, 3, "pool"), made(6, 4, 4, "target", only=1)
    similar = cosines(pool, target)
    order = FLMI(relevance=relevance).order(pool, target, pool.total_seconds, 0).tolist()
    taken: list[int] = []
    for chosen in order:
        before = slow_flmi(taken, *similar, relevance)
        gains = {j: slow_flmi([*taken, j], *similar, relevance) - before for j in range(40) if j not in taken}
        assert gains[chosen] == pytest.approx(max(gains.values()), abs=1e-5)
        taken.append(chosen)
    values = [slow_flmi(order[:count], *similar, relevance) for count in range(41)]
    first = values[-1] if relevance > 1 else sum(relevance * similar[1].max(1))
    assert values[-1] == pytest.approx(first, rel=1e-5), "all of the pool is worth what the target is to it"
    assert values[1] > 0.1 * values[-1] and len({round(value, 4) for value in values}) > 4


@pytest.mark.parametrize("seed", range(5))
def test_flmi_is_monotone_and_submodular(seed):
    """By the values that the strategy's own similarities give: `greedy` maximises nothing else."""
    pool, target = made(30, 3, seed, "pool"), made(5, 3, seed + 50, "target")
    similar, random = cosines(pool, target), np.random.default_rng(seed)
    for _ in range(20):
        large = random.permutation(30)[: random.integers(2, 20)].tolist()
        small, added = large[: random.integers(0, len(large))], int(random.permutation(30)[0])
        gains = [slow_flmi({*of, added}, *similar, 0.7) - slow_flmi(of, *similar, 0.7) for of in (small, large)]
        assert gains[0] >= gains[1] - 1e-9 and gains[1] >= -1e-9


def test_flmi_leaves_alone_what_the_target_is_not(pool, target):
    """Facility location represents both corners; with a target in one of them, the other counts for nothing."""
    kinds = [select(pool, target, 60.0, s).pool.columns["kind"] for s in (FLMI(), FacilityLocation())]
    assert (kinds[0] == 2).mean() > 0.5 and (kinds[1] == 2).mean() < 0.3, "chance is 0.2"
    random = np.random.default_rng(0)
    corner = np.repeat([[1.0, 0.0], [-1.0, 0.0]], 50, axis=0)
    pool = Pool([f"{i}" for i in range(100)], np.ones(100), embeddings=corner + 0.3 * random.standard_normal((100, 2)))
    target = Pool(["t"], [1.0], embeddings=[[1.0, 0.1]])
    targeted, all_of_it = (select(pool, target, 4.0, s).indices for s in (FLMI(), FacilityLocation()))
    assert min(all_of_it) < 50 <= max(all_of_it)
    assert targeted[0] < 50 and FLMI().order(pool, target, 4.0, 0)[0] == targeted[0]
    for wrong in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(ConfigError, match="FLMI: relevance is"):
            FLMI(relevance=wrong).order(pool, target, 4.0, 0)
    with pytest.raises(ConfigError, match="FLMI: of is 0; expected 1 or more"):
        FLMI(of=0).order(pool, target, 4.0, 0)


def test_similarities_are_never_those_of_all_with_all(monkeypatch, pool, target):
    shapes = []

    def noted(similar, *rest):
        shapes.append(similar.shape)
        return greedy(similar, *rest)

    monkeypatch.setattr(submodular, "greedy", noted)
    for strategy in (FLMI(of=30), FacilityLocation(of=30)):
        select(pool, target, 60.0, strategy)
    assert shapes == [(400, 30)] * 2


def test_flmi_is_that_of_submodlib():
    submodlib = pytest.importorskip("submodlib")
    pool, target = made(60, 4, 5, "pool"), made(7, 4, 6, "target", only=1)
    within, to_target = cosines(pool, target)
    # By place: what is last, η, has had two names.
    kernels = (60, 7, within, to_target, None, None, "cosine", 0.8)
    theirs = submodlib.FacilityLocationMutualInformationFunction(*kernels)
    order = FLMI(relevance=0.8).order(pool, target, pool.total_seconds, 0).tolist()
    for count in (1, 2, 4, 8):
        value = slow_flmi(order[:count], within, to_target, 0.8)
        assert theirs.evaluate(set(order[:count])) == pytest.approx(value, rel=1e-4)
    found = theirs.maximize(budget=4, optimizer="NaiveGreedy", stopIfZeroGain=False, stopIfNegativeGain=False)
    chosen = [index for index, _ in found]
    values = [slow_flmi(members, within, to_target, 0.8) for members in (chosen, order[:4])]
    assert values[0] == pytest.approx(values[1], rel=1e-4)


def test_the_nearest_neighbours_of_each_target_come_first(pool, target):
    order = TargetKNN(k=3).order(pool, target, 10.0, 0)
    mean = pool.embeddings.mean(0)
    unit = [part - mean for part in (pool.embeddings, target.embeddings)]
    unit = [part / np.linalg.norm(part, axis=1, keepdims=True) for part in unit]
    nearest = (unit[1] @ unit[0].T).argmax(1)
    first = len(set(nearest.tolist()))
    assert set(order[:first].tolist()) == set(nearest.tolist())


def test_filters_leave_out_and_are_counted(pool):
    twice = pool.take(np.arange(0, 10))
    from dataclasses import replace

    from lobes.selection import concatenate

    copies = concatenate([pool, replace(twice, ids=[f"zz{i}" for i in range(10)])])
    filters = [Duration(1.5, 3.5), InRange("snr_db", low=15.0), NoDuplicates()]
    chosen = select(copies, None, 100.0, Random(), filters=filters)
    assert chosen.pool.seconds.min() >= 1.5 and chosen.pool.seconds.max() <= 3.5
    assert chosen.pool.columns["snr_db"].min() >= 15.0
    assert NoDuplicates().keep(copies).tolist() == [True] * 400 + [False] * 10
    assert [name.split(":")[1].split("(")[0].strip() for name in chosen.provenance["filters"]] == [
        "Duration",
        "InRange",
        "NoDuplicates",
    ]
    assert sum(chosen.provenance["filters"].values()) > 50
    with pytest.raises(DataError, match="filters leave"):
        select(copies, None, 700.0, Random(), filters=filters)


def test_shift_is_seen_where_there_is_one(pool, target):
    shift = shift_test(pool, target)
    assert shift.warranted and shift.auc > 0.8 and shift.p_value <= 0.01 and "choose by the target" in shift.advice
    same = [shift_test(pool, made(25, 5, seed, "other"), seed=seed) for seed in range(100, 112)]
    assert not any(shift.warranted for shift in same) and "at random" in same[0].advice
    assert 0.35 < np.mean([shift.auc for shift in same]) < 0.65


def test_nothing_is_scored_by_a_model_that_was_counted_on_it(pool, target):
    """Else what was counted seems likely in general, and is passed over."""
    chosen = np.zeros(2)
    for seed in range(20):
        models = ContrastiveLM().models(pool, target, seed)
        counted = np.isin(pool.ids, list(models.counted))
        assert counted.sum() == 200
        order = np.argsort(-models.scores(pool))[:100]
        chosen += counted[order].sum(), (~counted[order]).sum()
    assert 0.45 < chosen[0] / chosen.sum() < 0.55
    assert np.isfinite(ContrastiveLM().scores(pool.take([0]), target, 0)).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seconds": 1e6}, "the budget is 1e"),
        ({"seconds": 0.0}, "expected a positive budget"),
        ({"target": None}, "the target is empty"),
        ({"cap": 2.0}, "cap is 2.0"),
        ({"strategy": ByColumn("loss")}, "needs the column 'loss'; the pool has snr_db, kind"),
    ],
)
def test_what_cannot_be_chosen_is_named(change, message, pool, target):
    given = {"target": target, "seconds": 60.0, "strategy": TargetKNN(), "cap": None} | change
    with pytest.raises((ConfigError, DataError), match=message):
        select(pool, given["target"], given["seconds"], given["strategy"], cap=given["cap"])


def test_a_target_out_of_the_pool_and_a_pool_without_features_are_refused(pool, target):
    with pytest.raises(DataError, match="25 of 25 utterances of the target are in the pool, 'pool0000' first"):
        select(pool, pool.take(np.arange(25)), 60.0, TargetKNN())
    bare = Pool(pool.ids, pool.seconds)
    with pytest.raises(ConfigError, match="ContrastiveLM: needs discrete units"):
        select(bare, target, 60.0, ContrastiveLM())
    with pytest.raises(ConfigError, match="FacilityLocation: needs embeddings"):
        select(bare, None, 60.0, FacilityLocation())
    narrow = Pool(["t"], [1.0], embeddings=[[1.0, 2.0]])
    with pytest.raises(ConfigError, match="have 5 dimensions, those of the target 2"):
        select(pool, narrow, 60.0, TargetKNN())


def test_pools_go_through_parquet(pool, tmp_path):
    files = write_pool(pool, tmp_path / "shards", rows_per_shard=150)
    assert [file.name for file in files] == ["00000.parquet", "00001.parquet", "00002.parquet"]
    for path in (tmp_path / "shards", write_pool(pool, tmp_path / "one.parquet")[0]):
        found = read_pool(path)
        assert found.ids.tolist() == pool.ids.tolist() and found.groups.tolist() == pool.groups.tolist()
        assert found.units.values.tolist() == pool.units.values.tolist()
        assert found.units.offsets.tolist() == pool.units.offsets.tolist()
        assert np.array_equal(found.embeddings, pool.embeddings) and np.array_equal(found.seconds, pool.seconds)
        assert found.columns["kind"].tolist() == pool.columns["kind"].tolist()
        assert found.checksum == pool.checksum
    light = read_pool(tmp_path / "shards", columns=["snr_db"])
    assert light.units is None and light.embeddings is None and list(light.columns) == ["snr_db"]
    with pytest.raises(DataError, match="has no column 'loss'"):
        read_pool(tmp_path / "shards", columns=["loss"])
    (tmp_path / "broken.parquet").write_bytes(b"no parquet")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        read_pool(tmp_path / "broken.parquet")
    with pytest.raises(DataError, match="holds no .parquet"):
        read_pool(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ids": ["a", "a"]}, "id 'a' occurs 2 times"),
        ({"ids": []}, "holds no utterance"),
        ({"seconds": [1.0, 0.0]}, "b has 0.0 seconds"),
        ({"seconds": [1.0]}, "seconds has 1 rows, ids 2"),
        ({"embeddings": [[1.0], [np.nan]]}, "the embedding of b"),
    ],
)
def test_a_bad_pool_is_named(change, message):
    with pytest.raises(DataError, match=message):
        Pool(**({"ids": ["a", "b"], "seconds": [1.0, 2.0]} | change))


def test_scores_of_a_file_become_columns_by_id(tmp_path):
    path = tmp_path / "scores.csv"
    path.write_text("id,proxy_loss\nz,9\nb,0.5\na,2e-1\n")
    pool = with_scores(Pool(["a", "b"], [1.0, 2.0]), path)
    assert pool.columns["proxy_loss"].tolist() == [0.2, 0.5]
    assert select(pool, None, 2.0, ByColumn()).pool.ids.tolist() == ["b"]
    assert select(pool, None, 1.0, ByColumn(largest=False)).pool.ids.tolist() == ["a"]
    with pytest.raises(DataError, match="1 of 2 utterances of the pool are not there, such as 'c'"):
        with_scores(Pool(["a", "c"], [1.0, 2.0]), path)
    path.write_text("id,proxy_loss\na,low\n")
    with pytest.raises(DataError, match="column proxy_loss: .*'low'"):
        with_scores(Pool(["a"], [1.0]), path)
    with pytest.raises(DataError, match="none.csv: .*expected a csv with the column id"):
        with_scores(Pool(["a"], [1.0]), tmp_path / "none.csv")
