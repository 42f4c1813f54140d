from mmalign_runtime.bench.laps import MIN_LAPS, NUM_WARMUP, Laps
from tests.runtime.bench.conftest import FakeClock


def test_rounds_give_each_candidate_as_many_laps_in_turn() -> None:
    order: list[str] = []
    laps = Laps(num_rounds=3).take({name: lambda name=name: order.append(name) for name in "ab"})
    assert order == list("ab" * (NUM_WARMUP + 3))
    assert {name: len(found) for name, found in laps.items()} == {"a": 3, "b": 3}


def test_seconds_are_shared_equally_so_the_quick_has_more_laps(clock: FakeClock) -> None:
    candidates = {"quick": lambda: clock.sleep(0.1), "slow": lambda: clock.sleep(1)}
    laps = Laps(seconds=20, now=clock.now).take(candidates)
    assert len(laps["slow"]) == 10
    assert 95 <= len(laps["quick"]) <= 110


def test_candidates_are_interleaved_to_the_end(clock: FakeClock) -> None:
    """A machine that slows down halfway does so for both: neither has all its laps in one half."""
    when: dict[str, list[float]] = {"quick": [], "slow": []}

    def run(name: str, seconds: float) -> None:
        when[name].append(clock.now())
        clock.sleep(seconds)

    candidates = {"quick": lambda: run("quick", 0.1), "slow": lambda: run("slow", 1)}
    Laps(seconds=20, now=clock.now).take(candidates)
    for times in when.values():
        assert min(times) < 104 and max(times) > 118


def test_the_slowest_still_gets_laps_enough_for_a_middle(clock: FakeClock) -> None:
    laps = Laps(seconds=1, now=clock.now).take({"slow": lambda: clock.sleep(60)})
    assert len(laps["slow"]) == MIN_LAPS


def test_something_is_done_between_laps_but_not_while_warming_up() -> None:
    order: list[str] = []
    Laps(num_rounds=2, between=lambda: order.append("between")).take({"a": lambda: order.append("lap")})
    assert order == ["lap"] * NUM_WARMUP + ["between", "lap"] * 2
