"""Reading YAML: depth, nodes and digits are bounded, keys are unique, and values are plain."""

from pathlib import Path
from typing import Any

import yaml

from mksgn.common.errors import BadInputError
from mksgn.common.json_text import DEPTH, DIGITS
from mksgn.common.quoting import printable, quoted
from mksgn.common.reading import TEXT_BYTES, read_text

# Including what aliases repeat. Counts of 5,000 populations have 60,000; a file at the limit takes 4 s.
NODES = 200_000
DIRECTIVES = 10  # %YAML and %TAG lines; libyaml compares each with all before it

# Takes a tenth of yaml.SafeLoader's time, if PyYAML has been built with libyaml, as its wheels are.
_BASE: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_PLAIN = [f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int", "float", "str", "seq", "map")]


class _Loader(_BASE):
    """Knows only those types of YAML that JSON has; a date stays text."""

    def construct_yaml_int(self, node: Any) -> int:
        if len(node.value) > DIGITS:
            raise ValueError(f"a whole number of {len(node.value):,} digits, the limit is {DIGITS}")
        return super().construct_yaml_int(node)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in known if not tag.endswith(":timestamp")]
    for first, known in _BASE.yaml_implicit_resolvers.items()
}
_Loader.yaml_constructors = {
    tag: construct for tag, construct in _BASE.yaml_constructors.items() if tag is None or tag in _PLAIN
} | {"tag:yaml.org,2002:int": _Loader.construct_yaml_int}


def read(path: Path, remedy: str = "name a file", *, limit: int = TEXT_BYTES) -> Any:
    """Read a YAML or JSON file of at most `limit` bytes. Raises as `parsed` and `reading.read_text` do."""
    return parsed(read_text(path, limit, remedy), path)


def names_in(path: Path, key: str, filled: str | None = None) -> tuple[str, ...]:
    """Return the names of a file's entries, only for help; code that works with the entries reads and checks the file.

    Args:
        path: A file of this package.
        key: Where the list of entries is.
        filled: Leave out an entry where this field is empty.
    """
    return tuple(str(entry["name"]) for entry in read(path)[key] if filled is None or entry[filled])


def parsed(text: str, place: object) -> Any:
    """Parse YAML of one document.

    Args:
        text: The YAML.
        place: Where it is, such as the file: the message starts with it.

    Raises:
        BadInputError: It is not YAML, is nested more than DEPTH deep, has more than NODES nodes, a value that refers to
            itself, a key twice, a tag other than a plain value's, or a whole number of more than DIGITS digits. The
            message is one line.
    """
    try:
        _check_size(text)
        loader = _Loader(text)
        try:
            root = loader.get_single_node()
            if root is None:
                return None
            _check_keys(root)
            return loader.construct_document(root)
        finally:
            loader.dispose()
    except Exception as error:  # for a wrong value, PyYAML raises what int(), a lookup or a pattern does
        raise BadInputError(f"{place}: not YAML ({_line(error)})") from error


def _line(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    text = getattr(error, "problem", None) or str(error) or type(error).__name__
    return printable(f"{where}{' '.join(text.split())}")[:300]


def _check_size(text: str) -> None:
    """Count depth and nodes from the events, which takes no stack; composing nodes is recursive, in C."""
    if text.count("\n%") + text.count("\r%") > DIRECTIVES:
        raise ValueError(f"more than {DIRECTIVES} lines that start with %")
    nodes = 0
    sizes: dict[str, int | None] = {}  # nodes that an alias stands for; None: the anchored value is not complete
    begun: list[tuple[str | None, int]] = []  # anchor of each open collection, and the nodes before it
    for event in yaml.parse(text, _BASE):
        if isinstance(event, yaml.CollectionEndEvent):
            anchor, before = begun.pop()
            if anchor is not None:
                sizes[anchor] = nodes - before
        elif isinstance(event, yaml.NodeEvent):
            size = 1
            if isinstance(event, yaml.AliasEvent):
                known = sizes.get(str(event.anchor), 1)  # an unknown one is refused when it is composed
                if known is None:
                    raise ValueError(f"{quoted(event.anchor)} contains itself")
                size = known
            elif isinstance(event, yaml.CollectionStartEvent):
                begun.append((event.anchor, nodes))
                if len(begun) > DEPTH:
                    raise ValueError(f"nested more than {DEPTH} deep, the limit")
            if event.anchor is not None and not isinstance(event, yaml.AliasEvent):
                sizes[event.anchor] = None if isinstance(event, yaml.CollectionStartEvent) else 1
            nodes += size
            if nodes > NODES:
                raise ValueError(f"more than {NODES:,} values, the limit, counting those that aliases repeat")


def _check_keys(root: Any) -> None:
    """Refuse a key that is given twice, of which YAML libraries take the last."""
    waiting, seen = [root], {id(root)}
    while waiting:
        node = waiting.pop()
        inner = [] if isinstance(node, yaml.ScalarNode) else node.value
        if isinstance(node, yaml.MappingNode):
            keys = set()
            for key, _ in node.value:
                if isinstance(key, yaml.ScalarNode):
                    if (key.tag, key.value) in keys:
                        what = f"key {quoted(key.value)} is given twice"
                        raise yaml.MarkedYAMLError(problem=what, problem_mark=key.start_mark)
                    keys.add((key.tag, key.value))
            inner = [part for pair in node.value for part in pair]
        waiting += [child for child in inner if id(child) not in seen]
        seen.update(map(id, inner))
