"""What the environment and relevo.toml say. Beside the command line, the only reader of either.

A setting has one name: ``database_url`` is ``RELEVO_DATABASE_URL`` in the environment and ``url`` under
``[database]`` in relevo.toml. The command line wins over the environment, which wins over the file.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from relevo.errors import ConfigurationError, nearest

DEFAULT_FILE = Path("relevo.toml")
Days = Annotated[int, Field(ge=30)]


class Settings(BaseSettings):
    """Every setting, with its default."""

    model_config = SettingsConfigDict(env_prefix="RELEVO_", env_ignore_empty=True, extra="forbid", frozen=True)

    home: Path = Path(".relevo")
    """Where the embedded server keeps its locks and its address."""

    database_url: str | None = None
    """The database to work on; None: the embedded server."""

    direct_url: str | None = None
    """A direct or session-mode connection to the same database, for LISTEN and for changes of the schema; None: the
    first serves."""

    serve_trusted_proxies: str = ""
    """Addresses and networks, separated by commas, whose X-Forwarded-For and -Proto ``relevo serve`` believes."""

    webhook_auth: Literal["required", "none"] = "required"
    """``none``, said aloud, lets anybody speak for Vapi."""

    webhook_shadow_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share (0..1) of the calls answered by v1 of which v2 is asked too, afterwards, for the record."""

    vapi_secret: str = ""
    """What Vapi shows in X-Vapi-Secret; several, while one is being replaced, are separated by spaces."""

    vapi_bearer: str = ""
    """The same for ``Authorization: Bearer``."""

    vapi_hmac_secret: str = ""
    """The same for messages that are signed."""

    vapi_hmac_algorithm: Literal["sha256", "sha512", "sha1"] = "sha256"
    vapi_hmac_header: str = "x-signature x-vapi-signature"
    """Where the signature is; the first of these headers that is there counts."""

    vapi_hmac_timestamp_header: str = "x-timestamp"
    vapi_hmac_signs: Literal["timestamp.body", "body"] = "timestamp.body"
    """The text that is signed."""

    vapi_hmac_prefix: str = ""
    """What stands before the signature, beside the name of the algorithm and ``=``."""

    vapi_api_key: str | None = None
    """For reading and binding numbers, and for looking up calls of which no report came."""

    vapi_api_url: str = "https://api.vapi.ai"
    vapi_credential_id: str | None = None
    """The credential at Vapi that the assistants we return name, so that Vapi authenticates itself for their
    messages, too."""

    v1_upstream: str | None = None
    """URL of the handler that speaks for v1; None: the built-in one."""

    v2_upstream: str | None = None
    """The same for v2."""

    public_url: str | None = None
    """The base that Vapi reaches us by; None: as each request has it."""

    assistant: dict[str, Any] = {}
    """Parts of every assistant that we return which are the platform's own choice: model, voice, transcriber, …"""
    slack_webhook_url: SecretStr | None = None
    """Slack's incoming webhook, a secret; None: nothing goes to Slack."""

    slack_channel: str = "#voice-agent-alerts"
    """The channel named to the webhook; newer webhooks go by their own."""

    slack_mentions: str = "@oncall-eng"
    """Who is called by a status update; a group that Slack should link is written <!subteam^ID>."""

    slack_urgent_mentions: str = "@voice-agent-team @engineering-leads"
    """Who is called by a rollback or a critical alert."""

    pagerduty_routing_key: SecretStr | None = None
    """The integration key of an Events API v2 integration, a secret; None: nobody is paged."""

    pagerduty_url: str = "https://events.pagerduty.com/v2/enqueue"
    """Where PagerDuty takes events."""

    smtp_url: SecretStr | None = None
    """smtp://user:password@host:587 or smtps://…, a secret; None: no mail goes out."""

    mail_from: str = "TIS TIS <soporte@tistis.com>"
    """Whom clients see as the sender."""

    notify_brand: str = "TIS TIS"
    """Who signs what clients read."""

    notify_support: str = "soporte@tistis.com"
    """Where clients write to."""

    notify_texts: Path | None = None
    """A folder whose files stand in for the texts that come with Relevo."""

    notify_clients: bool = False
    """Whether what happens in a rollout mails clients by itself; otherwise only ``relevo notify send`` does."""

    keep_tool_calls_days: Days | None = None
    """Days that what callers had the built-in back end do is kept; None: for good."""

    keep_messages_days: Days | None = None
    """The same for messages to the team that were sent or given up; mails to clients are kept."""

    keep_complaints_days: Days | None = None
    """The same for complaints."""

    oidc_issuer: str | None = None
    """The OpenID provider that people sign in with, by its issuer's URL; None: with tokens alone."""

    oidc_client_id: str | None = None
    """What Relevo is registered as there."""

    oidc_client_secret: SecretStr | None = None
    """The secret that goes with it; None: a public client."""

    oidc_scopes: str = "openid email"
    """What is asked for, separated by spaces."""

    oidc_algorithms: str = "ES256 RS256"
    """What the provider may sign with, separated by spaces; nothing else is believed, whatever a token says."""

    oidc_role_claim: str = "app_metadata.relevo_role"
    """The claim that names the role; a dot leads into a structure."""

    oidc_roles: dict[str, str] = {}
    """Role by value of that claim; empty: its values are the roles' own names."""

    source: dict[str, Any] = {}
    """Where the v1 rows are and under which names; read by relevo.migration.mapping."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment before what was handed in, which is the file."""
        return env_settings, init_settings


