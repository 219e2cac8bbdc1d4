from __future__ import annotations

import pytest

from lvray.ray_tune import session
from lvray.ray_tune.session import where_dashboard

TOKEN = "5ec2e7"


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({"RAY_AUTH_MODE": "disabled"}, "http://127.0.0.1:8265"),
        ({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}, "in RAY_AUTH_TOKEN"),
        ({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": "/job/token"}, "in /job/token"),
        ({"RAY_AUTH_MODE": "token"}, "`ray get-auth-token`"),
    ],
)
def test_the_dashboard_is_told_with_where_its_token_is_but_never_the_token(environment, told):
    line = where_dashboard("127.0.0.1:8265", environment)
    assert line.startswith("Ray's dashboard: http://127.0.0.1:8265")
    assert told in line
    assert TOKEN not in line


def test_where_there_is_no_dashboard_nothing_is_told():
    assert where_dashboard(None, {}) == where_dashboard("", {}) == ""


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
    return tmp_path


def test_the_token_of_a_dashboard_is_kept_where_ray_looks_and_nobody_else_reads_it(home):
    session._keep_token()
    path = home / ".ray" / "auth_token"
    kept = path.read_text()
    assert len(kept) == 64
    assert path.stat().st_mode & 0o777 == 0o600
    session._keep_token()
    assert path.read_text() == kept, "a browser that knows it would be asked again"


def test_a_token_that_is_given_is_not_kept(home, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "/job/token")
    session._keep_token()
    assert not (home / ".ray").exists()


def test_a_home_that_cannot_be_written_is_one_clear_message(home):
    (home / ".ray").touch()
    with pytest.raises(session.LvrayError, match="RAY_AUTH_TOKEN_PATH"):
        session._keep_token()
