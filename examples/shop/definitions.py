"""The shop's source and customer features in Python: the same as the YAML files say.

rewindow publish definitions.py --dry-run
"""

from __future__ import annotations

from streams.dsl import FeatureSet, Source, count, last, sum

orders = Source(
    name="orders",
    topic="orders",
    schema="orders-value",
    event_time="ordered_at",
    key=["customer"],
    max_ahead="5m",
    idle_after="5s",
    close_after="10s",
)

customer_orders = FeatureSet(
    name="customer_orders",
    version="1.0.0",
    description="What each customer ordered lately.",
    owner="shop-team",
    source=orders,
    entity=["customer"],
    every="1m",
    allowed_lateness="2m",
    retention="24h",
    emit="updates",
    where="NOT cancelled",
    features={
        "orders_10m": count(window="10m"),
        "orders_1h": count(window="1h"),
        "spent_1h": sum("amount", window="1h"),
        "spent_with_coupon_1h": sum("amount", window="1h", where="coupon IS NOT NULL"),
        "last_product_1h": last("product", window="1h"),
    },
)
