"""The same suite for object stores: a real S3 server always, emulators of Azure and GCS, and any bucket that is named."""

from __future__ import annotations

import pytest

from jetkeep.repository.address import store_at
from jetkeep.repository.store import Store
from tests.contract.test_store import StoreContract
from tests.object_stores.seaweed import Bucket


class TestSeaweedFS(StoreContract):
    races = 3
    always_one = False  # 4.48 was seen to tell none, or three, of eight writers that they were first
    many = 1200

    @pytest.fixture(autouse=True)
    def _bucket(self, bucket: Bucket) -> None:
        self.url = bucket.url

    def view(self) -> Store:
        return store_at(self.url)
