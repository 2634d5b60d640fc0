from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.errors import PermanentFailure
from headway.local.instances import Instances, Wanted
from headway.local.plan import Process, Scalable


def scalable(name: str, *, most: int) -> Scalable:
    def instance(number: int) -> Process:
        return Process(name=f"{name}-{number}", command=lambda: ["true"], ready=None)

    return Scalable(name=name, instance=instance, most=most, limit="no more have work")


def instances(file: Path, *, most: int = 4) -> Instances:
    return Instances([scalable("enricher", most=most), scalable("loader", most=most)], file=file)


def test_what_is_wanted_is_read_again_by_the_next_supervisor(tmp_path: Path) -> None:
    file = tmp_path / "instances.json"
    instances(file).want("enricher", 3, held=True)

    later = instances(file)

    assert later.wanted("enricher") == Wanted(instances=3, held=True)
    assert list(later.extra()) == ["enricher-1", "enricher-2"]
    assert later.wanted("loader") == Wanted()


def test_what_a_person_holds_the_scaler_may_not_change_until_it_is_let_go(tmp_path: Path) -> None:
    wanted = instances(tmp_path / "instances.json")
    wanted.want("enricher", 2, held=True)

    with pytest.raises(PermanentFailure, match="headway scale enricher auto"):
        wanted.want("enricher", 1, held=False)
    wanted.want("enricher", None, held=False)
    wanted.want("enricher", 1, held=False)

    assert wanted.wanted("enricher") == Wanted(instances=1, held=False)


@given(asked=st.integers(-2, 12), most=st.integers(1, 8))
def test_no_count_outside_one_to_the_most_is_ever_kept(
    tmp_path_factory: pytest.TempPathFactory, asked: int, most: int
) -> None:
    wanted = instances(tmp_path_factory.mktemp("state") / "instances.json", most=most)

    with suppress(PermanentFailure):
        wanted.want("enricher", asked, held=False)

    assert wanted.wanted("enricher").instances == (asked if 1 <= asked <= most else 1)


def test_a_count_kept_under_a_larger_table_is_cut_to_what_has_work(tmp_path: Path) -> None:
    file = tmp_path / "instances.json"
    instances(file, most=8).want("enricher", 8, held=False)

    assert instances(file, most=4).wanted("enricher").instances == 4


@pytest.mark.parametrize("text", ["[]", "{", '{"enricher": {"many": 2}}'])
def test_a_file_that_holds_something_else_is_named_with_the_way_out(tmp_path: Path, text: str) -> None:
    file = tmp_path / "instances.json"
    file.write_text(text)

    with pytest.raises(PermanentFailure, match=r"instances\.json.*Remove it"):
        instances(file)
