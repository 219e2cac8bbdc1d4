"""The RayJob manifest: it parses, and its pieces fit together. No Kubernetes is asked."""

from __future__ import annotations

import base64
import importlib.util
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from lvray.sweep import _parser as parser_of_sweep

ROOT = Path(__file__).parents[3]
FILE = ROOT / "cluster" / "kuberay" / "rayjob.yaml"
TEXT = FILE.read_text(encoding="utf-8")
VOLUME, JOB = yaml.safe_load_all(TEXT)
CLUSTER = JOB["spec"]["rayClusterSpec"]
GROUPS = [CLUSTER["headGroupSpec"], *CLUSTER["workerGroupSpecs"]]
PODS = [group["template"]["spec"] for group in GROUPS]
CONTAINERS = [container for pod in PODS for container in pod["containers"]]


def words() -> list[str]:
    return shlex.split(JOB["spec"]["entrypoint"])


def test_it_is_a_rayjob_and_a_volume_that_every_node_can_write():
    assert (JOB["apiVersion"], JOB["kind"]) == ("ray.io/v1", "RayJob")
    assert (VOLUME["kind"], VOLUME["spec"]["accessModes"]) == (
        "PersistentVolumeClaim",
        ["ReadWriteMany"],
    )


def test_the_entrypoint_is_a_module_and_its_arguments_are_read():
    python, flag, module, *argv = words()
    assert (python, flag) == ("python", "-m")
    assert importlib.util.find_spec(module)
    parser_of_sweep().parse_args(argv)


def test_the_sweep_file_lies_in_the_config_map_that_the_first_lines_make():
    file = Path(words()[3])
    pod = CLUSTER["headGroupSpec"]["template"]["spec"]
    mounts = {mount["mountPath"]: mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    name = volumes[mounts[str(file.parent)]]["configMap"]["name"]
    (told,) = re.findall(rf"kubectl create configmap {name} --from-file=(\S+)", TEXT)
    assert Path(told).name == file.name
    assert (ROOT / told).is_file()


def test_runs_lie_on_the_volume_of_every_pod():
    runs = Path(words()[words().index("--runs") + 1])
    for pod in PODS:
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        for container in pod["containers"]:
            mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
            assert set(mounts.values()) == volumes.keys()
            claim = volumes[mounts[str(runs)]]["persistentVolumeClaim"]["claimName"]
            assert claim == VOLUME["metadata"]["name"]


def test_series_that_the_driver_generates_lie_where_the_workers_see_them():
    (head,) = CLUSTER["headGroupSpec"]["template"]["spec"]["containers"]
    generated = next(v["value"] for v in head["env"] if v["name"] == "LVRAY_CACHE")
    assert Path(generated).is_relative_to(words()[words().index("--runs") + 1])


def test_the_node_cache_is_a_folder_of_the_pods_own():
    for pod in PODS:
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        for container in pod["containers"]:
            cache = next(v["value"] for v in container["env"] if v["name"] == "LVRAY_NODE_CACHE")
            mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
            assert "emptyDir" in volumes[mounts[cache]]


def test_the_token_comes_from_the_secret_that_the_first_lines_make():
    auth = CLUSTER["authOptions"]
    assert auth["mode"] == "token"
    assert f"create secret generic {auth['secretName']} --from-file=auth_token=/dev/stdin" in TEXT


def test_the_token_is_on_no_command_line():
    """Everyone on a machine can read the arguments of its processes."""
    assert "--from-literal" not in TEXT
    assert "$(openssl" not in TEXT


@pytest.mark.skipif(
    not (shutil.which("kubectl") and shutil.which("openssl")), reason="needs kubectl and openssl"
)
def test_the_secret_is_the_token_and_no_more():
    """Ray sends what is there in a header: a line's end at its end would be no token."""
    (line,) = [line.strip("# ") for line in TEXT.splitlines() if "create secret" in line]
    made = subprocess.run(
        ["bash", "-c", f"{line} --dry-run=client --output=yaml"],
        capture_output=True,
        check=True,
        text=True,
        timeout=60,
    )
    token = base64.b64decode(yaml.safe_load(made.stdout)["data"]["auth_token"])
    assert re.fullmatch(rb"[0-9a-f]{64}", token)


def test_no_token_stands_in_the_file():
    assert "RAY_AUTH_TOKEN" not in TEXT
    assert not re.search(r"\b[0-9a-f]{32,}\b", TEXT)


def test_head_and_workers_run_one_image_of_the_ray_that_is_pinned():
    images = {container["image"] for container in CONTAINERS}
    assert len(images) == 1
    version = CLUSTER["rayVersion"]
    (image,) = images
    assert f"ray{version}-py311" in image
    assert f"Ray {version}, Python 3.11" in TEXT
    assert f"rayproject/ray:{version}-py311" in TEXT
    assert f"ray=={version}\n" in (ROOT / "requirements.lock").read_text(encoding="utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (pin,) = [line for line in project["dependencies"] if line.startswith("ray[")]
    assert pin.split("]")[1] in TEXT
    assert project["requires-python"] == ">=3.11"


@pytest.mark.parametrize("container", CONTAINERS, ids=lambda container: container["name"])
def test_what_a_container_requests_is_what_it_may_take(container):
    """Ray counts the limits; a pod that was promised less would be ended under load."""
    assert container["resources"]["requests"] == container["resources"]["limits"]


def test_trials_run_on_the_workers_alone():
    assert CLUSTER["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert all(
        "nvidia.com/gpu" in container["resources"]["limits"]
        for group in CLUSTER["workerGroupSpecs"]
        for container in group["template"]["spec"]["containers"]
    )


def test_parameters_of_ray_start_are_text_as_kuberay_wants_them():
    for group in GROUPS:
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())


def test_the_names_that_commands_use_are_the_manifests():
    name = JOB["metadata"]["name"]
    assert f"job-name={name}" in TEXT
    assert f"delete rayjob {name}" in TEXT
