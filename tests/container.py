#!/usr/bin/env python3
"""Build the container image from the Dockerfile and run it for real, on a machine that has no container engine.

Debian's buildah builds with chroot isolation, over a base that debootstrap made (kept in a cache, as it stays the same
for weeks). The image then runs twice, in a network namespace of its own: by `buildah run`, and in a chroot whose file
system is mounted read-only. Each time the health check of the image must first fail and then agree, a message that
goes in over the loopback interface must land in the volume, and SIGTERM must end the daemon with status 0.

Package indices, mirrors, proxies and certificates are those of this machine: what pip and apt are told here they are
told within the build, by files that are mounted for its time only. No word of it stays, just empty mount points.

    python3 tests/container.py          as root; exit status 77 where it cannot run: buildah or debootstrap is missing
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import signal
import smtplib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SUITE = "bookworm"
CACHE = Path(os.environ.get("XDG_CACHE_HOME", "/var/cache")) / "smtpmaild"
#: A base older than this is made anew, for the sake of Debian's security updates.
BASE_DAYS = 14
PROGRAMS = ("buildah", "debootstrap", "apt-config", "ip", "unshare")
CANNOT_RUN = 77

USER = 65532
PORT = 2525
#: Folder of this machine, below that of a trial -> volume of the image.
VOLUMES = {"spool": "/var/spool/smtpmaild", "lib": "/var/lib/smtpmaild"}
#: What config/examples/container.yaml takes from the environment.
ENVIRONMENT = ("MAIL_HOST=mx.example.com", "MAIL_DOMAIN=example.com")
CLONE_NEWNET = 0x40000000
#: What pip's and apt's settings say about the way to the packages; nothing else of them is for the build.
PIP_KEYS = (
    "cert",
    "default-timeout",
    "extra-index-url",
    "find-links",
    "index-url",
    "no-index",
    "proxy",
    "trusted-host",
)
APT_KEYS = ("Acquire::http", "Acquire::https", "Acquire::Check", "Acquire::Retries")

#: $1: the tree, $2: what stands behind its volumes, $3: who; then the command. Runs in a mount namespace of its own.
READ_ONLY = """
root=$1 volumes=$2 user=$3; shift 3
mount --bind "$root" "$root"
mount --options remount,bind,ro "$root"
mount --bind /dev "$root/dev"
mount --bind /proc "$root/proc"
for name in spool lib; do mount --bind "$volumes/$name" "$root/var/$name/smtpmaild"; done
exec chroot --userspec="$user:$user" "$root" "$@"
"""


#: The end of what a failed command said, in characters.
OUTPUT_SHOWN = 4000


class Failure(Exception):
    """Something did not happen that must; the text says what."""


def say(text: str) -> None:
    print(f"container: {text}", flush=True)


def run(*command: str | Path) -> str:
    """The output of a command; a Failure with all it said where it fails."""
    words = [str(word) for word in command]
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        said = f"{done.stdout[-OUTPUT_SHOWN:]}{done.stderr[-OUTPUT_SHOWN:]}"
        raise Failure(f"{' '.join(words)}: exit status {done.returncode}\n{said}")
    return done.stdout


def wait_for(what: str, is_so: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > end:
            raise Failure(f"{what}: not within {seconds:g} s")
        time.sleep(0.05)


def mirror() -> str:
    """The archive from which this machine takes Debian's packages."""
    targets = run("apt-get", "indextargets", "--format", "$(RELEASE) $(REPO_URI)", "Created-By: Packages")
    for target in targets.splitlines():
        release, _, address = target.partition(" ")
        if release == SUITE:
            return address.rstrip("/")
    return "http://deb.debian.org/debian"


def debian_base() -> Path:
    """A minimal Debian as a tar file, made by debootstrap or taken from the cache."""
    archive = CACHE / f"base-{SUITE}.tar"
    if archive.exists() and time.time() - archive.stat().st_mtime < BASE_DAYS * 86_400:
        say(f"base: {archive}")
        return archive
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="debootstrap-", dir=CACHE) as folder:
        tree, packed = Path(folder, "root"), Path(folder, "base.tar")
        run("debootstrap", "--variant=minbase", SUITE, tree, mirror())
        # The host's own names and resolver are none of the image's business.
        for name in ("etc/hostname", "etc/resolv.conf"):
            (tree / name).unlink(missing_ok=True)
        leave_out = ("./var/cache/apt/*", "./var/lib/apt/lists/*", "./var/log/*")
        run("tar", "-cf", packed, *(f"--exclude={name}" for name in leave_out), "-C", tree, ".")
        os.replace(packed, archive)
    say(f"base: {archive}, made by debootstrap")
    return archive


