"""Importing prompts: rows a second into an empty project and into one of a million, ours against Label Studio's import.

    python -m benchmarks.import_vs_label_studio [--rows 100000] [--stored 1000000] [--peer-rows 30000] [--json FILE|-]

Ours is the worker's own job on a file of JSON lines, with the settings that the page proposes: exact, near and prefix duplicates,
the cap by source, splits by source, language and use case; then the same with the patterns for personal data. The prompts are
invented, about 210 characters long, five of a source, each another. Label Studio's is a POST of the same rows to its import, on
the same Postgres with fsync on, in requests of 5,000 rows. Peak memory is the worker's, over what it has before it begins.
`--home FOLDER` keeps the million for another run.
"""

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psycopg

from app import db
from app.models import BaseCheckpoint, Import, ImportKind, Project, User
from app.permissions import Access
from app.schemas.imports import Counts, ImportSettings
from app.settings import adopt
from benchmarks import report
from benchmarks.queue_vs_label_studio import Servers, serving_label_studio

SMALL_WORDS = [
    "the",
    "of",
    "and",
    "to",
    "in",
    "a",
    "is",
    "that",
    "for",
    "it",
    "as",
    "was",
    "with",
    "be",
    "by",
    "on",
    "not",
    "he",
    "his",
    "but",
    "at",
    "are",
    "this",
    "have",
    "from",
    "or",
    "had",
    "an",
    "they",
    "which",
    "one",
    "you",
    "were",
    "her",
    "all",
    "she",
    "there",
    "would",
    "their",
    "we",
    "him",
    "been",
    "has",
    "when",
    "who",
    "will",
    "more",
    "no",
    "if",
    "out",
    "so",
    "said",
    "what",
    "up",
    "its",
    "about",
    "into",
]
"""Every second word or so of English prose; the others are invented, since no text is part of the project."""
SYLLABLES = [consonant + vowel for consonant in "bdfgklmnprst" for vowel in "aeo"]
PEER_BATCH = 5_000


def write_rows(count: int, *, seed: int) -> Iterator[dict[str, str]]:
    """Prompts of 20 to 60 words, a question mark at the end of each third; another seed shares no text with it."""
    rng = random.Random(seed)
    words = ["".join(rng.choices(SYLLABLES, k=rng.randint(1, 4))) for _ in range(20_000)]
    for number in range(count):
        length = rng.randint(20, 60)
        chosen = [
            word
            for pair in zip(rng.choices(SMALL_WORDS, k=length), rng.choices(words, k=length), strict=True)
            for word in pair
        ]
        text = " ".join(chosen[:length]).capitalize() + rng.choice("..?")
        yield {"prompt": text, "source": f"user-{seed}-{number // 5}"}


def write_file(path: Path, count: int, *, seed: int) -> Path:
    """The rows as JSON lines."""
    if not path.exists():
        with path.open("w", encoding="utf-8") as out:
            out.writelines(json.dumps(row) + "\n" for row in write_rows(count, seed=seed))
    return path


def run_job(job_id: int) -> None:
    """Do the job in this process; print how long it took, and the memory before and at most."""
    from resource import RUSAGE_SELF, getrusage

    from app.intake import language, likeness, pii
    from workers.tasks.imports import import_file

    likeness.sketch(["the first"])
    language.detect_by_model("the first text that is looked at, to have the model loaded")
    pii.find_pii([{"role": "user", "content": "call +49 30 901820 or 4111 1111 1111 1111 or anna@example.com"}])
    before, began = getrusage(RUSAGE_SELF).ru_maxrss, time.perf_counter()
    import_file(job_id)
    took = time.perf_counter() - began
    grown = (getrusage(RUSAGE_SELF).ru_maxrss - before) / 1024
    print(json.dumps({"seconds": round(took, 3), "grown_mib": round(grown, 1)}))


