"""Deployment values, read from the environment here and nowhere else. Experiment values live in config dataclasses."""

import os
import sys
from functools import lru_cache
from pathlib import Path
from typing import Literal

from pydantic import AliasChoices, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

_PACKAGE = Path(__file__).resolve().parent


class Settings(BaseSettings):
    """Every setting has one sentence; `docs/settings.md` is generated from them and a test keeps it true."""

    model_config = SettingsConfigDict(env_prefix="PREFERABLE_", extra="ignore", frozen=True)

    home: Path = Field(Path("var"), description="Folder of all data: database, broker, artefacts, logs.")
    host: str = Field(
        "127.0.0.1",
        description="Address the web server listens on.",
        validation_alias=AliasChoices("HOST", "PREFERABLE_HOST"),
    )
    port: int = Field(
        8000,
        ge=0,
        le=65535,
        description="Port of the web server; 0 picks a free one.",
        validation_alias=AliasChoices("PORT", "PREFERABLE_PORT"),
    )
    public_url: str = Field(
        "", description="Address people type, where it differs from host and port (behind a proxy)."
    )
    trusted_proxies: str = Field(
        "",
        description="Addresses or networks of proxies, with commas between, whose `X-Forwarded-For` says who the client is; "
        "`*` is whoever connects, where only the proxy can.",
    )
    database_url: str = Field(
        "",
        description="Your own PostgreSQL 14+ as `postgresql://user:password@host/name`; empty starts the embedded one.",
        validation_alias=AliasChoices("DATABASE_URL", "PREFERABLE_DATABASE_URL"),
    )
    redis_url: str = Field(
        "",
        description="Your own Redis or Valkey as `redis://host/0`; empty starts the embedded one.",
        validation_alias=AliasChoices("REDIS_URL", "PREFERABLE_REDIS_URL"),
    )
    store_url: str = Field("", description="Folder of checkpoints and snapshots; empty is `<home>/store`.")
    base_model: str = Field(
        "", description="Folder or hub name of a base model; registers it and makes a project for it."
    )
    torch: Literal["", "cpu", "cuda"] = Field(
        "",
        description="Build of torch the worker half installs; empty leaves the choice to plain pip.",
        validation_alias=AliasChoices("TORCH", "PREFERABLE_TORCH"),
    )
    device: str = Field("auto", description="Device of sampling and training: auto, cpu, cuda or mps.")
    sample_threads: int = Field(1, ge=1, description="Torch threads of the sample worker.")
    train_threads: int = Field(2, ge=1, description="Torch threads of a training process.")
    train_processes: int = Field(
        1, ge=1, description="Processes of a training run, one a GPU: its models are sharded over them."
    )
    train_niceness: int = Field(
        10, ge=0, le=19, description="Niceness of training processes, so that pages stay quick."
    )
    train_state_seconds: float = Field(
        30.0,
        gt=0,
        description="Seconds between the states a training process saves, at steps' ends; a crash costs the work since the last.",
    )
    web_threads: int = Field(16, ge=1, description="Request threads and database connections of one web process.")
    production: bool = Field(False, description="Refuse weak settings: demands HTTPS cookies and a public URL.")
    secret_key: str = Field(
        "",
        repr=False,
        description="At least 32 random characters that sign forms; empty keeps a key of its own in `<home>/secret-key`.",
    )
    allowed_hosts: str = Field(
        "",
        description="Hosts inside your own network that endpoints may name, as `host:port` with commas between: they may be "
        "private and may be called by http. All others are called by https and at public addresses only.",
    )
    secure_cookies: bool = Field(False, description="Mark cookies Secure; on wherever pages are served by HTTPS.")
    owner_email: str = Field("owner@localhost", description="E-mail of the first person, who becomes the owner.")
    session_hours: int = Field(24 * 14, ge=1, description="Hours a sign-in lasts without use.")
    beat_seconds: float = Field(5.0, gt=0, description="Seconds between two looks of the automation at a project.")

    @property
    def store(self) -> Path:
        """Folder of artefacts: `checkpoints/<sha256>/` and `snapshots/<uid>/` and `runs/<uid>/`."""
        return Path(self.store_url) if self.store_url else self.home / "store"

    @property
    def uses_secure_cookies(self) -> bool:
        """Whether cookies travel by HTTPS only."""
        return self.secure_cookies or self.production or self.public_url.startswith("https://")

    @property
    def url(self) -> str:
        """Address to print and to put into links."""
        return self.public_url.rstrip("/") or f"http://{self.host}:{self.port}"


@lru_cache
def get_settings() -> Settings:
    """The settings of this process, read once."""
    return Settings()


def adopt(**values: str) -> Settings:
    """Set variables for this process and its children, as the URL of a server just started, and read the settings again."""
    os.environ.update(values)
    get_settings.cache_clear()
    return get_settings()


def child_environment(**values: str) -> dict[str, str]:
    """Our environment with `values` on top, for a process we start."""
    return {**os.environ, **values}


def resource(name: str) -> Path:
    """Path of a folder or file that ships with the project: `templates`, `static`, `migrations`, `constraints.txt`.

    In an installed wheel it lies in `app/_resources`, in a checkout at the top.
    """
    packaged = _PACKAGE / "_resources" / name
    return packaged if packaged.exists() else _PACKAGE.parent / name


def as_markdown() -> str:
    """`docs/settings.md`: every setting with its variables, its default and its sentence."""
    rows = [
        "# Settings",
        "",
        "Read from the environment when a process starts. `preferable up` needs none of them.",
        "",
    ]
    rows += ["| variable | default | what it sets |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        alias = field.validation_alias
        choices = [str(choice) for choice in alias.choices] if isinstance(alias, AliasChoices) else []
        variables = " or ".join(f"`{variable}`" for variable in choices or [f"PREFERABLE_{name.upper()}"])
        default = f"`{field.default}`" if str(field.default) else "(empty)"
        rows.append(f"| {variables} | {default} | {field.description} |")
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    sys.stdout.write(as_markdown())
