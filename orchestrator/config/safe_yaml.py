"""Reading an untrusted YAML file: nothing in it is executed or expanded beyond bounds, and credentials are refused.

Plain values are what they look like to a reader of today (YAML 1.2's core schema, https://yaml.org/spec/1.2.2, with two
things kept of YAML 1.1, which PyYAML implements: `yes`, `no`, `on` and `off`, and `1_000`). So `2e-5` is a number, and
a date, `1:30` and `010` are text, as is a number that is too large to be one: a commit such as `12e45678`.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from orchestrator.core.errors import UserError
from orchestrator.core.locations import credential

MAX_BYTES = 1 << 20
"""Maximum size of a file; the largest example has 3,000 bytes."""
MAX_NODES = 100_000
"""Maximum number of values in a file, each counted as often as an alias (`*name`) repeats it."""


PLAIN = (
    ("null", "~nN\0", r"~|null|Null|NULL|"),
    ("bool", "tTfFyYnNoO", r"true|True|TRUE|false|False|FALSE|yes|Yes|YES|no|No|NO|on|On|ON|off|Off|OFF"),
    ("int", "-+0123456789", r"[-+]?(0|[1-9](_?[0-9])*)|0o[0-7]+|0x[0-9a-fA-F]+"),
    (
        "float", "-+.0123456789",
        r"[-+]?(\.[0-9]+|(0|[1-9](_?[0-9])*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
    ),
    ("merge", "<", r"<<"),
)  # fmt: skip
"""Type, the characters that a plain value of it begins with (NUL for an empty one), and its form; the first that fits
is taken, and anything else is text."""


class _Careful(yaml.SafeLoader):
    """PyYAML's SafeLoader, which also refuses duplicate keys and aliases that expand a small file to a huge one.

    PyYAML would silently take the last of several equal keys.
    """

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}

    def int_of(self, node: yaml.ScalarNode) -> int:
        return int(self.construct_scalar(node), 0)

    def float_of(self, node: yaml.ScalarNode) -> float | str:
        text = self.construct_scalar(node)
        if text.lower().endswith((".inf", ".nan")):
            return float(text.replace(".", ""))
        value = float(text)
        return text if math.isinf(value) else value

    def construct_document(self, node: yaml.Node) -> Any:
        if _size(node, {}, ()) > MAX_NODES:
            raise yaml.constructor.ConstructorError(
                None, None, f"its aliases expand it to more than {MAX_NODES} values", node.start_mark
            )
        return super().construct_document(node)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<")
        for key, times in keys.items():
            if times > 1:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} appears twice", node.start_mark)
        return super().construct_mapping(node, deep)


for _type, _first, _form in PLAIN:
    _Careful.add_implicit_resolver(
        f"tag:yaml.org,2002:{_type}", re.compile(f"^(?:{_form})$"), [c.replace("\0", "") for c in _first]
    )
_Careful.add_constructor("tag:yaml.org,2002:int", _Careful.int_of)
_Careful.add_constructor("tag:yaml.org,2002:float", _Careful.float_of)


def read_yaml(path: Path, expected: str) -> dict[Any, Any]:
    """Read a YAML file, which must be a mapping.

    Args:
        expected: what the file should contain, for messages.

    Raises:
        UserError: the file is missing, too large, not YAML or not a mapping, or it contains a credential.
    """
    try:
        with path.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)  # no more: it may be /dev/zero
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give the path of a YAML file") from None
    if len(content) > MAX_BYTES:
        raise UserError(f"{path}: is larger than {MAX_BYTES} bytes; give the path of a YAML file")
    try:
        data = yaml.load(content.decode(), Loader=_Careful)
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not UTF-8 text; give the path of a YAML file") from None
    except RecursionError:
        raise UserError(f"{path}: is nested too deep; {expected}") from None
    except (yaml.YAMLError, ValueError, KeyError) as error:  # the latter two: `!!int x`, `!!bool maybe`
        raise UserError(f"{path}: is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict):
        raise UserError(f"{path}: contains {type(data).__name__}, not keys; {expected}")
    for where, text in _texts("", data):
        if kind := credential(text):
            raise UserError(
                f"{path}: {where}: contains {kind}, and the file is kept with the results; take it out, and give it "
                "where its own tools find it (`hf auth login`; AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or ~/.aws)"
            )
    return data


def _size(node: yaml.Node, known: dict[int, int], above: tuple[int, ...]) -> int:
    """Count the values that a YAML node expands to."""
    if id(node) in above:
        raise yaml.constructor.ConstructorError(
            None, None, "an alias is inside the value that it refers to", node.start_mark
        )
    if id(node) not in known:
        inner = [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else node.value
        parts = inner if isinstance(node, yaml.CollectionNode) else []
        known[id(node)] = 1 + sum(_size(part, known, (*above, id(node))) for part in parts)
    return known[id(node)]


def _texts(where: str, value: Any) -> Iterator[tuple[str, str]]:
    """Yield every string in a file, keys included, after the path of its key."""
    if isinstance(value, str):
        yield where, value
    elif isinstance(value, dict):
        for key, each in value.items():
            yield from _texts(where or "its keys", key)
            yield from _texts(f"{where}.{key}".lstrip("."), each)
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from _texts(f"{where}[{index}]", each)
