"""What the page judges, in words and a tone: how the run ended, its gates, its submission, its evidence, its scores."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from vesu.report import text
from vesu.report.gates import GO, NO_GO, Gate, GateResults
from vesu.report.loader import Run
from vesu.report.submission import Submission
from vesu.report.summary import Validation

ENDING_TONES = {"finished": "good", "stopped": "warn", "running": "warn", "failed": "bad", "killed": "bad"}
GATE_TONES = {"pass": "good", "fail": "bad"}
JUDGED = (("score", "Score"), ("f1", "F1"))
"""What is said in words of how it stands against the trivial baselines."""
ORIGINS = {
    "final": "of the finished run",
    "provisional": "of the search as far as it had come",
    "scorer": "of a historical scorer, in reserve",
    "empty": "empty, nothing was there yet",
}
"""Where the masks of a submission come from."""


@dataclass(frozen=True)
class Verdict:
    """A short judgement with its tone: good, warn, bad or plain."""

    tone: str
    words: str


@dataclass(frozen=True)
class Advice:
    """What to do next: words, and the command."""

    words: str
    command: str


@dataclass(frozen=True)
class Headline:
    """What stands first on the page: the outcome in a few words, and what to do next where something is to do."""

    verdict: Verdict
    advice: Advice | None


def headline(run: Run) -> Headline:
    """The outcome of a run.

    Notes
    -----
    Of a run that is over, a gate that failed comes before everything else: it may have finished and still be none to
    submit. Of one that goes on later, gates may fail only because it is not there yet.
    """
    ending, advice = run.ending, _advice(run)
    goes_on = ending in ("stopped", "killed", "running")
    if not goes_on and run.gates is not None and (run.gates.verdict == NO_GO or run.gates.failed):
        failed = ", ".join(map(text.title, run.gates.failed)) or "see the gates"
        return Headline(Verdict("bad", f"NO-GO: {failed}"), advice)
    if ending == "finished":
        return Headline(_finished(run), advice)
    if ending is None:
        return Headline(Verdict("warn", "No end is recorded"), advice)
    return Headline(Verdict(ENDING_TONES.get(ending, "warn"), text.title(ending) + _where(run)), advice)


def _finished(run: Run) -> Verdict:
    go = "GO: " if run.gates is not None and run.gates.verdict == GO else "Finished: "
    submission = run.submission
    if submission is None:
        return Verdict("warn", "Finished, without a submission")
    if submission.sha256_now is None:
        return Verdict("warn", f"Finished; {submission.name} is not in this folder")
    if submission.sha256 is not None and submission.sha256_now != submission.sha256:
        return Verdict("bad", f"Finished, but {submission.name} is not what the run wrote")
    count = submission.n_masks
    masks = "no masks" if count is None else f"{count} mask{'' if count == 1 else 's'}"
    return Verdict("good" if count else "warn", f"{go}{masks} in {submission.name}")


def _where(run: Run) -> str:
    end = run.dashboard.post_mortem
    if end is None:
        return ""
    phase = f" in phase {text.title(end.phase).lower()}" if end.phase else ""
    percent = f", at {end.reached_pct:.0f}\u202f%" if end.reached_pct is not None else ""
    return phase + percent


def _advice(run: Run) -> Advice | None:
    """How it goes on from here, where it does."""
    end = run.dashboard.post_mortem
    if run.ending is None and run.events is not None:
        return Advice("It runs still, or it was killed. To find out:", "vesu post-mortem RUN")
    if run.ending not in ("stopped", "killed", "failed"):
        return None
    first = "Once the cause is mended, it" if run.ending == "failed" else "It"
    if end is not None and end.goes_on_from is None:
        return Advice(f"{first} begins anew, for it left no checkpoint:", "vesu run DATA --out RUN --restart")
    return Advice(f"{first} goes on where it stood:", "vesu run DATA --out RUN --resume-from-checkpoint")


def ending(run: Run) -> Verdict:
    """How the run ended."""
    if run.ending is None:
        return Verdict("warn", "status not recorded")
    return Verdict(ENDING_TONES.get(run.ending, "warn"), run.ending)


def gate_rows(gates: GateResults | None) -> list[tuple[Gate, Verdict]]:
    """Each gate with its state in words, those that failed first."""
    found = sorted(gates.gates, key=lambda gate: gate.state != "fail") if gates else []
    return [(gate, Verdict(GATE_TONES.get(gate.state, "plain"), text.title(gate.state).lower())) for gate in found]


def gates(found: GateResults | None) -> Verdict | None:
    """The verdict over all gates."""
    if found is None or found.verdict is None:
        return None
    return Verdict({GO: "good", NO_GO: "bad"}.get(found.verdict, "warn"), found.verdict)


def against_baselines(validation: Validation | None) -> list[Verdict]:
    """How the scores stand against those of the best trivial baseline; said plainly where they lose."""
    if validation is None:
        return []
    return [found for key, words in JUDGED if (found := _against(validation, key, words)) is not None]


def _against(validation: Validation, key: str, words: str) -> Verdict | None:
    rivals = {name: scores[key] for name, scores in validation.baselines.items() if key in scores}
    if key not in validation.scores or not rivals:
        return None
    name = max(rivals, key=lambda each: rivals[each])
    gap = validation.scores[key] - rivals[name]
    rival = f"best trivial baseline ({text.title(name).lower()}, {rivals[name]:.3f})"
    if gap > 0:
        return Verdict("good", f"{words} {gap:.3f} above the {rival}")
    return Verdict("bad", f"{words} {-gap:.3f} below the {rival}" if gap < 0 else f"{words} no better than the {rival}")


def submission(found: Submission | None) -> Verdict:
    """Whether the zip that lies here is the one that the run wrote."""
    if found is None:
        return Verdict("warn", "no submission recorded")
    if found.sha256_now is None:
        return Verdict("warn", f"recorded; {found.name} is not in this folder")
    if found.sha256 is None:
        return Verdict("warn", "present; no digest recorded")
    if found.sha256_now != found.sha256:
        return Verdict("bad", f"{found.name} differs from the recorded digest")
    return Verdict("good", "valid when written, and unchanged since: the digest matches")


def contents(found: Submission | None) -> list[Verdict]:
    """What is in the zip: where its masks come from, and whether any is empty."""
    return [] if found is None else [*_origins(found.origins), *_empty(found)]


def _origins(origins: Mapping[str, int]) -> Iterator[Verdict]:
    for name, count in sorted(origins.items(), key=lambda each: [*ORIGINS, each[0]].index(each[0])):
        tone = {"final": "good", "empty": "bad"}.get(name, "warn")
        words = ORIGINS.get(name, text.title(name).lower())
        yield Verdict(tone, f"{count} mask{'' if count == 1 else 's'} {words}")


def _empty(found: Submission) -> Iterator[Verdict]:
    empty = [member.name for member in found.members if member.ink_ratio == 0]
    if empty:
        more = f" and {len(empty) - 3} more" if len(empty) > 3 else ""
        yield Verdict("warn", f"no surface at all in {', '.join(empty[:3])}{more}")


def ledger(run: Run) -> Verdict:
    """What this report itself found when it verified the ledger, against what the summary recorded."""
    check = run.ledger
    if check is None:
        return Verdict("warn", "no events.jsonl in this folder")
    if check.problem is not None:
        return Verdict("bad", f"does not verify: {check.problem}")
    recorded = run.summary.ledger if run.summary else None
    if recorded is None or recorded.root is None:
        return Verdict("warn", "verifies; no root recorded to compare with")
    if check.entries == recorded.entries and check.root != recorded.root:
        return Verdict("bad", "verifies, but its root is not the recorded one")
    if check.entries != recorded.entries:
        return Verdict("warn", f"verifies, with {check.entries} entries where {recorded.entries} are recorded")
    return Verdict("good", "verifies, and its root is the recorded one")
