"""Owns how a browser is sent to the provider, comes back, and is signed out; leaves what is believed to the package.

A browser that comes back brings no session: it comes from another site, and the session's cookie is not sent with that.
So the last answer is a page of this server's that goes on by itself, and not a redirect, which would count as the other
site's as well.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import structlog
from aiohttp import web

from artifact import HotcoldError, Refused
from checkpoint.web.denials import Denial, plain
from checkpoint.web.oidc.claims import subject_of
from checkpoint.web.oidc.flows import LASTS_S, Flow
from checkpoint.web.oidc.metadata import with_query
from checkpoint.web.oidc.opening import ATTEMPTS_PER_MINUTE, SignIn
from checkpoint.web.rights import SIGNED_OUT_PATH
from checkpoint.web.signing_in import form_page, give_session, safe_path
from checkpoint.web.site import PERSON, Site, site_of

log = structlog.get_logger()

MAX_CODE: Final = 4096
MAX_HINT: Final = 3500
"""A cookie that is larger is not kept by browsers."""

_ERROR_CODE: Final = re.compile(r"[\x20\x21\x23-\x5b\x5d-\x7e]{1,60}")
_THEIRS: Final = frozenset({"config", "provider_invalid", "provider_unreachable"})
"""Kinds of errors that are nobody's attempt to get in."""


async def begin(request: web.Request) -> web.Response:
    """Send a browser to the provider."""
    site, sign_in = _asked(request)
    following = safe_path(request.query.get("next", "/"))
    if not sign_in.attempts.allows(site.identities.client(request)):
        return _too_many(request, following)
    try:
        metadata = await sign_in.provider.metadata()
    except HotcoldError as error:
        return _failed(request, site, sign_in, error, following)
    flow, cookie = sign_in.flows.begin(following)
    url = with_query(
        metadata.authorization_endpoint,
        {
            "response_type": "code",
            "client_id": sign_in.table.client_id,
            "redirect_uri": sign_in.return_url,
            "scope": " ".join(sign_in.table.scopes),
            "state": flow.state,
            "nonce": flow.nonce,
            "code_challenge": flow.challenge,
            "code_challenge_method": "S256",
        },
    )
    response = web.Response(status=303, headers={"Location": url})
    response.set_cookie(
        sign_in.flows.cookie_name(flow.state),
        cookie,
        path="/",
        httponly=True,
        samesite="Lax",  # it has to come along when the provider sends the browser back
        secure=site.identities.settings.is_secure,
        max_age=int(LASTS_S),
    )
    return response


async def come_back(request: web.Request) -> web.Response:
    """What the provider says of whoever it sends back: a session, or why there is none."""
    site, sign_in = _asked(request)
    if not sign_in.attempts.allows(site.identities.client(request)):
        return _too_many(request, "/")
    flow = sign_in.flows.end(_one(request, "state"), request.cookies)
    if flow is None and PERSON in request:
        raise web.HTTPSeeOther("/")  # the page was gone back to, and loaded again
    if flow is None:
        _tell(request, site, "nobody", "the sign-in was not begun in this browser, or is over")
        problem = "This sign-in was begun in another browser, more than ten minutes ago, or is over. Begin once more."
        return form_page(request, "/", problem=problem, status=400)
    try:
        response = await _end(request, site, sign_in, flow)
    except HotcoldError as error:
        response = _failed(request, site, sign_in, error, flow.following)
    response.del_cookie(
        sign_in.flows.cookie_name(flow.state), path="/", secure=site.identities.settings.is_secure or None
    )
    return response


async def _end(request: web.Request, site: Site, sign_in: SignIn, flow: Flow) -> web.Response:
    table = sign_in.table
    code = await _code(request, sign_in)
    signed = await sign_in.provider.redeem(
        code, redirect_uri=sign_in.return_url, verifier=flow.verifier, nonce=flow.nonce
    )
    subject = subject_of(signed.claims, table)
    found = site.identities.admit(subject)
    if found is None:
        _tell(request, site, subject.name, f"{table.shown} gives them no role")
        problem = (
            f"{table.shown} knows you as {subject.name}, but you have no role here: none of your {table.roles_claim} "
            "there gives one. Ask whoever runs this server which of them do."
        )
        return form_page(request, flow.following, problem=problem, status=403)
    log.info("signed in", by=subject.name, role=found[0].role.name.lower(), sub=subject.sub)
    response = site.page(request, "signed_in.html", following=flow.following, name=subject.name)
    give_session(site, response, found[1])
    if len(signed.id_token) <= MAX_HINT:
        response.set_cookie(
            _hint_name(site),
            signed.id_token,
            path=SIGNED_OUT_PATH,
            httponly=True,
            samesite="Strict",
            secure=site.identities.settings.is_secure,
            max_age=int(site.identities.settings.session_s),
        )
    return response


