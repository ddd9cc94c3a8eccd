"""docs/ppo.md keeps its word: every function and every test that it names exists, and no known detail is missing."""

import ast
import re

import pytest

from tests.architecture.source import ROOT

PAGE = (ROOT / "docs/ppo.md").read_text(encoding="utf-8")
NAMES = sorted(set(re.findall(r"`((?:rlhf|training)/\w+\.py(?:::\w+)+)`", PAGE)))


@pytest.mark.parametrize("name", NAMES)
def test_every_function_and_test_it_names_exists(name: str) -> None:
    path, *parts = name.split("::")
    folder = "tests/workers" if path.split("/")[1].startswith("test_") else "workers"
    body: list[ast.stmt] = ast.parse((ROOT / folder / path).read_text(encoding="utf-8")).body
    for part in parts:
        found = [node for node in body if part in _names(node)]
        assert found, f"{name}: no {part} in {folder}/{path}"
        body = getattr(found[0], "body", [])


def test_lists_all_twenty_details_of_the_checklist_each_with_a_test() -> None:
    rows = re.findall(r"^\| (\d+)\. .* \| `\w+/test_\w+\.py::\w+::\w+` \|$", PAGE, re.M)
    assert [int(number) for number in rows] == list(range(1, 21))


def test_every_row_names_a_test_or_says_where_it_belongs() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith("| detail | ")]
    loose = [row for row in rows if "/test_" not in row and not row.endswith("| – |") and not row.startswith("| trap")]
    assert not loose, "\n".join(loose)


def _names(node: ast.stmt) -> set[str]:
    """What a statement defines."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return {node.name}
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return {target.id for target in targets if isinstance(target, ast.Name)}
