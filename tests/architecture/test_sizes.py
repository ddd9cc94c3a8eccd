"""A file is understood without scrolling for long: files of at most 500 lines, functions of at most 80."""

import ast

from tests.architecture.source import Source, sources

FILE_LINES = 500
FUNCTION_LINES = 80
LOOP_LINES = 150


def test_files_are_short() -> None:
    """Escape: `# long: reason` on the first line."""
    found = [
        f"{source.path} has {len(source.lines)} lines"
        for source in sources("app", "workers", "tests")
        if len(source.lines) > FILE_LINES and "# long: " not in source.lines[0]
    ]
    assert not found, f"split what passes {FILE_LINES} lines:\n" + "\n".join(found)


def test_functions_are_short() -> None:
    """A straight training loop may have 150 lines. Escape: `# long: reason` on the line of `def`."""
    found = []
    for source in sources("app", "workers"):
        limit = LOOP_LINES if source.path.startswith("workers/training/") else FUNCTION_LINES
        for node in ast.walk(source.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not source.has_escape(node, "long"):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > limit:
                    found.append(f"{source.path}:{node.lineno} {node.name} has {length} lines")
    assert not found, "extract pure steps:\n" + "\n".join(found)


def test_loose_tolerances_say_why() -> None:
    """A tolerance above 1e-3 has a comment on its line, on the one above, or where its bracket closes."""
    found = [
        f"{source.path}:{keyword.value.lineno} {keyword.arg}={keyword.value.value}"
        for source in sources("tests")
        for keyword in source.walk(ast.keyword)
        if isinstance(keyword, ast.keyword)
        and keyword.arg in {"abs", "rel", "atol", "rtol", "abs_tol", "rel_tol"}
        and isinstance(keyword.value, ast.Constant)
        and isinstance(keyword.value.value, float)
        and keyword.value.value > 1e-3
        and not _is_explained(source, keyword.value.lineno)
    ]
    assert not found, "say why so loose:\n" + "\n".join(found)


def _is_explained(source: Source, line: int) -> bool:
    above, here, below = source.lines[line - 2 : line + 1]
    return "#" in here or above.lstrip().startswith("#") or below.lstrip().startswith(")  #")
