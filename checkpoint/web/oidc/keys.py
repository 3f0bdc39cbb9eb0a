"""Owns the provider's keys: which of them may sign an ID token, and whether one of them did.

Fetching them is left to `checkpoint.web.oidc.provider`, and what the token says to `checkpoint.web.oidc.claims`.
joserfc is imported by `load`, and by nothing before it: only where `[web.oidc]` is configured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec

from artifact import ConfigError, Refused
from checkpoint.web.oidc.metadata import ALGORITHMS

if TYPE_CHECKING:
    from joserfc.jwk import ECKey, RSAKey

MAX_KEYS: Final = 100
MIN_RSA_BITS: Final = 2048
MAX_RSA_BITS: Final = 16_384
_BASE64_BITS: Final = 6

_TYPES: Final = {"RS": "RSA", "PS": "RSA", "ES": "EC"}


class UnknownKey(Refused):
    """A token signed with a key that is not among those known: the provider may have made a new one."""

    kind = "key_unknown"


class _Jwk(msgspec.Struct, frozen=True, kw_only=True):
    """The public members of a key; private ones are not looked at, so that they cannot be used."""

    kty: str
    kid: str | None = None
    use: str = "sig"
    alg: str | None = None
    key_ops: tuple[str, ...] = ("verify",)
    n: str = ""
    e: str = ""
    crv: str = ""
    x: str = ""
    y: str = ""


class _JwkSet(msgspec.Struct, frozen=True, kw_only=True):
    keys: tuple[msgspec.Raw, ...]


@dataclass(frozen=True)
class PublicKey:
    """A key that may verify. `alg`: the only algorithm that it is for; None: any of its type."""

    kid: str | None
    alg: str | None
    key: RSAKey | ECKey


def load() -> None:
    """Import what checks signatures, which takes some 90 ms of file reading; call it off the loop.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import joserfc.jwk  # noqa: PLC0415 - only where [web.oidc] is configured
        import joserfc.jws  # noqa: F401, PLC0415 - likewise
    except ImportError as error:
        raise ConfigError(
            "[web.oidc] needs joserfc, which is not installed: pip install 'hotcold[checkpoint,oidc]'"
        ) from error


def read_keys(body: bytes, where: str) -> tuple[PublicKey, ...]:
    """The keys of a document that may verify; those of other kinds are passed over.

    Raises:
        Refused: it is no such document, or has no such key.
    """
    try:
        given = msgspec.json.decode(body, type=_JwkSet).keys
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refused(f"{where} is no set of keys: {error}", kind="provider_invalid") from error
    found = tuple(key for raw in given[:MAX_KEYS] if (key := _key(bytes(raw))) is not None)
    if not found:
        raise Refused(f"{where} has no public RSA or EC key for signatures", kind="provider_invalid")
    return found


def verified(token: str, keys: Sequence[PublicKey]) -> bytes:
    """The payload of a token that one of the keys has signed. Takes less than a millisecond.

    Raises:
        UnknownKey: it names a key that is not among them.
        Refused: it is no signed token, is signed in a way that is not taken, or not by the key that it names.
    """
    from joserfc import jws  # noqa: PLC0415 - see `load`
    from joserfc.errors import JoseError  # noqa: PLC0415 - likewise

    registry = jws.JWSRegistry(algorithms=ALGORITHMS, strict_check_header=False)
    registry.max_header_length = 8192  # some providers send a chain of certificates along
    try:
        signed = jws.extract_compact(token.encode(), registry=registry)
    except (JoseError, ValueError, RecursionError) as error:
        raise _bad(f"it cannot be read ({error})") from error
    header = signed.headers()
    alg, kid = header.get("alg"), header.get("kid")
    if not isinstance(alg, str) or alg not in ALGORITHMS:
        raise _bad(f"it is signed by {str(alg)[:40]!r}; {', '.join(ALGORITHMS)} are taken")
    key = _chosen(keys, alg, kid)
    try:
        is_good = jws.validate_compact(signed, key.key, registry=registry)
    except (JoseError, ValueError, RecursionError) as error:
        raise _bad(f"its signature cannot be checked ({error})") from error
    if not is_good:
        raise _bad("its signature is wrong")
    return signed.payload


def _chosen(keys: Sequence[PublicKey], alg: str, kid: Any) -> PublicKey:
    fitting = [each for each in keys if each.alg in {None, alg} and each.key.key_type == _TYPES[alg[:2]]]
    if kid is None:
        # The token leaves it to us: only where there is nothing to choose.
        if len(fitting) != 1:
            raise _bad("it does not say which key has signed it")
        return fitting[0]
    for each in fitting:
        if each.kid == kid:
            return each
    raise UnknownKey(f"the ID token is not believed: it is signed with a key {str(kid)[:40]!r} that nobody knows")


def _key(raw: bytes) -> PublicKey | None:
    from joserfc.errors import JoseError  # noqa: PLC0415 - see `load`
    from joserfc.jwk import ECKey, RSAKey  # noqa: PLC0415 - likewise

    try:
        jwk = msgspec.json.decode(raw, type=_Jwk)
        if jwk.use != "sig" or "verify" not in jwk.key_ops:
            return None
        if jwk.kty == "EC":
            point: dict[str, str | list[str]] = {"kty": "EC", "crv": jwk.crv, "x": jwk.x, "y": jwk.y}
            return PublicKey(jwk.kid, jwk.alg, ECKey.import_key(point))
        if jwk.kty == "RSA" and _is_sound(jwk):
            return PublicKey(jwk.kid, jwk.alg, RSAKey.import_key({"kty": "RSA", "n": jwk.n, "e": jwk.e}))
    except (JoseError, ValueError, KeyError, TypeError, RecursionError):
        return None  # a provider may have keys that we do not understand beside those that we do
    return None


def _is_sound(jwk: _Jwk) -> bool:
    bits = len(jwk.n.rstrip("=")) * _BASE64_BITS
    return MIN_RSA_BITS <= bits <= MAX_RSA_BITS + _BASE64_BITS and 0 < len(jwk.e) <= _BASE64_BITS


def _bad(what: str) -> Refused:
    return Refused(f"the ID token is not believed: {what}", kind="id_token_invalid")