def pip_settings() -> dict[str, str]:
    """Where pip finds packages on this machine: its files and its environment in one, the strongest first."""
    found: dict[str, str] = {}
    for line in run(sys.executable, "-m", "pip", "config", "list").splitlines():
        setting, _, value = line.partition("=")
        key = setting.rpartition(".")[2]
        if key in PIP_KEYS:
            found.setdefault(key, value.strip("'\"").replace("\\n", " ").strip())
    return found


def way_to_packages(scratch: Path) -> list[str]:
    """The `--volume` options under which pip and apt within the build find packages as they do out here."""
    pip = pip_settings()
    mounts: dict[str, str] = {}
    if "cert" in pip:
        # Not at its own place: the build installs Debian's certificates there.
        mounts[pip["cert"]] = "/run/build/certificates.crt"
        pip["cert"] = "/run/build/certificates.crt"
    for word in " ".join(pip.values()).split():
        folder = word.removeprefix("file://").rstrip("/")
        # An index that is a folder, .../simple, has its files beside it.
        folder = folder.removesuffix("/simple")
        if folder.startswith("/") and os.path.isdir(folder):
            mounts[folder] = folder
    pip_conf, apt_conf = scratch / "pip.conf", scratch / "apt.conf"
    pip_conf.write_text("[global]\n" + "".join(f"{key} = {value}\n" for key, value in pip.items()))
    apt_conf.write_text("\n".join(line for line in run("apt-config", "dump").splitlines() if line.startswith(APT_KEYS)))
    mounts |= {str(pip_conf): "/etc/pip.conf", str(apt_conf): "/etc/apt/apt.conf.d/90build"}
    return [f"--volume={here}:{there}:ro" for here, there in mounts.items()]


@dataclass(frozen=True)
class Store:
    """Buildah with a storage of its own, on plain directories: works on any file system, and goes with the folder."""

    folder: Path

    def command(self, *words: str | Path) -> list[str]:
        places = (f"--root={self.folder}/storage", f"--runroot={self.folder}/run", "--storage-driver=vfs")
        return ["buildah", *places, *(str(word) for word in words)]

    def do(self, *words: str | Path) -> str:
        return run(*self.command(*words)).strip()

    def add_base(self, archive: Path) -> None:
        container = self.do("from", "scratch")
        self.do("add", container, archive, "/")
        self.do("commit", "--rm", container, "localhost/base")

    def build(self) -> None:
        options = [
            "--isolation=chroot",
            "--format=docker",
            "--build-arg=BASE=localhost/base",
            "--build-arg=OPTIMIZE=0",
            "--pull-never",
        ]
        self.do("bud", *options, *way_to_packages(self.folder), "--tag=localhost/smtpmaild", ROOT)

    def configuration(self) -> dict[str, Any]:
        config: dict[str, Any] = json.loads(self.do("inspect", "--type=image", "localhost/smtpmaild"))["Docker"][
            "config"
        ]
        return config

    def size(self) -> str:
        """Of the image, as people read it."""
        (image,) = json.loads(self.do("images", "--json", "localhost/smtpmaild"))
        return str(image["size"])


def check_configuration(config: dict[str, Any]) -> None:
    """What an engine reads from the image is what the Dockerfile promises."""
    promised = {
        "User": f"{USER}:{USER}",
        "ExposedPorts": {f"{PORT}/tcp": {}},
        "Volumes": {path: {} for path in VOLUMES.values()},
        "StopSignal": "SIGTERM",
    }
    for key, value in promised.items():
        if config.get(key) != value:
            raise Failure(f"{key} of the image is {config.get(key)!r}, not {value!r}")
    for label in ("title", "description", "licenses", "version"):
        if not config["Labels"].get(f"org.opencontainers.image.{label}"):
            raise Failure(f"the image has no label org.opencontainers.image.{label}")


@dataclass(frozen=True)
class Trial:
    """One way to run a command of the image; volumes: the folder of this machine with the two volumes in it."""

    name: str
    volumes: Path
    command: Callable[[Sequence[str]], list[str]]

    def check(self, config: dict[str, Any]) -> None:
        daemon = [*config["Entrypoint"], *config["Cmd"]]
        health_check = [word for word in config["Healthcheck"]["Test"] if word != "CMD"]
        if self.exit_status(health_check) == 0:
            raise Failure(f"{self.name}: the health check agrees while nothing runs")
        log = self.volumes.with_suffix(".log")
        with log.open("wb") as stderr:
            process = subprocess.Popen(self.command(daemon), stdin=subprocess.DEVNULL, stdout=stderr, stderr=stderr)
        try:
            self.talk(process, health_check)
        except (Failure, OSError, smtplib.SMTPException) as error:
            raise Failure(f"{self.name}: {error}\nlog of the daemon:\n{log.read_text()}") from error
        finally:
            end(process)

    def talk(self, process: subprocess.Popen[bytes], health_check: Sequence[str]) -> None:
        wait_for("health check", lambda: self.exit_status(health_check) == 0 or process.poll() is not None)
        queued_as = send_message()
        stored = [path for path in self.volumes.rglob("*") if path.parent.name == "new" and path.is_file()]
        if len(stored) != 1 or b"Subject: into the container" not in stored[0].read_bytes():
            raise Failure(f"after {queued_as!r} the volume holds {stored}")
        if stored[0].stat().st_uid != USER:
            raise Failure(f"{stored[0]} belongs to {stored[0].stat().st_uid}")
        os.kill(daemon_of(process.pid), signal.SIGTERM)
        status = process.wait(20)
        if status != 0:
            raise Failure(f"SIGTERM ended it with status {status}")
        say(
            f"{self.name}: {queued_as!r}, stored as {stored[0].relative_to(self.volumes)}; "
            "SIGTERM ended it with status 0"
        )

    def exit_status(self, command: Sequence[str]) -> int:
        return subprocess.run(
            self.command(command), stdin=subprocess.DEVNULL, capture_output=True, check=False
        ).returncode


