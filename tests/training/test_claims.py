"""A claim is had by one process at a time, and by another when that one is gone."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from lobes.training import claims
from lobes.training.claims import EXIT_LOST, Claim

FORK = multiprocessing.get_context("fork")


def claim_as(path: Path, **changes: object) -> None:
    """Write a claim of another process."""
    known = {"host": socket.gethostname(), "pid": os.getpid(), "started": claims._started(os.getpid())}
    path.write_text(json.dumps({**known, "time": time.time(), "token": "other", **changes}))


def work(path: Path, diary: Path, rounds: int) -> None:
    """Take and give up a claim many times; note when it was had and when given up."""
    for _ in range(rounds):
        claim = Claim(path, beat=0)
        if claim.take():
            with open(diary, "a") as file:
                file.write(f"+{os.getpid()}\n")
                file.flush()
                time.sleep(0.001)
                file.write(f"-{os.getpid()}\n")
            claim.release()


def hold(path: Path, seconds: float, **options: float) -> None:
    assert Claim(path, **options).take()
    time.sleep(seconds)


def inherit(path: Path, barrier: Any) -> None:
    """Try at the same time as others, and live until all have tried; leave with 0 who gets it."""
    barrier.wait(60)
    taken = Claim(path).take()
    barrier.wait(60)
    os._exit(0 if taken else 1)


def await_file(path: Path) -> None:
    until = time.monotonic() + 20
    while not path.exists() or not path.read_text():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_several_processes_never_have_it_at_once(tmp_path):
    processes = [FORK.Process(target=work, args=(tmp_path / "claim", tmp_path / "diary", 60)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    lines = (tmp_path / "diary").read_text().split()
    assert len(lines) >= 60 and all(process.exitcode == 0 for process in processes)
    for taken, given in zip(lines[::2], lines[1::2], strict=True):
        assert taken[0] == "+" and given == "-" + taken[1:], "taken and given up by turns"


def test_one_of_many_takes_over_from_the_dead(tmp_path):
    path = tmp_path / "claim"
    dead = FORK.Process(target=hold, args=(path, 60))
    dead.start()
    await_file(path)
    assert not Claim(path).take(), "its process lives"
    os.kill(dead.pid, signal.SIGKILL)
    while path.exists() and claims._alive(dead.pid):
        time.sleep(0.01)
    barrier = FORK.Barrier(4)
    heirs = [FORK.Process(target=inherit, args=(path, barrier)) for _ in range(4)]
    for heir in heirs:
        heir.start()
    for heir in heirs:
        heir.join(60)
    dead.join()
    assert sorted(heir.exitcode for heir in heirs) == [0, 1, 1, 1], "one of four"


def test_a_number_that_is_given_to_another_process_is_not_that_process(tmp_path):
    path = tmp_path / "claim"
    claim_as(path)
    assert not Claim(path).take() and Claim(path).holder().startswith(f"process {os.getpid()} on ")
    claim_as(path, started="12")
    assert Claim(path).take()


def test_another_host_is_believed_until_it_falls_silent(tmp_path):
    path = tmp_path / "claim"
    claim_as(path, host="elsewhere", pid=1)
    assert not Claim(path, stale=100).take()
    os.utime(path, (time.time() - 200,) * 2)
    assert Claim(path, stale=100).take() and json.loads(path.read_text())["pid"] == os.getpid()


@pytest.mark.parametrize("content", ["", '{"host": "x"', "[]"])
def test_a_claim_that_was_never_written_whole(tmp_path, content):
    path = tmp_path / "claim"
    path.write_text(content)
    assert not Claim(path).take() and Claim(path).holder() == "someone"
    os.utime(path, (time.time() - 61,) * 2)
    assert Claim(path).take()


def test_work_goes_on_while_it_beats(tmp_path):
    path = tmp_path / "claim"
    with Claim(path, beat=0.05) as claim:
        assert claim.held
        os.utime(path, (time.time() - 1e6,) * 2)
        time.sleep(0.3)
        assert not Claim(path, stale=100).take()
    assert not path.exists() and Claim(path).holder() == ""


def test_who_has_lost_its_work_stops(tmp_path):
    path = tmp_path / "claim"
    process = FORK.Process(target=hold, args=(path, 60), kwargs={"beat": 0.05})
    process.start()
    await_file(path)
    claim_as(path)
    process.join(30)
    assert process.exitcode == EXIT_LOST and json.loads(path.read_text())["token"] == "other"


def test_only_its_owner_gives_it_up(tmp_path):
    path = tmp_path / "claim"
    mine = Claim(path, beat=0)
    assert mine.take()
    claim_as(path)
    mine.release()
    assert path.exists()
