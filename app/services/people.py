"""Who belongs to a project: invitations, roles, cohorts, pauses.

Nobody grants a role above their own, and a project keeps at least one owner. A change of roles ends the person's sessions, so
that nothing opened with the former rights goes on.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from sqlalchemy.orm import Session

from app.errors import BadInput, Conflict, Forbidden, NotFound
from app.models import Cohort, Invitation, Membership, Project, Role, User
from app.permissions import Access, Permission
from app.queries import accounts as account_queries
from app.queries import people as queries
from app.schemas.needs import read_skills
from app.security import hash_password, hash_token, new_token
from app.services import accounts, audit, cohorts

INVITATION_DAYS = 7

HIGHEST_CAP = 1000
"""Tasks a day that a cap may allow; more than anybody answers."""


@dataclass(frozen=True)
class Joined:
    """Who came into which project by an invitation."""

    user: User
    project: Project


def grantable(access: Access) -> tuple[Role, ...]:
    """The roles this person may give to others, highest first."""
    if Role.OWNER in access.roles:
        return tuple(Role)
    return tuple(role for role in Role if role != Role.OWNER) if access.may(Permission.MANAGE_PEOPLE) else ()


def invite(
    session: Session, access: Access, *, email: str, roles: Iterable[str], cohort: Cohort
) -> tuple[Invitation, str]:
    """Make an invitation and the path of its link, which is known now and never again.

    With an `email`, only that person can accept it. Raises BadInput for unknown or no roles, Forbidden for one above one's own.
    """
    access.demand(Permission.MANAGE_PEOPLE)
    granted = _parse_roles(access, roles)
    if not granted:
        raise BadInput("Choose at least one role for the invited person.", field="roles")
    token = new_token()
    invitation = Invitation(
        project_id=access.project.id,
        token_hash=hash_token(token),
        email=accounts.parse_email(email) if email.strip() else None,
        roles=granted,
        cohort=cohort,
        invited_by_id=access.user.id,
        expires_at=datetime.now(UTC) + timedelta(days=INVITATION_DAYS),
    )
    session.add(invitation)
    session.flush()
    audit.record(
        session,
        actor=access.user,
        project=access.project,
        action="invite person",
        subject_kind="invitation",
        subject_uid=invitation.uid,
        roles=granted,
        cohort=cohort.value,
        email=invitation.email,
    )
    return invitation, f"/invite/{token}"


def revoke(session: Session, access: Access, uid: UUID) -> None:
    """Make an open invitation worthless. Raises NotFound for one that is accepted, expired or of another project."""
    access.demand(Permission.MANAGE_PEOPLE)
    invitation = queries.find_invitation_by_uid(session, access.project.id, uid)
    if invitation is None:
        raise NotFound("This invitation is no longer open: it was accepted, revoked, or its time is over.")
    _end(session, access, invitation)


def find_invitation(session: Session, token: str) -> tuple[Invitation, Project]:
    """The invitation behind a link, while it can be accepted. Raises NotFound."""
    found = queries.find_invitation(session, hash_token(token))
    if found is None:
        raise NotFound("This invitation was used or revoked, or its week is over. Ask for another.")
    return found


def join(session: Session, token: str, user: User) -> Joined:
    """Accept an invitation as a person who has an account.

    Raises NotFound for a spent link, Conflict for a member or where the invitation names somebody else.
    """
    found = queries.find_invitation(session, hash_token(token), lock=True)
    if found is None:
        raise NotFound("This invitation was used or revoked, or its week is over. Ask for another.")
    invitation, project = found
    if invitation.email not in (None, user.email):
        raise Conflict(f"This invitation is for {invitation.email}; you are signed in as {user.email}.")
    account_queries.claim_email(session, user.email)  # two invitations at the same moment make one member
    if account_queries.find_membership(session, project.id, user.id) is not None:
        raise Conflict(f"You are a member of {project.name} already. An admin can change your roles.")
    session.add(Membership(project_id=project.id, user_id=user.id, roles=invitation.roles, cohort=invitation.cohort))
    invitation.accepted_by_id, invitation.accepted_at = user.id, datetime.now(UTC)
    session.flush()
    audit.record(
        session,
        actor=user,
        project=project,
        action="accept invitation",
        subject_kind="invitation",
        subject_uid=invitation.uid,
        roles=invitation.roles,
    )
    return Joined(user=user, project=project)


def join_as_new(session: Session, token: str, *, name: str, email: str, password: str) -> Joined:
    """Accept an invitation and make the account with it. Raises BadInput, also where the e-mail has an account."""
    find_invitation(session, token)
    address = accounts.parse_email(email)
    account_queries.claim_email(session, address)
    if account_queries.find_user(session, address) is not None:
        raise BadInput("This e-mail has an account. Sign in with it, then open the invitation again.", field="email")
    user = User(
        email=address,
        name=accounts.parse_name(name),
        password_hash=hash_password(accounts.check_password(password, email=address)),
    )
    session.add(user)
    session.flush()
    return join(session, token, user)


def change_member(
    session: Session, access: Access, user_uid: UUID, *, roles: Iterable[str], cohort: Cohort, is_paused: bool
) -> bool:
    """Set a member's roles, cohort and pause; whether the roles changed, which ends the member's sessions.

    Without any role the project is closed to them; what they did stays. A paused member gets no tasks. Open invitations
    that the person made and could not make with the new roles are revoked.

    Raises NotFound for no member, Forbidden for roles above one's own, Conflict where the last owner would go.
    """
    access.demand(Permission.MANAGE_PEOPLE)
    owners = queries.count_owners(session, access.project.id)
    user, membership = _lock_member(session, access, user_uid)
    was_owner = Role.OWNER.value in membership.roles
    granted = _parse_roles(access, roles)
    if was_owner and owners <= 1 and Role.OWNER.value not in granted:
        raise Conflict(f"{user.name} is the last owner of {access.project.name}. Make somebody else an owner first.")
    has_new_roles = set(granted) != set(membership.roles)
    if not has_new_roles and (cohort, is_paused) == (membership.cohort, membership.is_paused):
        return False
    if cohort != membership.cohort:
        cohorts.move(session, access.project.id, user.id, to=cohort)
    membership.roles, membership.cohort, membership.is_paused = granted, cohort, is_paused
    if has_new_roles:
        account_queries.claim_sessions_end(session, user.id)
        _end_beyond(session, access, replace(access, user=user, roles=frozenset(map(Role, granted))))
    audit.record(
        session,
        actor=access.user,
        project=access.project,
        action="change member",
        subject_kind="user",
        subject_uid=user.uid,
        person=user.email,
        roles=granted,
        cohort=cohort.value,
        is_paused=is_paused,
    )
    return has_new_roles


def change_work(session: Session, access: Access, user_uid: UUID, *, skills: str, daily_cap: str) -> None:
    """Set which skills a member has, as names with commas between them, and how many tasks they may answer in 24 hours.

    An empty cap is none. Raises as `change_member`, and BadInput where the names or the number cannot be read.
    """
    access.demand(Permission.MANAGE_PEOPLE)
    user, membership = _lock_member(session, access, user_uid)
    try:
        tags = read_skills(skills)
    except ValueError as error:
        raise BadInput(f"Skills: {error}.", field="skills") from error
    cap = _parse_cap(daily_cap)
    if (tags, cap) == (membership.skills, membership.daily_cap):
        return
    membership.skills, membership.daily_cap = tags, cap
    audit.record(
        session,
        actor=access.user,
        project=access.project,
        action="change member's work",
        subject_kind="user",
        subject_uid=user.uid,
        person=user.email,
        skills=tags,
        daily_cap=cap,
    )


def create_member_link(session: Session, access: Access, user_uid: UUID) -> tuple[User, str]:
    """A one-time sign-in link for a member who cannot get in.

    It opens the whole account, other projects included, so only an owner of the installation makes one. Raises Forbidden.
    """
    user = account_queries.find_user_by_uid(session, user_uid)
    if user is None or account_queries.find_membership(session, access.project.id, user.id) is None:
        raise NotFound(f"This person is no member of {access.project.name}.")
    if not access.user.is_owner:
        raise Forbidden("A sign-in link opens a person's whole account: only the owner of this installation makes one.")
    audit.record(
        session,
        actor=access.user,
        project=access.project,
        action="make sign-in link",
        subject_kind="user",
        subject_uid=user.uid,
        person=user.email,
    )
    return user, accounts.create_login_link(session, user)


def _lock_member(session: Session, access: Access, user_uid: UUID) -> tuple[User, Membership]:
    """A member that this person may change. Raises NotFound, Forbidden."""
    user = account_queries.find_user_by_uid(session, user_uid)
    membership = account_queries.find_membership(session, access.project.id, user.id, lock=True) if user else None
    if user is None or membership is None:
        raise NotFound(f"This person is no member of {access.project.name}.")
    if Role.OWNER.value in membership.roles and Role.OWNER not in grantable(access):
        raise Forbidden("Only an owner changes an owner.")
    return user, membership


def _parse_cap(text: str) -> int | None:
    if not text.strip():
        return None
    if text.strip().isdecimal() and 1 <= int(text) <= HIGHEST_CAP:
        return int(text)
    raise BadInput(
        f"The daily cap is {text!r}; write a number from 1 to {HIGHEST_CAP:,}, or nothing for no cap.",
        field="daily_cap",
    )


def _end_beyond(session: Session, access: Access, inviter: Access) -> None:
    """Revoke what somebody's invitations would still grant and they no longer may."""
    if inviter.user.is_owner:
        return
    for invitation in queries.list_invitations_by(session, access.project.id, inviter.user.id):
        if not set(invitation.roles) <= set(grantable(inviter)):
            _end(session, access, invitation)


def _end(session: Session, access: Access, invitation: Invitation) -> None:
    invitation.revoked_at = datetime.now(UTC)
    audit.record(
        session,
        actor=access.user,
        project=access.project,
        action="revoke invitation",
        subject_kind="invitation",
        subject_uid=invitation.uid,
        person=invitation.email,
        roles=invitation.roles,
    )


def _parse_roles(access: Access, roles: Iterable[str]) -> list[str]:
    known = {role.value: role for role in Role}
    wanted = set(roles)
    if unknown := sorted(wanted - known.keys()):
        raise BadInput(f"{unknown[0]!r} is no role; expected {', '.join(known)}.", field="roles")
    if above := [role for role in wanted if known[role] not in grantable(access)]:
        raise Forbidden(f"You cannot make somebody {above[0]}: that is above your own role.")
    return [role for role in known if role in wanted]