class World:
    """A database with projects to import into."""

    def __init__(self, servers: Servers, name: str) -> None:
        self.is_new = servers.create(name)
        self._servers = servers
        self.url = servers.url(name)
        self._use()
        db.migrate(self.url)

    def _use(self) -> None:
        adopt(DATABASE_URL=self.url, REDIS_URL=self._servers.redis_url, PREFERABLE_HOME=str(self._servers.home))
        db.get_engine.cache_clear()

    def project(self, slug: str) -> Access:
        """An owner's access to the project of that name, made at need."""
        from sqlalchemy import select

        self._use()
        with db.transaction() as session:
            user = session.scalar(select(User).limit(1))
            if user is None:
                user = User(email="owner@example.org", name="Owner", is_owner=True)
                base = BaseCheckpoint(name="none", source="benchmark", sha256="0" * 64)
                session.add_all([user, base])
                session.flush()
            found = session.scalar(select(Project).where(Project.slug == slug))
            if found is None:
                base_id = session.scalars(select(BaseCheckpoint.id)).one()
                found = Project(slug=slug, name=slug, base_checkpoint_id=base_id, sampling={}, automation={})
                session.add(found)
                session.flush()
            from app.models import Role

            return Access(user, found, frozenset(Role), "training")  # type: ignore[arg-type]

    def bring(self, access: Access, path: Path, *, looks_for_pii: bool) -> dict[str, Any]:
        """Import a file by a worker's job in a process of its own."""
        from app.services import imports

        self._use()
        with db.transaction() as session, path.open("rb") as data:
            row = imports.upload(session, access, kind=ImportKind.PROMPTS, name=path.name, data=data)
            told = ImportSettings.model_validate(row.settings | {"looks_for_pii": looks_for_pii})
            job_id, import_id = imports.start(session, access, row.uid, told).job_id, row.id
        printed = subprocess.run(
            [sys.executable, "-m", "benchmarks.import_vs_label_studio", "--run", str(job_id)],
            env={**os.environ, "DATABASE_URL": self.url, "REDIS_URL": self._servers.redis_url}
            | {"PREFERABLE_HOME": str(self._servers.home)},
            cwd=report.ROOT,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        ).stdout
        measured: dict[str, Any] = json.loads(printed.strip().splitlines()[-1])
        with db.transaction() as session:
            counts = Counts.from_json(session.get_one(Import, import_id).counts)
        found = {name: count for name, count in counts.to_json().items() if count}
        return measured | {"rows_per_second": round(counts.rows / measured["seconds"]), "counts": found}

    def rest(self) -> None:
        """Let Postgres finish what the last import left it: the next is not to pay for it."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute("VACUUM ANALYZE")
            connection.execute("CHECKPOINT")


def measure_ours(servers: Servers, folder: Path, options: Any) -> dict[str, Any]:
    """Every import of ours; each into its own project, the last ones into that of the million."""
    files = {seed: write_file(folder / f"{seed}-{options.rows}.jsonl", options.rows, seed=seed) for seed in range(1, 4)}
    small = World(servers, f"imports_{os.getpid()}")
    found: dict[str, Any] = {}
    plain = small.project("plain")
    for name, access, seed, is_pii in (
        ("warm_up", small.project("warm"), 3, True),
        ("empty", plain, 1, False),
        ("same_again", plain, 1, False),
        ("empty_pii", small.project("pii"), 2, True),
    ):
        small.rest()
        found[name] = small.bring(access, files[seed], looks_for_pii=is_pii)
        print(name, found[name], file=sys.stderr)
    large = World(servers, f"imports_of_{options.stored}")
    access = large.project("large")
    if large.is_new:
        million = write_file(folder / f"stored-{options.stored}.jsonl", options.stored, seed=0)
        found["filling"] = large.bring(access, million, looks_for_pii=False)
        print("filling", found["filling"], file=sys.stderr)
    else:
        with psycopg.connect(large.url, autocommit=True) as connection:
            kept = "EXISTS (SELECT FROM imports WHERE imports.id = prompts.import_id AND imports.name LIKE 'stored-%')"
            connection.execute(f"DELETE FROM prompts WHERE NOT {kept}")
    for name, seed, is_pii in (("stored", 1, False), ("stored_pii", 2, True)):
        large.rest()
        found[name] = large.bring(access, files[seed], looks_for_pii=is_pii)
        print(name, found[name], file=sys.stderr)
    return found


def measure_label_studio(servers: Servers, rows: int) -> dict[str, Any]:
    """The same prompts through Label Studio's import, in requests of `PEER_BATCH`."""
    prompts = list(write_rows(rows, seed=1))
    with (
        serving_label_studio(servers) as (port, token),
        httpx.Client(
            base_url=f"http://127.0.0.1:{port}", headers={"Authorization": f"Token {token}"}, timeout=600
        ) as client,
    ):
        config = '<View><Text name="prompt" value="$prompt"/><TextArea name="a" toName="prompt"/></View>'
        made = client.post("/api/projects", json={"title": "import", "label_config": config}).raise_for_status()
        address = f"/api/projects/{made.json()['id']}/import"
        began = time.perf_counter()
        for at in range(0, rows, PEER_BATCH):
            client.post(address, json=[{"data": row} for row in prompts[at : at + PEER_BATCH]]).raise_for_status()
        took = time.perf_counter() - began
    return {"seconds": round(took, 2), "rows": rows, "rows_per_second": round(rows / took)}


def main() -> None:
    """Measure both and write the report."""
    options = report.parser(__doc__ or "")
    options.add_argument("--rows", type=int, default=100_000, help="prompts of each import that is measured")
    options.add_argument("--stored", type=int, default=1_000_000, help="prompts of the large project")
    options.add_argument("--peer-rows", type=int, default=30_000, help="prompts of Label Studio; 0 leaves it out")
    options.add_argument("--home", type=Path, help="folder of the servers' data, kept for another run")
    options.add_argument("--run", type=int, help="do this job here; what the benchmark calls itself by")
    asked = options.parse_args()
    if asked.run is not None:
        run_job(asked.run)
        return
    with tempfile.TemporaryDirectory() as scratch:
        home = (asked.home or Path(scratch)).resolve()
        home.mkdir(parents=True, exist_ok=True)
        servers = Servers(home)
        try:
            found: dict[str, Any] = measure_ours(servers, home, asked)
            if asked.peer_rows:
                found["label_studio"] = measure_label_studio(servers, asked.peer_rows)
        finally:
            servers.stop()
    ratios = {
        "stored_over_empty": round(found["stored"]["seconds"] / found["empty"]["seconds"], 2),
        "stored_over_empty_pii": round(found["stored_pii"]["seconds"] / found["empty_pii"]["seconds"], 2),
    }
    if asked.peer_rows:
        peer = found["label_studio"]["rows_per_second"]
        ratios["over_label_studio"] = round(found["empty"]["rows_per_second"] / peer, 1)
        ratios["over_label_studio_pii"] = round(found["empty_pii"]["rows_per_second"] / peer, 1)
    report.publish(report.machine(asked.threads) | {"load": report.load(), "ratios": ratios} | found, asked.json)


if __name__ == "__main__":
    main()
