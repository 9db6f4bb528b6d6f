"""When a start must end so that its end fits into its minutes."""

from types import SimpleNamespace

import pytest

from vit_jax.training import deadline
from vit_jax.training.deadline import Deadline


class Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(deadline, "time", SimpleNamespace(monotonic=clock.monotonic))
    return clock


def steps_taken(clock: Clock, end: Deadline, seconds: float, most: int = 1000) -> int:
    for step in range(1, most):
        clock.now += seconds
        if end.is_reached(step):
            return step
    return most


def make(minutes: float | None, evaluation_steps: float = 0.0) -> Deadline:
    return Deadline(minutes, began=1000.0, agree_every=1, evaluation_steps=evaluation_steps)


def test_steps_and_the_end_fit_into_the_minutes(clock: Clock) -> None:
    end = make(2)
    with end.timing_evaluation():
        clock.now += 10
    taken = steps_taken(clock, end, 3.0)
    spent = 10 + 3.0 * taken
    # One step more would leave less than the evaluations and a save take.
    assert spent + 10 + 5 <= 120 < spent + 1.2 * (10 + 5) + 2 * 3.0
    assert clock.now - 1000 == spent


def test_evaluations_that_were_not_timed_are_reckoned_in_steps(clock: Clock) -> None:
    few, many = make(2, evaluation_steps=2), make(2, evaluation_steps=20)
    taken = steps_taken(clock, few, 2.0)
    clock.now = 1000.0
    assert taken - steps_taken(clock, many, 2.0) == pytest.approx(1.2 * (20 - 2), abs=1)


def test_what_callbacks_do_later_fits_too(clock: Clock) -> None:
    """A report that takes 7 s and the evaluations once more."""
    end = make(2)
    end.seconds_later = lambda evaluation: 7 + evaluation
    with end.timing_evaluation():
        clock.now += 10
    spent = 10 + 3.0 * steps_taken(clock, end, 3.0)
    assert spent + 10 + 5 + 17 <= 120 < spent + 1.2 * (10 + 5 + 17) + 2 * 3.0


def test_without_minutes_there_is_no_end(clock: Clock) -> None:
    assert steps_taken(clock, make(None), 1e6) == 1000
