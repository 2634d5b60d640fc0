"""An API's page for people, made from its OpenAPI document: what to send, as a command that runs, and what comes back.

One page without scripts, styles from elsewhere or any other request, so that it shows behind every wall. Its commands ask
where the page itself was asked for.
"""

import json
import re
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "pre{background:#f5f5f5;padding:.8rem;overflow:auto}table{border-collapse:collapse}"
    "td,th{border:1px solid #ccc;padding:.2rem .6rem;text-align:left;vertical-align:top}"
)
# What may stand in a command that people copy.
_HOST = re.compile(rb"[A-Za-z0-9.:\[\]-]{1,255}")


def asked_at(headers: Mapping[bytes, bytes]) -> str:
    """Return the address a request was sent to, as the client and the load balancer say; nothing when it is none."""
    host = headers.get(b"host", b"")
    if not _HOST.fullmatch(host):
        return ""
    scheme = "https" if headers.get(b"x-forwarded-proto") == b"https" else "http"
    return f"{scheme}://{host.decode()}"


def docs_page(document: Mapping[str, Any], *, prefix: str, base: str) -> bytes:  # Any: a JSON document
    """Return the page of an OpenAPI document, whose JSON is under ``prefix``; its commands ask at ``base``."""
    info = document["info"]
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8>",
        f"<title>{escape(info['title'])}</title><style>{_STYLE}</style>",
        f"<h1>{escape(info['title'])}, version {escape(info['version'])}</h1>",
        f"<p>{_text(info.get('description', ''))}</p>",
        f"<p>The same for programs: <a href='{prefix}/openapi.json'>OpenAPI {escape(document['openapi'])}</a>.</p>",
    ]
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            parts += _operation(method, path, operation, base)
    parts.append("<h2>Schemas</h2>")
    for name, schema in document["components"]["schemas"].items():
        parts += _schema(name, schema)
    return "".join(parts).encode()


def _operation(method: str, path: str, operation: Mapping[str, Any], base: str) -> Iterable[str]:
    yield f"<h2>{method.upper()} {escape(path)}</h2><p>{_text(operation.get('summary', ''))}</p>"
    if said := operation.get("description"):
        yield f"<p>{_text(said)}</p>"
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    if "example" in body:
        sent = json.dumps(body["example"], indent=2).replace("'", "'\\''")
        command = f"curl -s {base}{path} \\\n  -H 'content-type: application/json' \\\n  -d '{sent}'"
        yield f"<pre>{escape(command)}</pre>"
    yield "<table><tr><th>status</th><th>meaning</th></tr>"
    for status, answer in operation["responses"].items():
        yield f"<tr><td>{escape(status)}</td><td>{_text(answer['description'])}</td></tr>"
    yield "</table>"
    answered = operation["responses"].get("200", {}).get("content", {}).get("application/json", {})
    if "example" in answered:
        yield f"<pre>{escape(json.dumps(answered['example'], indent=2))}</pre>"


def _schema(name: str, schema: Mapping[str, Any]) -> Iterable[str]:
    yield f"<h3>{escape(name)}</h3><p>{_text(schema.get('description', ''))}</p>"
    required = schema.get("required", [])
    yield "<table><tr><th>field</th><th>type</th><th></th></tr>"
    for field, described in schema.get("properties", {}).items():
        needed = "needed" if field in required else ""
        yield f"<tr><td>{escape(field)}</td><td>{escape(_kind(described))}</td><td>{needed}</td></tr>"
    yield "</table>"


def _text(said: str) -> str:
    """Docstrings come along as descriptions, with names between double backticks."""
    return re.sub(r"``(.+?)``", r"<code>\1</code>", escape(said))


def _kind(described: Mapping[str, Any]) -> str:
    if "anyOf" in described:
        return " or ".join(_kind(each) for each in described["anyOf"])
    if "$ref" in described:
        return str(described["$ref"]).rpartition("/")[2]
    kind = str(described.get("type", "any"))
    inner = f" of {_kind(described['items'])}" if described.get("items") else ""
    named = described.get("format")
    return f"{kind}{inner}" + (f" ({named})" if named else "")
