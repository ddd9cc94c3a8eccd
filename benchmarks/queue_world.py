"""A labelling queue of any size, written by the database itself: prompts, samples, open rank tasks, people, judgements.

Every task wants three judgements and is open. The first person (`heavy`) has judged the first tenth of the queue, which stays
open: whoever looks for their next task passes over all of it. The other judgements are spread over the other people and the
rest of the queue. A million tasks of five samples take about three minutes.
"""

from dataclasses import dataclass

import psycopg
from sqlalchemy import create_engine

from app import db
from app.security import hash_token
from app.services import bootstrap

K = 5
CHARACTERS = 400
WANTED = 3

_STEPS = (
    # Rows are made right, so nothing checks them one by one; uids in order of time keep their indexes quick to fill.
    "SET session_replication_role = replica; SET synchronous_commit = off",
    "UPDATE tasks SET state = 'retired'",
    """INSERT INTO users (email, name) SELECT 'person-' || n || '@example.org', 'Person ' || n
       FROM generate_series(0, {people} - 1) AS n""",
    """INSERT INTO memberships (project_id, user_id, roles) SELECT {project}, id, '{{labeller}}' FROM users
       WHERE email LIKE 'person-%'""",
    """INSERT INTO guideline_acks (project_id, guideline_id, user_id) SELECT {project}, guideline.id, person.id
       FROM guidelines AS guideline, users AS person
       WHERE guideline.project_id = {project} AND person.email LIKE 'person-%'""",
    """INSERT INTO judges (project_id, kind, user_id) SELECT {project}, 'human', id FROM users
       WHERE email LIKE 'person-%'""",
    "INSERT INTO prompt_pools (project_id, name) VALUES ({project}, 'bench')",
    """INSERT INTO prompts (uid, project_id, pool_id, messages, source, split, fingerprint, status)
       SELECT uuidv7(), {project}, (SELECT max(id) FROM prompt_pools),
         jsonb_build_array(jsonb_build_object('role', 'user', 'content', 'Question ' || n || ': what is best?')),
         'source-' || n, 'train', decode(lpad(to_hex(n), 64, '0'), 'hex'), 'active'
       FROM generate_series(1, {tasks}) AS n""",
    """INSERT INTO tasks (uid, project_id, kind, prompt_id, round_id, judgements_wanted, created_at, queued_at)
       SELECT uuidv7(), {project}, 'rank', id, (SELECT max(id) FROM rounds WHERE project_id = {project}), {wanted},
         now() - interval '1 day', now() - interval '1 day' + row_number() OVER (ORDER BY id) * interval '1 millisecond'
       FROM prompts WHERE pool_id = (SELECT max(id) FROM prompt_pools)""",
    """INSERT INTO samples (uid, project_id, prompt_id, origin, sampler_id, seed, text, html, length_tokens, finish_reason)
       SELECT uuidv7(), {project}, prompt.id, 'model', (SELECT max(id) FROM samplers WHERE project_id = {project}), k,
         body.text, '<p>' || body.text || '</p>', 100, 'stop'
       FROM prompts AS prompt, generate_series(1, {k}) AS k,
         LATERAL (SELECT left(repeat(md5(prompt.id || ':' || k) || ' ', 1 + {characters} / 33), {characters}) AS text) AS body
       WHERE prompt.pool_id = (SELECT max(id) FROM prompt_pools)""",
    """INSERT INTO task_outputs (project_id, task_id, position, sample_id)
       SELECT {project}, task.id, sample.seed - 1, sample.id FROM samples AS sample
       JOIN tasks AS task ON task.prompt_id = sample.prompt_id
       WHERE task.state = 'open' ORDER BY sample.id""",
    # The first tenth is the first person's; the rest goes round.
    """INSERT INTO leases (uid, project_id, task_id, slot, user_id, state, expires_at, shown_order, order_seed, created_at,
         ended_at)
       SELECT uuidv7(), {project}, task.id, 1, person.id, 'submitted', now(), '{{0,1,2,3,4}}', 1, now(), now() - interval '2 days'
       FROM (SELECT id, row_number() OVER (ORDER BY id) AS n FROM tasks WHERE state = 'open') AS task
       JOIN (SELECT id, row_number() OVER (ORDER BY id) - 1 AS n FROM users WHERE email LIKE 'person-%') AS person
         ON person.n = CASE WHEN task.n <= {tasks} / 10 THEN 0 ELSE 1 + task.n % ({people} - 1) END
       ORDER BY task.id LIMIT {judgements}""",
    """INSERT INTO judgements (uid, project_id, task_id, judge_id, lease_id, idempotency_key, status, created_at)
       SELECT uuidv7(), {project}, lease.task_id, judge.id, lease.id, uuidv7(), 'current', now() - interval '2 days'
       FROM leases AS lease JOIN judges AS judge ON judge.user_id = lease.user_id AND judge.project_id = {project}
       ORDER BY lease.id""",
    """INSERT INTO judgement_ranks (project_id, judgement_id, output_id, tier, raw_column)
       SELECT {project}, judgement.id, output.id, output.position + 1, output.position + 1
       FROM judgements AS judgement JOIN task_outputs AS output ON output.task_id = judgement.task_id
       ORDER BY judgement.id""",
    "RESET session_replication_role; RESET synchronous_commit",
    "VACUUM ANALYZE",
    "CHECKPOINT",
)


@dataclass(frozen=True)
class World:
    """A filled database."""

    url: str
    slug: str
    people: int


@dataclass(frozen=True)
class Person:
    """Somebody signed in: the cookie's token and the one of their forms."""

    token: str
    csrf_token: str


def fill(url: str, *, tasks: int, judgements: int, people: int) -> World:
    """Migrate the database at `url`, put the starter project into it, and fill that project."""
    db.migrate(url)
    engine = create_engine(db.normalise_url(url))
    with db.transaction(engine) as session:
        bootstrap.ensure(session)
    engine.dispose()
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute("SELECT id, slug FROM projects ORDER BY id LIMIT 1").fetchone()
        assert row is not None
        sizes = {"tasks": tasks, "judgements": judgements, "people": people, "k": K, "characters": CHARACTERS}
        for step in _STEPS:
            connection.execute(step.format(project=row[0], wanted=WANTED, **sizes).encode())
        for number in range(people):
            person = person_of(number)
            connection.execute(
                "INSERT INTO sessions (token_hash, csrf_token, user_id, expires_at, last_used_at)"
                " SELECT %s, %s, id, now() + interval '1 day', now() FROM users WHERE email = %s",
                (hash_token(person.token), person.csrf_token, f"person-{number}@example.org"),
            )
    return World(url, str(row[1]), people)


def tidy(url: str, people: int) -> World:
    """A world that was measured before, as another run begins: nothing held, nobody anywhere in the queue, no answer of today."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DELETE FROM leases WHERE state <> 'submitted'")
        connection.execute(
            "UPDATE leases SET ended_at = ended_at - interval '2 days' WHERE ended_at > now() - interval '1 day'"
        )
        connection.execute("DELETE FROM queue_marks")
        connection.execute("UPDATE sessions SET expires_at = now() + interval '1 day', last_used_at = now()")
        connection.execute("VACUUM ANALYZE tasks, leases")
        row = connection.execute("SELECT slug FROM projects ORDER BY id LIMIT 1").fetchone()
        assert row is not None
    return World(url, str(row[0]), people)


def person_of(number: int) -> Person:
    """How person `number` is signed in; 0 is the heavy one."""
    return Person(f"token-{number}", f"csrf-{number}")
