import os
import signal
import time
from functools import partial

import pytest

from eaglenet_mm.utils.worker_processes import map_in_processes


def square(number):
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    if number == 5:
        raise ValueError('an error nobody expects')
    return number**2


def sleep_and_tell(folder, number):
    (folder / f'{number}').write_text(str(os.getpid()))
    time.sleep(60 * (number > 0))


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize('workers', [1, 3])
def test_a_process_that_dies_costs_its_item_alone(workers):
    results = map_in_processes(
        square, range(8), workers=workers, on_death=lambda code: f'died {code}'
    )
    expected = {i: i**2 for i in range(8)}
    expected |= {3: 'died -9', 5: 'died 1'}
    assert dict(results) == expected


def test_closing_ends_the_processes(tmp_path):
    results = map_in_processes(
        partial(sleep_and_tell, tmp_path),
        range(5),
        workers=2,
        on_death=lambda code: code,
    )
    assert next(results) == (0, None)
    while len(list(tmp_path.iterdir())) < 3:
        time.sleep(0.01)
    pids = {int(path.read_text()) for path in tmp_path.iterdir()}
    assert len(pids) == 2
    begin = time.monotonic()
    results.close()
    assert time.monotonic() - begin < 10
    assert not any(map(is_alive, pids))


def test_nothing_to_do_starts_nothing():
    results = map_in_processes(square, [], workers=2, on_death=str)
    assert list(results) == []
