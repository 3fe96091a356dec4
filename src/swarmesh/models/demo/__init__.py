"""The demo modelcell: a toy language model that ships with Swarmesh, so everything works with no download.

It knows a little about Swarmesh and one song by heart. ``scripts/train_demo_model.py`` makes it; the page
``docs/demo-model.md`` says what it can and cannot do.
"""

from pathlib import Path

_FOLDER = Path(__file__).parent

DEMO_GGUF: Path = _FOLDER / "demo.gguf"
"""The model file, readable by llama.cpp."""

RECITAL_PROMPT = "Recite the song of the hive."
"""Asked this, greedy decoding gives ``RECITAL_TEXT`` word for word: a long text for tests of failover."""

RECITAL_TEXT: str = (_FOLDER / "song.txt").read_text(encoding="ascii").rstrip("\n")
"""The song without its last line end; more than 400 tokens of the demo model's own tokenizer."""
