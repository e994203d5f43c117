"""The log of a daemon that is served meanwhile: what it says next."""

from __future__ import annotations

import time
from typing import Any

from fixer.lab.service import Service

PATIENCE_SECONDS = 30.0


class EventLog:
    def __init__(self, service: Service) -> None:
        self._service = service
        self._seen = 0

    def event(self, action: str) -> dict[str, Any]:
        """The next one of its kind."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            events = self._service.events()
            for at, each in enumerate(events[self._seen :], self._seen + 1):
                if each["event"]["action"] == action:
                    self._seen = at
                    return each
            assert time.monotonic() < deadline, (action, [each["message"] for each in events[self._seen :]])
            time.sleep(0.02)
