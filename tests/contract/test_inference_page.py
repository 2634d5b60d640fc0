"""The page about predictions: its examples run, and it names every setting and metric."""

import re
from collections.abc import Iterator

import pytest

from headway.settings import Settings, project_root
from tests.inference_door import Door, running_door
from tests.page_examples import differences, examples
from tests.prediction_world import Service

pytestmark = pytest.mark.integration

PAGE = project_root() / "docs" / "predictions.md"
README = project_root() / "README.md"
# The demo's own commands in the README run in CI, after a demo.
EXAMPLES = [*examples(PAGE), *(each for each in examples(README) if each.language == "python")]


@pytest.fixture(scope="module")
def door() -> Iterator[Door]:
    with running_door() as found:
        yield found


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_a_page_shows_what_is_answered(door: Door, number: int) -> None:
    ports = {"18000": door.settings.ports.load_balancer, "18001": door.settings.ports.load_balancer_grpc}

    assert differences(EXAMPLES[number], EXAMPLES[number].run(ports)) == []


def test_the_page_has_an_example_of_every_way_to_ask() -> None:
    sources = "\n".join(example.source for example in EXAMPLES)

    assert any("tritonclient" in each.source for each in examples(README))
    ways = ("/predict ", "/predict/rows ", "tritonclient.http", "tritonclient.grpc", "headway.client", "/v2/models/")
    assert [way for way in ways if way not in sources] == []


def test_the_page_names_every_setting_and_metric() -> None:
    page = PAGE.read_text(encoding="utf-8")
    settings = [f"HEADWAY_{name.upper()}" for name in Settings.model_fields if name.startswith(("predict_", "tls_"))]

    told = Service().send("GET", "/metrics").text
    # Beside each counter its library tells when it began.
    counted = re.findall(r"^# TYPE (headway_\w+(?<!_created)) ", told, re.MULTILINE)
    assert (len(settings), len(set(counted))) == (3, 6)
    assert [name for name in (*settings, *counted) if name not in page] == []
