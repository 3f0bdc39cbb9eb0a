"""What `Contact` says while several sources succeed and fail."""

from __future__ import annotations

from fleet.contact import ContactLog
from fleet.store import StoreUnreachable


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_the_first_failure_in_a_row_dates_the_loss_and_the_latest_explains_it() -> None:
    clock = Clock()
    log = ContactLog(clock)
    clock.now_s = 1.0
    log.answered("requests")
    clock.now_s = 2.0
    log.failed("requests", StoreUnreachable("first"))
    clock.now_s = 3.0
    log.failed("requests", StoreUnreachable("second"))

    assert (log.contact.last_answer_s, log.contact.failing_since_s, log.contact.error) == (1.0, 2.0, "second")

    clock.now_s = 4.0
    log.answered("requests")
    assert (log.contact.last_answer_s, log.contact.failing_since_s, log.contact.error) == (4.0, None, None)


def test_a_failing_watch_is_not_hidden_by_requests_that_succeed() -> None:
    clock = Clock()
    log = ContactLog(clock)
    log.failed("watch", StoreUnreachable("refused"))
    clock.now_s = 5.0
    log.answered("requests")

    assert (log.contact.last_answer_s, log.contact.failing_since_s, log.contact.error) == (5.0, 0.0, "refused")

    log.forget("watch")
    assert (log.contact.failing_since_s, log.contact.error) == (None, None)
