"""What is installed holds all that it needs, wherever it is; what runs it on a server says what it should."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml
from packaging.requirements import Requirement

from relevo import __version__
from relevo.settings import Settings
from tests.commands import succeeds
from tests.servers import Server

ROOT = Path(__file__).parent.parent
STATIC = ROOT / "relevo" / "dashboard" / "static"
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
UNIT = ROOT / "deploy" / "relevo.service"


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from what is here."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


def test_every_file_of_ours_is_in_the_wheel(wheel: Path) -> None:
    ours = {
        path.relative_to(ROOT).as_posix(): path
        for path in (ROOT / "relevo").rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert {path.suffix for path in ours.values()} > {".py", ".sql", ".html", ".js", ".css", ".md", ".mjml", ".toml"}
    with zipfile.ZipFile(wheel) as packed:
        held = {name: packed.read(name) for name in packed.namelist() if name.startswith("relevo/")}
    assert held == {name: path.read_bytes() for name, path in ours.items()}


def test_the_wheel_carries_the_licence_and_the_notices_of_others(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as packed:
        held = {name.partition(".dist-info/licenses/")[2] for name in packed.namelist()}
    assert {"LICENSE", "NOTICE", *(each.relative_to(ROOT).as_posix() for each in STATIC.glob("licences/*"))} <= held


def test_away_from_the_source_it_finds_its_files_and_says_its_version(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(tmp_path / "installed")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "installed")}

    def run(*words: str) -> str:
        command = [sys.executable, *words]
        return subprocess.run(
            command, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True
        ).stdout.strip()

    assert run("-c", "import relevo; print(relevo.__file__)") == str(tmp_path / "installed/relevo/__init__.py")
    assert run("-m", "relevo", "--version") == __version__
    assert run("-m", "relevo", "db", "sql").startswith("-- 0001_relevo_foundation.sql")


def test_there_is_one_version() -> None:
    assert PROJECT["project"]["version"] == __version__
    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"image: relevo:{__version__}" in (ROOT / "compose.yaml").read_text(encoding="utf-8")


def test_what_others_wrote_is_named_with_its_licence() -> None:
    notice = (ROOT / "NOTICE").read_text(encoding="utf-8")
    beside = (STATIC / "README.md").read_text(encoding="utf-8")
    vendored = {each.name for each in STATIC.glob("*.min.*")}
    licences = {each.relative_to(STATIC).as_posix() for each in STATIC.glob("licences/*")}
    assert len(vendored) == 3
    assert [name for name in sorted(vendored | licences) if name not in notice or name not in beside] == []
    assert set(re.findall(r"licences/\w+\.txt", notice)) == licences
    for name, version in re.findall(r"\b([a-z]+)(?:\.org|/core)? (\d+\.\d+\.\d+)", beside):
        assert re.search(rf"{name} {re.escape(version)}\b", notice, re.IGNORECASE), (name, version)


# Whose names the licences of the vendored code ask us to keep.
OWED = {"Baidu": "zrender", "Mike Bostock": "d3", "Bootstrap Authors": "bootstrap", "Tabler Authors": "tabler"}


@pytest.mark.parametrize(("author", "part"), OWED.items())
def test_notices_that_a_licence_asks_for_are_kept(author: str, part: str) -> None:
    assert author in (ROOT / "NOTICE").read_text(encoding="utf-8")
    assert author in (STATIC / "licences" / f"{part}.txt").read_text(encoding="utf-8")


def test_what_is_locked_for_servers_is_what_is_tested() -> None:
    def pins(name: str) -> dict[str, str]:
        text = (ROOT / "requirements" / name).read_text(encoding="utf-8")
        return dict(re.findall(r"^([\w.-]+)==(\S+)", text, re.MULTILINE))

    run, build, tested = pins("run.txt"), pins("build.txt"), pins("dev.txt")
    assert {name: version for name, version in {**run, **build}.items() if tested.get(name) != version} == {}
    wanted = {Requirement(each).name for each in PROJECT["project"]["dependencies"]}
    assert wanted - run.keys() == set()
    assert "hatchling" in build
    assert "pytest" not in run


# In a container -------------------------------------------------------------------------------------------------------

INSTRUCTIONS = {"FROM", "WORKDIR", "COPY", "RUN", "ENV", "USER", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT", "CMD"}
SECRET = re.compile(r"PASSWORD|SECRET|KEY|TOKEN|BEARER|SMTP|WEBHOOK|DATABASE_URL", re.IGNORECASE)


def dockerfile() -> list[tuple[str, str]]:
    """Its instructions in order."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines if line)]


def test_the_dockerfile_says_nothing_that_there_is_not() -> None:
    assert {word for word, _ in dockerfile()} <= INSTRUCTIONS
    for word, rest in dockerfile():
        if word == "COPY" and not rest.startswith("--from=build "):
            *sources, _ = rest.split()
            assert [each for each in sources if not (ROOT / each).exists()] == []
            allowed = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
            assert [each for each in sources if f"!{each}" not in allowed] == []


def test_the_image_is_pinned_runs_as_nobody_special_and_holds_no_secret() -> None:
    said = dockerfile()
    bases = [rest.split()[0] for word, rest in said if word == "FROM"]
    assert all(re.fullmatch(r"[a-z]+:\d[\w.-]*", base) for base in bases), bases  # a short name and a tag
    last = max(place for place, (word, _) in enumerate(said) if word == "FROM")
    users = [rest for word, rest in said[last:] if word == "USER"]
    assert users
    assert users[-1] not in ("root", "0")
    assert [rest for word, rest in said if word in ("ENV", "ARG") and SECRET.search(rest)] == []
    allowed = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert allowed[1] == "*"  # all that is not named stays out: .env, .relevo, the history
    assert [each for each in allowed if each.startswith("!") and ("env" in each or "git" in each)] == []


