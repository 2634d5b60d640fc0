import json
import subprocess
import sys
from pathlib import Path

import pytest

from headway import doctor
from headway.doctor import Finding
from headway.local.ports import Holder
from headway.settings import project_root


@pytest.mark.parametrize(
    ("said", "major"),
    [
        ('openjdk version "17.0.15" 2025-04-15\nOpenJDK Runtime Environment', 17),
        ('Picked up JAVA_TOOL_OPTIONS: -Xmx1g\nopenjdk version "21.0.4" 2024-07-16', 21),
        ('java version "1.8.0_412"', 8),
        ('openjdk version "22-ea" 2024-03-19', 22),
        ("Unrecognized option: -version", None),
    ],
)
def test_the_version_of_java_is_read_from_what_it_says(said: str, major: int | None) -> None:
    assert major == doctor.java_major(said)


@pytest.mark.parametrize("said", [None, 'java version "1.8.0_412"', 'openjdk version "24" 2025-03-18', "no such thing"])
def test_a_java_that_spark_and_kafka_cannot_use_is_mended_by_a_package(said: str | None) -> None:
    finding = doctor.check_java(said)

    assert not finding.holds
    assert finding.mend is not None
    assert "openjdk-17" in finding.mend


@pytest.mark.parametrize(
    ("version", "holds"), [((3, 10, 9), False), ((3, 11, 0), True), ((3, 12, 8), True), ((3, 13, 0), False)]
)
def test_python_3_11_and_3_12_are_what_the_lock_was_made_for(version: tuple[int, int, int], *, holds: bool) -> None:
    assert holds == doctor.check_python(version).holds


def test_a_stranger_on_one_of_our_ports_is_named_with_the_command_that_ends_it() -> None:
    stranger = Holder(port=18_050, pid=4711, command="python -m http.server 18050")

    finding = doctor.check_ports([stranger], is_ours=lambda _pid: False)

    assert not finding.holds
    assert "18050" in finding.found
    assert "http.server" in finding.found
    assert "kill 4711" in str(finding.mend)


def test_a_port_held_by_our_own_stack_is_no_fault() -> None:
    ours = Holder(port=18_050, pid=4711, command="python -m headway.local.mlflow_server")

    assert doctor.check_ports([ours], is_ours=lambda pid: pid == 4711).holds


def test_a_port_of_another_user_cannot_be_ours() -> None:
    hidden = Holder(port=18_050, pid=None, command=None)

    assert not doctor.check_ports([hidden], is_ours=lambda _pid: True).holds


def test_a_disk_that_ray_would_call_full_fails_even_when_it_has_room() -> None:
    finding = doctor.check_disk(Path("/"), free_bytes=40 * 10**9, total_bytes=1_000 * 10**9)

    assert not finding.holds
    assert "Ray" in str(finding.mend)


def test_a_folder_that_can_be_made_counts_as_writable(tmp_path: Path) -> None:
    assert doctor.check_writable("cache", tmp_path / "not" / "there" / "yet").holds


def test_a_file_where_the_cache_should_be_fails(tmp_path: Path) -> None:
    (tmp_path / "cache").touch()

    assert not doctor.check_writable("cache", tmp_path / "cache" / "jars").holds


@pytest.mark.parametrize(
    "failing",
    [
        doctor.check_python((3, 9, 1)),
        doctor.check_venv(has_venv=True, has_pip=False),
        doctor.check_tool("make", None),
        doctor.check_library("libgomp.so.1", loads=False, package="libgomp1"),
        doctor.check_java(None),
        doctor.check_disk(Path("/"), free_bytes=10**9, total_bytes=10**11),
        doctor.check_memory(10**9),
        doctor.check_open_files(1_024),
    ],
)
def test_every_failing_line_names_what_mends_it(failing: Finding) -> None:
    assert not failing.holds
    assert f"mend: {failing.mend}" in "\n".join(doctor.lines([failing]))


def test_doctor_runs_as_a_script_without_the_environment() -> None:
    """-S hides site-packages, as on a machine where nothing is installed yet."""
    command = [sys.executable, "-S", "-E", str(project_root() / "headway" / "doctor.py"), "--json"]

    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    report = json.loads(ran.stdout)
    assert (0 if report["holds"] else 1) == ran.returncode
    assert report["holds"] == all(finding["holds"] for finding in report["findings"])
    assert {"python", "java", "make", "disk", "memory"} <= {finding["name"] for finding in report["findings"]}


def test_no_core_module_hides_one_of_the_standard_library() -> None:
    """As a script, doctor imports its first modules with headway/ at the head of the path."""
    ours = {path.stem for path in (project_root() / "headway").iterdir()}

    assert not ours & sys.stdlib_module_names
