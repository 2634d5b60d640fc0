"""Will this flight arrive more than 15 minutes late? The product, written down once."""

from datetime import timedelta

from domains.flights.contracts import SCHEDULED
from domains.flights.domain import DOMAIN
from headway.clock import DAY_US
from headway.drift import DriftPolicy
from headway.gates import GatePolicy
from headway.product import InBulk, ModelSpec, Product, ViewUse
from products.flight_delay.labels import examples
from products.flight_delay.request import (
    CATEGORIES,
    MEANINGS,
    NUMBERS,
    FlightDelayRequest,
    asked_at_in_bulk,
    asked_at_us,
    request_features,
    request_features_in_bulk,
    sure,
)

# The spec of DESIGN 5, LightGBM's own defaults: what a gate may compare with on the same rows (S25).
REFERENCE_MODEL = ModelSpec(
    name="reference",
    objective="binary",
    trees=200,
    learning_rate=0.1,
    leaves=31,
    min_rows_in_leaf=20,
    l2=0.0,
    feature_fraction=1.0,
    category_smoothing=10.0,
    category_l2=10.0,
    seed=20130101,
    threads=1,
    half_life_days=None,
)
# Chosen by rolling weeks inside January to June alone (README.md has the table): larger leaves, half the features per
# tree, and rows that lose half their weight in 90 days, so that a retrained model leans on what changed.
MODEL = ModelSpec(
    name="regularised",
    objective="binary",
    trees=200,
    learning_rate=0.05,
    leaves=31,
    min_rows_in_leaf=200,
    l2=20.0,
    feature_fraction=0.5,
    category_smoothing=50.0,
    category_l2=30.0,
    seed=20130101,
    threads=1,
    half_life_days=90.0,
)

# Defaults are the medians of January to June: an hour like most. Without them an outage of the weather costs 0.054 nats
# in July instead of 0.027, of the origin's delays 0.033 instead of 0.014; the other views lose little either way.
VIEWS = (
    ViewUse(
        view="origin_delay.v1",
        features=(
            "count_1h",
            "mean_dep_delay_min_1h",
            "count_3h",
            "mean_dep_delay_min_3h",
            "max_dep_delay_min_3h",
            "mean_dep_delay_min_24h",
        ),
        defaults={
            "count_1h": 18.0,
            "mean_dep_delay_min_1h": 3.4,
            "count_3h": 51.0,
            "mean_dep_delay_min_3h": 3.3,
            "max_dep_delay_min_3h": 85.0,
            "mean_dep_delay_min_24h": 9.2,
        },
    ),
    ViewUse(
        view="origin_carrier_delay.v1",
        features=("count_3h", "mean_dep_delay_min_3h", "mean_dep_delay_min_24h"),
    ),
    ViewUse(
        view="dest_delay.v1",
        features=("count_3h", "mean_arr_delay_min_3h", "mean_arr_delay_min_24h"),
        defaults={"count_3h": 2.0, "mean_arr_delay_min_3h": -4.6, "mean_arr_delay_min_24h": 2.5},
    ),
    ViewUse(view="aircraft_arrival.v1", features=("last_arr_delay_min_24h", "last_at_24h", "count_24h")),
    ViewUse(view="aircraft_departure.v1", features=("last_dep_delay_min_24h", "last_at_24h", "count_24h")),
    ViewUse(view="origin_cancellation.v1", features=("count_3h", "count_24h")),
    ViewUse(
        view="weather.v1",
        features=(
            "last_temp_f_6h",
            "last_dewpoint_f_6h",
            "last_humidity_pct_6h",
            "last_wind_dir_deg_6h",
            "last_wind_speed_mph_6h",
            "last_wind_gust_mph_6h",
            "last_precip_hundredths_in_6h",
            "last_pressure_mb_6h",
            "last_visib_mi_6h",
            "sum_precip_hundredths_in_6h",
            "last_at_6h",
        ),
        defaults={
            "last_temp_f_6h": 48.9,
            "last_dewpoint_f_6h": 33.1,
            "last_humidity_pct_6h": 56.5,
            "last_wind_dir_deg_6h": 220.0,
            "last_wind_speed_mph_6h": 11.5,
            "last_precip_hundredths_in_6h": 0.0,
            "last_pressure_mb_6h": 1016.7,
            "last_visib_mi_6h": 10.0,
            "sum_precip_hundredths_in_6h": 0.0,
            "last_at_6h": 900.0,
        },
    ),
)

PRODUCT = Product(
    name="flight_delay",
    domain=DOMAIN,
    owner="flight-products",
    description="Probability that a flight out of New York arrives more than 15 minutes late, an hour before it leaves.",
    request=FlightDelayRequest,
    numbers=NUMBERS,
    categories=CATEGORIES,
    request_meanings=MEANINGS,
    request_features=request_features,
    examples=examples,
    asked_at_us=asked_at_us,
    views=VIEWS,
    model=MODEL,
    reference_model=REFERENCE_MODEL,
    gate=GatePolicy(
        floor_average_precision=0.60,
        floor_days=28,
        floor_roc_auc=0.60,
        # One week of two equally good models differs by up to 0.016 at the upper end (ADR 0008), of 0.48 in all.
        champion_margin=0.02,
        slice_margin=0.01,
        min_rows=2000,
        min_positives=200,
        min_slice_rows=500,
        max_calibration_gap=0.15,
        max_model_bytes=20_000_000,
        max_row_latency_us=2000.0,
        outage_budget=0.10,
        leak_tolerance=0.0,
        maturity_us=DAY_US,
    ),
    drift=DriftPolicy(
        zone="America/New_York",
        min_rows=2000,
        min_slice_rows=100,
        limit_quantile=0.95,
        patience=2,
        cooldown=timedelta(days=14),
        budget=3,
        budget_period=timedelta(days=90),
        maturity=timedelta(days=1),
    ),
    slices=("origin",),
    drift_slice="carrier",
    golden_requests=16,
    in_bulk=InBulk(
        events=(SCHEDULED,),
        asked_at_us=asked_at_in_bulk,
        sure=sure,
        request_features=request_features_in_bulk,
    ),
    asked_by=SCHEDULED,
)
