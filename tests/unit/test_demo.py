import itertools

from headway.adapters.memory_registry import MemoryRegistry
from headway.clock import format_us
from headway.settings import Settings
from orchestration.demo.calendar import demo_calendar, week_keys
from orchestration.demo.plane import Plane
from orchestration.demo.reckoning import detected_after
from products.catalogue import find_product
from tests.serving_world import trained


def test_the_stretches_of_the_calendar_follow_each_other_without_a_gap_or_an_overlap() -> None:
    calendar = demo_calendar(hours=48)
    stretches = [calendar.history, calendar.july, calendar.between, calendar.september, calendar.after]

    assert all(one.until_us == next_one.after_us for one, next_one in itertools.pairwise(stretches))
    assert calendar.july.config == {
        "start": format_us(calendar.july.after_us + 1),
        "end": format_us(calendar.july.until_us + 1),
    }


def test_the_weeks_of_a_stretch_are_the_mondays_it_touches() -> None:
    calendar = demo_calendar(hours=48)

    assert week_keys(calendar.between, zone="America/New_York") == ("2013-07-01", "2013-09-02")
    assert week_keys(calendar.july, zone="America/New_York") == ("2013-07-01", "2013-07-01")


def test_a_forced_release_is_a_version_of_its_own_with_the_same_model() -> None:
    model, registry = trained(1), MemoryRegistry()
    first = model.register(registry)
    product = find_product(model.manifest.product)
    plane = Plane(settings=Settings(), product=product, registry=registry)

    again = plane.register_again(first)

    assert again.version == first + 1
    assert registry.load(product.name, again.version)[0] == model.text


def test_a_planted_change_is_found_with_the_second_warning_running_and_not_by_one_alone() -> None:
    quiet, warned = {"warnings": ""}, {"warnings": "divergence"}

    assert detected_after([warned, warned]) == 2
    assert detected_after([warned, quiet, warned]) is None
    assert detected_after([quiet, warned, warned]) == 3