def load(file: Path | None = None, *, database_url: str | None = None) -> Settings:
    """The settings in force. ``file`` None means relevo.toml where there is one.

    Raises ConfigurationError naming the file, the key and the mistake.
    """
    _refuse_misspelt(os.environ)
    try:
        settings = Settings(**_read(file or DEFAULT_FILE, required=file is not None))
    except ValidationError as error:
        first = error.errors()[0]
        name = "_".join(str(part) for part in first["loc"])
        raise ConfigurationError(
            f"setting {name}: {first['msg']}", fix=f"correct {name}, or RELEVO_{name.upper()}"
        ) from error
    except SettingsError as error:
        raise ConfigurationError(
            f"the environment cannot be read: {error}", fix="write a structure as JSON, or move it to relevo.toml"
        ) from error
    if database_url is None:
        return settings
    if not database_url.strip():
        raise ConfigurationError("--database-url is empty", fix="give a URL, or leave it out")
    return settings.model_copy(update={"database_url": database_url})


def _refuse_misspelt(environment: Mapping[str, str]) -> None:
    """A name that is almost one of ours would otherwise be passed over in silence, and the wrong database used."""
    known = [f"RELEVO_{name.upper()}" for name in Settings.model_fields]
    for name in environment:
        meant = difflib.get_close_matches(name, known, n=1, cutoff=0.85)
        if name.startswith("RELEVO_") and meant and name not in known:
            raise ConfigurationError(f"{name} in the environment is no setting", fix=f"write {meant[0]}, or unset it")


def _read(file: Path, *, required: bool) -> dict[str, Any]:
    if not file.exists() and not required:
        return {}
    try:
        tables = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(
            f"cannot read {file}: {error.strerror}", fix="name an existing file with --config"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{file} is not valid TOML: {error}", fix="correct that line") from error
    values = dict(_flatten(tables))
    for name in values.keys() - Settings.model_fields.keys():
        raise ConfigurationError(
            f"{file}: there is no setting {name}.{nearest(name, Settings.model_fields)}",
            fix="remove it, or correct its name",
        )
    return values


def _flatten(tables: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """``[database] url`` becomes ``database_url``; ``[source]`` is a structure and stays whole."""
    for section, value in tables.items():
        if isinstance(value, dict) and section not in Settings.model_fields:
            for key, inner in value.items():
                yield f"{section}_{key}", inner
        else:
            yield section, value
