"""What is said to Kafka's clients."""

from __future__ import annotations

import gc
import weakref

from streams.config import load_settings
from streams.kafka import Admin


def test_an_admin_client_goes_when_its_last_user_does() -> None:
    settings = load_settings(bootstrap_servers="127.0.0.1:1", environ={"HOME": "."})
    gc.disable()  # which would find what is part of a cycle, and end it in a way that can crash
    try:
        admin = Admin(settings)
        client = weakref.ref(admin._client)
        del admin
        assert client() is None
    finally:
        gc.enable()
