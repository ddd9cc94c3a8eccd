"""A job of the cpu worker: ask an endpoint one short question, so that its admin sees whether it answers."""

from time import monotonic

from app.db import transaction
from app.errors import Conflict
from app.schemas.plans import Part
from app.services import endpoints
from app.services.jobs import Claim
from workers.celery_app import celery
from workers.tasks import outside
from workers.tasks.perform import perform

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
    try:
        answer = outside.ask(target, QUESTION, part, outside.Way())
    except outside.PromptRefusedError as error:
        raise Conflict(str(error)) from None
    with transaction() as session:
        endpoints.finish_test(session, claim, text=answer.text, seconds=monotonic() - begun)
