"""Settings and command of the Postgres image's first process."""

from pathlib import Path

import pytest

from examples.postgres.entrypoint import SetupError, is_empty, read_settings, server_command, set_up


def test_settings_have_the_defaults_of_the_official_image() -> None:
    settings = read_settings({"POSTGRES_USER": "boss", "POSTGRES_PASSWORD": "x"})
    assert (settings.user, settings.database, settings.password) == ("boss", "boss", "x")
    assert read_settings({}).user == read_settings({}).database == "postgres"


def test_a_password_is_read_from_a_file_and_never_shown(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("se cret\n")
    settings = read_settings({"POSTGRES_PASSWORD_FILE": str(tmp_path / "password")})
    assert settings.password == "se cret"
    assert "se cret" not in repr(settings)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"POSTGRES_PASSWORD": "x", "POSTGRES_PASSWORD_FILE": "/x"}, "not both"),
        ({"POSTGRES_PASSWORD_FILE": "/nowhere"}, "/nowhere, which cannot be read"),
    ],
)
def test_contradicting_settings_are_refused(environment: dict[str, str], message: str) -> None:
    with pytest.raises(SetupError, match=message):
        read_settings(environment)


def test_no_database_is_made_without_a_password(tmp_path: Path) -> None:
    settings = read_settings({"PGDATA": str(tmp_path / "data")})
    assert is_empty(settings.data)
    with pytest.raises(SetupError, match="a password is needed"):
        set_up(settings)
    assert not list(tmp_path.iterdir())


def test_options_reach_the_server_and_other_programs_run_as_they_are() -> None:
    data = Path("/data")
    assert server_command(["postgres"], data) == server_command([], data)
    assert server_command(["-c", "work_mem=8MB"], data)[-2:] == ["-c", "work_mem=8MB"]
    assert server_command(["psql", "-l"], data) == ["psql", "-l"]