def test_the_image_is_healthy_when_the_server_is_ready() -> None:
    (check,) = [rest for word, rest in dockerfile() if word == "HEALTHCHECK"]
    (command,) = [rest for word, rest in dockerfile() if word == "CMD"]
    port = re.search(r'"--port", "(\d+)"', command)
    assert port
    assert f"127.0.0.1:{port[1]}/readyz" in check
    assert ("EXPOSE", port[1]) in dockerfile()


def compose() -> Any:
    """compose.yaml, read."""
    return yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))


def test_compose_starts_the_server_after_the_schema_after_postgresql() -> None:
    services = compose()["services"]
    assert set(services) == {"postgres", "schema", "serve"}
    assert services["schema"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    assert services["schema"]["command"] == ["db", "up"]
    assert services["serve"]["depends_on"] == {"schema": {"condition": "service_completed_successfully"}}
    assert services["serve"]["ports"] == ["127.0.0.1:8080:8080"]
    for each in services.values():
        assert re.fullmatch(r"[a-z]+:\d[\w.-]*", each["image"])  # a short name and a tag
    for volume in services["postgres"]["volumes"]:
        source = volume.split(":")[0]
        assert source in compose()["volumes"] or (ROOT / source).exists(), source


def test_compose_knows_our_settings_and_takes_every_secret_from_outside() -> None:
    services = compose()["services"]
    for name, value in (services["postgres"]["environment"] | services["serve"]["environment"]).items():
        assert value.startswith("${"), name
    named = {name.removeprefix("RELEVO_").lower() for name in services["serve"]["environment"]}
    assert named - set(Settings.model_fields) == set()
    example = dict(re.findall(r"^(\w+)=(.*)$", (ROOT / "deploy" / "env.example").read_text(), re.MULTILINE))
    wanted = set(re.findall(r"\$\{(\w+):\?", (ROOT / "compose.yaml").read_text(encoding="utf-8")))
    assert wanted == {"POSTGRES_PASSWORD", "RELEVO_PASSWORD"}
    assert wanted <= example.keys()
    assert [name for name, value in example.items() if SECRET.search(name) and value] == []
    assert "/.env" in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("server", [18], ids=["pg18"], indirect=True)
def test_the_log_in_that_compose_makes_is_no_superuser_and_suffices(server: Server) -> None:
    psql = shutil.which("psql")
    if psql is None:
        pytest.skip("psql is not installed: apt-get install postgresql-client")
    environment = {
        "PATH": os.environ["PATH"],
        "PGHOST": "127.0.0.1",
        "PGPORT": str(server.port),
        "POSTGRES_USER": "postgres",
        "RELEVO_PASSWORD": "it's 'quoted'",
    }
    try:
        subprocess.run(["sh", ROOT / "deploy" / "first-start.sh"], env=environment, check=True, capture_output=True)
        url = server.url("relevo", "relevo")
        succeeds("db", "up", url=url)
        succeeds("sample", "load", "--tenants", "3", "--calls", "50", url=url)
        assert succeeds("migrate", url=url)["success"]
        with psycopg.connect(url) as connection:
            assert connection.execute("SELECT rolsuper FROM pg_roles WHERE rolname = 'relevo'").fetchone() == (False,)
    finally:
        with psycopg.connect(server.url("postgres"), autocommit=True) as admin:
            admin.execute("DROP DATABASE IF EXISTS relevo WITH (FORCE)")
            admin.execute("DROP ROLE IF EXISTS relevo")


# Under systemd --------------------------------------------------------------------------------------------------------

SYSTEMD = shutil.which("systemd-analyze")
with_systemd = pytest.mark.skipif(SYSTEMD is None, reason="systemd-analyze is not installed: apt-get install systemd")


@with_systemd
def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    there = tmp_path / UNIT.name  # systemd looks for the program, which is not installed here
    there.write_text(UNIT.read_text(encoding="utf-8").replace("/opt/relevo/bin/relevo", sys.executable))
    done = subprocess.run([str(SYSTEMD), "verify", there], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@with_systemd
def test_the_unit_gives_the_server_little_to_do_harm_with() -> None:
    judged = [str(SYSTEMD), "security", "--offline=true", "--threshold=20", str(UNIT)]  # of 100
    done = subprocess.run(judged, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    text = UNIT.read_text(encoding="utf-8")
    assert re.search(r"^User=(?!root)\w+$", text, re.MULTILINE)
    assert not re.search(r"^Environment=.*://", text, re.MULTILINE)  # secrets are in a file of root's


# Nowhere is it said where packages come from --------------------------------------------------------------------------

REGISTRIES = re.compile(
    r"\b(?:pypi\.org|pythonhosted\.org|npmjs\.(?:org|com)|docker\.io|docker\.com|ghcr\.io|quay\.io|gcr\.io)\b"
)


def test_no_file_names_a_registry() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode != 0:
        pytest.skip("this is no clone: git has no list of the files")
    files = [ROOT / name for name in listed.stdout.split("\0") if name and name != "tests/test_packaging.py"]
    found = [
        path.relative_to(ROOT).as_posix()
        for path in files
        if path.is_file() and REGISTRIES.search(path.read_text(encoding="utf-8", errors="replace"))
    ]
    assert found == []
