"""A nectarflow whose answer is an image: a comb of hexagons, drawn with Pillow from the words of the prompt.

Try it:

    pip install pillow
    swarmesh spawn rustbee --type python --modelcell comb --class png_image:CombImage --python-path examples
    swarmesh nectarflow submit --modelcell comb --prompt "a calm summer evening"

The same prompt always gives the same image. ``input`` may be ``{"text": …, "width": …, "height": …}``.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import math
from collections.abc import AsyncIterator
from typing import Any

from PIL import Image, ImageDraw

PALETTE = ("#FFD700", "#FFBF00", "#FFF8DC", "#1E3A8A", "#00D4FF", "#10B981", "#FF8C00", "#2D3748")
SIDE_MIN, SIDE_MAX = 16, 1024
CELL_RADIUS = 24


class CombImage:
    """Draws one image per task."""

    media_type = "image/png"

    async def foragexec(self, task: Any) -> AsyncIterator[str | bytes]:
        """Yield the bytes of one PNG."""
        wish = task.input if isinstance(task.input, dict) else {}
        text = str(wish.get("text", task.text))
        width, height = (_side(wish.get(name, 256), name) for name in ("width", "height"))
        yield await asyncio.to_thread(comb_png, text, width, height)


def comb_png(text: str, width: int, height: int) -> bytes:
    """A PNG of hexagonal cells, each in a colour drawn from the text."""
    image = Image.new("RGB", (width, height), "black")
    draw = ImageDraw.Draw(image)
    step_x, step_y = CELL_RADIUS * math.sqrt(3), CELL_RADIUS * 1.5
    for row in range(int(height / step_y) + 2):
        for column in range(int(width / step_x) + 2):
            digest = hashlib.blake2b(f"{text}\0{row}\0{column}".encode(), digest_size=1).digest()
            centre = ((column + 0.5 * (row % 2)) * step_x, row * step_y)
            draw.polygon(_hexagon(*centre), fill=PALETTE[digest[0] % len(PALETTE)], outline="black")
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def _hexagon(x: float, y: float) -> list[tuple[float, float]]:
    corners = (math.radians(60 * corner + 30) for corner in range(6))
    return [(x + CELL_RADIUS * math.cos(angle), y + CELL_RADIUS * math.sin(angle)) for angle in corners]


def _side(value: Any, name: str) -> int:
    if not isinstance(value, int) or not SIDE_MIN <= value <= SIDE_MAX:
        raise ValueError(f"{name} is {value!r}; it may be {SIDE_MIN} to {SIDE_MAX} pixels")
    return value
