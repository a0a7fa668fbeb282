"""Damage to a valid JSON file, for properties: edits that keep its structure, and edits of its text."""

import copy
import json
from typing import Any

from hypothesis import strategies as st

DEEP: Any = 1
for _ in range(40):
    DEEP = [DEEP]

HOSTILE = [
    None, True, False, 0, -1, 1, 2**63, 10**39, -(10**39), 0.5, 5e-324, 1e308, -1e308, float("nan"), float("inf"),
    "", "x", "1", "\x1b[2J\n", "‮", "e" * 300, "../x", [], [[]], [None], {}, {"": None}, {"x": [1]}, DEEP,
]  # fmt: skip


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of all values in a JSON value, its own first."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at, *(place for key, part in inner for place in places(part, (*at, key)))]


@st.composite
def damaged(draw: st.DrawFn, valid: Any, most: int = 2) -> Any:
    """Draw a copy of a JSON value with up to `most` edits: a value replaced, left out, or repeated, or one more."""
    content = copy.deepcopy(valid)
    for _ in range(draw(st.integers(1, most))):
        *path, last = draw(st.sampled_from(places(content)[1:] or [("",)]))
        holder = content
        for key in path:
            holder = holder[key]
        how = draw(st.sampled_from(["replace", "replace", "replace", "leave out", "add", "another's"]))
        new = draw(st.sampled_from(HOSTILE))
        if not isinstance(holder, dict | list) or not holder:
            break
        if how == "replace":
            holder[last] = copy.deepcopy(new)
        elif how == "another's":
            holder[last] = copy.deepcopy(
                draw(st.sampled_from(list(holder.values() if isinstance(holder, dict) else holder)))
            )
        elif how == "leave out":
            del holder[last]
        elif isinstance(holder, dict):
            holder[draw(st.sampled_from(["", "x", "\x1b", "schema"]))] = copy.deepcopy(new)
        else:
            holder.insert(last, copy.deepcopy(new))
        if not content:
            break
    return content


@st.composite
def damaged_text(draw: st.DrawFn, valid: Any) -> str:
    """Draw the text of a damaged value, in a tenth of the cases with an edit of the text itself."""
    text = json.dumps(draw(damaged(valid)))
    if draw(st.integers(0, 9)):
        return text
    at = draw(st.integers(0, len(text)))
    return draw(
        st.sampled_from([text[:at], text[:at] + text[at + 1 :], text[:at] + draw(st.text(max_size=3)) + text[at:]])
    )
