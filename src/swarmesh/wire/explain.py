"""Why a task went where it went, or was refused, as the routes below ``/v2/swarmesh/explain`` show it."""

from __future__ import annotations

import msgspec


class CandidateView(msgspec.Struct, frozen=True):
    """One rustbee that could have taken the task; what its score is made of has its unit in its name."""

    rustbee_id: str
    score: float
    parts: dict[str, float]


class ReportView(msgspec.Struct, frozen=True):
    """What the engine told when the answer was whole; null where it did not say."""

    prompt_tokens: int | None
    cached_tokens: int | None
    completion_tokens: int | None
    first_token_ms: int | None


class AttemptView(msgspec.Struct, frozen=True, kw_only=True):
    """One decision about the task.

    Attributes:
        at: Unix seconds.
        chosen: The rustbee; null while none could be chosen.
        reason: Why this one: ``best``, ``only``, ``turn`` (equals take turns) or ``measured`` (it had no task for
            long); ``waiting`` before there is one.
        words: The same in a sentence, with the scores.
        better: Whether the ``lower`` or the ``higher`` score wins.
        considered: How many rustbees have the modelcell.
        vetoes: How many of them were left out, by reason.
        candidates: The best of the others, the chosen one among them, best first.
        without_script: Why a policy script had no say in it, and what followed, in a sentence; empty when there was
            none to ask, or it answered. What it did wrong is for the admin's key.
        outcome: ``waiting``, ``running``, ``ended``, ``broke``, ``preempted`` or ``cancelled``.
        why: What broke it, or took its slot; empty otherwise.
    """

    attempt: int
    at: float
    queue_ms: int
    policy: str
    chosen: str | None
    reason: str
    words: str
    better: str
    considered: int
    vetoes: dict[str, int]
    candidates: tuple[CandidateView, ...]
    outcome: str
    without_script: str = ""
    why: str = ""
    report: ReportView | None = None


class TaskExplained(msgspec.Struct, frozen=True, kw_only=True):
    """A task's way: its last decision, what would have changed it, and every decision in order.

    Attributes:
        without_script: As of its last decision; see `AttemptView`.
        error: Why the task failed in the end; empty when it has not.
        would_change: One sentence each: computed from the candidates as they stood, or what would let a task run
            that waits.
    """

    task: str
    modelcell: str
    policy: str
    chosen: str | None
    reason: str
    words: str
    better: str
    considered: int
    vetoes: dict[str, int]
    candidates: tuple[CandidateView, ...]
    would_change: tuple[str, ...]
    attempts: tuple[AttemptView, ...]
    without_script: str = ""
    error: str = ""


class RefusalExplained(msgspec.Struct, frozen=True, kw_only=True):
    """A task that was refused, or given up.

    Attributes:
        at: Unix seconds.
        modelcell: What was asked for; empty when it was refused before that was looked at, as is all that follows.
        prompt_chars: Size of its messages, prompt or input as JSON; of a nectarflow that of the whole request.
            Null when nobody looked.
        max_tokens: Bound of the answer; null for none.
        attempts: How often it was tried before it was given up; 0 for a task that was never let in.
        status: The HTTP status of the refusal.
        retry_after_s: What ``Retry-After`` said; null when trying again would not help by itself.
        words: Why, in a sentence.
        would_change: One sentence each: what would have let it in, the rustbees as they are now.
    """

    task: str
    at: float
    modelcell: str
    priority: str
    prompt_chars: int | None
    max_tokens: int | None
    attempts: int
    status: int
    code: str
    words: str
    hint: str
    retry_after_s: int | None
    would_change: tuple[str, ...]
