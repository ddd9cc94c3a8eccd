"""The ways in: passwords, one-time links, and server-side sessions of which only a hash is stored."""

import re
import unicodedata
from datetime import UTC, datetime, timedelta

from sqlalchemy.orm import Session

from app.errors import BadInput, NotFound
from app.models import Cohort, SignInLink, User, UserSession
from app.queries import accounts as queries
from app.schemas.keys import Keys
from app.security import (
    MAX_PASSWORD_LENGTH,
    MIN_PASSWORD_LENGTH,
    hash_password,
    hash_token,
    new_token,
    verify_password,
)
from app.services import audit, throttle
from app.settings import get_settings

DEFAULT_COHORT = Cohort.TRAINING
LINK_HOURS = 24
TOUCH_MINUTES = 5
"""A sign-in's last use is written at most this often, so that pages mostly read."""

_JOINERS = "\u200c\u200d"
"""Not seen, and part of how some scripts are written."""

THEMES = ("system", "light", "dark")

_EMAIL = re.compile(r"[^@\s<>\"']{1,64}@[^@\s<>\"']{1,190}")


def find_sign_in(session: Session, token: str, slug: str | None = None) -> tuple[UserSession, queries.Place] | None:
    """The live sign-in behind a cookie's token, and the person's place in the project of an address; using it moves its end."""
    found = queries.find_session(session, hash_token(token), slug)
    if found is None:
        return None
    now = datetime.now(UTC)
    before = now - timedelta(minutes=TOUCH_MINUTES)
    if found[0].last_used_at < before:
        queries.claim_session_touch(session, found[0].id, before=before, expires_at=_session_end(now))
    return found


def sign_in(session: Session, user: User, *, former_token: str | None = None) -> str:
    """Open a session for `user` and return the cookie's token. The session of `former_token` ends: none is carried over."""
    if former_token:
        queries.claim_session_end(session, hash_token(former_token))
    queries.claim_expired(session)
    token, now = new_token(), datetime.now(UTC)
    session.add(
        UserSession(
            token_hash=hash_token(token),
            csrf_token=new_token(),
            user_id=user.id,
            expires_at=_session_end(now),
            last_used_at=now,
        )
    )
    session.flush()
    return token


def sign_in_with_password(
    session: Session, *, email: str, password: str, address: str, former_token: str | None = None
) -> str:
    """Check a password and open a session.

    Raises TooMany after repeated failures for the e-mail or from the address, BadInput for a wrong pair; the message does
    not tell which half was wrong.
    """
    email = email.strip().lower()
    attempt = throttle.begin_sign_in(email=email, address=address)
    user = queries.find_user(session, email)
    if not verify_password(password[: MAX_PASSWORD_LENGTH + 1], user.password_hash if user else None):
        attempt.failed()
        raise BadInput("This e-mail and password do not belong together. Check both, or ask an admin for a link.")
    attempt.succeeded()
    if user is None or not user.is_active:
        raise BadInput("This account is switched off. Ask the owner of this installation.")
    return sign_in(session, user, former_token=former_token)


def sign_out(session: Session, token: str) -> None:
    """End the session of a cookie's token."""
    queries.claim_session_end(session, hash_token(token))


def create_login_link(session: Session, user: User) -> str:
    """The path of a link that signs `user` in once, within a day."""
    token = new_token()
    session.add(
        SignInLink(
            token_hash=hash_token(token), user_id=user.id, expires_at=datetime.now(UTC) + timedelta(hours=LINK_HOURS)
        )
    )
    return f"/enter/{token}"


def check_login_link(session: Session, token: str) -> None:
    """Raise NotFound unless the link can still be used. Looking at a link does not use it up: mail scanners look too."""
    if queries.find_sign_in_link(session, hash_token(token)) is None:
        raise _spent_link()


def use_login_link(session: Session, token: str, *, former_token: str | None = None) -> str:
    """Use up a link and open the session it stands for. Raises NotFound for a spent one."""
    user = queries.claim_sign_in_link(session, hash_token(token))
    if user is None:
        raise _spent_link()
    return sign_in(session, user, former_token=former_token)


