"""Settings: which values are valid, alone and together."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from noti.cli.loading import load
from noti.config import Config
from noti.errors import ConfigInvalid
from tests import promises
from tests.settings import clean_environment as clean_environment
from tests.settings import problem


def test_a_plain_config_reads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTI_HISTORY_SIZE", "20")
    assert Config(name="n").history_size == 100_000


def test_a_config_cannot_be_changed() -> None:
    config = Config(name="n")
    with pytest.raises(ValidationError):
        config.name = "other"


@pytest.mark.parametrize(
    ("setting", "value", "remedy"),
    [
        ("name", "a_b", "letters, digits, dots and hyphens"),
        ("name", "n" * 129, "1 to 128"),
        ("http_addr", "::1:8402", "[::1]:8402"),
        ("http_addr", "127.0.0.1:65536", "above 65535"),
        ("join", ("127.0.0.1:8401", "0.0.0.0:8401"), "name a host"),
        ("join", ("127.0.0.1:0",), "port above 0"),
        ("gossip_addr", "0.0.0.0:8401", "set advertise_host"),
        ("rpc_addr", "[::]:8400", "set advertise_host"),
        ("advertise_host", "0.0.0.0", "name a host or an IP address"),
        ("http_addr", "127.0.0.1:8401", "must differ"),
        ("election_timeout_ms", "299", "at least 300"),
        ("history_size", "0", "should be 1 or more"),
        ("history_size", "many", "should be a whole number"),
        ("web_workers", "all", "should be a whole number, or auto"),
        ("log_level", "loud", "'debug', 'info', 'warning' or 'error'"),
        ("nats_url", "http://127.0.0.1", "nats://127.0.0.1:4222"),
        ("nats_url", "nats://127.0.0.1,127.0.0.2", "nats://127.0.0.1:4222"),
        ("nats_stream", "a.b", "letters, digits"),
        ("nats_subject", "a..b", "jobs.noti.>"),
        ("cors_origins", ("https://a.example/",), "https://app.example.com"),
        ("publish_origins", ("*",), "name each origin"),
        ("publisher_jwt_alg", "none", "'HS256'"),
        ("jwks_url", "http://issuer.example/jwks", "https://"),
        ("jwks_url", "ftp://127.0.0.1/jwks", "https://"),
        ("jwks_url", "https://user:a/b@issuer.example/jwks", "is not a path or an https:// URL"),
        ("jwks_url", "https://[user:hush]@issuer.example/jwks", "is not a path or an https:// URL"),
        ("public_url", "https://[user:hush]@example.com", "is not a hub's URL"),
        ("cookie_name", "a b", "letters, digits"),
        ("gossip_label", "é" * 128, "make it 255 bytes or less"),
        ("members_max", "15", "should be 16 or more"),
    ],
)
def test_a_wrong_value_is_reported_with_its_remedy(
    setting: str, value: object, remedy: str
) -> None:
    text = problem({setting: value})
    assert text.startswith(f"setting {setting} (from flag --")
    assert remedy in text


@pytest.mark.parametrize(
    ("settings", "setting", "remedy"),
    [
        ({"tls_cert": "a.pem"}, "tls_key", "tls_cert, tls_key, tls_ca go together"),
        ({"tls_cert": "a.pem", "tls_key": "a.key"}, "tls_ca", "go together"),
        ({"http_tls_key": "a.key"}, "http_tls_cert", "http_tls_cert, http_tls_key go together"),
        ({"tls_mode": "permissive"}, "tls_mode", "of no use without tls_cert"),
        ({"http_tls_mode": "permissive"}, "http_tls_mode", "of no use without http_tls_cert"),
        ({"nats_tls_cert": "a.pem"}, "nats_tls_key", "go together"),
        ({"nats_user": "u"}, "nats_password_file", "nats_user, nats_password_file go together"),
        ({"nats_token_file": "t", "nats_nkey_file": "n"}, "nats_token_file", "choose one way"),
        ({"nats_tls_ca": "ca.pem"}, "nats_tls_ca", "of no use without nats_url"),
        ({"nats_url": "nats://u:p@h", "nats_creds_file": "c"}, "nats_creds_file", "remove it"),
        ({"ops_addr": "127.0.0.1:8402"}, "http_addr", "must differ"),
        ({"publisher_jwt_alg": "ES256"}, "publisher_jwt_alg", "of no use without"),
        ({"gossip_encryption": "sent"}, "gossip_encryption", "of no use without gossip_key_file"),
    ],
)
def test_settings_that_need_each_other_are_reported(
    settings: dict[str, object], setting: str, remedy: str
) -> None:
    text = problem(settings)
    assert text.startswith(f"setting {setting} (from ")
    assert remedy in text
    assert "u:p" not in text


def test_a_setting_that_others_need_is_told_with_them_and_without_a_value() -> None:
    assert problem({"tls_key": "a.key"}) == (
        "setting tls_cert (from default): it is not given beside tls_key: "
        "tls_cert, tls_key, tls_ca go together"
    )


def test_the_relation_of_two_settings_is_reported_whichever_was_set() -> None:
    text = problem({"heartbeat_interval_ms": "400"})
    assert text.startswith("setting election_timeout_ms (from default): 500 is less than 3 x")


def test_credentials_are_never_shown() -> None:
    url = "nats://user:hush@a.example:4222,nats://hush@b.example:4222"
    shown = Config(nats_url=url).masked()["nats_url"]
    assert shown == "nats://***@a.example:4222,nats://***@b.example:4222"
    assert "hush" not in problem({"nats_url": "ftp://user:hush@nats.example"})
    for login in ("user:a/hush", "user:hush@x", "user:a hush", "user:a,hush", "user:a?hush"):
        for url in (f"nats://{login}@nats.example:0", f"{login}@nats.example"):
            assert "hush" not in problem({"nats_url": url})
    assert "is not a NATS URL" in problem({"nats_url": "nats://user:a b@nats.example"})


def test_a_login_or_a_key_in_the_address_of_keys_is_never_shown() -> None:
    url = "https://me:secret@id.example:8443/jwks?key=secret"
    shown = Config(jwks_url=url).masked()["jwks_url"]
    assert shown == "https://***@id.example:8443/jwks?***"
    assert Config(jwks_url="/etc/jwks.json").masked()["jwks_url"] == "/etc/jwks.json"


def test_masked_values_are_plain() -> None:
    shown = Config(name="n", join=(("::1", 1), ("b", 2))).masked()
    assert shown["join"] == ["[::1]:1", "b:2"]
    assert shown["http_addr"] == "127.0.0.1:8402"
    assert shown["data_dir"] == "noti-data"
    assert set(shown) == set(Config.model_fields)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, ("127.0.0.1", 9)),
        ({"advertise_host": "pod-1"}, ("pod-1", 9)),
        (
            {
                "gossip_addr": "10.0.0.1:8401",
                "gossip_insecure": True,
                "http_addr": "0.0.0.0:8402",
            },
            ("10.0.0.1", 9),
        ),
    ],
)
def test_others_receive_an_address_that_they_can_dial(
    settings: dict[str, object], expected: tuple[str, int]
) -> None:
    config = load({"name": "n", **settings})
    assert config.advertised((config.http_addr[0], 9)) == expected


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, ("127.0.0.1", 8403)),
        ({"ops_addr": "10.0.0.1:9"}, ("10.0.0.1", 9)),
        ({"ops_addr": "0.0.0.0:9", "advertise_host": "pod-1"}, ("pod-1", 9)),
        ({"gossip_addr": "10.0.0.1:8401", "gossip_insecure": True}, None),
        ({"ops_addr": "127.0.0.1:0"}, None),
    ],
)
def test_an_address_of_operators_that_only_its_own_machine_reaches_is_not_shown_to_others(
    settings: dict[str, object], expected: tuple[str, int] | None
) -> None:
    assert load({"name": "n", **settings}).ops_advertised == expected


def test_draining_must_fit_into_the_time_for_stopping() -> None:
    with pytest.raises(ConfigInvalid, match=r"shutdown_deadline_s.*make it 37 or more"):
        load({"sse_drain_s": "30"})
    assert load({"sse_drain_s": "30", "shutdown_deadline_s": "40"}).sse_drain_s == 30


def test_networks_of_proxies_are_checked() -> None:
    assert str(load({"trusted_proxies": "10.0.0.0/8,fd00::/8"}).trusted_proxies[1]) == "fd00::/8"
    with pytest.raises(ConfigInvalid, match="trusted_proxies"):
        load({"trusted_proxies": "10.0.0.300"})


def test_keys_of_tokens_are_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MERCURE_PUBLISHER_JWT_KEY", "hush, a secret")
    config = load({"name": "n"})
    assert config.masked()["publisher_jwt_key"] == "***"
    assert "hush" not in repr(config)
    text = problem({"publisher_jwt_key_file": "k"})
    assert "choose one" in text
    assert "hush" not in text


def test_rpc_is_where_gossip_is_as_others_look_for_it_there() -> None:
    elsewhere: dict[str, object] = {"gossip_addr": "10.1.0.1:1", "rpc_addr": "10.2.0.1:2"}
    assert "is not on the host of gossip_addr" in problem(elsewhere)


@promises.GOSSIP_HAS_KEYS
@pytest.mark.parametrize("host", ["10.0.0.1", "0.0.0.0", "[::]", "node-1.example"])
def test_gossip_beyond_loopback_needs_a_key_or_that_it_is_wanted_so(host: str) -> None:
    beyond: dict[str, object] = {"gossip_addr": f"{host}:8401", "advertise_host": "10.0.0.1"}
    text = problem(beyond)
    assert text.startswith(f"setting gossip_addr (from flag --gossip-addr): '{host}:8401' is")
    assert "--gossip-key-file" in text
    assert "--gossip-insecure" in text
    assert load({**beyond, "gossip_key_file": "keys"}).gossip_encryption == "required"
    assert load({**beyond, "gossip_insecure": "true"}).gossip_key is None
    assert load({"gossip_addr": "127.0.0.2:8401"}).gossip_key is None


def test_keys_of_gossip_are_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTI_GOSSIP_KEY", "aHVzaCwgaHVzaCwgaHVzaA==")
    config = load({"name": "n", "gossip_encryption": "understood"})
    assert config.masked()["gossip_key"] == "***"
    assert "aHVz" not in repr(config)
    text = problem({"gossip_key_file": "k"})
    assert "choose one" in text
    assert "aHVz" not in text


def test_our_variable_wins_over_that_of_mercures_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MERCURE_PUBLISHER_JWT_KEY", "theirs")
    monkeypatch.setenv("NOTI_PUBLISHER_JWT_KEY", "ours")
    key = load({"name": "n"}).publisher_jwt_key
    assert key is not None
    assert key.get_secret_value() == "ours"
    monkeypatch.setenv("MERCURE_PUBLISHER_JWT_ALG", "RS999")
    assert problem({}).startswith(
        "setting publisher_jwt_alg (from environment variable MERCURE_PUBLISHER_JWT_ALG)"
    )


TABLES = """
nats_url = "nats://127.0.0.1:4222"

