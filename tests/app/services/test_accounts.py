"""The ways in: passwords, links, sessions; hashed, expiring, one-time (T26)."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from app.errors import BadInput, NotFound, TooMany
from app.models import SignInLink, User, UserSession
from app.security import hash_password, hash_token
from app.services import accounts, throttle
from app.settings import Settings, get_settings
from tests.app.registry import make_user

PASSWORD = "four words in a row"


@pytest.fixture(autouse=True)
def _broker(settings: Settings) -> None:
    """Every test counts from zero, on the real broker."""


@pytest.fixture
def person(session: Session) -> User:
    user = make_user(session)
    user.password_hash = hash_password(PASSWORD)
    session.flush()
    return user


def enter(session: Session, person: User, password: str = PASSWORD, address: str = "192.0.2.1") -> str:
    return accounts.sign_in_with_password(session, email=person.email, password=password, address=address)


class TestSessions:
    def test_a_token_finds_its_person(self, session: Session, person: User) -> None:
        found = accounts.find_sign_in(session, accounts.sign_in(session, person))
        assert found is not None
        assert found[0].user == person

    def test_only_a_hash_is_stored(self, session: Session, person: User) -> None:
        token = accounts.sign_in(session, person)
        stored = session.scalars(select(UserSession)).one()
        assert stored.token_hash == hash_token(token)
        assert token not in stored.csrf_token

    def test_a_new_sign_in_ends_the_former(self, session: Session, person: User) -> None:
        former = accounts.sign_in(session, person)
        accounts.sign_in(session, person, former_token=former)
        assert accounts.find_sign_in(session, former) is None

    def test_sign_out_ends_it(self, session: Session, person: User) -> None:
        token = accounts.sign_in(session, person)
        accounts.sign_out(session, token)
        assert accounts.find_sign_in(session, token) is None

    def test_it_expires(self, session: Session, person: User) -> None:
        token = accounts.sign_in(session, person)
        session.execute(update(UserSession).values(expires_at=datetime.now(UTC) - timedelta(minutes=5)))
        assert accounts.find_sign_in(session, token) is None

    def test_use_moves_its_end(self, session: Session, person: User) -> None:
        token = accounts.sign_in(session, person)
        then = datetime.now(UTC) - timedelta(hours=1)
        session.execute(update(UserSession).values(last_used_at=then, expires_at=then + timedelta(hours=2)))
        session.expire_all()
        accounts.find_sign_in(session, token)
        moved = session.scalars(select(UserSession).execution_options(populate_existing=True)).one()
        assert moved.expires_at > datetime.now(UTC) + timedelta(hours=get_settings().session_hours - 1)

    def test_a_switched_off_person_is_out_at_once(self, session: Session, person: User) -> None:
        token = accounts.sign_in(session, person)
        person.is_active = False
        session.flush()
        assert accounts.find_sign_in(session, token) is None

    @pytest.mark.parametrize("token", ["", "x", "é", "a" * 5000])
    def test_a_made_up_token_is_nobody(self, session: Session, token: str) -> None:
        assert accounts.find_sign_in(session, token) is None


class TestSignInWithPassword:
    def test_takes_the_right_pair(self, session: Session, person: User) -> None:
        assert accounts.find_sign_in(session, enter(session, person)) is not None

    def test_the_e_mail_may_be_typed_in_capitals(self, session: Session, person: User) -> None:
        accounts.sign_in_with_password(session, email=f" {person.email.upper()} ", password=PASSWORD, address="::1")

    def test_does_not_tell_which_half_was_wrong(self, session: Session, person: User) -> None:
        with pytest.raises(BadInput) as wrong_password:
            enter(session, person, "not the password")
        with pytest.raises(BadInput) as nobody:
            accounts.sign_in_with_password(session, email="nobody@example.org", password=PASSWORD, address="::1")
        assert wrong_password.value.message == nobody.value.message

    def test_a_person_without_a_password_comes_in_by_link_only(self, session: Session) -> None:
        with pytest.raises(BadInput):
            enter(session, make_user(session), "")

    def test_guessing_one_person_is_slowed_down(self, session: Session, person: User) -> None:
        for number in range(throttle.PER_EMAIL.amount):
            with pytest.raises(BadInput):
                enter(session, person, "wrong", f"192.0.2.{number}")
        with pytest.raises(TooMany) as caught:
            enter(session, person, PASSWORD, "192.0.2.99")
        assert 0 < caught.value.retry_after_seconds <= 15 * 60 + 1

    def test_guessing_from_one_address_is_slowed_down(self, session: Session) -> None:
        for number in range(throttle.PER_ADDRESS.amount):
            throttle.begin_sign_in(email=f"{number}@example.org", address="192.0.2.1").failed()
        with pytest.raises(TooMany):
            throttle.begin_sign_in(email="next@example.org", address="192.0.2.1")
        throttle.begin_sign_in(email="next@example.org", address="192.0.2.2")

    def test_many_people_behind_one_address_may_come_in(self, session: Session) -> None:
        for number in range(3 * throttle.PER_ADDRESS.amount):
            throttle.begin_sign_in(email=f"{number}@example.org", address="192.0.2.1").succeeded()

    def test_the_right_password_forgets_the_wrong_ones(self, session: Session, person: User) -> None:
        for _ in range(3):
            with pytest.raises(BadInput):
                enter(session, person, "wrong")
            enter(session, person)
        for _ in range(throttle.PER_EMAIL.amount - 1):
            with pytest.raises(BadInput):
                enter(session, person, "wrong")

    def test_a_broker_that_is_down_stops_nobody(
        self, session: Session, person: User, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        gone = get_settings().model_copy(update={"redis_url": "redis://127.0.0.1:1/0"})
        monkeypatch.setattr(throttle, "get_settings", lambda: gone)
        enter(session, person)
        for _ in range(throttle.PER_EMAIL.amount):
            with pytest.raises(BadInput):
                enter(session, person, "wrong")
        with pytest.raises(TooMany):
            enter(session, person)


class TestLinks:
    def test_a_link_signs_in_once(self, session: Session, person: User) -> None:
        token = accounts.create_login_link(session, person).removeprefix("/enter/")
        found = accounts.find_sign_in(session, accounts.use_login_link(session, token))
        assert found is not None
        assert found[0].user == person
        with pytest.raises(NotFound):
            accounts.use_login_link(session, token)

    def test_looking_does_not_use_it_up(self, session: Session, person: User) -> None:
        token = accounts.create_login_link(session, person).removeprefix("/enter/")
        accounts.check_login_link(session, token)
        accounts.check_login_link(session, token)
        accounts.use_login_link(session, token)
        with pytest.raises(NotFound):
            accounts.check_login_link(session, token)

    def test_it_expires(self, session: Session, person: User) -> None:
        token = accounts.create_login_link(session, person).removeprefix("/enter/")
        session.execute(update(SignInLink).values(expires_at=datetime.now(UTC) - timedelta(minutes=5)))
        with pytest.raises(NotFound):
            accounts.use_login_link(session, token)

    def test_only_a_hash_is_stored(self, session: Session, person: User) -> None:
        token = accounts.create_login_link(session, person).removeprefix("/enter/")
        session.flush()
        assert session.scalars(select(SignInLink.token_hash)).one() == hash_token(token)


class TestEnsureOwner:
    def test_there_is_one(self, session: Session) -> None:
        first = accounts.ensure_owner(session)
        assert first.is_owner
        assert first.email == get_settings().owner_email
        assert accounts.ensure_owner(session) == first
        assert session.scalar(select(func.count()).select_from(User)) == 1


class TestSetPassword:
    def test_ends_every_session(self, session: Session, person: User) -> None:
        token = accounts.sign_in(session, person)
        accounts.set_password(session, person, password="another one entirely", current=PASSWORD, address="::1")
        assert accounts.find_sign_in(session, token) is None
        enter(session, person, "another one entirely")

    def test_needs_the_present_one(self, session: Session, person: User) -> None:
        with pytest.raises(BadInput, match="current password"):
            accounts.set_password(session, person, password="another one entirely", current="", address="::1")

    @pytest.mark.parametrize("weak", ["", "short", "aaaaaaaaaaaa", "x" * 300])
    def test_refuses_a_weak_one(self, session: Session, weak: str) -> None:
        with pytest.raises(BadInput):
            accounts.set_password(session, make_user(session), password=weak, current="", address="::1")

    def test_refuses_the_e_mail_itself(self, session: Session, person: User) -> None:
        with pytest.raises(BadInput, match="easy to guess"):
            accounts.check_password(person.email, email=person.email)


class TestChangeProfile:
    def test_sets_name_and_theme(self, session: Session, person: User) -> None:
        accounts.change_profile(session, person, name="  Ada   Lovelace ", theme="dark")
        assert (person.name, person.preferences["theme"]) == ("Ada Lovelace", "dark")

    @pytest.mark.parametrize(
        ("name", "theme"),
        [
            ("", "dark"),
            ("x" * 101, "dark"),
            ("Ada", "red"),
            ("Ada\u200b", "dark"),
            ("\u202eadA", "dark"),
            ("A\x07", "dark"),
        ],
    )
    def test_refuses_what_cannot_be(self, session: Session, person: User, name: str, theme: str) -> None:
        with pytest.raises(BadInput):
            accounts.change_profile(session, person, name=name, theme=theme)


@pytest.mark.parametrize("text", ["", "a", "a@", "@b", "a b@c.d", "a@b@c", "<a>@b.c", "a" * 80 + "@b.c"])
def test_refuses_what_is_no_e_mail(text: str) -> None:
    with pytest.raises(BadInput):
        accounts.parse_email(text)