def ensure_owner(session: Session) -> User:
    """The owner of the installation, made from the settings where there is none yet."""
    queries.claim_owner_lock(session)
    owner = queries.find_owner(session)
    if owner is None:
        email = parse_email(get_settings().owner_email)
        owner = queries.find_user(session, email) or User(email=email, name="Owner")
        owner.is_owner = owner.is_active = True
        session.add(owner)
        session.flush()
        audit.record(session, actor=None, project=None, action="make owner", subject_kind="user", subject_uid=owner.uid)
    return owner


def set_password(session: Session, user: User, *, password: str, current: str, address: str) -> None:
    """Give `user` a new password; every session of theirs ends. Raises BadInput for a weak one or a wrong `current`."""
    if user.password_hash is not None:
        attempt = throttle.begin_sign_in(email=user.email, address=address)
        if not verify_password(current[: MAX_PASSWORD_LENGTH + 1], user.password_hash):
            attempt.failed()
            raise BadInput("The current password is not right.", field="current")
        attempt.succeeded()
    user.password_hash = hash_password(check_password(password, email=user.email))
    queries.claim_sessions_end(session, user.id)
    audit.record(session, actor=user, project=None, action="set password", subject_kind="user", subject_uid=user.uid)


def change_profile(session: Session, user: User, *, name: str, theme: str) -> None:
    """Set how a person is named, and whether their pages are light, dark, or as their system is."""
    if theme not in THEMES:
        raise BadInput(f"{theme[:20]!r} is no theme; expected {', '.join(THEMES)}.", field="theme")
    user.name = parse_name(name)
    user.preferences = {**user.preferences, "theme": theme}
    session.flush()


class InvalidKeys(BadInput):
    """Keys that cannot be used; `keys` are those sent. Nothing was stored."""

    def __init__(self, keys: Keys) -> None:
        super().__init__(" ".join(dict.fromkeys(keys.problems().values())), field=f"key-{next(iter(keys.problems()))}")
        self.keys = keys


def change_keys(session: Session, user: User, keys: Keys) -> None:
    """Set the keys a person works by. Raises InvalidKeys."""
    if keys.problems():
        raise InvalidKeys(keys)
    user.preferences = {**user.preferences, "keys": keys.as_json()}
    session.flush()


def parse_email(text: str) -> str:
    """The e-mail in the form it is stored. Raises BadInput."""
    email = text.strip().lower()
    if not _EMAIL.fullmatch(email):
        raise BadInput(
            f"{text.strip()[:80]!r} is not an e-mail address; expected one like name@example.org.", field="email"
        )
    return email


def parse_name(text: str) -> str:
    """A person's or project's name without stray space. Raises BadInput, also for characters that are not seen."""
    name = " ".join(text.split())
    if not 1 <= len(name) <= 100:
        raise BadInput("A name has 1 to 100 characters.", field="name")
    if any(unicodedata.category(letter) in ("Cc", "Cf") and letter not in _JOINERS for letter in name):
        raise BadInput("The name holds a character that is not seen, perhaps pasted along. Type it anew.", field="name")
    return name


def check_password(password: str, *, email: str) -> str:
    """`password`, if it is long enough and not the e-mail. Raises BadInput."""
    if not MIN_PASSWORD_LENGTH <= len(password) <= MAX_PASSWORD_LENGTH:
        raise BadInput(
            f"A password has {MIN_PASSWORD_LENGTH} to {MAX_PASSWORD_LENGTH} characters; this one has {len(password)}. "
            "A few words in a row are easy to remember.",
            field="password",
        )
    if password.lower() in (email, email.partition("@")[0]) or len(set(password)) < 4:
        raise BadInput("This password is easy to guess. A few words in a row are easy to remember.", field="password")
    return password


def _session_end(now: datetime) -> datetime:
    return now + timedelta(hours=get_settings().session_hours)


def _spent_link() -> NotFound:
    return NotFound(
        "This sign-in link was used before, or its day is over. Ask for another, or run `preferable login` on the machine."
    )
