import threading

import numpy as np
import pytest

from mmalign_runtime.bench.open_loop import OpenLoop, highest_sustained, run_open_loop, schedule, serve
from tests.runtime.bench.conftest import FakeClock


def run(clock: FakeClock, service_s: float, rate_per_s: float, seconds: float, **changes: object) -> OpenLoop:
    """One server that takes `service_s` for each request, evenly spaced."""
    options = {"capacity_per_s": 1 / service_s, "arrivals": "constant", "seed": 0, "num_servers": 1} | changes
    return run_open_loop(
        "image",
        lambda number: clock.sleep(service_s),
        rate_per_s=rate_per_s,
        seconds=seconds,
        clock=clock,
        **options,  # type: ignore[arg-type]
    )


def test_an_idle_server_adds_nothing_to_its_service_time(clock: FakeClock) -> None:
    found = run(clock, service_s=0.010, rate_per_s=50, seconds=2)
    assert found.num_requests == 100
    assert found.latency.p50_ms == found.service.p50_ms == pytest.approx(10)
    assert found.queueing.p99_ms == pytest.approx(0, abs=1e-6)
    assert found.is_sustained
    assert found.share == pytest.approx(0.5)


def test_latency_counts_from_the_scheduled_arrival(clock: FakeClock) -> None:
    """One request of 1 s among those of 10 ms: the 49 that came meanwhile waited, though none was sent late."""
    times_s = iter([1.0, *[0.010] * 99])
    requests = serve(lambda number: clock.sleep(next(times_s)), np.arange(100) / 50, 1, give_up_s=9, clock=clock)
    waits_s = [request.started_s - request.due_s for request in requests]
    assert waits_s[0] == 0
    # The second came at 20 ms and was taken at 1 s; after that each waits 10 ms less, as the queue drains.
    np.testing.assert_allclose(waits_s[1:99], np.maximum(0.98 - 0.01 * np.arange(98), 0), atol=1e-9)


def test_a_rate_beyond_the_server_builds_a_queue_and_is_not_sustained(clock: FakeClock) -> None:
    found = run(clock, service_s=0.025, rate_per_s=50, seconds=2)
    # Every arrival waits 5 ms more than the one before it.
    assert found.queueing.p50_ms == pytest.approx(49.5 * 5)
    assert found.latency.p50_ms == pytest.approx(49.5 * 5 + 25)
    assert found.backlog_s == pytest.approx(100 * 0.025 - 2)
    assert found.answers_per_s == pytest.approx(40)
    assert not found.is_sustained


def test_a_hopeless_rate_is_given_up_and_its_waiting_still_counts(clock: FakeClock) -> None:
    found = run(clock, service_s=1.0, rate_per_s=50, seconds=2)
    assert found.num_given_up == 96  # taken at 0, 1, 2 and 3 s, and none after
    assert not found.is_sustained
    assert found.latency.p50_ms > 1000


def test_a_long_last_request_alone_is_no_backlog(clock: FakeClock) -> None:
    times_s = iter([*[0.001] * 99, 0.5])
    found = run_open_loop(
        "text",
        lambda number: clock.sleep(next(times_s)),
        rate_per_s=100,
        capacity_per_s=100,
        seconds=1,
        arrivals="constant",
        seed=0,
        num_servers=1,
        clock=clock,
    )
    assert found.is_sustained
    assert found.backlog_s == pytest.approx(0.49)


def test_poisson_arrivals_have_the_rate_and_the_spread_of_a_poisson_process() -> None:
    due_s = schedule(100, 100, "poisson", seed=1)
    assert len(due_s) == 10_000
    gaps_s = np.diff(due_s)
    assert (gaps_s >= 0).all() and due_s[0] >= 0 and due_s[-1] <= 100
    assert gaps_s.mean() == pytest.approx(0.01, rel=0.02)
    assert gaps_s.std() == pytest.approx(gaps_s.mean(), rel=0.05)  # of an exponential distribution
    np.testing.assert_array_equal(due_s, schedule(100, 100, "poisson", seed=1))
    assert (due_s != schedule(100, 100, "poisson", seed=2)).any()


def test_constant_arrivals_are_evenly_spaced() -> None:
    np.testing.assert_allclose(schedule(4, 1, "constant", seed=0), [0, 0.25, 0.5, 0.75])
    assert len(schedule(0.1, 1, "constant", seed=0)) == 1


def test_servers_work_side_by_side() -> None:
    """Both requests are in service at once, or the barrier would break."""
    barrier = threading.Barrier(2, timeout=30)
    requests = serve(lambda number: barrier.wait(), np.zeros(2), 2, give_up_s=60)
    assert all(request.answered_s is not None for request in requests)


def test_a_failing_request_is_raised() -> None:
    def fail(number: int) -> None:
        raise RuntimeError("no answer")

    with pytest.raises(RuntimeError, match="no answer"):
        serve(fail, np.zeros(3), 2, give_up_s=1)


def test_the_highest_rate_below_the_first_that_failed_counts(clock: FakeClock) -> None:
    rates = [run(clock, service_s=0.01, rate_per_s=rate, seconds=1) for rate in (80, 150, 50)]
    best = highest_sustained(rates)
    assert best is not None and best.rate_per_s == 80
    assert highest_sustained([rates[1]]) is None


def test_an_unknown_kind_of_arrivals_is_refused(clock: FakeClock) -> None:
    with pytest.raises(ValueError, match="arrivals is 'bursty', expected one of poisson, constant"):
        run(clock, 0.01, 10, 1, arrivals="bursty")
