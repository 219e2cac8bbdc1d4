"""A sweep with Ray's dashboard, as a browser and a Prometheus meet it. Needs ray[default], as the lock has it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from itertools import accumulate
from pathlib import Path
from time import monotonic, sleep

import pytest

pytestmark = [pytest.mark.ray, pytest.mark.torch]

SMALL = Path(__file__).with_name("small.yaml")


def get(url: str, *, token: str = "", post: bool = False, cookie: str = "") -> tuple[int, str, str]:
    """Status, body and cookie of an answer."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    headers |= {"Cookie": cookie} if cookie else {}
    asked = urllib.request.Request(url, headers=headers, method="POST" if post else "GET")
    try:
        with urllib.request.urlopen(asked, timeout=60) as answer:
            return answer.status, answer.read().decode(), answer.headers.get("Set-Cookie", "")
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode(), ""


def gauges_in(text: str) -> dict[tuple[str, ...], float]:
    """Values of our gauges by name and by their labels ``stage`` and ``status``."""
    found = {}
    for name, labels, value in re.findall(r"^ray_(lvray_\w+)\{(.*)\} (\S+)$", text, re.MULTILINE):
        named = dict(re.findall(r'(\w+)="([^"]*)"', labels))
        assert named["sweep"] == "small"
        more = (named[key] for key in ("stage", "status") if key in named)
        found[name, *more] = float(value)
    return found


@pytest.fixture(scope="module")
def met(tmp_path_factory):
    """What the driver said, what its dashboard and its gauges answered while it ran, and its run folder."""
    pytest.importorskip("aiohttp_cors", reason="ray[default] is not installed")
    home = tmp_path_factory.mktemp("home")
    environment = {name: value for name, value in os.environ.items() if "RAY_AUTH" not in name}
    command = [sys.executable, "-m", "lvray.sweep", str(SMALL), "--set", "resources.dashboard=true", "--set", "budget=5e12"]  # fmt: skip
    driver = subprocess.Popen(
        command,
        cwd=home,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**environment, "HOME": str(home)},
    )
    try:
        return {**meet(driver, home), "folder": home / "runs" / "small"}
    finally:
        driver.kill()
        driver.communicate()


def meet(driver: subprocess.Popen[str], home: Path) -> dict:
    """Asks the dashboard and the gauges of a sweep while it runs, then ends it as Ctrl-C does."""
    folder = driver.stdout.readline()
    assert folder == f"run folder: {home / 'runs' / 'small'}\n", driver.communicate()[1]
    told = driver.stdout.readline()
    assert told, driver.communicate()[1]
    address = re.search(r"http://\S+:\d+", told)[0]
    token = (home / ".ray" / "auth_token").read_text()
    answers = {
        "without": get(f"{address}/api/prometheus/sd"),
        "wrong": get(f"{address}/api/prometheus/sd", token="0" * 64),
        "page": get(address),
        "login": get(f"{address}/api/authenticate", token=token, post=True),
    }
    cookie = answers["login"][2].split(";")[0]
    found: dict[tuple[str, ...], float] = {}
    end = monotonic() + 600
    while not found.get(("lvray_flops_spent",)):
        assert driver.poll() is None, driver.communicate()[1]
        assert monotonic() < end, f"the gauges say {found}"
        _, discovered, _ = get(f"{address}/api/prometheus/sd", cookie=cookie)
        targets = [target for each in json.loads(discovered) for target in each["targets"]]
        found = gauges_in("".join(get(f"http://{target}/metrics")[1] for target in targets))
        sleep(1)
    driver.send_signal(signal.SIGINT)
    out, err = driver.communicate(timeout=600)
    assert driver.returncode == 130, err
    return {"out": told + out, "token": token, "found": found, **answers}


def test_the_dashboard_lets_in_only_who_has_the_token(met):
    assert met["without"][0] == 401
    assert met["wrong"][0] == 403
    assert met["page"][0] == 200, "the page itself is shown, and asks for the token"
    assert met["login"][0] == 200
    assert "httponly" in met["login"][2].lower()


def test_the_driver_says_where_the_dashboard_is_and_never_the_token(met):
    assert met["out"].startswith("Ray's dashboard: http://")
    assert "`ray get-auth-token`" in met["out"]
    written = [path for path in met["folder"].rglob("*") if path.is_file()]
    assert met["token"] not in met["out"]
    assert not [path for path in written if met["token"].encode() in path.read_bytes()]


def test_the_gauges_that_prometheus_finds_are_the_books_as_they_once_stood(met):
    found = met["found"]
    rows = [json.loads(line) for line in (met["folder"] / "ledger.jsonl").read_text().splitlines()]
    transfers = [transfer for row in rows[1:] for transfer in row["transfers"]]
    spent = accumulate(int(each["flops"]) * (each["taker"] == "spent") for each in transfers)
    assert found["lvray_flops_spent",] in set(map(float, spent)) - {0.0}
    assert found["lvray_flops_budget",] == 5e12
    pieces = ("spent", "reserved", "held_back", "free")
    assert sum(found[f"lvray_flops_{piece}",] for piece in pieces) == 5e12
    assert found["lvray_trials", "baseline", "completed"] == 1
    assert found["lvray_best_validation_loss_nats", "baseline"] > 0
