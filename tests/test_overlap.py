"""Reading, computing and writing side by side: in order, bounded, and nothing lost by a failure."""

import threading
import time

import pytest

from onereward_jax.stages.io_pipeline import overlapped

BATCHES = [[1, 2, 3], [4], [5, 6], [7, 8, 9], [10], [11, 12]]


class Steps:
    """Steps that take their time, each item another, and remember when they ran.

    Numbers become ten times, then a hundred times as large.
    """

    def __init__(self, fails=None, seconds=0.002):
        self.fails, self.seconds = fails, seconds
        self.lock, self.events = threading.Lock(), []

    def _done(self, what, item):
        if (what, item) == self.fails:
            raise OSError(f"{what} {item}: the disk is full")
        with self.lock:
            self.events.append((what, item))

    def read(self, item):
        time.sleep(self.seconds * (item % 3))
        self._done("read", item)
        return 10 * item

    def compute(self, number, found):
        assert found == [10 * item for item in BATCHES[number]]
        self._done("compute", number)
        return [10 * value for value in found]

    def write(self, value):
        time.sleep(self.seconds * (value // 100 % 4))
        self._done("write", value // 100)
        return value

    def run(self, batches=BATCHES, **options):
        return overlapped(batches, self.read, self.compute, self.write, **options)


@pytest.mark.parametrize("options", [{}, {"threads": 1, "ahead": 1}, {"threads": 5, "ahead": 3}])
def test_results_are_those_of_one_step_after_the_other(options):
    steps = Steps()
    found = list(steps.run(**options))
    assert found == [[100 * item for item in batch] for batch in BATCHES]
    computed = [number for what, number in steps.events if what == "compute"]
    assert computed == list(range(len(BATCHES)))
    assert list(steps.run([])) == []


def test_no_more_than_a_few_batches_are_in_memory():
    """Read but not computed, or computed but not written."""
    steps, asked, ahead = Steps(), [], 2

    def batches():
        for number, batch in enumerate(BATCHES):
            asked.append(number)
            yield batch

    for done, _ in enumerate(steps.run(batches(), ahead=ahead)):
        computed = sum(what == "compute" for what, _ in steps.events)
        assert computed - done <= ahead + 1
        assert len(asked) - computed <= ahead


def test_reading_and_writing_go_on_while_the_devices_work():
    """Each waits for the other's batch, which would never come if one followed the other."""
    first_is_written, third_is_read = threading.Event(), threading.Event()

    def read(item):
        if item == 2:
            third_is_read.set()
        return item

    def compute(number, found):
        if number == 1:
            assert third_is_read.wait(20), "the third batch was not read ahead"
            assert first_is_written.wait(20), "the first batch was not written meanwhile"
        return found

    def write(item):
        if item == 0:
            first_is_written.set()
        return item

    found = list(overlapped([[0], [1], [2]], read, compute, write))
    assert found == [[0], [1], [2]]


@pytest.mark.parametrize("fails", [("read", 6), ("compute", 2), ("write", 5)])
def test_a_failure_ends_it_with_its_sentence_after_all_batches_before(fails):
    steps, found = Steps(fails), []
    with pytest.raises(OSError, match=f"{fails[0]} {fails[1]}: the disk is full"):
        for written in steps.run():
            found += written
    before = [100 * item for batch in BATCHES[:2] for item in batch]
    assert found == before[: len(found)]
    if fails[0] == "write":
        assert found == before
    seen = len(steps.events)
    time.sleep(0.05)
    assert len(steps.events) == seen, "threads went on"
    assert not [one for one in threading.enumerate() if one.name.startswith(("read_", "write_"))]


def test_left_early_what_was_begun_is_finished_and_the_rest_is_not_begun():
    steps = Steps(seconds=0.01)
    for _ in steps.run(threads=1):
        break
    else:
        pytest.fail("nothing was written")
    begun = [item for what, item in steps.events if what == "read"]
    assert 12 not in begun
    assert not [one for one in threading.enumerate() if one.name.startswith(("read_", "write_"))]
