"""Settings: which values are valid, alone and together."""

import pytest
from pydantic import ValidationError

from noti.cli.loading import load
from noti.config import Config, is_loopback
from noti.errors import ConfigInvalid
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
        ("cookie_name", "a b", "letters, digits"),
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
        ({"nats_tls_cert": "a.pem"}, "nats_tls_key", "go together"),
        ({"nats_user": "u"}, "nats_password_file", "nats_user, nats_password_file go together"),
        ({"nats_token_file": "t", "nats_nkey_file": "n"}, "nats_token_file", "choose one way"),
        ({"nats_tls_ca": "ca.pem"}, "nats_tls_ca", "of no use without nats_url"),
        ({"nats_url": "nats://u:p@h", "nats_creds_file": "c"}, "nats_creds_file", "remove it"),
        ({"ops_addr": "127.0.0.1:8402"}, "http_addr", "must differ"),
        ({"publisher_jwt_alg": "ES256"}, "publisher_jwt_alg", "of no use without"),
    ],
)
def test_settings_that_need_each_other_are_reported(
    settings: dict[str, object], setting: str, remedy: str
) -> None:
    text = problem(settings)
    assert text.startswith(f"setting {setting} (from ")
    assert remedy in text
    assert "u:p" not in text


def test_the_relation_of_two_settings_is_reported_whichever_was_set() -> None:
    text = problem({"heartbeat_interval_ms": "400"})
    assert text.startswith("setting election_timeout_ms (from default): 500 is less than 3 x")


def test_credentials_are_never_shown() -> None:
    url = "nats://user:hush@a.example:4222,nats://hush@b.example:4222"
    shown = Config(nats_url=url).masked()["nats_url"]
    assert shown == "nats://***@a.example:4222,nats://***@b.example:4222"
    assert "hush" not in problem({"nats_url": "ftp://user:hush@nats.example"})


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
        ({"gossip_addr": "10.0.0.1:8401", "http_addr": "0.0.0.0:8402"}, ("10.0.0.1", 9)),
    ],
)
def test_others_receive_an_address_that_they_can_dial(
    settings: dict[str, object], expected: tuple[str, int]
) -> None:
    config = load({"name": "n", **settings})
    assert config.advertised((config.http_addr[0], 9)) == expected


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


def test_a_loopback_address_is_for_programs_of_this_machine() -> None:
    loopback = [is_loopback(host) for host in ("127.0.0.1", "127.9.9.9", "::1", "localhost")]
    assert all(loopback)
    assert not any(is_loopback(host) for host in ("0.0.0.0", "::", "10.0.0.1", "example", ""))
