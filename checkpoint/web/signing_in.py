"""Owns the pages of signing in and out, by a token and in general.

Who a token belongs to is left to `checkpoint.web.identity`, and signing in at a provider to `checkpoint.web.oidc`.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from aiohttp import web

from checkpoint.web.denials import Denial
from checkpoint.web.gate import Gate
from checkpoint.web.rights import SIGNED_OUT_PATH, Person
from checkpoint.web.site import Site, site_of

GATE: Final = web.AppKey("gate", Gate)


async def form(request: web.Request) -> web.Response:
    """The form; with the token of the link that the server printed at its start, signs in at once."""
    site = site_of(request)
    token, following = request.query.get("token", ""), safe_path(request.query.get("next", "/"))
    if token and site.identities.launch_token is not None:
        return await _sign_in(request, site, token, following)
    return form_page(request, following)


async def post(request: web.Request) -> web.Response:
    """Sign in by a token."""
    sent = await request.post()
    return await _sign_in(
        request, site_of(request), str(sent.get("token", "")).strip()[:200], safe_path(str(sent.get("next", "/")))
    )


async def out(request: web.Request) -> web.Response:
    """End the session."""
    site = site_of(request)
    location = SIGNED_OUT_PATH if site.identities.is_by_provider(request) else "/sign-in"
    site.identities.end(request)
    response = web.Response(status=303, headers={"Location": location})
    response.del_cookie(site.identities.cookie, path="/", secure=site.identities.settings.is_secure or None)
    return response


async def _sign_in(request: web.Request, site: Site, token: str, following: str) -> web.Response:
    if not request.app[GATE].may_guess(request):
        _tell(request, site, "too many attempts in a minute")
        return form_page(request, following, problem="Too many attempts: wait a minute.", status=429)
    found: tuple[Person, str] | None = await site.identities.sign_in(token)
    if found is None:
        _tell(request, site, "no such token")
        problem = "That is no token of this server. Ask whoever runs it for one."
        return form_page(request, following, problem=problem, status=401)
    response = web.Response(status=303, headers={"Location": following})
    give_session(site, response, found[1])
    return response


def form_page(request: web.Request, following: str, *, problem: str = "", status: int = 200) -> web.Response:
    """The ways to sign in that there are, and why the last one did not work."""
    site = site_of(request)
    web_table = site.settings.web
    return site.page(
        request,
        "sign_in.html",
        following=following,
        problem=problem,
        status=status,
        provider=None if web_table.oidc is None else web_table.oidc.shown,
        has_tokens=bool(web_table.tokens_file) or web_table.oidc is None,
    )


def give_session(site: Site, response: web.Response, cookie: str) -> None:
    """Let a browser have a session: kept from scripts, and from requests that other sites make it send."""
    response.set_cookie(
        site.identities.cookie,
        cookie,
        path="/",
        httponly=True,
        samesite="Strict",
        secure=site.identities.settings.is_secure,
        max_age=int(site.identities.settings.session_s),
    )


def safe_path(path: str) -> str:
    """A path on this server, else `/`: nobody is sent elsewhere after signing in."""
    parts = urlsplit(path)
    is_ours = path.startswith("/") and not path.startswith(("//", "/\\")) and not parts.scheme and not parts.netloc
    return path if is_ours and path.isprintable() and "\\" not in path else "/"


def _tell(request: web.Request, site: Site, why: str) -> None:
    address = site.identities.client(request)
    site.denials.add(Denial("nobody", address, "a sign-in", why, site.now()))
