"""Settings: the command line over the environment over relevo.toml, and no mistake goes unnoticed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

from relevo import settings
from relevo.errors import ConfigurationError

Write = Callable[[str], Path]


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A folder without relevo.toml, and nothing of ours in the environment."""
    for name in ("RELEVO_DATABASE_URL", "RELEVO_HOME", "RELEVO_SOURCE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def writer(text: str, name: str = "relevo.toml") -> Path:
        file = tmp_path / name
        file.write_text(text, encoding="utf-8")
        return file

    return writer


def test_without_anything_the_defaults_hold() -> None:
    found = settings.load()
    assert (found.home, found.database_url, found.source) == (Path(".relevo"), None, {})


def test_relevo_toml_is_read_where_there_is_one(write: Write) -> None:
    write('[database]\nurl = "postgresql://file/x"')
    assert settings.load().database_url == "postgresql://file/x"


def test_a_name_that_is_almost_ours_is_no_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELEVO_SOMETHING_ELSE", "of another program")
    settings.load()
    monkeypatch.setenv("RELEVO_DATABSE_URL", "postgresql://somewhere/x")
    with pytest.raises(ConfigurationError, match="RELEVO_DATABSE_URL") as refusal:
        settings.load()
    assert "RELEVO_DATABASE_URL" in refusal.value.fix


def test_the_environment_wins_over_the_file(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    write('home = "from-file"\n[database]\nurl = "postgresql://file/x"')
    monkeypatch.setenv("RELEVO_DATABASE_URL", "postgresql://environment/x")
    found = settings.load()
    assert (found.database_url, found.home) == ("postgresql://environment/x", Path("from-file"))


def test_the_command_line_wins_over_both(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    write('[database]\nurl = "postgresql://file/x"')
    monkeypatch.setenv("RELEVO_DATABASE_URL", "postgresql://environment/x")
    assert settings.load(database_url="postgresql://line/x").database_url == "postgresql://line/x"


def test_a_named_file_is_read_instead_of_relevo_toml(write: Write, tmp_path: Path) -> None:
    write('home = "usual"')
    other = tmp_path / "other.toml"
    other.write_text('home = "other"')
    assert settings.load(other).home == Path("other")


def test_an_empty_variable_is_none_at_all(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compose files and shells set variables to nothing."""
    write('[database]\nurl = "postgresql://file/x"')
    monkeypatch.setenv("RELEVO_DATABASE_URL", "")
    monkeypatch.setenv("RELEVO_HOME", "")
    found = settings.load()
    assert (found.database_url, found.home) == ("postgresql://file/x", Path(".relevo"))


@pytest.mark.parametrize("empty", ["", "  "])
def test_an_empty_url_on_the_command_line_is_a_mistake(empty: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """--database-url "$UNSET" must not end up on another database."""
    monkeypatch.setenv("RELEVO_DATABASE_URL", "postgresql://environment/x")
    with pytest.raises(ConfigurationError, match="--database-url is empty"):
        settings.load(database_url=empty)


def test_a_section_and_its_key_make_one_name(write: Write) -> None:
    write('[database]\nurl = "postgresql://a/x"')
    nested = settings.load()
    write('database_url = "postgresql://a/x"')
    assert settings.load() == nested


def test_the_source_stays_a_structure(write: Write) -> None:
    write('[source.tenants]\ntable = "tenants"\n[source.tenants.fields]\nvertical = "kind"')
    assert settings.load().source == {"tenants": {"table": "tenants", "fields": {"vertical": "kind"}}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[database]\nurll = "x"', r"no setting database_urll\. Did you mean 'database_url'"),
        ('[databse]\nurl = "x"', r"no setting databse_url\. Did you mean 'database_url'"),
        ('hme = "x"', r"no setting hme\. Did you mean 'home'\?"),
        ("zzz = 1", r"no setting zzz\.$"),
        ("[database\nurl = 1", r"relevo\.toml is not valid TOML: .*line 1"),
        ('home = "a"\nhome = "b"', r"relevo\.toml is not valid TOML"),
        ("[database]\nurl = 5", r"setting database_url: .*string"),
        ("home = 5", r"setting home: "),
        ("[home]\nx = 1", r"setting home: "),
        ("source = 5", r"setting source: "),
    ],
)
def test_a_mistake_in_the_file_is_named(write: Write, text: str, message: str) -> None:
    write(text)
    with pytest.raises(ConfigurationError, match=message) as mistake:
        settings.load()
    assert "\n" not in str(mistake.value) + mistake.value.fix
    assert mistake.value.fix
    assert mistake.value.exit_status == 2


def test_the_fix_names_the_variable_too(write: Write) -> None:
    write("[database]\nurl = 5")
    with pytest.raises(ConfigurationError) as mistake:
        settings.load()
    assert mistake.value.fix == "correct database_url, or RELEVO_DATABASE_URL"


def test_a_structure_in_the_environment_is_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELEVO_SOURCE", '{"tenants": {"table": "tenants"}}')
    assert settings.load().source == {"tenants": {"table": "tenants"}}
    monkeypatch.setenv("RELEVO_SOURCE", "tenants")
    with pytest.raises(ConfigurationError, match=r"the environment cannot be read: .*source"):
        settings.load()


def test_a_named_file_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"cannot read .*no\.toml: No such file") as mistake:
        settings.load(tmp_path / "no.toml")
    assert "--config" in mistake.value.fix
    with pytest.raises(ConfigurationError, match=f"cannot read {tmp_path}: Is a directory"):
        settings.load(tmp_path)


def test_a_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "relevo.toml"
    file.write_bytes('home = "señor"'.encode("latin-1"))
    with pytest.raises(ConfigurationError, match=r"relevo\.toml is not valid TOML: .*utf-8"):
        settings.load()


def test_settings_do_not_change_afterwards() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        settings.load().home = Path("elsewhere")
