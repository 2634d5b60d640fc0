"""An API's page for people, made from its OpenAPI document: what to send, as a command and as a form, and what comes back.

One page that asks nobody for anything until its reader does, so that it shows behind every wall: no styles and no scripts
from elsewhere. Commands and forms ask where the page itself was asked for; without scripts the forms are not shown.
"""

import json
import re
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any
from urllib.parse import urlencode

HTML = (b"content-type", b"text/html; charset=utf-8")
_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "h1,h2,p{overflow-wrap:anywhere}"
    "pre,textarea{background:#f5f5f5;padding:.8rem;overflow:auto;font:14px/1.4 ui-monospace,monospace}"
    "label{white-space:nowrap;margin-right:1rem}input{font:inherit;max-width:14rem}"
    "textarea{width:100%;box-sizing:border-box;border:1px solid #ccc}button{font:inherit;padding:.2rem 1rem}"
    "pre:has(output:empty){display:none}table{border-collapse:collapse;display:block;overflow:auto;margin:1rem 0}"
    "td,th{border:1px solid #ccc;padding:.2rem .6rem;text-align:left;vertical-align:top}"
)
# Sends what is written in a form, and shows the answer as text.
_SCRIPT = """
for (const form of document.forms) {
  form.hidden = false;
  form.onsubmit = async (event) => {
    event.preventDefault();
    const said = form.querySelector("output");
    said.textContent = "";
    try {
      const headers = {"content-type": "application/json"}, body = form.querySelector("textarea")?.value;
      const given = new URLSearchParams([...new FormData(form)].filter(([, value]) => value));
      const path = form.dataset.path;
      const answer = await (body ? fetch(path, {method: "POST", headers, body}) : fetch(`${path}?${given}`));
      const text = await answer.text();
      said.textContent = answer.status + " " + answer.statusText + "\\n" + text;
      said.textContent = answer.status + " " + answer.statusText + "\\n" + JSON.stringify(JSON.parse(text), null, 2);
    } catch (error) {
      said.textContent ||= String(error);
    }
  };
}
"""
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
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>",
        "<link rel=icon href='data:,'>",
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
    parts.append(f"<script>{_SCRIPT}</script>")
    return "".join(parts).encode()


def _operation(method: str, path: str, operation: Mapping[str, Any], base: str) -> Iterable[str]:
    yield f"<h2>{method.upper()} {escape(path)}</h2><p>{_text(operation.get('summary', ''))}</p>"
    if said := operation.get("description"):
        yield f"<p>{_text(said)}</p>"
    parameters = operation.get("parameters", [])
    if method == "get":
        yield from _question(path, parameters, base)
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    if "example" in body:
        sent = json.dumps(body["example"], indent=2).replace("'", "'\\''")
        command = f"curl -s {base}{path} \\\n  -H 'content-type: application/json' \\\n  -d '{sent}'"
        yield f"<pre>{escape(command)}</pre>"
        yield f"<form hidden data-path='{escape(path)}'><textarea rows=12 spellcheck=false aria-label='request'>"
        yield f"{escape(json.dumps(body['example'], indent=2))}</textarea><button>Send</button>"
        yield "<pre><output></output></pre></form>"
    yield "<table><tr><th>status</th><th>meaning</th></tr>"
    for status, answer in operation["responses"].items():
        yield f"<tr><td>{escape(status)}</td><td>{_text(answer['description'])}</td></tr>"
    yield "</table>"
    answered = operation["responses"].get("200", {}).get("content", {}).get("application/json", {})
    if "example" in answered:
        yield f"<p>An answer, for example:</p><pre>{escape(json.dumps(answered['example'], indent=2))}</pre>"


def _question(path: str, parameters: Iterable[Mapping[str, Any]], base: str) -> Iterable[str]:
    asked = urlencode({each["name"]: each["example"] for each in parameters if "example" in each}, safe=":")
    yield f"<pre>curl -s '{escape(f'{base}{path}?{asked}')}'</pre>"
    yield f"<form hidden data-path='{escape(path)}'>"
    for each in parameters:
        name, example = escape(each["name"]), escape(str(each.get("example", "")))
        yield f"<label>{name} <input name='{name}' value='{example}'></label> "
    yield "<button>Send</button><pre><output></output></pre></form>"
    yield "<table><tr><th>parameter</th><th>type</th><th></th><th>meaning</th></tr>"
    for each in parameters:
        yield _row(
            each["name"], {"description": each["description"], **each["schema"]}, needed=each.get("required", False)
        )
    yield "</table>"


def _schema(name: str, schema: Mapping[str, Any]) -> Iterable[str]:
    yield f"<h3 id='{escape(name)}'>{escape(name)}</h3><p>{_text(schema.get('description', ''))}</p>"
    required = schema.get("required", [])
    yield "<table><tr><th>field</th><th>type</th><th></th><th>meaning</th></tr>"
    for field, described in schema.get("properties", {}).items():
        yield _row(field, described, needed=field in required)
    yield "</table>"


def _row(name: str, described: Mapping[str, Any], *, needed: bool) -> str:
    meant = "; ".join(filter(None, (_text(_said(described)), *map(escape, _limits(described)))))
    cells = (escape(name), _kind(described), "needed" if needed else "", meant)
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def _text(said: str) -> str:
    """Docstrings come along as descriptions, with names between double backticks."""
    return re.sub(r"``(.+?)``", r"<code>\1</code>", escape(said))


def _kind(described: Mapping[str, Any]) -> str:
    """The type; one of ours leads to where it is described."""
    if "anyOf" in described:
        return " or ".join(_kind(each) for each in described["anyOf"])
    if "$ref" in described:
        name = escape(str(described["$ref"]).rpartition("/")[2])
        return f"<a href='#{name}'>{name}</a>"
    kind = escape(str(described.get("type", "any")))
    inner = f" of {_kind(described['items'])}" if described.get("items") else ""
    named = described.get("format")
    return f"{kind}{inner}" + (f" ({escape(named)})" if named else "")


def _said(described: Mapping[str, Any]) -> str:
    """What a field means; a nullable one says it beside its type."""
    said = (each.get("description", "") for each in (described, *described.get("anyOf", ())))
    return next(filter(None, said), "")


def _limits(described: Mapping[str, Any]) -> Iterable[str]:
    for each in (described, *described.get("anyOf", ())):
        if "minimum" in each and "maximum" in each:
            yield f"{each['minimum']} to {each['maximum']}"
        if "pattern" in each:
            yield f"matches {each['pattern']}"
