"""Consul's variables mean what they mean to Consul's own tools; the config file lies over them."""

from __future__ import annotations

import pytest

from artifact import ConfigError
from fleet import ConsulSettings, consul_settings


def address(text: str, **env: str) -> str:
    return consul_settings({"CONSUL_HTTP_ADDR": text, **env}).address


def test_without_anything_consul_is_on_this_host() -> None:
    assert consul_settings({}) == ConsulSettings()
    assert consul_settings({"CONSUL_HTTP_ADDR": "", "CONSUL_HTTP_TOKEN": ""}) == ConsulSettings()
    assert ConsulSettings().address == "http://127.0.0.1:8500"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:8501", "http://127.0.0.1:8501"),
        ("consul.example", "http://consul.example"),
        ("http://consul:8500/", "http://consul:8500"),
        ("https://consul:8501/some/prefix/", "https://consul:8501/some/prefix"),
        ("[::1]:8500", "http://[::1]:8500"),
        ("http://[2001:db8::1]", "http://[2001:db8::1]"),
        ("unix:///run/consul/http.sock", "unix:///run/consul/http.sock"),
    ],
)
def test_addresses(text: str, expected: str) -> None:
    assert address(text) == expected


@pytest.mark.parametrize("yes", ["1", "t", "T", "TRUE", "true", "True"])
def test_ssl_asks_for_tls_whatever_the_scheme(yes: str) -> None:
    assert address("consul:8501", CONSUL_HTTP_SSL=yes) == "https://consul:8501"
    assert address("http://consul:8501", CONSUL_HTTP_SSL=yes) == "https://consul:8501"
    assert consul_settings({"CONSUL_HTTP_SSL": yes}).address == "https://127.0.0.1:8500"


@pytest.mark.parametrize(
    ("text", "verify"), [("1", True), ("T", True), ("0", False), ("f", False), ("False", False), ("FALSE", False)]
)
def test_ssl_verify_is_read_as_go_reads_it(text: str, verify: bool) -> None:  # noqa: FBT001 - a table
    assert consul_settings({"CONSUL_HTTP_SSL_VERIFY": text}).verify is verify


def test_credentials_in_the_address_become_basic_authentication_and_leave_the_address() -> None:
    settings = consul_settings({"CONSUL_HTTP_ADDR": "https://al%40ice:s%3Acret@consul:8501"})
    assert (settings.address, settings.http_auth) == ("https://consul:8501", "al@ice:s:cret")


def test_every_variable_arrives() -> None:
    settings = consul_settings(
        {
            "CONSUL_HTTP_TOKEN": "t",
            "CONSUL_HTTP_TOKEN_FILE": "/t",
            "CONSUL_CACERT": "/ca",
            "CONSUL_CAPATH": "/cas",
            "CONSUL_CLIENT_CERT": "/crt",
            "CONSUL_CLIENT_KEY": "/key",
            "CONSUL_TLS_SERVER_NAME": "server.dc1.consul",
            "CONSUL_HTTP_AUTH": "u:p",
        }
    )
    assert settings == ConsulSettings(
        token="t",
        token_file="/t",
        ca_cert="/ca",
        ca_path="/cas",
        client_cert="/crt",
        client_key="/key",
        tls_server_name="server.dc1.consul",
        http_auth="u:p",
    )


def test_the_config_file_lies_over_the_environment() -> None:
    env = {"CONSUL_HTTP_ADDR": "https://env:1", "CONSUL_HTTP_SSL": "true", "CONSUL_HTTP_SSL_VERIFY": "false"}
    settings = consul_settings(
        env, {"address": "file:2", "verify": True, "wait_s": 5, "datacenter": "dc2", "token": None}
    )
    assert settings == ConsulSettings(address="http://file:2", verify=True, wait_s=5, datacenter="dc2")


def test_a_token_from_the_config_file_is_not_beaten_by_a_token_file_of_the_environment() -> None:
    settings = consul_settings(
        {"CONSUL_HTTP_TOKEN_FILE": "/env", "CONSUL_CAPATH": "/env"}, {"token": "file", "ca_cert": "/file"}
    )
    assert (settings.token, settings.token_file) == ("file", None)
    assert (settings.ca_cert, settings.ca_path) == ("/file", None)


def test_secrets_are_not_shown() -> None:
    settings = consul_settings({"CONSUL_HTTP_TOKEN": "s3cret", "CONSUL_HTTP_AUTH": "u:s3cret"})
    assert "s3cret" not in repr(settings)


@pytest.mark.parametrize(
    ("env", "overrides", "message"),
    [
        ({"CONSUL_HTTP_ADDR": "ftp://x"}, {}, r"CONSUL_HTTP_ADDR is 'ftp://x': unknown scheme 'ftp'; host:port"),
        ({"CONSUL_HTTP_ADDR": "host:port"}, {}, r"CONSUL_HTTP_ADDR is 'host:port'"),
        ({"CONSUL_HTTP_ADDR": "host:99999"}, {}, r"CONSUL_HTTP_ADDR is 'host:99999'"),
        ({"CONSUL_HTTP_ADDR": "http://"}, {}, r"CONSUL_HTTP_ADDR is 'http://'"),
        ({"CONSUL_HTTP_ADDR": "http://[::1"}, {}, r"CONSUL_HTTP_ADDR is"),
        ({"CONSUL_HTTP_ADDR": "a b:1"}, {}, r"CONSUL_HTTP_ADDR is 'a b:1'"),
        ({"CONSUL_HTTP_ADDR": "http://h/?x=1"}, {}, r"CONSUL_HTTP_ADDR is"),
        (
            {"CONSUL_HTTP_ADDR": "unix://sock"},
            {},
            r"CONSUL_HTTP_ADDR is 'unix://sock': the socket's path is not absolute",
        ),
        ({"CONSUL_HTTP_ADDR": "unix:///s", "CONSUL_HTTP_SSL": "1"}, {}, r"CONSUL_HTTP_SSL asks for TLS"),
        ({"CONSUL_HTTP_SSL": "yes"}, {}, r"CONSUL_HTTP_SSL is 'yes'; true or false"),
        ({"CONSUL_HTTP_SSL_VERIFY": "no"}, {}, r"CONSUL_HTTP_SSL_VERIFY is 'no'; true or false"),
        ({"CONSUL_CLIENT_CERT": "/c"}, {}, r"CONSUL_CLIENT_CERT is given without CONSUL_CLIENT_KEY"),
        ({"CONSUL_CLIENT_KEY": "/c"}, {}, r"CONSUL_CLIENT_KEY is given without CONSUL_CLIENT_CERT"),
        ({"CONSUL_HTTP_TOKEN": "a\n"}, {}, r"CONSUL_HTTP_TOKEN contains a line break"),
        ({}, {"wait_s": 0}, r"consul\.wait_s is 0; a number of seconds above 0 and up to 600"),
        ({}, {"wait_s": 601}, r"consul\.wait_s is 601"),
        ({}, {"wait_s": True}, r"consul\.wait_s is True"),
        ({}, {"verify": 1}, r"consul\.verify is 1; true or false"),
        ({}, {"token_file": 7}, r"consul\.token_file is 7; a text"),
        ({}, {"adress": "x"}, r"consul\.adress is no setting; did you mean 'address'\? known are address"),
    ],
)
def test_a_bad_value_is_an_error_that_names_it(env: dict, overrides: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        consul_settings(env, overrides)
