"""PAPERS.md is complete: every public formula has a row, and every row names a function and a test that exist."""

import ast
import importlib
import inspect
import re
from pathlib import Path

import workers.rlhf

HOME = Path(workers.rlhf.__file__).parent
TESTS = Path(__file__).parent
ROW = re.compile(r"^\|.*\| `(?P<module>\w+)\.(?P<name>\w+)` \| `(?P<test>test_\w+\.py)::(?P<case>\w+)` \|$", re.M)


def public():
    for path in HOME.glob("*.py"):
        module = importlib.import_module(f"workers.rlhf.{path.stem}") if path.stem != "__init__" else workers.rlhf
        for name, thing in inspect.getmembers(module):
            if inspect.getmodule(thing) is module and not name.startswith("_") and callable(thing):
                yield f"{path.stem}.{name}", thing


def rows():
    return [match.groupdict() for match in ROW.finditer((HOME / "PAPERS.md").read_text())]


def test_every_public_formula_has_a_row():
    results = {"losses.PolicyLoss"}  # what policy_loss returns
    assert {name for name, _ in public()} - results == {f"{row['module']}.{row['name']}" for row in rows()}


def test_every_row_names_a_test_that_exists():
    for row in rows():
        tree = ast.parse((TESTS / row["test"]).read_text())
        assert row["case"] in {node.name for node in tree.body if isinstance(node, ast.ClassDef)}, row


def test_every_function_on_tensors_states_shapes():
    for name, thing in public():
        takes_tensors = inspect.isfunction(thing) and "Tensor" in str(inspect.signature(thing))
        assert not takes_tensors or re.search(r"\((B|J|)(, ?\w+)*,?\)", thing.__doc__), name
