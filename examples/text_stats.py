"""A nectarflow that is no language model: statistics of a text.

swarmesh spawn rustbee --type python --modelcell stats --class text_stats:TextStats --python-path examples
swarmesh nectarflow submit --modelcell stats --prompt "To bee or not to bee"
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

WORD = re.compile("[^\\W\\d_]+(?:[-'\u2019][^\\W\\d_]+)*")
COMMONEST = 5


class TextStats:
    """Says a sentence about a text, then gives its statistics as a JSON value."""

    slots = 2

    async def foragexec(self, task: Any) -> AsyncIterator[str | dict[str, Any]]:
        """Yield the sentence as it is made, then the numbers."""
        # In a thread, because a long text would keep this rustbee from answering anybody else meanwhile.
        statistics = await asyncio.to_thread(text_statistics, task.text)
        yield f"{statistics['words']} words, "
        yield f"{statistics['distinct_words']} of them distinct, "
        yield f"in {statistics['lines']} lines."
        yield statistics


def text_statistics(text: str) -> dict[str, Any]:
    """Counts of a text; the commonest words come first, equals in alphabetical order."""
    words = [word.lower() for word in WORD.findall(text)]
    counts = Counter(words)
    commonest = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:COMMONEST]
    return {
        "characters": len(text),
        "lines": len(text.splitlines()),
        "words": len(words),
        "distinct_words": len(counts),
        "mean_word_length": round(sum(map(len, words)) / len(words), 2) if words else 0.0,
        "commonest": [{"word": word, "count": count} for word, count in commonest],
    }
