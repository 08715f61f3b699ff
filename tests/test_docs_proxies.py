"""docs/proxies.md: its configurations are such, ours and those of others."""

from __future__ import annotations

import re
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from smtpmaild.config import load_text

TEXT = (Path(__file__).parent.parent / "docs" / "proxies.md").read_text()
BLOCKS = re.findall(r"^```(yaml)?\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
OURS = [block for kind, block in BLOCKS if kind]
(HAPROXY,) = [block for _, block in BLOCKS if block.startswith("listen ")]
NGINX = [block for _, block in BLOCKS if block.startswith(("stream ", "mail "))]
REST = "local_domains: {example.com: {deliver: mail}}\ndeliver_to: {mail: {type: discard}}\n"
LISTENER = "listeners:\n  - name: mx\n    listen: ['127.0.0.1:25']\n"


@pytest.mark.parametrize("block", OURS)
def test_our_blocks_are_parts_of_a_configuration(block: str) -> None:
    config = load_text((LISTENER if "part of a listener" in block else "") + block + REST, "/etc/smtp.yaml", {})
    (listener,) = config.listeners
    assert listener.trusted_proxies or listener.xclient_from or listener.xforward_from or listener.reverse_dns


@pytest.mark.debian
def test_haproxy_takes_its_block(needs_program: Callable[[str], str], tmp_path: Path) -> None:
    (tmp_path / "haproxy.cfg").write_text("defaults\n    timeout connect 5s\n" + HAPROXY)
    checked([needs_program("haproxy"), "-c", "-f", "haproxy.cfg"], tmp_path)


@pytest.mark.debian
@pytest.mark.parametrize("block", NGINX, ids=["stream", "mail"])
def test_nginx_takes_its_blocks(needs_program: Callable[[str], str], tmp_path: Path, block: str) -> None:
    module = Path(f"/usr/lib/nginx/modules/ngx_{block.split()[0]}_module.so")
    program = needs_program("nginx")
    if not module.exists():
        pytest.skip(f"{module} is not installed")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    block = block.replace("listen 25;", f"listen 127.0.0.1:{port};")  # nginx -t binds it
    (tmp_path / "nginx.conf").write_text(
        f"load_module {module};\npid {tmp_path}/pid;\nerror_log {tmp_path}/log;\nevents {{}}\n{block}"
    )
    checked([program, "-t", "-p", str(tmp_path), "-c", "nginx.conf"], tmp_path)


def checked(command: list[str], folder: Path) -> None:
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=20, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "warning" not in ran.stderr.lower()
