"""The OpenAPI document as one page. The usual viewers load their scripts from elsewhere; this one needs no network."""

from __future__ import annotations

import json
from html import escape
from typing import Any

from judge.server import describe

_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 50rem; margin: 2rem auto; padding: 0 1rem; }
code, pre { font-family: ui-monospace, monospace; font-size: .9em; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; padding: .75rem; border: 1px solid #8888; border-radius: .4rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .3rem .6rem .3rem 0; border-bottom: 1px solid #8886; }
h2 { margin-top: 2.5rem; }
"""


def page(document: dict[str, Any], with_token: bool) -> str:
    """A self-contained HTML page.

    Args:
        document: what `/openapi.json` says.
    """
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(document['info']['title'])}</title><style>{_STYLE}</style></head><body><main>",
        f"<h1>{escape(document['info']['title'])}</h1><p>{escape(document['info']['description'])}</p>",
        '<p>For programs: <a href="openapi.json">openapi.json</a></p>',
    ]
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            parts.extend(_operation(path, method, operation, with_token))
    parts.append("</main></body></html>")
    return "".join(parts)


def _operation(path: str, method: str, operation: dict[str, Any], with_token: bool) -> list[str]:
    parts = [
        f"<h2><code>{escape(method.upper())} {escape(path)}</code></h2>",
        f"<p>{escape(operation.get('description', operation.get('summary', '')).replace('`', ''))}</p>",
    ]
    body = operation.get("requestBody")
    if body:
        schema = body["content"]["multipart/form-data"]["schema"]
        rows = "".join(
            f'<tr><th scope="row"><code>{escape(name)}</code></th><td>{escape(field.get("description", ""))}</td></tr>'
            for name, field in schema["properties"].items()
        )
        parts.append(f"<h3>Send</h3><table>{rows}</table><pre>{escape(describe.curl(path, with_token))}</pre>")
    parts.append("<h3>Get</h3><table>")
    example = ""
    for status, response in sorted(operation["responses"].items()):
        parts.append(f'<tr><th scope="row">{escape(status)}</th><td>{escape(response["description"])}</td></tr>')
        content = response.get("content", {}).get("application/json", {})
        if status == "200" and "example" in content:
            example = f"<pre>{escape(json.dumps(content['example'], indent=2))}</pre>"
    return [*parts, "</table>", example]
