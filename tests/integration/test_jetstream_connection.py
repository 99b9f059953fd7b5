from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import nkeys
import pytest

from jetkeep.config import ConnectionSettings, connection_settings
from jetkeep.errors import JetkeepError, ServerError
from jetkeep.jetstream import connect
from jetkeep.sandbox.cluster import free_ports
from tests.conftest import StartServer
from tests.operator_mode import Identity, OperatorMode
from tests.publisher import Publisher

# Made once with openssl for localhost and a hundred years; the key of their authority is gone.
TLS = Path(__file__).parent / "tls"
SERVER_TLS = {"cert_file": str(TLS / "server.pem"), "key_file": str(TLS / "server.key"), "ca_file": str(TLS / "ca.pem")}
PASSWORD = "s3cret-w0rd"


def settings(url: str, **flags: Any) -> ConnectionSettings:
    return connection_settings({"server": url, "timeout": "2s", "no_context": True, **flags}, {})


async def account(url: str, **flags: Any) -> dict[str, Any]:
    async with connect(settings(url, **flags)) as js:
        return await js.account_info()


async def refused(url: str, **flags: Any) -> ServerError:
    """The error of an attempt to connect, which shows no secret."""
    with pytest.raises(ServerError) as caught:
        await account(url, **flags)
    shown = f"{caught.value!r} {caught.value} {caught.value.to_dict()}"
    for secret in ("password", "token", "seed", "jwt", "creds"):
        assert not flags.get(secret) or str(flags[secret]) not in shown
    assert PASSWORD not in shown
    return caught.value


async def test_user_and_password(start_server: StartServer) -> None:
    server = await start_server(config={"authorization": {"users": [{"user": "ann", "password": PASSWORD}]}})
    assert "limits" in await account(server.url, user="ann", password=PASSWORD)
    assert "limits" in await account(server.url.replace("//", f"//ann:{PASSWORD}@"))
    for flags in ({"user": "ann", "password": "wrong-w0rd"}, {}, {"token": "tok-wr0ng"}):
        assert (await refused(server.url, **flags)).code == "nats.denied"
    assert (await refused(server.url.replace("//", f"//bob:{PASSWORD}@"))).code == "nats.denied"


async def test_token(start_server: StartServer) -> None:
    server = await start_server(config={"authorization": {"token": "t0ken-right"}})
    assert "limits" in await account(server.url, token="t0ken-right")
    assert "limits" in await account(server.url, user="t0ken-right")
    assert (await refused(server.url, token="t0ken-wrong")).code == "nats.denied"


async def test_nkey(start_server: StartServer, tmp_path: Path) -> None:
    right, wrong = Identity(nkeys.PREFIX_BYTE_USER), Identity(nkeys.PREFIX_BYTE_USER)
    server = await start_server(config={"authorization": {"users": [{"nkey": right.public}]}})
    for name, identity in {"right": right, "wrong": wrong}.items():
        (tmp_path / name).write_text(identity.seed + "\n")
    assert "limits" in await account(server.url, nkey=str(tmp_path / "right"))
    assert (await refused(server.url, nkey=str(tmp_path / "wrong"))).code == "nats.denied"


async def test_credentials_of_an_operators_account(start_server: StartServer, tmp_path: Path) -> None:
    mode, other = OperatorMode(), OperatorMode()
    server = await start_server(config=mode.config)
    for name, one in {"right": mode, "wrong": other}.items():
        (tmp_path / name).write_text(one.creds(*one.user()))
    assert "limits" in await account(server.url, creds=str(tmp_path / "right"))
    assert (await refused(server.url, creds=str(tmp_path / "wrong"))).code == "nats.denied"
    jwt, seed = mode.user()
    assert "limits" in await account(server.url, jwt=jwt, seed=seed)
    assert (await refused(server.url, jwt=jwt, seed=other.user()[1])).code == "nats.denied"
    assert "limits" in await account(server.url, jwt=mode.user(bearer=True)[0])


async def test_credentials_that_are_no_credentials(start_server: StartServer, tmp_path: Path) -> None:
    server = await start_server(config=OperatorMode().config)
    (tmp_path / "broken").write_text("nothing of use " + PASSWORD)
    with pytest.raises(JetkeepError) as caught:
        await account(server.url, creds=str(tmp_path / "broken"))
    assert PASSWORD not in str(caught.value)


async def test_tls(start_server: StartServer) -> None:
    server = await start_server(config={"tls": SERVER_TLS})
    assert "limits" in await account(server.url, tlsca=str(TLS / "ca.pem"))
    assert "limits" in await account(server.url.replace("nats:", "tls:"), tlsca=str(TLS / "ca.pem"))
    unknown = await refused(server.url)
    assert unknown.code == "nats.tls"
    assert "certificate" in unknown.what


async def test_tls_is_not_silently_left_out(start_server: StartServer) -> None:
    server = await start_server()
    assert (await refused(server.url, tlsca=str(TLS / "ca.pem"))).code == "nats.tls"


async def test_mutual_tls(start_server: StartServer) -> None:
    server = await start_server(config={"tls": {**SERVER_TLS, "verify": True}})
    client = {"tlscert": str(TLS / "client.pem"), "tlskey": str(TLS / "client.key")}
    assert "limits" in await account(server.url, tlsca=str(TLS / "ca.pem"), **client)
    assert (await refused(server.url, tlsca=str(TLS / "ca.pem"))).code == "nats.tls"


