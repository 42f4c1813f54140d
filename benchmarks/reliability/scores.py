"""What mutating the modules gave: by module how many mutants a test noticed, and each that none did."""

import msgspec

from benchmarks.harness.markdown import table
from benchmarks.reliability.record import Row


class Survivor(msgspec.Struct, frozen=True):
    """A mutant that no test noticed; `reason` says why that is right, and is empty where nobody has said."""

    module: str
    line: int
    before: str
    after: str
    reason: str


class Score(msgspec.Struct, frozen=True):
    """How many mutants a module had, and how many were noticed."""

    module: str
    num_mutants: int
    num_killed: int
    num_timed_out: int


class Mutation(msgspec.Struct, frozen=True):
    """All of a run."""

    scores: tuple[Score, ...]
    survivors: tuple[Survivor, ...]
    seconds: float


def summary(found: Mutation) -> Row:
    """Return the line of the first table: a mutant is as promised when it is killed, or its survival explained."""
    total, killed = (sum(getattr(score, name) for score in found.scores) for name in ("num_mutants", "num_killed"))
    explained = sum(bool(survivor.reason) for survivor in found.survivors)
    share = f"{killed:,} killed ({100 * killed / total:.0f}%), {explained} survive for a reason that is given below"
    return Row(f"mutants of the {len(found.scores)} modules that judge", total, killed + explained, share)


def tables(found: Mutation) -> str:
    """Return the Markdown of the mutants by module, and of each that survived."""
    by_module = []
    for score in found.scores:
        share = f"{score.num_killed:,} ({100 * score.num_killed / score.num_mutants:.0f}%)"
        lived = str(score.num_mutants - score.num_killed)
        by_module.append([f"`{score.module}`", f"{score.num_mutants:,}", share, lived])
    survivors = []
    for each in found.survivors:
        place, reason = each.module.partition(".")[2], each.reason or "**not explained**"
        survivors.append([f"{place}: {_code(each.before)}", _code(each.after), reason])
    return "\n\n".join(
        (
            table(("module", "mutants", "killed", "survivors"), by_module),
            table(("survivor", "changed to", "why that is right"), survivors),
        )
    )


def _code(line: str) -> str:
    return f"`` {line} ``" if "`" in line else f"`{line}`"
