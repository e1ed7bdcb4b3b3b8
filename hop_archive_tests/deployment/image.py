"""What an image would be, without a Docker engine: a wheel in an environment of its own, the files, the commands.

The files are those that the Dockerfile copies, the commands those of compose.yaml, each with names and ports that
only containers have in exchange for this machine's. So neither can drift from what is tested.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import distribution, entry_points
from pathlib import Path
from typing import Any

import psutil
import yaml

import hop_archive
from hop_archive_tests.installed import installed_with

CHECKOUT = Path(hop_archive.__file__).parents[1]
DOCKER = CHECKOUT / "docker"
WHOLE = "HOP_ARCHIVE_TEST_WHOLE_IMAGE"
VERSION = "9.8.7"
HOME = "/opt/dagster"
BUILD_S = 1200.0

_DAGSTER_PROGRAMS = ("dagster", "dagster-daemon", "dagster-webserver")


def compose() -> dict[str, Any]:
    """The compose file, read."""
    read: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text())
    return read


def dockerfile() -> list[tuple[str, str]]:
    """The instructions of the Dockerfile: name and arguments, continued lines put together."""
    text = re.sub(r"(?m)^\s*#.*\n", "", (DOCKER / "Dockerfile").read_text())
    lines = [line.strip() for line in re.sub(r"\\\n\s*", "", text).splitlines() if line.strip()]
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in lines]


def copied() -> list[tuple[list[str], str]]:
    """What the Dockerfile copies from the checkout, and to where."""
    found = [words.split() for name, words in dockerfile() if name == "COPY" and "--from" not in words]
    return [(words[:-1], words[-1]) for words in found]


def environment_variables() -> dict[str, str]:
    """The variables that the Dockerfile sets in the final stage, which comes last."""
    text = [words for name, words in dockerfile() if name == "ENV"][-1]
    return dict(re.findall(r"(\w+)=(\S+)", text))


def locked(which: str) -> dict[str, str]:
    """Version by name of what a lock of the image pins: ``image``, or ``build``."""
    return dict(re.findall(r"(?m)^(\S+)==(\S+)", (DOCKER / f"{which}.lock").read_text()))


@dataclass(frozen=True, slots=True)
class Image:
    """An environment with the wheel, the folder that is /opt/dagster in the image, and the user's own, which is empty."""

    programs: Path
    home: Path
    user: Path

    def entries(self) -> dict[str, tuple[int, int]]:
        """Every file and folder of the image by its path, with its size, and when it was changed last."""
        roots = (self.programs.parent, self.home, self.user)
        found = [path for root in roots for path in (root, *root.rglob("*")) if not path.is_symlink()]
        return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in found}


def build(directory: Path) -> Image:
    """What the Dockerfile builds. Its packages are those installed here, unless ``HOP_ARCHIVE_TEST_WHOLE_IMAGE``."""
    venv = install(directory, "all")
    if not os.environ.get(WHOLE):
        _lend_programs(venv)
    home, user = directory / "dagster", directory / "user"
    user.mkdir()
    for name in re.findall(
        rf"{HOME}(\S*)", next(words for _, words in dockerfile() if "install --directory" in words)
    ):
        (directory / f"dagster{name}").mkdir()
    for names, where in copied():
        if where.startswith(HOME):
            for name in names:
                shutil.copy(CHECKOUT / name, home)
    return Image(venv / "bin", home, user)


def install(directory: Path, *extras: str) -> Path:
    """A new environment with the wheel and what it needs with these extras, as ``pip install`` makes it; where that is.

    The packages are those installed here, and no others of these, unless ``HOP_ARCHIVE_TEST_WHOLE_IMAGE``.
    """
    wheel, venv = _wheel(directory), directory / "venv"
    _run(sys.executable, "-m", "venv", "--without-pip", str(venv))
    python = str(venv / "bin" / "python")
    pip = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check", "--quiet"]
    if os.environ.get(WHOLE):
        wheels = (*pip, "install", "--only-binary", ":all:")
        if extras == ("all",):
            lock = str(DOCKER / "image.lock")
            _run(*wheels, "--no-deps", "--require-hashes", "--requirement", lock)
            _run(*pip, "install", "--no-deps", "--no-index", str(wheel))
        else:
            versions = directory / "versions.txt"
            versions.write_text("".join(f"{name}=={version}\n" for name, version in locked("image").items()))
            _run(
                *wheels,
                "--constraint",
                str(versions),
                f"{wheel}[{','.join(extras)}]" if extras else str(wheel),
            )
        _run(*pip, "check")
    else:
        _run(*pip, "install", "--no-deps", "--no-index", str(wheel))
        (site,) = venv.glob("lib/python*/site-packages")
        for package in installed_with(*extras):
            for name in {file.parts[0] for file in distribution(package).files or ()} - {"..", "__pycache__"}:
                if not (site / name).exists():
                    (site / name).symlink_to(Path(str(distribution(package).locate_file(name))).resolve())
    return venv


