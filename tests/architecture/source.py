"""The project's own Python files, parsed, and the one-line escapes that a rule may be broken with."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Source:
    """One file: where it is, its lines and its syntax tree."""

    path: str
    lines: tuple[str, ...]
    tree: ast.Module

    def has_escape(self, node: ast.AST, rule: str) -> bool:
        """Whether the line of `node` says `# rule: reason`."""
        _, found, reason = self.lines[node.lineno - 1].partition(f"# {rule}: ")
        return bool(found and reason.strip())

    def walk(self, kind: type[ast.AST]) -> Iterator[ast.AST]:
        """Every node of a kind."""
        return (node for node in ast.walk(self.tree) if isinstance(node, kind))


@cache
def sources(*folders: str) -> tuple[Source, ...]:
    """The Python files below `folders`, by path."""
    paths = sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))
    assert paths, f"no files below {folders}"
    return tuple(_read(path) for path in paths)


def _read(path: Path) -> Source:
    text = path.read_text(encoding="utf-8")
    return Source(path.relative_to(ROOT).as_posix(), tuple(text.splitlines()), ast.parse(text))


def name_of(node: ast.AST) -> str:
    """The dotted name that is called or read, as far as it is plain: `os.environ`, `session.execute`."""
    match node:
        case ast.Call():
            return name_of(node.func)
        case ast.Attribute():
            return f"{name_of(node.value)}.{node.attr}"
        case ast.Name():
            return node.id
    return ""