async def test_a_client_certificate_that_is_missed_without_a_word(start_server: StartServer) -> None:
    """Whether the server's alert arrives before the connection's end is chance: here it never does."""
    server = await start_server(config={"tls": {**SERVER_TLS, "verify": True}})

    async def between(client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        answers, to_server = await asyncio.open_connection("127.0.0.1", int(server.url.rpartition(":")[2]))
        to_client.write(await answers.readline())
        to_server.write(await client.read(65536))
        to_client.write(await answers.read(65536))
        await client.read(65536)  # the end of the handshake: the server would refuse it
        to_client.close()
        to_server.close()

    proxy = await asyncio.start_server(between, "127.0.0.1", 0)
    async with proxy:
        port = proxy.sockets[0].getsockname()[1]
        error = await refused(f"nats://127.0.0.1:{port}", tlsca=str(TLS / "ca.pem"))
    assert error.code == "nats.tls"
    assert "--tlscert" in error.hint


async def test_tls_first(start_server: StartServer) -> None:
    server = await start_server(config={"tls": {**SERVER_TLS, "handshake_first": True}})
    assert "limits" in await account(server.url, tlsca=str(TLS / "ca.pem"), tlsfirst=True)
    with pytest.raises(ServerError):
        await account(server.url, tlsca=str(TLS / "ca.pem"))


async def test_nobody_there() -> None:
    (port,) = free_ports(1)
    error = await refused(f"nats://ann:{PASSWORD}@127.0.0.1:{port}")
    assert error.code == "nats.unreachable"
    assert f"127.0.0.1:{port}" in error.what


async def test_an_unknown_host_name() -> None:
    assert (await refused("nats://no-such-host.invalid:4222")).code == "nats.unreachable"


async def test_something_that_is_no_nats_server(start_server: StartServer) -> None:
    server = await start_server()
    assert (await refused(server.monitor_url.replace("http", "nats"))).exit_status == 20


async def test_a_server_without_jetstream_says_so(start_server: StartServer) -> None:
    server = await start_server(config={"jetstream": None})
    error = await refused(server.url)
    assert error.exit_status == 20
    assert "JetStream" in error.what + error.hint


async def test_an_account_without_jetstream_says_so(start_server: StartServer) -> None:
    users = {"A": {"users": [{"user": "a", "password": "pw-of-a"}]}, "B": {"jetstream": "enabled", "users": []}}
    server = await start_server(config={"accounts": users})
    error = await refused(server.url, user="a", password="pw-of-a")
    assert "JetStream" in f"{error.what} {error.hint}"


async def test_an_inbox_prefix_is_used_everywhere(start_server: StartServer) -> None:
    permissions = {"publish": {"allow": ["$JS.>", "S.>", "_MINE.>"]}, "subscribe": {"allow": ["_MINE.>"]}}
    user = {"user": "a", "password": "pw-of-a", "permissions": permissions}
    server = await start_server(config={"authorization": {"users": [user, {"user": "b", "password": "b"}]}})
    async with Publisher(server.url, "b", "b") as publisher:
        await publisher.create("S", allow_direct=True)
        await publisher.store_all([("S.a", b"x", b"")] * 10)
    async with connect(settings(server.url, user="a", password="pw-of-a", inbox_prefix="_MINE")) as js:
        async with js.snapshot("S") as snapshot:
            content = b"".join([chunk async for chunk in snapshot])
        read = [message async for message in js.messages("S", 1, 10, {"allow_direct": True})]
        assert len(read) == 10
        await js.delete_stream("S")
        async with js.restore("S", snapshot.config, snapshot.state) as sink:
            await sink.send(content)
            assert (await sink.finish())["state"]["messages"] == 10
    async with connect(settings(server.url, user="a", password="pw-of-a")) as js:
        with pytest.raises(ServerError, match=r"subscribe to _INBOX") as caught:
            await js.account_info()
    assert caught.value.code == "nats.permission"


async def test_a_domain_behind_a_leaf_node(start_server: StartServer) -> None:
    (port,) = free_ports(1)
    hub = await start_server(
        config={"server_name": "hub", "leafnodes": {"listen": f"127.0.0.1:{port}"}, "jetstream": {"domain": "HUB"}}
    )
    remotes = {"remotes": [{"url": f"nats-leaf://127.0.0.1:{port}"}]}
    leaf = await start_server(config={"server_name": "leaf", "leafnodes": remotes, "jetstream": {"domain": "EDGE"}})
    async with Publisher(leaf.url) as publisher:
        await publisher.create("S")
        await publisher.store_all([("S.a", b"x" * 20_000, b"")] * 1000)
    async with connect(settings(hub.url, js_domain="EDGE", timeout="5s")) as js:
        for _ in range(50):
            if (await js.stream_list()).total:
                break
        # Larger than the server's window: acknowledgements must arrive there too.
        async with js.snapshot("S") as snapshot:
            content = b"".join([chunk async for chunk in snapshot])
        await js.delete_stream("S")
        async with js.restore("S", snapshot.config, snapshot.state) as sink:
            for at in range(0, len(content), 100_000):
                await sink.send(content[at : at + 100_000])
            assert (await sink.finish())["state"]["messages"] == 1000
    async with connect(settings(hub.url)) as js:
        assert (await js.stream_list()).total == 0
    async with connect(settings(hub.url, js_api_prefix="$JS.EDGE.API")) as js:
        assert (await js.stream_list()).total == 1
    async with connect(settings(hub.url, js_domain="NOWHERE")) as js:
        with pytest.raises(ServerError) as caught:
            await js.account_info()
        assert "domain" in caught.value.hint
