"""The shop's definitions, tested in memory: no broker, no registry, no waiting.

pytest examples/shop
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from streams.definitions.load import load_files
from streams.testing import Harness

HERE = Path(__file__).parent
MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
NOON_MS = 1_767_268_800_000  # 2026-01-01T12:00:00Z


def harness(feature_set: str) -> Harness:
    return Harness.from_files(
        HERE / "sources" / "orders.yaml",
        HERE / "features" / f"{feature_set}.yaml",
        schema=HERE / "schemas" / "orders-value" / "v0001.avsc",
    )


def order(minute: float, customer: str = "ann", **fields: Any) -> dict[str, Any]:
    """An order placed so many minutes after noon."""
    return {
        "order_id": f"{customer}-{minute}",
        "customer": customer,
        "product": "tea",
        "quantity": 1,
        "amount": 4.5,
        "coupon": None,
        "cancelled": False,
        "ordered_at": NOON_MS + int(minute * MINUTE_MS),
        **fields,
    }


def test_spending_is_summed_over_the_last_hour() -> None:
    shop = harness("customer_orders")
    shop.send(order(0.5, amount=10.0), order(30, amount=5.0, coupon="spring"))
    shop.advance_to(NOON_MS + 2 * HOUR_MS)

    at_half_past = shop.vector(NOON_MS + 31 * MINUTE_MS, customer="ann")
    assert at_half_past is not None
    assert at_half_past.kind == "final"
    assert at_half_past.values["spent_1h"] == pytest.approx(15.0)
    assert at_half_past.values["spent_with_coupon_1h"] == pytest.approx(5.0)
    assert at_half_past.values["orders_10m"] == 1

    later = shop.vector(NOON_MS + 61 * MINUTE_MS, customer="ann")
    assert later is not None
    assert later.values["spent_1h"] == pytest.approx(5.0)


def test_cancelled_orders_do_not_count() -> None:
    shop = harness("customer_orders")
    shop.send(order(0.5, cancelled=True))
    shop.advance_to(NOON_MS + HOUR_MS)
    assert shop.vectors == []


def test_a_customer_who_left_gets_one_empty_vector() -> None:
    shop = harness("customer_orders")
    shop.send(order(0.5))
    shop.advance_to(NOON_MS + 3 * HOUR_MS)

    empty = [vector for vector in shop.vectors if vector.kind == "empty"]
    assert [vector.as_of_ms for vector in empty] == [NOON_MS + 61 * MINUTE_MS]
    assert empty[0].values["orders_1h"] == 0
    assert empty[0].values["last_product_1h"] is None


def test_an_order_within_the_allowed_lateness_still_counts() -> None:
    shop = harness("customer_orders")
    shop.send(order(1.5), order(3.4, customer="bob"), order(0.5, amount=1.0))
    shop.advance_to(NOON_MS + HOUR_MS)

    vector = shop.vector(NOON_MS + 2 * MINUTE_MS, customer="ann")
    assert vector is not None
    assert vector.values["orders_10m"] == 2
    assert shop.late == []


def test_an_order_that_is_hours_late_is_set_aside() -> None:
    shop = harness("customer_orders")
    shop.send(order(180, customer="bob"))
    shop.send(order(0.5))
    assert len(shop.late) == 1


def test_values_change_as_orders_come() -> None:
    shop = harness("customer_orders")
    shop.send(order(0.2))
    shop.send(order(0.4))
    updates = [vector for vector in shop.vectors if vector.kind == "update"]
    assert updates[-1].values["orders_10m"] == 2


def test_the_95th_percentile_is_a_value_that_occurred() -> None:
    shop = harness("product_sales")
    shop.send(*(order(0.1, amount=float(amount)) for amount in range(1, 101)))
    shop.advance_to(NOON_MS + HOUR_MS)
    vector = shop.vector(NOON_MS + 5 * MINUTE_MS, product="tea")
    assert vector is not None
    assert 94 <= vector.values["amount_p95_1h"] <= 96
    assert vector.values["sold_5m"] == 100


def test_bytes_that_are_no_order_become_a_dead_letter() -> None:
    shop = harness("customer_orders")
    shop.send_raw([b"not an order", None])
    assert [dead.error for dead in shop.dead] == ["wrong_magic_byte", "tombstone"]


def test_the_python_form_says_the_same_as_the_yaml() -> None:
    python = load_files([HERE / "definitions.py"])
    yaml = load_files([HERE / "sources/orders.yaml", HERE / "features/customer_orders.yaml"])
    assert python.sources == yaml.sources
    assert python.feature_sets == yaml.feature_sets
