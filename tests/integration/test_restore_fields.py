"""The tables of restore/fields.py, proven against every server: what they say is known is kept, what not is not."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from jetkeep.errors import ApiError
from jetkeep.jetstream import JetStream
from jetkeep.model import JsonDict
from jetkeep.restore.fields import CONSUMER_VALUES, STREAM_FIELDS, Version, fit, fit_consumer
from jetkeep.sandbox import Sandbox
from tests.conftest import StartServer
from tests.restoring import SECOND, connected

ORIGIN = {"name": "O"}
UNKNOWN_FIELD = 10025
NUMBERS = itertools.count()
#: Every field that a stream can have, with a value that says something, and what it needs beside it.
STREAM: dict[str, JsonDict] = {
    "description": {"description": "d"},
    "max_consumers": {"max_consumers": 5},
    "max_msgs": {"max_msgs": 5},
    "max_bytes": {"max_bytes": 5000},
    "max_age": {"max_age": 600 * SECOND},
    "max_msgs_per_subject": {"max_msgs_per_subject": 5},
    "max_msg_size": {"max_msg_size": 1000},
    "discard": {"discard": "new"},
    "no_ack": {"no_ack": True},
    "duplicate_window": {"duplicate_window": 60 * SECOND},
    "mirror": {"subjects": [], "mirror": {**ORIGIN, "opt_start_seq": 5, "filter_subject": "a.>"}},
    "mirror transforms": {"subjects": [], "mirror": {**ORIGIN, "subject_transforms": [{"src": "a.>", "dest": "b.>"}]}},
    "mirror external": {"subjects": [], "mirror": {**ORIGIN, "external": {"api": "x.API", "deliver": "x.d"}}},
    "mirror consumer": {"subjects": [], "mirror": {**ORIGIN, "consumer": {"name": "c", "deliver_subject": "d.x"}}},
    "sources": {"sources": [{**ORIGIN, "opt_start_seq": 4, "filter_subject": "a.>"}]},
    "sources consumer": {"sources": [{**ORIGIN, "consumer": {"name": "c", "deliver_subject": "d.x"}}]},
    "compression": {"compression": "s2"},
    "first_seq": {"first_seq": 10},
    "subject_transform": {"subject_transform": {"src": "s.*", "dest": "t.{{wildcard(1)}}"}},
    "republish": {"republish": {"src": "s.>", "dest": "r.>", "headers_only": True}},
    "allow_direct": {"allow_direct": True},
    "mirror_direct": {"subjects": [], "mirror": ORIGIN, "mirror_direct": True},
    "discard_new_per_subject": {"discard": "new", "max_msgs_per_subject": 5, "discard_new_per_subject": True},
    "deny_delete": {"deny_delete": True},
    "deny_purge": {"deny_purge": True},
    "allow_rollup_hdrs": {"allow_rollup_hdrs": True},
    "consumer_limits": {"consumer_limits": {"inactive_threshold": 60 * SECOND, "max_ack_pending": 5}},
    "metadata": {"metadata": {"a": "b"}},
    "allow_msg_ttl": {"allow_msg_ttl": True},
    "subject_delete_marker_ttl": {
        "allow_msg_ttl": True,
        "allow_rollup_hdrs": True,
        "subject_delete_marker_ttl": 60 * SECOND,
    },
    "allow_msg_counter": {"allow_msg_counter": True},
    "allow_atomic": {"allow_atomic": True},
    "allow_msg_schedules": {"allow_msg_schedules": True, "allow_rollup_hdrs": True},
    "persist_mode": {"persist_mode": "async"},
    "allow_batched": {"allow_batched": True},
}
PUSH = {"deliver_subject": "x.d"}
CONSUMER: dict[str, JsonDict] = {
    "description": {"description": "d"},
    "opt_start_seq": {"deliver_policy": "by_start_sequence", "opt_start_seq": 3},
    "opt_start_time": {"deliver_policy": "by_start_time", "opt_start_time": "2026-01-01T00:00:00Z"},
    "backoff": {"backoff": [SECOND, 2 * SECOND], "max_deliver": 3},
    "filter_subject": {"filter_subject": "s.a"},
    "filter_subjects": {"filter_subjects": ["s.a", "s.b"]},
    "sample_freq": {"sample_freq": "50%"},
    "rate_limit_bps": {"rate_limit_bps": 1000, **PUSH},
    "max_waiting": {"max_waiting": 10},
    "max_ack_pending": {"max_ack_pending": 10},
    "flow_control": {"flow_control": True, "idle_heartbeat": 5 * SECOND, **PUSH},
    "headers_only": {"headers_only": True},
    "max_batch": {"max_batch": 5, "max_expires": 5 * SECOND, "max_bytes": 500},
    "deliver_group": {"deliver_group": "g", **PUSH},
    "inactive_threshold": {"inactive_threshold": 600 * SECOND},
    "num_replicas": {"num_replicas": 1},
    "mem_storage": {"mem_storage": True},
    "metadata": {"metadata": {"a": "b"}},
    "pause_until": {"pause_until": "2099-01-01T00:00:00Z"},
    "priority_groups": {"priority_groups": ["A"], "priority_policy": "overflow"},
    "priority_timeout": {"priority_groups": ["A"], "priority_policy": "pinned_client", "priority_timeout": 5 * SECOND},
    "prioritized": {"priority_groups": ["A"], "priority_policy": "prioritized"},
    "flow acks": {"ack_policy": "flow_control", "flow_control": True, "idle_heartbeat": SECOND, "ack_wait": 0, **PUSH},
}


def stream_config(extra: JsonDict) -> JsonDict:
    config = {"name": "S", "subjects": ["s.>"], "storage": "file", "retention": "limits"} | extra
    return config if config["subjects"] else {key: value for key, value in config.items() if key != "subjects"}


async def as_created(js: JetStream, config: JsonDict) -> JsonDict:
    """The configuration that the server keeps; its own metadata left out."""
    # A name of its own each time: a server may still be removing the files of the one before.
    name = f"S{next(NUMBERS)}"
    try:
        made: JsonDict = (await js.create_stream(config | {"name": name}))["config"]
    finally:
        await js.delete_stream(name)
    return made | {"name": config["name"]}


def says_the_same(wanted: Any, have: Any) -> bool:
    if isinstance(wanted, dict) and isinstance(have, dict):
        return all(says_the_same(value, have.get(key)) for key, value in wanted.items())
    if isinstance(wanted, list) and isinstance(have, list) and len(wanted) == len(have):
        return all(says_the_same(one, other) for one, other in zip(wanted, have, strict=True))
    return bool(wanted == have) or (not wanted and not have)


async def test_every_fitted_stream_configuration_is_kept_whole(any_server: Sandbox) -> None:
    version = Version.of(any_server.version)
    async with connected(any_server) as js:
        # With its last stream 2.10 removes the account's folder, and a stream that is made meanwhile has no place.
        await js.create_stream({"name": "STAYS", "storage": "file", "subjects": ["stays"]})
        for name, extra in STREAM.items():
            config, dropped = fit(stream_config(extra), version)
            made = await as_created(js, config)
            assert says_the_same(config, made), (name, config, made)
            if not dropped:
                continue
            # What was dropped is really unknown here: refused, or not kept.
            try:
                whole = await as_created(js, stream_config(extra))
            except ApiError as refused:
                if refused.err_code != UNKNOWN_FIELD:
                    raise
            else:
                first = dropped[0].path
                assert first == "first_seq" or not says_the_same(stream_config(extra), whole), name


async def test_every_fitted_consumer_configuration_is_kept_whole(any_server: Sandbox) -> None:
    version = Version.of(any_server.version)
    async with connected(any_server) as js:
        await js.create_stream({"name": "S", "subjects": ["s.>"], "storage": "file"})
        for name, extra in CONSUMER.items():
            whole = {"durable_name": "C", "ack_policy": "explicit", **extra}
            config, dropped = fit_consumer(whole, version)
            if config is not None:
                made = (await js.request("CONSUMER.CREATE.S.C", {"stream_name": "S", "config": config}))["config"]
                await js.request("CONSUMER.DELETE.S.C")
                assert says_the_same(config, made), (name, config, made)
            if dropped:
                try:
                    made = (await js.request("CONSUMER.CREATE.S.C", {"stream_name": "S", "config": whole}))["config"]
                except ApiError as refused:
                    if refused.err_code != UNKNOWN_FIELD:
                        raise
                else:
                    await js.request("CONSUMER.DELETE.S.C")
                    assert not says_the_same(whole, made), name


def test_every_field_of_the_tables_is_tried() -> None:
    tried = {key for extra in STREAM.values() for key in extra} | {"name", "subjects", "retention", "storage"}
    # Placement needs a cluster, replicas too; a stream is sealed only by an update.
    assert set(STREAM_FIELDS) - tried == {"placement", "num_replicas", "sealed"}
    assert {value for key, value in CONSUMER_VALUES} == {"prioritized", "flow_control"}


@pytest.mark.parametrize("version", ["2.11.11"])
async def test_a_stream_whose_metadata_demands_a_newer_server_goes_offline_so_it_is_stripped(
    version: str, start_server: StartServer
) -> None:
    """The server's own metadata of a newer one, kept as it is, would take the stream offline at the next restart."""
    config = {
        "name": "S",
        "subjects": ["s.>"],
        "metadata": {"_nats.req.level": "2", "_nats.ver": "2.15.1", "mine": "1"},
    }
    fitted, _ = fit(config, Version.of(version))
    server = await start_server(version)
    async with connected(server) as js:
        await js.create_stream(fitted)
        await server.restart()
    async with connected(server) as js:
        assert (await js.stream_info("S"))["config"]["metadata"]["mine"] == "1"
