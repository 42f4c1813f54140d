"""Requests that arrive when they arrive, whether or not the last one was answered, as those of a service's users do.

Latency counts from the scheduled arrival. A harness that waits for a slow answer before it sends the next request
leaves out just those that a real user would have waited with (coordinated omission).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, TypeAlias, get_args

import msgspec
import numpy as np
from numpy.typing import NDArray

from mmalign_runtime.bench.clock import SYSTEM_CLOCK, Clock
from mmalign_runtime.bench.percentiles import Percentiles, percentiles
from mmalign_runtime.spec import Modality

Arrivals: TypeAlias = Literal["poisson", "constant"]

# A rate is sustained if what is left when the last request has come is answered within this share of the run.
BACKLOG_SHARE = 0.05
# A rate far beyond what can be served is given up at this multiple of the schedule: it has shown what it had to show.
_GIVE_UP = 1.5


class OpenLoop(msgspec.Struct, frozen=True, kw_only=True):
    """One rate of arrivals: what each request saw from its arrival on, and what of it was work and what was queueing.

    `share` is the rate over the closed loop's throughput. Requests that were given up count with the time they had
    waited by then, so their latency is a lower bound.
    """

    kind: Modality
    rate_per_s: float
    share: float
    arrivals: Arrivals
    seed: int
    num_servers: int
    num_requests: int
    num_given_up: int
    backlog_s: float
    is_sustained: bool
    answers_per_s: float
    latency: Percentiles
    queueing: Percentiles
    service: Percentiles


class Request(msgspec.Struct, frozen=True):
    """One request: when it was due, when a server took it, and when it was answered (None: never taken)."""

    due_s: float
    started_s: float
    answered_s: float | None

    @property
    def left_s(self) -> float:
        """When it was answered, or given up."""
        return self.started_s if self.answered_s is None else self.answered_s


def schedule(rate_per_s: float, seconds: float, arrivals: Arrivals, seed: int) -> NDArray[np.float64]:
    """Return when requests arrive, in seconds from the start, sorted: rate x seconds of them, at least one.

    "poisson" draws them independently over the time, which is a Poisson process of which the number is known: two runs
    of one rate offer the same load. "constant" spaces them evenly.
    """
    num_requests = max(1, round(rate_per_s * seconds))
    if arrivals == "constant":
        return np.arange(num_requests) / rate_per_s
    return np.sort(np.random.default_rng(seed).uniform(0, num_requests / rate_per_s, num_requests))


def serve(
    ask: Callable[[int], object],
    due_s: NDArray[np.float64],
    num_servers: int,
    *,
    give_up_s: float,
    clock: Clock = SYSTEM_CLOCK,
) -> list[Request]:
    """Answer requests in the order of their arrival with some servers; return them in that order, times from the start.

    After `give_up_s` no request is taken any more.
    """
    requests: list[Request] = []
    lock = threading.Lock()
    waiting = iter(enumerate(due_s.tolist()))
    begun = clock.now()

    def server() -> None:
        while True:
            with lock:
                number, due = next(waiting, (None, 0.0))
            if number is None:
                return
            clock.sleep(max(0.0, begun + due - clock.now()))
            started = clock.now() - begun
            if started > give_up_s:
                request = Request(due, started, None)
            else:
                ask(number)
                request = Request(due, started, clock.now() - begun)
            with lock:
                requests.append(request)

    with ThreadPoolExecutor(num_servers, "bench-server") as threads:
        servers = [threads.submit(server) for _ in range(num_servers)]
    for ended in servers:
        ended.result()
    return sorted(requests, key=lambda request: request.due_s)


def run_open_loop(
    kind: Modality,
    ask: Callable[[int], object],
    *,
    rate_per_s: float,
    capacity_per_s: float,
    seconds: float,
    arrivals: Arrivals,
    seed: int,
    num_servers: int,
    clock: Clock = SYSTEM_CLOCK,
) -> OpenLoop:
    """Send requests at a rate for some seconds. `capacity_per_s` is the closed loop's throughput."""
    if arrivals not in get_args(Arrivals):
        raise ValueError(f"arrivals is {arrivals!r}, expected one of {', '.join(get_args(Arrivals))}.")
    due_s = schedule(rate_per_s, seconds, arrivals, seed)
    span_s = len(due_s) / rate_per_s
    requests = serve(ask, due_s, num_servers, give_up_s=_GIVE_UP * span_s, clock=clock)
    answered = [request for request in requests if request.answered_s is not None]
    service_s = [request.left_s - request.started_s for request in answered]
    end_s = max(request.left_s for request in requests)
    backlog_s = max(0.0, end_s - span_s)
    # The last request may be the longest, and takes its time however idle the servers are.
    is_sustained = len(answered) == len(requests) and backlog_s <= BACKLOG_SHARE * span_s + max(service_s)
    return OpenLoop(
        kind=kind,
        rate_per_s=rate_per_s,
        share=rate_per_s / capacity_per_s,
        arrivals=arrivals,
        seed=seed,
        num_servers=num_servers,
        num_requests=len(requests),
        num_given_up=len(requests) - len(answered),
        backlog_s=backlog_s,
        is_sustained=is_sustained,
        answers_per_s=len(answered) / max(span_s, end_s),
        latency=percentiles([request.left_s - request.due_s for request in requests]),
        queueing=percentiles([request.started_s - request.due_s for request in requests]),
        service=percentiles(service_s),
    )


def highest_sustained(rates: Sequence[OpenLoop]) -> OpenLoop | None:
    """Return the highest rate below the first that was not sustained, or None."""
    found = None
    for rate in sorted(rates, key=lambda rate: rate.rate_per_s):
        if not rate.is_sustained:
            break
        found = rate
    return found
