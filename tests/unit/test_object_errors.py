"""What an object store's failure is taken for."""

from __future__ import annotations

import pytest

from jetkeep.errors import AccessDeniedError, StoreFailedError
from jetkeep.repository.object_errors import explain

LOST = "Generic S3 error: Error performing DELETE http://h:40301/b/k in {}, after 0 retries - HTTP error: connection reset by peer"


@pytest.mark.parametrize("took", ["403.1ms", "401.77µs", "2.403s"])
def test_how_long_a_request_took_is_no_refusal(took: str) -> None:
    failure = explain("s3://b", "delete", "k", OSError(LOST.format(took)))
    assert isinstance(failure, StoreFailedError)
    assert failure.retryable


@pytest.mark.parametrize(
    "words", ['response error "", 401 Unauthorized', "403 Forbidden: no", "<Code>AccessDenied</Code>"]
)
def test_a_refusal_is_one(words: str) -> None:
    assert isinstance(explain("s3://b", "delete", "k", OSError(words)), AccessDeniedError)
