"""Reading JSON: depth and digits are bounded, keys are unique, and numbers are finite."""

import json
import math
import re
from itertools import accumulate
from pathlib import Path
from typing import Any, NoReturn

from mksgn.common.errors import BadInputError
from mksgn.common.quoting import printable, quoted
from mksgn.common.reading import RECORD_BYTES, read_bytes

DEPTH = 64  # our files have 6; Python's parser, pydantic and repr can recurse deeper than 64 on a thread's stack
DIGITS = 40  # of a whole number; counts have up to 19, hashes are text

_STEPS = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1, ord('"'): 0}
_OTHERS = bytes(sorted(set(range(256)) - set(_STEPS)))
_STRING = re.compile(rb'"[^"]*"?')  # without escapes
_SHAPE = bytes.maketrans(b"123456789E", b"000000000e")
_LONG = b"0" * (DIGITS + 1)
_LARGE = (b"e000", b"e+000", b"0" * 300)  # 1.8e308 is the largest
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def read(path: Path, remedy: str = "", *, limit: int = RECORD_BYTES, nonfinite: bool = False) -> Any:
    """Read a JSON file of at most `limit` bytes. Raises as `parsed` and `reading.read_bytes` do."""
    return parsed(read_bytes(path, limit), path, remedy, nonfinite=nonfinite)


def parsed(text: str | bytes, place: object, remedy: str = "", *, nonfinite: bool = False) -> Any:
    """Parse JSON of a file or an entry of one.

    Args:
        text: The JSON; bytes are UTF-8.
        place: Where it is, such as the file: the message starts with it.
        remedy: What to do about a fault; the message ends with it.
        nonfinite: Whether NaN and infinities are accepted, which JSON does not have but Python writes.

    Raises:
        BadInputError: It is not JSON, is nested more than DEPTH deep, has a key twice, a number that is not finite or
            has more than DIGITS digits, or a lone surrogate. The message is one line.
    """
    try:
        raw = text.encode("utf-8") if isinstance(text, str) else text
        text = raw.decode("utf-8")
        _check_depth(raw)
        shape = raw.translate(_SHAPE)
        content = json.loads(
            text,
            object_pairs_hook=_each_once,
            # calls our function for each number, of which a clip has 10,000, only if one may be too long
            parse_int=_whole if _LONG in shape else int,
            parse_float=_finite if not nonfinite and any(large in shape for large in _LARGE) else float,
            parse_constant=float if nonfinite else _no_number,
        )
        if _SURROGATE.search(text):  # a pair is one character beyond 16 bits, a lone one is invalid
            json.dumps(content, ensure_ascii=False).encode("utf-8")
    except UnicodeError as error:
        raise _fault(place, "not UTF-8 text", remedy) from error
    except (ValueError, RecursionError) as error:
        raise _fault(place, f"not JSON ({printable(str(error))})", remedy) from error
    return content


def _fault(place: object, what: str, remedy: str) -> BadInputError:
    return BadInputError(f"{place}: {what}" + (f"; {remedy}" if remedy else ""))


def _check_depth(text: bytes) -> None:
    """Count brackets outside strings, which takes no stack."""
    if text.count(b"[") + text.count(b"{") <= DEPTH:
        return
    brackets = text.replace(rb"\\", b"").replace(rb"\"", b"").translate(None, _OTHERS)
    depth = max(accumulate(map(_STEPS.__getitem__, _STRING.sub(b"", brackets))), default=0)
    if depth > DEPTH:
        raise ValueError(f"nested {depth:,} deep, the limit is {DEPTH}")


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"key {quoted(twice)} is given twice")
    return values


def _whole(digits: str) -> int:
    if len(digits) > DIGITS:
        raise ValueError(f"a whole number of {len(digits):,} digits, the limit is {DIGITS}")
    return int(digits)


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"{quoted(digits)} is too large")
    return value


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")
