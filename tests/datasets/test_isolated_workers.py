"""Tasks in processes of which some hang, die or raise."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from eaglenet_mm.datasets.isolated_workers import run_isolated
from tests.datasets.video_readers.backends import few
from tests.started import start


def act(task: str) -> str:
    if task == 'hang':
        time.sleep(60)
    if task == 'die':
        os.kill(os.getpid(), signal.SIGKILL)
    if task == 'leave':
        os._exit(3)
    if task == 'raise':
        raise KeyError('what I looked for')
    return f'{task} done'


@pytest.mark.parametrize('num_workers', few([3, 1], 1))
def test_the_others_go_on(num_workers: int) -> None:
    tasks = ['a', 'hang', 'b', 'die', 'c', 'leave', 'd', 'hang', 'e']
    begin = time.monotonic()
    outcomes = {
        outcome.index: outcome
        for outcome in run_isolated(
            act, tasks, num_workers=num_workers, time_limit=1.0
        )
    }
    assert time.monotonic() - begin < 20
    assert sorted(outcomes) == list(range(9))
    for index, task in enumerate(tasks):
        outcome = outcomes[index]
        if task == 'hang':
            assert outcome.kind == 'hang'
            assert outcome.detail == 'stood still for 1 seconds'
        elif task in ('die', 'leave'):
            assert outcome.kind == 'crash'
            reason = 'SIGKILL' if task == 'die' else 'exit code 3'
            assert reason in outcome.detail
        else:
            assert outcome.kind == 'done'
            assert outcome.value == f'{task} done'


def test_errors_of_the_function_are_raised() -> None:
    with pytest.raises(RuntimeError, match='what I looked for'):
        list(run_isolated(act, ['raise'], num_workers=1, time_limit=0))


def test_no_tasks() -> None:
    assert list(run_isolated(act, [], num_workers=2, time_limit=0)) == []


@pytest.mark.parametrize(('num_workers', 'limit'), [(-1, 1), (1, -1)])
def test_impossible_numbers(num_workers: int, limit: float) -> None:
    with pytest.raises(ValueError, match='at least 0 workers'):
        list(run_isolated(act, [], num_workers=num_workers, time_limit=limit))


def test_without_workers_in_this_process() -> None:
    outcomes = list(
        run_isolated(identity, range(2), num_workers=0, time_limit=9)
    )
    assert [outcome.index for outcome in outcomes] == [0, 1]
    assert {outcome.value for outcome in outcomes} == {os.getpid()}


def identity(task: object) -> int:
    return os.getpid()


def test_processes_serve_many_tasks_and_end() -> None:
    outcomes = list(
        run_isolated(identity, range(50), num_workers=2, time_limit=9)
    )
    pids = {outcome.value for outcome in outcomes}
    assert len(pids) == 2
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_worker_that_died_idle_is_replaced() -> None:
    running = run_isolated(identity, range(3), num_workers=1, time_limit=9)
    first = next(running).value
    os.kill(first, signal.SIGKILL)
    time.sleep(0.3)
    others = list(running)
    # it had been given its next task, or dies before it gets one
    assert {outcome.kind for outcome in others} <= {'done', 'crash'}
    assert others[-1].kind == 'done'
    assert others[-1].value != first


def test_giving_up_ends_the_processes() -> None:
    running = run_isolated(identity, range(9), num_workers=2, time_limit=9)
    pid = next(running).value
    running.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def tell_and_wait(file: Path) -> None:
    with file.open('a') as told:
        told.write(f'{os.getpid()}\n')
    time.sleep(60)


def keep_two_busy(file: Path) -> None:
    list(run_isolated(tell_and_wait, [file] * 2, num_workers=2, time_limit=0))


def test_workers_do_not_outlive_a_killed_parent(tmp_path: Path) -> None:
    file = tmp_path / 'told'
    file.touch()
    parent = start(keep_two_busy, file)
    end = time.monotonic() + 60
    while file.read_text().count('\n') < 2:
        assert parent.is_alive()
        assert time.monotonic() < end
        time.sleep(0.02)
    pids = [int(line) for line in file.read_text().split()]
    parent.kill()
    parent.join()
    for _ in range(100):
        alive = [pid for pid in pids if Path(f'/proc/{pid}').exists()]
        if not alive:
            return
        time.sleep(0.1)
    raise AssertionError(f'{alive} live on')


def count(task: tuple[int, str]) -> Iterator[str]:
    """Yield words, then end in one of many ways."""
    number, end = task
    for word in range(number):
        yield f'{end} {word}'
    return act(end)


def test_parts_come_in_their_order() -> None:
    tasks = [(5, 'a'), (3, 'die'), (0, 'b'), (4, 'hang'), (2, 'c')]
    parts: dict[int, list[str]] = {number: [] for number in range(5)}
    ended = {}
    for outcome in run_isolated(count, tasks, num_workers=2, time_limit=1.0):
        assert outcome.index not in ended
        if outcome.kind == 'part':
            parts[outcome.index].append(outcome.value)
        else:
            ended[outcome.index] = outcome.kind, outcome.value
    assert ended == {
        0: ('done', 'a done'),
        1: ('crash', None),
        2: ('done', 'b done'),
        3: ('hang', None),
        4: ('done', 'c done'),
    }
    for index, (number, end) in enumerate(tasks):
        assert parts[index] == [f'{end} {word}' for word in range(number)]


def make_much(path: Path) -> Iterator[bytes]:
    for number in range(50):
        yield bytes(1_000_000)
        path.write_text(str(number + 1))


def test_who_yields_waits_for_who_takes(tmp_path: Path) -> None:
    path = tmp_path / 'made'
    running = run_isolated(make_much, [path], num_workers=1, time_limit=0.5)
    assert next(running).kind == 'part'
    time.sleep(1.5)
    # the one taken, and at most the one in the pipe
    assert int(path.read_text()) <= 2
    # longer than the limit: it has not stood still, nobody took anything
    assert [outcome.kind for outcome in running] == ['part'] * 49 + ['done']


MOVED = [0]


def move(task: str) -> str:
    """Take three times the limit, and stand still at last."""
    for _ in range(30):
        time.sleep(0.1)
        MOVED[0] += 1
    if task == 'hangs while others run':
        time.sleep(60)
    if task == 'hangs and lets no other thread run':
        re.match('(a+)+$', 'a' * 50 + 'b')
    return 'moved'


@pytest.mark.parametrize(
    ('task', 'kind'),
    [
        ('ends', 'done'),
        pytest.param(
            'hangs while others run', 'hang', marks=pytest.mark.nightly
        ),
        ('hangs and lets no other thread run', 'hang'),
    ],
)
def test_the_limit_is_for_standing_still(task: str, kind: str) -> None:
    begin = time.monotonic()
    (outcome,) = run_isolated(
        move,
        [task],
        num_workers=1,
        time_limit=1.0,
        progress=lambda: MOVED[0],
    )
    assert outcome.kind == kind
    assert 3 < time.monotonic() - begin < 20


def wait_between_parts(task: float) -> Iterator[int]:
    for number in range(5):
        time.sleep(task)
        yield number


def test_every_part_renews_the_limit() -> None:
    found = run_isolated(
        wait_between_parts, [0.6], num_workers=1, time_limit=1.5
    )
    assert [outcome.kind for outcome in found] == ['part'] * 5 + ['done']
