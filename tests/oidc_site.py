"""Owns a real OpenID Connect provider: Django OAuth Toolkit, as a program; leaves starting it to `tests.oidc_process`.

People sign in by a form, with their name as their password. What a client may ask for is what the toolkit allows.
"""

# ruff: noqa: PLC0415 - nothing of Django's can be imported before it is configured

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

GROUPS: Mapping[str, list[str]] = {
    "rita": ["staff", "lookers"],
    "dora": ["staff", "lookers", "deployers"],
    "adam": ["staff", "operators"],
    "norman": ["staff"],
}
"""Everybody whom the provider knows, with their groups."""
CLIENT_ID = "checkpoint"
CLIENT_SECRET = "s3cret: with/every%thing+in it"

_TEMPLATES = {
    "oauth2_provider/base.html": "<!doctype html><title>Provider</title>{% block content %}{% endblock %}",
    "registration/login.html": (
        "<!doctype html><title>Provider</title><form method=post>{% csrf_token %}{{ form.as_p }}"
        "<button>Log in</button></form>"
    ),
    "404.html": "no such page",
}


class Urls:
    """What Django takes for a module of URLs; filled when its applications are ready."""

    urlpatterns: list[Any]


def made_key(file: Path) -> str:
    """A private key, kept in the file."""
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric import rsa

    if not file.exists():
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        pem = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
        file.write_bytes(pem)
    return file.read_text()


def configure(directory: Path, options: argparse.Namespace) -> None:
    """Django's settings, with everything that it keeps below the directory."""
    from django.conf import settings

    settings.configure(
        SECRET_KEY="of tests",
        ALLOWED_HOSTS=["localhost"],
        ROOT_URLCONF=Urls,
        USE_TZ=True,
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": directory / "db.sqlite3"}},
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        INSTALLED_APPS=[
            "django.contrib.auth",
            "django.contrib.contenttypes",
            "django.contrib.sessions",
            "oauth2_provider",
        ],
        MIDDLEWARE=[
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.middleware.csrf.CsrfViewMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
        ],
        PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
        TEMPLATES=[
            {
                "BACKEND": "django.template.backends.django.DjangoTemplates",
                "OPTIONS": {
                    "context_processors": ["django.template.context_processors.request"],
                    "loaders": [
                        ("django.template.loaders.locmem.Loader", _TEMPLATES),
                        "django.template.loaders.app_directories.Loader",
                    ],
                },
            }
        ],
        LOGIN_URL="/login",
        LOGGING={"version": 1, "loggers": {"": {"level": "WARNING"}}},
        OAUTH2_PROVIDER={
            "OIDC_ENABLED": True,
            "OIDC_RSA_PRIVATE_KEY": made_key(directory / f"key-{options.key}.pem"),
            "OIDC_RP_INITIATED_LOGOUT_ENABLED": True,
            "OIDC_RP_INITIATED_LOGOUT_ALWAYS_PROMPT": False,
            "COMPLIANT_BCP_RFC9700_AUTHZ_RESPONSE_ISS": True,
            "PKCE_REQUIRED": True,
            "SCOPES": {"openid": "sign in", "profile": "name", "email": "address"},
        },
    )


def validator(*, is_thin: bool) -> type:
    """The toolkit's own, with groups. Thin: ID tokens name nobody, and the userinfo endpoint tells the rest."""
    from oauth2_provider.oauth2_validators import OAuth2Validator

    class WithGroups(OAuth2Validator):
        oidc_claim_scope: ClassVar = {**OAuth2Validator.oidc_claim_scope, "groups": "profile"}

        def get_additional_claims(self, request: Any) -> dict[str, Any]:
            user = request.user
            return {
                "preferred_username": user.username,
                "email": user.email,
                "email_verified": True,
                "groups": sorted(group.name for group in user.groups.all()),
            }

        def get_oidc_claims(self, token: Any, token_handler: Any, request: Any) -> dict[str, Any]:
            claims = super().get_oidc_claims(token, token_handler, request)
            is_id_token = token_handler is not None
            return {"sub": claims["sub"]} if is_id_token and is_thin else claims

    return WithGroups


def fill(options: argparse.Namespace) -> None:
    """Make everybody, and the client."""
    from django.contrib.auth.models import Group, User
    from oauth2_provider.models import Application

    for name, groups in GROUPS.items():
        user = User.objects.create_user(name, f"{name}@example.com", name)
        user.groups.set([Group.objects.get_or_create(name=each)[0] for each in groups])
    for client_id, kind, asks in (
        (CLIENT_ID, Application.CLIENT_CONFIDENTIAL, False),
        ("public", Application.CLIENT_PUBLIC, False),
        ("asking", Application.CLIENT_CONFIDENTIAL, True),
    ):
        Application.objects.create(
            client_id=client_id,
            client_secret=CLIENT_SECRET,
            client_type=kind,
            authorization_grant_type=Application.GRANT_AUTHORIZATION_CODE,
            algorithm=Application.RS256_ALGORITHM,
            skip_authorization=not asks,
            redirect_uris=options.redirect,
            post_logout_redirect_uris=options.signed_out,
            name=client_id,
        )


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--redirect", required=True)
    parser.add_argument("--signed-out", required=True)
    parser.add_argument("--key", type=int, default=1)
    parser.add_argument("--thin", action="store_true")
    options = parser.parse_args()
    configure(options.directory, options)
    import django

    django.setup()
    from django.conf import settings
    from django.core.management import call_command

    settings.OAUTH2_PROVIDER["OAUTH2_VALIDATOR_CLASS"] = validator(is_thin=options.thin)
    if not (options.directory / "db.sqlite3").exists():
        call_command("migrate", verbosity=0)
        fill(options)
    from django.contrib.auth.views import LoginView
    from django.core.servers.basehttp import ThreadedWSGIServer, WSGIRequestHandler
    from django.core.wsgi import get_wsgi_application
    from django.urls import include, path

    Urls.urlpatterns = [
        path("login", LoginView.as_view()),
        path("o/", include("oauth2_provider.urls", namespace="oauth2_provider")),
    ]
    server = ThreadedWSGIServer(("127.0.0.1", options.port), WSGIRequestHandler)
    server.set_app(get_wsgi_application())
    server.serve_forever()


if __name__ == "__main__":
    main()
