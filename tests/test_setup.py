"""`tools/with_setup.sh` on machines that lack something: each is a folder of made-up programs that stands for PATH."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "tools" / "with_setup.sh"
SYSTEM_TOOLS = ("bash", "dirname", "readlink", "sed", "head", "mkdir", "cat", "chmod", "env", "cp")
NO_ROOT = "echo 1000"
JAVA = """echo 'openjdk version "{version}" 2024-01-01' >&2"""


class Machine:
    """A project folder whose name has a space, and a PATH that holds only what a test puts there."""

    def __init__(self, folder: Path) -> None:
        self.project = folder / "my project"
        self.bin = folder / "bin"
        (self.project / "tools").mkdir(parents=True)
        self.bin.mkdir()
        shutil.copy(SCRIPT, self.project / "tools")
        for name in SYSTEM_TOOLS:
            (self.bin / name).symlink_to(shutil.which(name) or name)
        self.add("id", NO_ROOT)
        self.add("python3", "exit 0")
        self.add("uv", f"echo uv $* >> '{self.project}/calls'")

    def add(self, name: str, body: str, folder: Path | None = None) -> None:
        """Puts a program on PATH, or in another folder."""
        program = (folder or self.bin) / name
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text(f"#!/bin/bash\n{body}\n", encoding="utf-8")
        program.chmod(0o755)

    def add_java(self, home: Path, version: str) -> None:
        self.add("java", JAVA.format(version=version), home / "bin")

    def run(self, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        line = ["bash", str(self.project / "tools" / "with_setup.sh"), *command]
        return subprocess.run(
            line, env={"PATH": str(self.bin), **environment}, capture_output=True, text=True, check=False
        )


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_a_machine_that_has_all_runs_the_command_in_the_project_with_its_exit_code(
    machine: Machine, tmp_path: Path
) -> None:
    machine.add_java(tmp_path / "jdk", "21.0.2")
    done = machine.run("bash", "-c", "echo $PWD $JAVA_HOME; exit 7", JAVA_HOME=str(tmp_path / "jdk"))
    assert (done.returncode, done.stdout) == (7, f"{machine.project} {tmp_path / 'jdk'}\n")
    assert "uv sync --frozen --extra spark" in (machine.project / "calls").read_text(encoding="utf-8")


def test_the_packages_of_a_group_are_installed_where_it_is_asked_for(machine: Machine, tmp_path: Path) -> None:
    machine.add_java(tmp_path / "jdk", "21.0.2")
    done = machine.run("bash", "-c", ":", JAVA_HOME=str(tmp_path / "jdk"), SETUP_GROUPS="docs bench")
    assert done.returncode == 0, done.stderr
    calls = (machine.project / "calls").read_text(encoding="utf-8")
    assert "uv sync --frozen --extra spark --extra serving --quiet --group docs --group bench" in calls


def test_a_python_that_is_too_old_is_named_in_one_sentence(machine: Machine) -> None:
    machine.add("python3", "exit 1")
    done = machine.run("true")
    assert (done.returncode, done.stderr) == (
        2,
        "setup: no Python 3.11 or newer is on PATH; install one; then run this again\n",
    )


def test_an_old_java_home_gives_way_to_a_new_one_on_path(machine: Machine, tmp_path: Path) -> None:
    machine.add_java(tmp_path / "old", "1.8.0_392")
    machine.add_java(tmp_path / "new", "17.0.9")
    (machine.bin / "java").symlink_to(tmp_path / "new" / "bin" / "java")
    done = machine.run("bash", "-c", "echo $JAVA_HOME", JAVA_HOME=str(tmp_path / "old"))
    assert done.stdout == f"{tmp_path / 'new'}\n"


def test_without_java_and_without_root_one_sentence_says_what_to_install(machine: Machine) -> None:
    machine.add("apt-get", "exit 100")
    machine.add("sudo", "exit 1")
    done = machine.run("true")
    assert done.returncode == 2
    assert "Java 17 or newer is missing and cannot be installed from here; install OpenJDK 21" in done.stderr


def test_without_java_root_installs_one(machine: Machine, tmp_path: Path) -> None:
    machine.add_java(tmp_path / "package", "17.0.9")
    machine.add("id", "echo 0")
    installs = f"""case "$*" in *openjdk-17*) cp '{tmp_path}/package/bin/java' '{machine.bin}/java';; *openjdk-21*) exit 100;; esac"""
    machine.add("apt-get", installs)
    done = machine.run("bash", "-c", "java -version")
    assert done.returncode == 0, done.stderr
    assert "17.0.9" in done.stderr


def test_uv_is_put_into_the_projects_own_folder_when_it_is_missing(machine: Machine, tmp_path: Path) -> None:
    (machine.bin / "uv").unlink()
    machine.add_java(tmp_path / "jdk", "17.0.9")
    pip = "#!/bin/bash\\ncp .tools/uv/bin/python .tools/uv/bin/uv\\n"
    machine.add(
        "python3",
        f"""[ "$2" = venv ] && mkdir -p .tools/uv/bin && printf '{pip}' > .tools/uv/bin/python && chmod +x .tools/uv/bin/python; exit 0""",
    )
    done = machine.run("bash", "-c", "command -v uv", JAVA_HOME=str(tmp_path / "jdk"))
    assert done.stdout == f"{machine.project}/.tools/uv/bin/uv\n", done.stderr
