"""How messages quote what a file or a user gave: bounded, and harmless to a terminal."""

import reprlib
import unicodedata

_HARMFUL = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}  # control, direction, lone surrogates, line ends


class _Bounded(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxlong, self.maxstring, self.maxother = 3, 40, 60, 60

    def repr_int(self, value: int, level: int) -> str:
        # Python refuses to write more than 4,300 digits
        return (
            f"a number of {value.bit_length():,} bits" if value.bit_length() > 2000 else super().repr_int(value, level)
        )


_bounded = _Bounded()


def quoted(value: object, limit: int = 120) -> str:
    """Return a repr of at most `limit` characters, which takes no longer to make for a value that is huge or refers to
    itself."""
    try:
        text = printable(_bounded.repr(value))
    except Exception:  # an object's own repr may raise any error
        text = f"a {type(value).__name__}"
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def printable(text: str) -> str:
    """Escape characters that a terminal or a stream would act on, fail on, or hide. Line ends are among them."""
    if text.isprintable():
        return text
    return "".join(
        c
        if c.isprintable() or unicodedata.category(c) not in _HARMFUL
        else c.encode("unicode_escape", "surrogatepass").decode()
        for c in text
    )