def send_message() -> str:
    """The reply to a message that was sent over the loopback interface."""
    with smtplib.SMTP("127.0.0.1", PORT, timeout=10) as client:
        client.ehlo("client.example.net")
        client.mail("sender@example.net")
        client.rcpt("postmaster@example.com")
        code, text = client.data("Subject: into the container\r\n\r\nHello.\r\n")
    if code != 250:
        raise Failure(f"the message was answered {code} {text!r}")
    return text.decode()


def descendants(pid: int) -> list[int]:
    """A process and all that came of it, parents first."""
    # A thread other than the first may have started a child.
    children: list[int] = []
    for thread in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            children += map(int, thread.read_text().split())
    return [pid, *(below for child in children for below in descendants(child))]


def end(process: subprocess.Popen[bytes]) -> None:
    """Leave nothing of it behind, whatever went wrong before."""
    for pid in reversed(descendants(process.pid)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


def daemon_of(pid: int) -> int:
    """The topmost process below the given one that runs as the image's user."""
    for candidate in descendants(pid):
        # Buildah's own last process changes its user too, before it starts ours.
        is_buildah = Path(f"/proc/{candidate}/cmdline").read_bytes().startswith(b"buildah")
        if os.stat(f"/proc/{candidate}").st_uid == USER and not is_buildah:
            return candidate
    raise Failure(f"no process of user {USER}")


def fresh_volumes(folder: Path) -> Path:
    """Empty folders for the volumes, owned by the image's user as an engine would have them."""
    for name in VOLUMES:
        (folder / name).mkdir(parents=True)
        os.chown(folder / name, USER, USER)
    return folder


def in_buildah(store: Store, container: str) -> Trial:
    """As an engine runs it, but for the isolation."""
    volumes = fresh_volumes(store.folder / "buildah-run")
    # Buildah would now and then mount a volume of its own over ours: the order is left to chance.
    store.do("config", *(f"--volume={path}-" for path in VOLUMES.values()), container)
    mounts = [f"--volume={volumes}/{name}:{path}" for name, path in VOLUMES.items()]
    settings = [f"--env={setting}" for setting in ENVIRONMENT]
    words = ["run", "--isolation=chroot", f"--user={USER}:{USER}", *mounts, *settings, container, "--"]
    return Trial("buildah run", volumes, lambda command: store.command(*words, *command))


def read_only(store: Store, container: str, config: dict[str, Any]) -> Trial:
    """With nothing to write but the volumes, as `--read-only` of an engine has it."""
    volumes = fresh_volumes(store.folder / "read-only")
    tree = store.do("mount", container)
    words = ["unshare", "--mount", "sh", "-euc", READ_ONLY, "sh", tree, str(volumes), str(USER)]
    environment = ["/usr/bin/env", "--ignore-environment", *config["Env"], *ENVIRONMENT]
    return Trial("read-only root", volumes, lambda command: [*words, *environment, *command])


def enter_network_of_our_own() -> None:
    """From here on this process has a loopback interface that nobody else hears."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET):
        raise Failure(f"unshare: {os.strerror(ctypes.get_errno())}")
    run("ip", "link", "set", "lo", "up")


def main() -> int:
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing or os.geteuid() != 0:
        say(f"cannot run here: {'needs ' + ', '.join(missing) if missing else 'needs root'}")
        return CANNOT_RUN
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="smtpmaild-container-") as folder:
        try:
            store = Store(Path(folder))
            store.add_base(debian_base())
            store.build()
            config = store.configuration()
            check_configuration(config)
            say(f"built in {time.monotonic() - started:.0f} s, {store.size()}")
            container = store.do("from", "--pull-never", "localhost/smtpmaild")
            enter_network_of_our_own()
            for trial in (in_buildah(store, container), read_only(store, container, config)):
                trial.check(config)
            store.do("rm", container)
        except Failure as failure:
            say(f"FAILED: {failure}")
            return 1
    say("2 passed, 0 failed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
