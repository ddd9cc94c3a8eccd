"""Secrets: random tokens and their hashes, passwords, and values signed or sealed with the installation's key."""

import base64
import hashlib
import hmac
import os
import secrets
import tempfile
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher

from app.errors import StartupError
from app.settings import Settings

if TYPE_CHECKING:
    from cryptography.fernet import Fernet

MIN_PASSWORD_LENGTH = 10
MAX_PASSWORD_LENGTH = 256
MIN_SECRET_LENGTH = 32

_passwords = PasswordHash((Argon2Hasher(),))


def new_token() -> str:
    """256 random bits, URL-safe. Give it to the person once; store `hash_token` of it."""
    return secrets.token_urlsafe(32)


def hash_token(token: str) -> bytes:
    """What is stored of a token. Tokens are random, so a plain sha256 is as strong as they are."""
    return hashlib.sha256(token.encode()).digest()


def hash_password(password: str) -> str:
    """Argon2id with the library's current parameters."""
    return _passwords.hash(password)


def verify_password(password: str, stored: str | None) -> bool:
    """Whether `password` is the one behind `stored`.

    A missing hash costs the same time as a wrong password, so that answers do not tell who has an account.
    """
    is_right = _passwords.verify(password, stored or _hash_of_nobody())
    return is_right and stored is not None


def sign(value: str, *, purpose: str, key: bytes) -> str:
    """`value` with a signature that only this installation can make, for this `purpose` only."""
    return f"{value}.{_signature(value, purpose, key)}"


def read_signed(signed: str, *, purpose: str, key: bytes) -> str | None:
    """The value behind `sign`; None where the signature is not ours."""
    value, _, signature = signed.rpartition(".")
    return value if hmac.compare_digest(signature.encode(), _signature(value, purpose, key).encode()) else None


def seal(value: str, *, purpose: str, key: bytes) -> bytes:
    """`value` so that only this installation can read it again, for this `purpose` only: a secret that we must hand on later."""
    return _box(purpose, key).encrypt(value.encode())


def unseal(sealed: bytes, *, purpose: str, key: bytes) -> str | None:
    """The value behind `seal`; None where it was sealed under another key or for another purpose, or changed."""
    from cryptography.fernet import InvalidToken

    try:
        return _box(purpose, key).decrypt(sealed).decode()
    except InvalidToken:
        return None


def _box(purpose: str, key: bytes) -> "Fernet":
    """Fernet (AES-128-CBC with HMAC-SHA256) under a key of its own for each purpose."""
    from cryptography.fernet import Fernet  # few pages need it, and it is 50 ms to load

    derived = hmac.new(key, f"sealed:{purpose}".encode(), hashlib.sha256).digest()
    return Fernet(base64.urlsafe_b64encode(derived))


@lru_cache
def secret_key(settings: Settings) -> bytes:
    """The installation's key: from the settings, else from `<home>/secret-key`, which the first start writes.

    Raises StartupError for a key that can be guessed. There is no key in the source.
    """
    if settings.secret_key or settings.production:
        if is_weak(settings.secret_key):
            raise StartupError(
                f"PREFERABLE_SECRET_KEY is {'too weak' if settings.secret_key else 'missing'}; expected at least "
                f"{MIN_SECRET_LENGTH} random characters. "
                "Make one with: python -c 'import secrets; print(secrets.token_urlsafe(48))'"
            )
        return settings.secret_key.encode()
    path = settings.home / "secret-key"
    if not path.exists():
        _write_key(path)
    key = path.read_bytes().strip()
    if len(key) < MIN_SECRET_LENGTH:
        raise StartupError(f"{path} holds fewer than {MIN_SECRET_LENGTH} characters. Delete it: a new key is made.")
    return key


def _write_key(path: Path) -> None:
    """Write a new key, complete or not at all; the first of two processes wins."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent) as scratch:  # mkstemp: mode 0600
        scratch.write(secrets.token_urlsafe(48))
        scratch.flush()
        with suppress(FileExistsError):
            os.link(scratch.name, path)


def is_weak(secret: str) -> bool:
    """Whether a key can be guessed: short, of few different characters, or one that people copy from examples."""
    text = secret.lower()
    return (
        len(secret) < MIN_SECRET_LENGTH
        or len(set(secret)) < 12
        or any(word in text for word in ("secret", "change", "example", "password", "insecure", "0123456789"))
    )


def check_production(settings: Settings) -> None:
    """Raise StartupError where production would run without HTTPS; elsewhere anything goes."""
    if settings.production and not settings.public_url.startswith("https://"):
        raise StartupError(
            f"PREFERABLE_PUBLIC_URL is {settings.public_url!r}; in production it is the https:// address people type, because "
            "cookies travel by HTTPS only."
        )


def _signature(value: str, purpose: str, key: bytes) -> str:
    return hmac.new(key, f"{purpose}:{value}".encode(), hashlib.sha256).hexdigest()


@lru_cache
def _hash_of_nobody() -> str:
    return hash_password(secrets.token_urlsafe(16))