[[nats_streams]]
name = "orders"
dead_letter = "dead.orders"

[[nats_streams.subjects]]
subject = "orders.*.paid"
decoder = "json"
topic = "https://example.com/users/{user.id}"

[[nats_streams.subjects]]
subject = "orders.>"
decoder = "text"

[[nats_streams]]
name = "audit"

[[nats_streams.subjects]]
subject = ">"
decoder = "cloudevents"
"""


def test_tables_say_what_is_read_from_several_streams(tmp_path: Path) -> None:
    file = tmp_path / "noti.toml"
    file.write_text(TABLES)
    orders, audit = load({}, file).streams
    assert (orders.name, orders.dead_letter_subject, orders.filters) == (
        "orders",
        "dead.orders",
        ("orders.>",),
    )
    assert [one.decoder for one in orders.subjects] == ["json", "text"]
    assert audit.subjects[0].decoder == "cloudevents"


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('"json"', '"jsn"', "setting nats_streams 1 (orders) subjects 1 (orders.*.paid) decoder"),
        ('"json"', '"jsn"', "'jsn' should be 'category', 'json', 'text', 'protobuf' or 'cloude"),
        ('"orders.>"', '"orders..a"', "subjects 2 (orders..a) subject"),
        ('"orders.>"', '"orders..a"', "'orders..a' is not a NATS subject"),
        ('name = "audit"', 'durable = "a"', "nats_streams 2 name (from file"),
        ('name = "audit"', 'durable = "a"', "is missing"),
        ('topic = "', 'tpoic = "', "subjects 1 (orders.*.paid) tpoic"),
        ('topic = "', 'tpoic = "', "is no setting of such a table"),
        ('"audit"', '"orders"', "has stream orders twice"),
        ('"dead.orders"', '"dead.*"', "'dead.*' has a wildcard"),
        ('nats_url = "nats://127.0.0.1:4222"', "", "of no use without nats_url"),
        ('nats_url = "nats://127.0.0.1:4222"', "nats_streams = 7", "not valid TOML"),
    ],
)
def test_what_is_wrong_in_a_table_is_told_with_its_place(
    old: str, new: str, told: str, tmp_path: Path
) -> None:
    file = tmp_path / "noti.toml"
    file.write_text(TABLES.replace(old, new))
    text = problem({}, file)
    assert told in text
    assert len(text) < 300


@pytest.mark.parametrize("value", ['"orders"', "[7]", '[{name = "a", subjects = 7}]'])
def test_streams_that_are_no_tables_are_refused(value: str, tmp_path: Path) -> None:
    file = tmp_path / "noti.toml"
    file.write_text(f"nats_streams = {value}")
    assert "should be tables, [[nats_streams]]" in problem({}, file)


@pytest.mark.parametrize(
    "flag", ["nats_stream", "nats_subject", "nats_decoder", "nats_topic", "nats_dead_letter"]
)
def test_flags_of_one_stream_are_refused_beside_tables(flag: str, tmp_path: Path) -> None:
    file = tmp_path / "noti.toml"
    file.write_text(TABLES)
    text = problem({flag: "text"}, file)
    assert text.startswith(f"setting {flag} (from flag --")
    assert "is given beside [[nats_streams]] tables" in text


def test_tables_cannot_stand_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTI_NATS_STREAMS", "[]")
    assert "cannot hold tables; write them into a file" in problem({})


def test_flags_of_one_stream_become_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTI_NATS_SUBJECT", "a.>, b.*")
    config = load({"nats_url": "nats://h", "nats_stream": "s", "nats_decoder": "json"})
    assert config.masked()["nats_streams"] == [
        {
            "name": "s",
            "subjects": [
                {"subject": "a.>", "decoder": "json"},
                {"subject": "b.*", "decoder": "json"},
            ],
        }
    ]
    assert load({}).streams == ()


def test_overlapping_flags_are_reported() -> None:
    flags: dict[str, object] = {"nats_url": "nats://h", "nats_subject": ("a.*.c", "a.b.*")}
    assert problem(flags).startswith("setting nats_subject (from flag --nats-subject)")
