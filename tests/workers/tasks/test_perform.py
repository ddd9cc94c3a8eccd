"""The frame of every job: an error is written, whatever it quotes."""

from app.db import transaction
from app.errors import Conflict
from app.jobs import enqueue
from app.models import Job, JobState, Project
from app.services.jobs import Claim
from workers.tasks.perform import perform


class TestPerform:
    def test_an_error_that_postgres_cannot_store_is_written_all_the_same(self, project: Project) -> None:
        def work(claim: Claim) -> None:
            raise Conflict("It said:\n\0 \ud800!")

        with transaction() as session:
            job = enqueue(session, project_id=project.id, kind="showcase")
        perform(job.id, work)
        with transaction() as session:
            stored = session.get_one(Job, job.id)
            assert (stored.state, stored.error) == (JobState.FAILED, "It said: \ufffd ?!")
