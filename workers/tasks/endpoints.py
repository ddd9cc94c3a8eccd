"""A job of the cpu worker: ask an endpoint one short question, so that its admin sees whether it answers."""

from time import monotonic

from app.db import transaction
from app.errors import Conflict
from app.schemas.plans import Part
from app.services import endpoints
from app.services.jobs import Claim
from workers.celery_app import celery
from workers.tasks import outside, sending
from workers.tasks.perform import check, perform

QUESTION = [{"role": "user", "content": "Answer with one word: what colour is a clear sky at noon?"}]

_NOBODY = "00000000-0000-0000-0000-000000000000"


@celery.task(name="preferable.test_endpoint")
def test_endpoint(job_id: int) -> None:
    """Try an endpoint."""
    perform(job_id, _try)


def _try(claim: Claim) -> None:
    with transaction() as session:
        target = endpoints.load_test(session, claim)
    part = Part.model_validate(
        {"kind": "endpoint", "source": _NOBODY, "responses": 1, "temperature": 1.0, "max_new_tokens": 64}
    )
    begun = monotonic()
    way = outside.Way(patience=outside.OF_TRIES)
    asked = sending.ask_all(target, [QUESTION], [1], part, keep_going=lambda: check(claim), way=way)
    if asked.failure or asked.refused:
        raise Conflict(asked.failure or asked.refused[0])
    with transaction() as session:
        endpoints.finish_test(session, claim, text=asked.answers[0][0].text, seconds=monotonic() - begun)
