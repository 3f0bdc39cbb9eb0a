"""Owns the check of nginx for two traps that serve the build before: paths through `hot` that others keep.

Reading the configuration is left to `nginx_conf`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from hotcold.doctor.finding import Finding
from hotcold.doctor.nginx_conf import Directive, read_configuration
from hotcold.doctor.patient import Patient
from swapper import Layout
from swapper.layout import HOT

_SCRIPT = "SCRIPT_FILENAME"


@dataclass(frozen=True)
class Scope:
    """What is in force at one place of the configuration, its own directives or those around it.

    Attributes:
        root: where files are served from, None: nginx's default.
        cache: the directive `open_file_cache`.
        parameters: the `fastcgi_param` directives; those around count only where there are none inside.
        fastcgi: the directive that passes requests on, of this place alone.
    """

    root: str | None = None
    cache: Directive | None = None
    parameters: tuple[Directive, ...] = ()
    fastcgi: Directive | None = None


def scopes(block: Sequence[Directive], outer: Scope) -> Iterator[Scope]:
    """What is in force in each block, this one first."""
    own = replace(outer, fastcgi=None)
    for directive in block:
        match directive.name, directive.arguments:
            case (("root" | "alias"), (path, *_)):
                own = replace(own, root=path)
            case "open_file_cache", _:
                own = replace(own, cache=directive)
            case "fastcgi_pass", _:
                own = replace(own, fastcgi=directive)
            case _:
                pass
    parameters = tuple(directive for directive in block if directive.name == "fastcgi_param")
    own = replace(own, parameters=parameters or outer.parameters)
    yield own
    for directive in block:
        if directive.block is not None:
            yield from scopes(directive.block, own)


def look_at_nginx(patient: Patient) -> Sequence[Finding]:
    """Whether nginx on this host hands out paths through `hot`, or keeps what it once found there."""
    path = patient.etc / "nginx" / "nginx.conf"
    if not path.parent.is_dir():
        return []
    directives, unread = read_configuration(path)
    hot = str(patient.settings.identity.layout.hot)
    serving = list(serving_scopes(directives, patient.settings.identity.layout))
    findings = list(dict.fromkeys(finding for scope in serving for finding in _traps(scope, hot)))
    if unread:
        findings.append(Finding("nginx", "unknown", f"cannot read {', '.join(unread)}", "try it as root"))
    if findings:
        return findings
    if not serving:
        return [Finding("nginx", "ok", f"nothing in {path} is served from {patient.settings.identity.layout.hot}")]
    return [Finding("nginx", "ok", f"{len(serving)} places serve from hot, none by a path that outlives a swap")]


def serving_scopes(directives: Sequence[Directive], layout: Layout) -> Iterator[Scope]:
    """The places that serve from `hot`, or start scripts there."""
    hot = str(layout.hot)
    for scope in scopes(directives, Scope()):
        scripts = [directive.arguments[1] for directive in scope.parameters if len(directive.arguments) > 1]
        if any(_is_below(text, hot) for text in (scope.root or "", *(scripts if scope.fastcgi else ()))):
            yield scope


def _is_below(path: str, hot: str) -> bool:
    """Whether a path leads through `hot`, also where the root is reached by another name.

    What follows a variable counts for nothing: that nobody can resolve but nginx.
    """
    plain = PurePosixPath(path.partition("$")[0])
    if plain == PurePosixPath(hot) or PurePosixPath(hot) in plain.parents:
        return True
    above = [part for part in (plain, *plain.parents) if part.is_absolute() and part.name == HOT]
    return any(Path(part.parent).resolve() == Path(hot).parent for part in above)


def _traps(scope: Scope, hot: str) -> Iterator[Finding]:
    if scope.fastcgi is not None:
        script = next((each for each in reversed(scope.parameters) if each.arguments[:1] == (_SCRIPT,)), None)
        value = "" if script is None else " ".join(script.arguments[1:])
        if script is None:
            message = f"{scope.fastcgi.place} passes requests on without {_SCRIPT}"
            yield Finding("nginx", "warning", message, f"fastcgi_param {_SCRIPT} $realpath_root$fastcgi_script_name;")
        elif "$realpath_root" not in value and (
            "$document_root" in value or _is_below(value, hot) or "$request_filename" in value
        ):
            yield Finding(
                "nginx",
                "wrong",
                f"{script.place}: {_SCRIPT} is {value}, a path through hot, the same for every build: opcache goes on "
                "serving the old one",
                f"fastcgi_param {_SCRIPT} $realpath_root$fastcgi_script_name; and DOCUMENT_ROOT $realpath_root; then "
                "nginx -s reload",
            )
    if scope.cache is not None and scope.cache.arguments[:1] != ("off",):
        yield Finding(
            "nginx",
            "wrong",
            f"{scope.cache.place}: open_file_cache keeps what it found below hot, and serves the build before for a "
            "while after a swap",
            "open_file_cache off; in the server or location that serves from hot",
        )
