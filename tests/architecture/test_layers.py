"""What may stand where: SQL, commits, the environment. Each rule has a one-line escape that gives its reason."""

import ast

from tests.architecture.source import Source, name_of, sources

QUERY_CALLS = {"execute", "scalar", "scalars", "get_one", "query", "stream_scalars"}
QUERY_NAMES = {
    "select",
    "insert",
    "update",
    "delete",
    "text",
    "func",
    "exists",
    "and_",
    "or_",
    "case",
    "literal_column",
}
SESSIONS = {"session", "connection", "cursor"}


def _calls(source: Source) -> list[ast.Call]:
    return [node for node in source.walk(ast.Call) if isinstance(node, ast.Call)]


def test_sql_lives_in_queries_only() -> None:
    """Escape: `# sql: reason`."""
    found = []
    for source in sources("app", "workers"):
        if source.path.startswith(("app/queries/", "app/models/")) or source.path == "app/db.py":
            continue
        for call in _calls(source):
            owner, _, method = name_of(call).rpartition(".")
            is_query = method in QUERY_CALLS and owner.rpartition(".")[2] in SESSIONS
            if is_query and not source.has_escape(call, "sql"):
                found.append(f"{source.path}:{call.lineno} calls {owner}.{method}")
        for node in source.walk(ast.ImportFrom):
            assert isinstance(node, ast.ImportFrom)
            names = {alias.name for alias in node.names}
            is_sql = (node.module or "").startswith("sqlalchemy") and names & QUERY_NAMES
            if is_sql and not source.has_escape(node, "sql"):
                found.append(f"{source.path}:{node.lineno} imports {', '.join(sorted(names & QUERY_NAMES))}")
    assert not found, "move it to app/queries:\n" + "\n".join(found)


def test_only_the_edge_commits() -> None:
    """Escape: `# commit: reason`."""
    found = [
        f"{source.path}:{call.lineno} calls {name_of(call)}"
        for source in sources("app", "workers")
        if source.path != "app/db.py"
        for call in _calls(source)
        if name_of(call).rpartition(".")[2] in {"commit", "rollback"} and not source.has_escape(call, "commit")
    ]
    assert not found, "let app.db commit at the edge:\n" + "\n".join(found)


def test_only_settings_read_the_environment() -> None:
    """Escape: `# environment: reason`."""
    found = [
        f"{source.path}:{node.lineno} reads {name_of(node)}"
        for source in sources("app", "workers", "migrations")
        if source.path != "app/settings.py"
        for node in source.walk(ast.Attribute)
        if name_of(node) in {"os.environ", "os.getenv", "os.environb"} and not source.has_escape(node, "environment")
    ]
    assert not found, "make it a field of app.settings.Settings:\n" + "\n".join(found)


def test_every_write_passes_a_service() -> None:
    """Routers and tasks add no rows themselves. Escape: `# write: reason`."""
    found = [
        f"{source.path}:{call.lineno} calls {name_of(call)}"
        for source in sources("app/routers", "app/web", "workers/tasks")
        for call in _calls(source)
        if name_of(call) in {"session.add", "session.add_all", "session.delete", "session.merge"}
        and not source.has_escape(call, "write")
    ]
    assert not found, "call a service instead:\n" + "\n".join(found)