def _wheel(directory: Path) -> Path:
    """The wheel of what the Dockerfile copies into its build stage, under the version that it is told."""
    context = directory / "build"
    context.mkdir()
    for names, where in copied():
        for name in names:
            if where.startswith("./"):
                _copy(CHECKOUT / name, context / name)
    (replacing,) = re.findall(r"sed -i \"(s/.*?/)\" pyproject.toml", dict(_runs())["sed"])
    script = replacing.replace("\\", "").replace("${VERSION}", VERSION)
    _run("sed", "-i", script, str(context / "pyproject.toml"))
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check"]
    _run(*pip, "--no-deps", "--no-build-isolation", "--wheel-dir", str(directory / "wheels"), str(context))
    (wheel,) = (directory / "wheels").glob("*.whl")
    return wheel


def _runs() -> Iterator[tuple[str, str]]:
    for name, words in dockerfile():
        if name == "RUN" and "sed" in words:
            yield "sed", words


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)


def _lend_programs(venv: Path) -> None:
    """Dagster's programs, which come with its packages."""
    for entry in entry_points(group="console_scripts"):
        if entry.name in _DAGSTER_PROGRAMS:
            program = venv / "bin" / entry.name
            module, _, function = entry.value.partition(":")
            program.write_text(
                f"#!{venv / 'bin' / 'python'}\nimport sys\nfrom {module} import {function}\n"
                f'if __name__ == "__main__":\n    sys.exit({function}())\n'  # runs are spawned, which imports it
            )
            program.chmod(0o755)


def _run(*command: str) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=BUILD_S)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"


@dataclass
class Host:
    """This machine in the place of the containers' network: starts what services say, and ends all of it.

    Attributes:
        image: What to run.
        environ: The value here of each variable that compose.yaml sets, and what .env would add.
        words: What stands here for words of the commands: paths, ports.
    """

    image: Image
    directory: Path
    environ: Mapping[str, str]
    words: Mapping[str, str]
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def command(self, service: str) -> list[str]:
        """The command of a service."""
        return self._here(compose()["services"][service]["command"])

    def check(self, service: str) -> list[str]:
        """The command that says whether a service is healthy."""
        kind, *command = compose()["services"][service]["healthcheck"]["test"]
        assert kind == "CMD"
        return self._here(command)

    def _here(self, command: list[str]) -> list[str]:
        program, *arguments = command
        return [str(self.image.programs / program), *(self._word(argument) for argument in arguments)]

    def _word(self, word: str) -> str:
        for theirs, ours in self.words.items():
            word = re.sub(rf"(?<![\w/]){re.escape(theirs)}(?!\w)", ours, word)
        return word

    def variables(self, service: str) -> dict[str, str]:
        """The environment of a service: the image's, compose.yaml's, and nothing of the tests' own."""
        given = compose()["services"][service]["environment"]
        missing = given.keys() - self.environ.keys()
        assert not missing, f"compose.yaml sets what has no value here: {missing}"
        return {
            **environment_variables(),
            **self.environ,
            "PATH": f"{self.image.programs}{os.pathsep}/usr/bin{os.pathsep}/bin",
            "DAGSTER_HOME": str(self.image.home),
            "HOME": str(self.image.user),
            "TMPDIR": str(self.directory),
        }

    def run(self, service: str, command: list[str], **environ: str) -> subprocess.CompletedProcess[str]:
        """Run a command as in a service's container, to its end."""
        return subprocess.run(
            command,
            cwd=self.image.home,
            env={**self.variables(service), **environ},
            check=False,
            capture_output=True,
            text=True,
            timeout=300,
        )

    def complete(self, service: str) -> None:
        """Run a service that does something once."""
        done = self.run(service, self.command(service))
        assert done.returncode == 0, f"{service}: {done.stdout}{done.stderr}"

    def start(self, service: str) -> None:
        """Start a service that stays."""
        with self.log(service).open("ab") as output:
            self.processes[service] = subprocess.Popen(
                self.command(service),
                cwd=self.image.home,
                env=self.variables(service),
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def log(self, service: str) -> Path:
        """What a service that stays has printed."""
        return self.directory / f"{service}.log"

    def healthy(self, service: str, **environ: str) -> bool:
        """What its health check says now."""
        return self.run(service, self.check(service), **environ).returncode == 0

    def end(self, service: str) -> None:
        """End a service with all that it started."""
        process = self.processes.pop(service)
        children = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        process.send_signal(signal.SIGTERM)
        _, alive = psutil.wait_procs(children, timeout=5)
        for child in alive:
            child.kill()
        psutil.wait_procs(alive, timeout=5)
        process.wait()

    def end_all(self) -> None:
        """End all services, whoever starts processes first."""
        for service in reversed(list(self.processes)):
            self.end(service)


@contextmanager
def ended(host: Host) -> Iterator[Host]:
    """The host, with everything that was started on it gone after the block; tells the logs where it failed."""
    try:
        yield host
    except BaseException:
        for service in host.processes:
            sys.stderr.write(f"--- {service}\n{host.log(service).read_text()[-4000:]}\n")
        raise
    finally:
        host.end_all()
