"""What is said to Kafka's clients."""

from __future__ import annotations

import gc
import weakref

from streams.config import load_settings
from streams.kafka import Admin, unreachable


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


def test_the_clients_own_counting_is_kept_out_of_messages() -> None:
    settings = load_settings(bootstrap_servers="127.0.0.1:1", environ={"HOME": "."})
    refused = "127.0.0.1:1/bootstrap: Connect to ipv4#127.0.0.1:1 failed: Connection refused"
    for detail in (
        " (after 0ms in state CONNECT)",
        " (after 3ms in state CONNECT, 1 identical error(s) suppressed)",
    ):
        said = str(unreachable(settings, refused + detail))
        assert "(Connect to ipv4#127.0.0.1:1 failed: Connection refused): start one" in said
