"""The model of docs/scaling.md: its arithmetic, on inputs whose answers can be had by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.scaling import Costs, Place, Spans, conversion, opening, scan, tasks_in_turn

COSTS = Costs(
    task_s=0.001,
    decode_s=0.002,
    encode_s=0.01,
    mask_bytes=1000,
    entry_bytes=2000,
    step_bytes=100,
    column_bytes=10,
    label_bytes=1,
    root_bytes=50,
    fixed_root_bytes=20_000,
    root_s=1e-6,
    label_s=1e-7,
    check_s=1e-4,
    commit_s=2e-4,
    commit_shard_s=1e-3,
)
NEAR = Place(latency_s=0.1, bandwidth=1e12, gets_a_second=1e9, puts_a_second=1e9, max_concurrency=4)


def test_spans_hold_each_mask_once() -> None:
    tasks = list(Spans(1000, 64, 4).tasks())
    assert [len(task) for task in tasks] == [4, 4, 4, 4]
    assert sum(map(sum, tasks)) == 1000
    assert tasks[-1][-1] == 1000 - 15 * 64


def test_one_worker_does_one_task_after_the_other() -> None:
    # Four tasks: a turn of the scheduler, a request of 0.1 s, 64 masks of 2 ms.
    found = scan(Spans(256), COSTS, NEAR)
    assert found.parts_s["workers"] == pytest.approx(4 * (0.001 + 0.1 + 64 * 0.002), abs=1e-4)
    assert found.total_s == pytest.approx(found.parts_s["workers"] + found.parts_s["open"])


def test_shards_of_a_task_are_asked_for_at_once() -> None:
    together = scan(Spans(6 * 64, 64, 6), COSTS, NEAR)
    # Six shards, four at once: two rounds.
    assert together.parts_s["workers"] == pytest.approx(0.001 + 2 * 0.1 + 6 * 0.128, abs=1e-4)


def test_workers_divide_what_the_scheduler_does_not_hold_up() -> None:
    # Worker k begins after k turns of the scheduler.
    found = scan(Spans(256), COSTS, replace(NEAR, n_workers=4))
    assert found.parts_s["workers"] == pytest.approx(4 * 0.001 + 0.1 + 0.128, abs=1e-4)


def test_one_worker_waits_for_answers() -> None:
    found = scan(Spans(256), replace(COSTS, decode_s=0.001), NEAR)
    assert found.limits_s["waiting"] == pytest.approx(4 * 0.1)
    assert found.limit == "waiting"


def test_with_many_workers_the_scheduler_is_the_limit() -> None:
    slow = replace(COSTS, task_s=0.01)
    found = scan(Spans(64_000), slow, replace(NEAR, n_workers=1000))
    assert found.parts_s["workers"] == pytest.approx(1000 * 0.01 + 0.1 + 0.128, abs=1e-3)
    assert found.limit == "scheduler"


def test_the_bucket_may_be_the_limit() -> None:
    slow = replace(NEAR, n_workers=1000, gets_a_second=50)
    found = scan(Spans(64_000), COSTS, slow)
    assert found.parts_s["workers"] == pytest.approx(1000 / 50 + 0.1 + 0.128, abs=0.01)
    assert found.limit == "bucket"


def test_a_shard_is_written_while_the_next_one_is_encoded() -> None:
    # 0.64 s for each of four shards; the last one's two requests are waited for.
    found = conversion(Spans(256, 64, 4), COSTS, NEAR)
    assert found.parts_s["workers"] == pytest.approx(0.001 + 4 * 0.64 + 2 * 0.1, abs=1e-4)
    assert found.parts_s["source"] == pytest.approx(256e-4)


def test_the_commit_does_not_get_shorter_with_more_workers() -> None:
    alone, many = (
        conversion(Spans(1_000_000, 64, 4), COSTS, replace(NEAR, n_workers=n)) for n in (1, 1000)
    )
    assert alone.parts_s["commit"] == many.parts_s["commit"]
    # Three requests a shard, four at once; and what is computed.
    waiting = -(-3 * 15_625 // 4) * 0.1
    assert many.parts_s["commit"] == pytest.approx(waiting + 15_625e-3 + 200, rel=1e-3)
    assert many.limit == "commit"


def test_what_does_not_depend_on_the_masks_is_added() -> None:
    place = replace(NEAR, write_s=0.05)
    few, more = (
        conversion(Spans(64), costs, place)
        for costs in (COSTS, replace(COSTS, first_s=1.5, rounds=20))
    )
    assert more.total_s - few.total_s == pytest.approx(1.5 + 20 * 0.1)
    assert few.parts_s["workers"] == pytest.approx(0.001 + 0.64 + 2 * 0.15, abs=1e-4)


def test_busy_cores_prolong_what_is_computed_and_nothing_else() -> None:
    twice = COSTS.on_busy_cores(2)
    assert (twice.decode_s, twice.commit_shard_s) == (0.004, 2e-3)
    assert (
        replace(twice, **{name: value for name, value in vars(COSTS).items() if name[-2:] == "_s"})
        == COSTS
    )


def test_opening_asks_again_where_the_labels_are_long() -> None:
    few, many = (opening(Spans(n), COSTS, NEAR) for n in (100_000, 200_000))
    assert few.parts_s["requests"] == pytest.approx(0.1, abs=1e-4)
    assert many.parts_s["requests"] == pytest.approx(0.2, abs=1e-4)
    assert many.parts_s["labels"] == pytest.approx(0.02)


def test_a_step_begins_when_the_one_before_has_ended() -> None:
    begun: list[float] = []

    def step(now: float) -> float:
        begun.append(now)
        return now + 1

    assert tasks_in_turn([[[step, step], [step]]], n_workers=2, task_s=0.5) == 2.5
    assert begun == [0.5, 1.5, 1.5]