async def _code(request: web.Request, sign_in: SignIn) -> str:
    """The code, once it is sure that the provider in question gave it, and gave one.

    Raises:
        Refused: it did not.
    """
    # Where people sign in at several providers, one of them may send a browser back with another's code.
    issuer = request.query.getall("iss", [])
    error = _one(request, "error")
    # Refusals come without their issuer from providers that otherwise name it; nothing is done with them.
    is_named = (await sign_in.provider.metadata()).authorization_response_iss_parameter_supported and not error
    if (issuer or is_named) and issuer != [sign_in.table.issuer]:
        raise Refused("another provider sent you back", kind="sign_in_refused")
    if error:
        code = error if _ERROR_CODE.fullmatch(error) else "an error"
        why = ": ".join(filter(None, (code, plain(_one(request, "error_description"), 200))))
        raise Refused(f"{sign_in.table.shown} did not sign you in: {why}", kind="sign_in_refused")
    code = _one(request, "code")
    if not code or len(code) > MAX_CODE:
        raise Refused(f"{sign_in.table.shown} sent you back without a code", kind="sign_in_refused")
    return code


async def signed_out(request: web.Request) -> web.Response:
    """Tells that the session here is over, and leads to the end of the one at the provider, where it offers that."""
    site, sign_in = _asked(request)
    hint = request.cookies.get(_hint_name(site), "")
    url = None
    try:
        endpoint = (await sign_in.provider.metadata()).end_session_endpoint
    except HotcoldError as error:
        endpoint = None
        log.warning("the provider cannot be used", kind=error.kind, error=str(error))
    if endpoint is not None:
        facts = {"client_id": sign_in.table.client_id, "post_logout_redirect_uri": sign_in.signed_out_url}
        url = with_query(endpoint, facts | ({"id_token_hint": hint} if hint else {}))
    response = site.page(request, "signed_out.html", provider=sign_in.table.shown, url=url)
    if hint:
        response.del_cookie(_hint_name(site), path=SIGNED_OUT_PATH, secure=site.identities.settings.is_secure or None)
    return response


def _asked(request: web.Request) -> tuple[Site, SignIn]:
    site = site_of(request)
    if site.oidc is None:
        raise web.HTTPNotFound
    return site, site.oidc


def _one(request: web.Request, name: str) -> str:
    """A parameter that stands there once, else nothing: nobody can tell which of two is meant."""
    found = request.query.getall(name, [])
    return found[0] if len(found) == 1 else ""


def _hint_name(site: Site) -> str:
    return "__Secure-hotcold-hint" if site.identities.settings.is_secure else "hotcold-hint"


def _too_many(request: web.Request, following: str) -> web.Response:
    _tell(request, site_of(request), "nobody", f"more than {ATTEMPTS_PER_MINUTE} attempts in a minute")
    return form_page(request, following, problem="Too many attempts: wait a minute.", status=429)


def _failed(request: web.Request, site: Site, sign_in: SignIn, error: HotcoldError, following: str) -> web.Response:
    """The page of a sign-in that came to nothing: what happened, and what to do."""
    if error.kind not in _THEIRS:
        _tell(request, site, "nobody", str(error))
        problem = f"{_sentence(error)} Begin once more; if it is the same again, tell whoever runs this server."
        return form_page(request, following, problem=problem, status=403)
    log.warning("the provider cannot be used", kind=error.kind, error=str(error))
    name = sign_in.table.shown
    token = " or sign in by a token" if site.settings.web.tokens_file else ""
    remedy: Mapping[str, str] = {
        "provider_unreachable": f"Try again in a moment{token}; if it stays so, tell whoever runs {name}.",
        "provider_invalid": f"Tell whoever runs this server{token}: what {name} says is not believed.",
        "config": f"Tell whoever runs this server{token}.",
    }
    problem = (
        f"Nobody can sign in at {name} now: {_sentence(error)} {remedy[error.kind]} "
        "Whoever is signed in here goes on as before."
    )
    return form_page(request, following, problem=problem, status=503 if error.kind == "provider_unreachable" else 502)


def _sentence(error: HotcoldError) -> str:
    text = str(error)
    return f"{text[0].upper()}{text[1:]}." if text[:5] != "https" and text[:4] != "http" else f"{text}."


def _tell(request: web.Request, site: Site, by: str, why: str) -> None:
    address = site.identities.client(request)
    site.denials.add(Denial(by, address, "a sign-in", why, site.now()))
