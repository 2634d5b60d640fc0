from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from headway.doctor import PORT_BLOCK
from headway.settings import Ports, Settings, project_root


def test_every_default_port_is_in_the_block_that_doctor_looks_at() -> None:
    ports = Ports().model_dump().values()

    assert set(ports) <= set(PORT_BLOCK)
    assert len(set(ports)) == len(ports)


def test_the_state_folder_does_not_depend_on_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    assert project_root() / ".headway" == Settings().state
    assert (project_root() / "pyproject.toml").is_file()


def test_moving_the_block_moves_every_port_but_those_given_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADWAY_PORT_BASE", "20000")
    monkeypatch.setenv("HEADWAY_PORTS__KAFKA", "9092")

    settings = Settings()

    assert (settings.ports.kafka, settings.ports.mlflow) == (9092, 20_050)
    assert (settings.kafka_bootstrap, settings.mlflow_url) == ("127.0.0.1:9092", "http://127.0.0.1:20050")


def test_an_address_given_by_production_wins_over_the_local_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADWAY_KAFKA_BOOTSTRAP", "kafka-0:9092,kafka-1:9092")
    monkeypatch.setenv("HEADWAY_LAKE", "s3://lake")

    assert (Settings().kafka_bootstrap, Settings().lake) == ("kafka-0:9092,kafka-1:9092", "s3://lake")


def test_a_port_that_does_not_exist_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADWAY_PORTS__KAFAK", "9092")

    with pytest.raises(ValidationError, match="kafak"):
        Settings()


def test_a_value_once_read_does_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().port_base = 1  # type: ignore[misc]  # the point


@settings(deadline=None)  # a busy machine is no failure
@given(base=st.integers(1_024, 65_000), kafka=st.integers(1, 65_535), lake=st.sampled_from(["", "s3://lake"]))
def test_a_child_process_reads_the_same_settings_from_the_environment_it_is_given(
    base: int, kafka: int, lake: str
) -> None:
    """The stack hands its resolved settings to all its processes; a port that one of them sees differently is lost."""
    given_here = Settings(port_base=base, ports=Ports(kafka=kafka), lake=lake, state=Path("/somewhere"))

    with pytest.MonkeyPatch.context() as environment:
        for name, value in given_here.environment().items():
            environment.setenv(name, value)

        assert given_here == Settings()


def test_sockets_stay_in_the_state_folder_while_its_path_is_short() -> None:
    assert Path("/srv/headway/run") == Settings(state=Path("/srv/headway")).sockets


@given(depth=st.integers(1, 20))
def test_a_unix_socket_has_room_for_its_name_however_deep_the_state_folder_is(depth: int) -> None:
    """107 bytes is all the kernel allows, and Ray takes 65 of them."""
    settings = Settings(state=Path("/", *["deeply-nested"] * depth))

    assert len(str(settings.sockets)) <= 42


def test_two_state_folders_never_share_their_sockets() -> None:
    deep = [Settings(state=Path("/deeply-nested" * 5, name)).sockets for name in ("a", "b")]

    assert deep[0] != deep[1]
