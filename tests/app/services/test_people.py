"""Invitations and roles: nobody above their own, never without an owner (T18)."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import create_engine, select, update
from sqlalchemy.orm import Session

from app import db
from app.errors import BadInput, Conflict, Forbidden, NotFound
from app.models import AuditEntry, Cohort, Invitation, Membership, Project, Role, User
from app.permissions import Access
from app.security import hash_token
from app.services import accounts, people
from app.settings import Settings
from tests.app import registry


@pytest.fixture
def project(session: Session, settings: Settings, tmp_path: Path) -> Project:
    return registry.make_project(session, tmp_path)[0]


def join(session: Session, project: Project, *roles: Role) -> Access:
    user = registry.make_user(session)
    session.add(Membership(project_id=project.id, user_id=user.id, roles=[role.value for role in roles]))
    session.flush()
    return registry.access_of(user, project, *roles)


def change(session: Session, access: Access, user: User, *roles: Role, is_paused: bool = False) -> bool:
    names = [role.value for role in roles]
    return people.change_member(session, access, user.uid, roles=names, cohort=Cohort.TRAINING, is_paused=is_paused)


def invite(session: Session, access: Access, *roles: Role, email: str = "") -> str:
    names = [role.value for role in roles]
    _, path = people.invite(session, access, email=email, roles=names, cohort=Cohort.HELD_OUT)
    return path.removeprefix("/invite/")


class TestInvite:
    def test_a_link_brings_one_person_in_with_its_roles(self, session: Session, project: Project) -> None:
        token = invite(session, join(session, project, Role.ADMIN), Role.LABELLER, Role.RESEARCHER)
        user = registry.make_user(session)
        assert people.join(session, token, user).project == project
        membership = session.scalars(select(Membership).where(Membership.user_id == user.id)).one()
        assert (membership.roles, membership.cohort) == (["researcher", "labeller"], Cohort.HELD_OUT)
        with pytest.raises(NotFound):
            people.join(session, token, registry.make_user(session))

    def test_only_a_hash_is_stored(self, session: Session, project: Project) -> None:
        token = invite(session, join(session, project, Role.ADMIN), Role.LABELLER)
        assert session.scalars(select(Invitation.token_hash)).one() == hash_token(token)

    def test_an_admin_cannot_make_an_owner(self, session: Session, project: Project) -> None:
        with pytest.raises(Forbidden):
            invite(session, join(session, project, Role.ADMIN), Role.OWNER)
        invite(session, join(session, project, Role.OWNER), Role.OWNER)

    @pytest.mark.parametrize("role", [Role.LABELLER, Role.RESEARCHER])
    def test_others_invite_nobody(self, session: Session, project: Project, role: Role) -> None:
        with pytest.raises(Forbidden):
            invite(session, join(session, project, role), Role.LABELLER)

    def test_needs_a_role_that_exists(self, session: Session, project: Project) -> None:
        admin = join(session, project, Role.ADMIN)
        with pytest.raises(BadInput, match="at least one"):
            invite(session, admin)
        with pytest.raises(BadInput, match="no role"):
            people.invite(session, admin, email="", roles=["emperor"], cohort=Cohort.TRAINING)

    def test_it_expires(self, session: Session, project: Project) -> None:
        token = invite(session, join(session, project, Role.ADMIN), Role.LABELLER)
        session.execute(update(Invitation).values(expires_at=datetime.now(UTC) - timedelta(seconds=1)))
        with pytest.raises(NotFound):
            people.join(session, token, registry.make_user(session))

    def test_it_can_be_revoked_once(self, session: Session, project: Project) -> None:
        admin = join(session, project, Role.ADMIN)
        token = invite(session, admin, Role.LABELLER, email="bo@example.org")
        uid = session.scalars(select(Invitation.uid)).one()
        people.revoke(session, admin, uid)
        entry = session.scalars(select(AuditEntry).where(AuditEntry.action == "revoke invitation")).one()
        assert (entry.details["person"], entry.details["roles"]) == ("bo@example.org", ["labeller"])
        with pytest.raises(NotFound):
            people.join(session, token, registry.make_user(session))
        with pytest.raises(NotFound):
            people.revoke(session, admin, uid)

    def test_a_named_one_is_for_that_person(self, session: Session, project: Project) -> None:
        user = registry.make_user(session)
        token = invite(session, join(session, project, Role.ADMIN), Role.LABELLER, email=user.email.upper())
        with pytest.raises(Conflict):
            people.join(session, token, registry.make_user(session))
        people.join(session, token, user)

    def test_a_member_keeps_the_roles_they_have(self, session: Session, project: Project) -> None:
        labeller = join(session, project, Role.LABELLER)
        token = invite(session, join(session, project, Role.ADMIN), Role.ADMIN)
        with pytest.raises(Conflict):
            people.join(session, token, labeller.user)

    def test_two_at_the_same_moment_make_one_member(self, database_url: str, tmp_path: Path) -> None:
        engine = create_engine(db.normalise_url(database_url))
        with db.transaction(engine) as session:
            project = registry.make_project(session, tmp_path)[0]
            admin = join(session, project, Role.ADMIN)
            tokens = [invite(session, admin, Role.LABELLER) for _ in range(2)]
            user = registry.make_user(session)
        barrier = threading.Barrier(2)

        def accept(token: str) -> str:
            barrier.wait(timeout=60)
            try:
                with db.transaction(engine) as session:
                    people.join(session, token, session.get_one(User, user.id))
            except Conflict as error:
                return error.message
            return "joined"

        with ThreadPoolExecutor(2) as pool:
            said = sorted(pool.map(accept, tokens))
        engine.dispose()
        assert said[1] == "joined" and "a member of" in said[0]


class TestJoinAsNew:
    def test_makes_the_account(self, session: Session, project: Project) -> None:
        token = invite(session, join(session, project, Role.ADMIN), Role.LABELLER)
        joined = people.join_as_new(
            session, token, name=" Ada  L ", email="Ada@Example.org", password="four words in a row"
        )
        assert (joined.user.email, joined.user.name) == ("ada@example.org", "Ada L")
        accounts.sign_in_with_password(session, email="ada@example.org", password="four words in a row", address="::1")

    def test_does_not_take_over_an_account(self, session: Session, project: Project) -> None:
        user = registry.make_user(session)
        token = invite(session, join(session, project, Role.ADMIN), Role.LABELLER)
        with pytest.raises(BadInput, match="has an account"):
            people.join_as_new(session, token, name="X", email=user.email, password="four words in a row")
        assert user.password_hash is None


class TestChangeMember:
    def test_new_roles_end_the_sessions(self, session: Session, project: Project) -> None:
        labeller = join(session, project, Role.LABELLER)
        token = accounts.sign_in(session, labeller.user)
        assert change(session, join(session, project, Role.ADMIN), labeller.user, Role.RESEARCHER)
        assert accounts.find_sign_in(session, token) is None

    def test_a_pause_ends_none(self, session: Session, project: Project) -> None:
        labeller = join(session, project, Role.LABELLER)
        token = accounts.sign_in(session, labeller.user)
        assert not change(session, join(session, project, Role.ADMIN), labeller.user, Role.LABELLER, is_paused=True)
        assert accounts.find_sign_in(session, token) is not None

    def test_an_admin_cannot_raise_themselves(self, session: Session, project: Project) -> None:
        admin = join(session, project, Role.ADMIN)
        with pytest.raises(Forbidden, match="above your own"):
            change(session, admin, admin.user, Role.ADMIN, Role.OWNER)

    def test_an_admin_cannot_lower_an_owner(self, session: Session, project: Project) -> None:
        owner = join(session, project, Role.OWNER)
        join(session, project, Role.OWNER)
        with pytest.raises(Forbidden, match="Only an owner"):
            change(session, join(session, project, Role.ADMIN), owner.user, Role.LABELLER)

    def test_the_last_owner_stays(self, session: Session, project: Project) -> None:
        owner = join(session, project, Role.OWNER)
        with pytest.raises(Conflict, match="last owner"):
            change(session, owner, owner.user, Role.ADMIN)
        other = join(session, project, Role.OWNER)
        change(session, owner, owner.user, Role.ADMIN)
        with pytest.raises(Conflict, match="last owner"):
            change(session, other, other.user)

    def test_a_stranger_is_no_member(self, session: Session, project: Project) -> None:
        with pytest.raises(NotFound):
            change(session, join(session, project, Role.OWNER), registry.make_user(session), Role.LABELLER)

    def test_invitations_beyond_the_new_roles_are_revoked(self, session: Session, project: Project) -> None:
        owner, other = join(session, project, Role.OWNER), join(session, project, Role.OWNER)
        tokens = [invite(session, other, role) for role in (Role.OWNER, Role.LABELLER)]
        kept = invite(session, owner, Role.OWNER)
        change(session, owner, other.user, Role.ADMIN)
        with pytest.raises(NotFound):
            people.find_invitation(session, tokens[0])
        people.find_invitation(session, tokens[1])
        change(session, owner, other.user, Role.LABELLER)
        with pytest.raises(NotFound):
            people.find_invitation(session, tokens[1])
        people.find_invitation(session, kept)

    def test_it_is_in_the_audit_log(self, session: Session, project: Project) -> None:
        owner, labeller = join(session, project, Role.OWNER), join(session, project, Role.LABELLER)
        change(session, owner, labeller.user, Role.RESEARCHER)
        entry = session.scalars(select(AuditEntry).order_by(AuditEntry.id.desc()).limit(1)).one()
        assert (entry.action, entry.actor_id, entry.subject_uid) == ("change member", owner.user.id, labeller.user.uid)
        assert entry.details["roles"] == ["researcher"]
        assert entry.details["person"] == labeller.user.email


class TestChangeWork:
    def test_sets_skills_and_cap_and_records_it_once(self, session: Session, project: Project) -> None:
        owner, labeller = join(session, project, Role.OWNER), join(session, project, Role.LABELLER)
        for _ in range(2):
            people.change_work(session, owner, labeller.user.uid, skills=" Math, skill:law,math ", daily_cap="40")
        member = session.scalars(select(Membership).where(Membership.user_id == labeller.user.id)).one()
        assert (member.skills, member.daily_cap) == (["skill:math", "skill:law"], 40)
        entry = session.scalars(select(AuditEntry).where(AuditEntry.action == "change member's work")).one()
        assert (entry.details["skills"], entry.details["daily_cap"]) == (["skill:math", "skill:law"], 40)
        people.change_work(session, owner, labeller.user.uid, skills="", daily_cap=" ")
        assert (member.skills, member.daily_cap) == ([], None)

    @pytest.mark.parametrize(("skills", "cap"), [("two words", ""), ("<b>", ""), ("", "0"), ("", "1001"), ("", "ten")])
    def test_refuses_what_it_cannot_read(self, session: Session, project: Project, skills: str, cap: str) -> None:
        owner = join(session, project, Role.OWNER)
        with pytest.raises(BadInput, match=r"Skills|daily cap"):
            people.change_work(session, owner, owner.user.uid, skills=skills, daily_cap=cap)

    def test_is_for_admins_and_an_owner_is_changed_by_owners(self, session: Session, project: Project) -> None:
        owner, admin = join(session, project, Role.OWNER), join(session, project, Role.ADMIN)
        with pytest.raises(Forbidden):
            people.change_work(session, admin, owner.user.uid, skills="math", daily_cap="")
        labeller = join(session, project, Role.LABELLER)
        with pytest.raises(Forbidden):
            people.change_work(session, labeller, labeller.user.uid, skills="math", daily_cap="")


class TestMemberLink:
    def test_only_the_owner_of_the_installation_makes_one(self, session: Session, project: Project) -> None:
        labeller = join(session, project, Role.LABELLER)
        with pytest.raises(Forbidden):
            people.create_member_link(session, join(session, project, Role.OWNER), labeller.user.uid)
        owner = registry.access_of(accounts.ensure_owner(session), project, *Role)
        _, path = people.create_member_link(session, owner, labeller.user.uid)
        found = accounts.find_sign_in(session, accounts.use_login_link(session, path.removeprefix("/enter/")))
        assert found is not None
        assert found[0].user == labeller.user
