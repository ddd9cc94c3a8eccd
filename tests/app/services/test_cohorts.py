"""A change of cohort: the counts follow what the next snapshot will hold."""

from pathlib import Path

from sqlalchemy.orm import Session

from app.models import Cohort, DemonstrationOrigin, Membership, Purpose, Role
from app.services import counters, demonstrations, judgements, people
from tests.app import registry
from tests.app.queue import make_queue, rank, take

NAMES = (counters.JUDGEMENTS, counters.HELD_OUT_JUDGEMENTS, counters.COMPARISONS, counters.DEMONSTRATIONS)


def test_counts_follow_a_person_there_and_back(session: Session, tmp_path: Path) -> None:
    queue = make_queue(session, tmp_path)
    project, number = queue.project, queue.round.number
    owner = registry.access_of(registry.make_user(session, name="Olga"), project, Role.OWNER)
    ada, bob = queue.person(session), queue.person(session, "Bob")
    session.add(Membership(project_id=project.id, user_id=ada.user.id, roles=["labeller"], cohort=Cohort.TRAINING))
    for person, purpose in ((ada, Purpose.TRAIN), (ada, Purpose.EVALUATE), (bob, Purpose.TRAIN)):
        task = queue.task(session, purpose=purpose)
        judgements.submit_ranking(session, person, task.uid, rank(take(session, person), [1, 2, 2]))
    prompt = registry.make_prompt(session, project)
    demonstrations.add(
        session, project, prompt_id=prompt.id, text="A wren.", author=ada.user, origin=DemonstrationOrigin.WRITTEN
    )

    def counts() -> list[int]:
        names = (*NAMES, counters.judgements_of_round(number))
        return [counters.get(session, project.id, name) for name in names]

    def move(to: Cohort) -> None:
        people.change_member(session, owner, ada.user.uid, roles=["labeller"], cohort=to, is_paused=False)

    assert counts() == [2, 0, 4, 1, 2]
    move(Cohort.HELD_OUT)
    assert counts() == [1, 1, 2, 0, 1]
    move(Cohort.HELD_OUT)
    assert counts() == [1, 1, 2, 0, 1]
    move(Cohort.TRAINING)
    assert counts() == [2, 0, 4, 1, 2]
