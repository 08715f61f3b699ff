"""docs/containers.md: what it says of users, ports and paths is what the image has."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from pages import BLOCKS, ROOT, Block

from smtpmaild.config import load_text

DOCKERFILE = (ROOT / "Dockerfile").read_text()
VOLUMES = set(re.findall(r'"(/[^"]+)"', re.findall(r"^VOLUME (.*)$", DOCKERFILE, re.MULTILINE)[0]))
(PORT,) = map(int, re.findall(r"^EXPOSE (\d+)$", DOCKERFILE, re.MULTILINE))
(USER,) = map(int, re.findall(r"^USER (\d+):\1$", DOCKERFILE, re.MULTILINE))
(CONFIG,) = re.findall(r"^COPY config/examples/container.yaml (\S+)$", DOCKERFILE, re.MULTILINE)


def of(program: str) -> list[Any]:
    def is_its(block: Block) -> bool:
        return block.file is not None and block.file["program"] == program

    (block,) = filter(is_its, BLOCKS)
    return [*yaml.safe_load_all(block.text)]


def seconds(text: str) -> int:
    return int(text.removesuffix("s"))


def test_compose_file() -> None:
    (composed,) = of("Docker")
    service = composed["services"]["smtpmaild"]
    assert service["ports"] == [f"25:{PORT}"]
    assert {volume.partition(":")[2] for volume in service["volumes"]} == VOLUMES
    assert {volume.partition(":")[0] for volume in service["volumes"]} == set(composed["volumes"])
    example = (ROOT / "config" / "examples" / "container.yaml").read_text()
    config = load_text(example, "/etc/smtp.yaml", service["environment"])
    assert seconds(service["stop_grace_period"]) > config.timeouts.drain


def test_kubernetes_objects(tmp_path: Path) -> None:
    config_map, service, stateful_set = of("Kubernetes")
    pod = stateful_set["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    (file,) = config_map["data"]
    text = config_map["data"][file].replace("/etc/smtpmaild-secrets", str(tmp_path))
    (tmp_path / "token").write_text("0123456789abcdef" * 4)
    (tmp_path / "token").chmod(0o440)
    config = load_text(text, CONFIG, {})
    names = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert names[service["spec"]["ports"][0]["targetPort"]] == PORT
    assert f"0.0.0.0:{PORT}" in map(str, config.listeners[0].listen)
    assert pod["securityContext"]["runAsUser"] == USER
    assert config.timeouts.drain < pod["terminationGracePeriodSeconds"]
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts - VOLUMES == {CONFIG.rpartition("/")[0], "/etc/smtpmaild-secrets"}
    assert file == CONFIG.rpartition("/")[2]
    volumes = [one["name"] for one in pod["volumes"]]
    claims = [one["metadata"]["name"] for one in stateful_set["spec"]["volumeClaimTemplates"]]
    assert {mount["name"] for mount in container["volumeMounts"]} == {*volumes, *claims}
    assert config.status is not None and str(config.status.listen) == f"0.0.0.0:{names['status']}"
    for kind in ("startup", "liveness", "readiness"):
        asked = container[f"{kind}Probe"]["httpGet"]
        assert asked == {"path": "/readyz" if kind == "readiness" else "/livez", "port": "status"}
