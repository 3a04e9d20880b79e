"""The OpenAPI document: what goes in and out of each route, with examples."""

from __future__ import annotations

from typing import Any

from judge.server.settings import MIB, Settings

DESCRIPTION = """\
Says from the mixture, the separated track and the prompt how good a separation is. Send a mixture, one target or
several, and the words that name the wanted sound; no true stem is needed, and it does not matter which program
did the separating.
"""
_REQUEST_ID = "9f0c2d4e8b7a4c55b1f0a6d3c2e19f10"
_NUMBERS = {
    "overall": ("how good the separation is, 1 (poor) to 5 (excellent)", 4.1),
    "recall": ("all of the wanted sound is in the target, 1 to 5", 4.4),
    "precision": ("nothing else is in the target, 1 to 5", 3.9),
    "faithfulness": ("it sounds as it does in the mixture, 1 to 5", 4.3),
    "similarity": ("cosine of the embeddings of target and prompt, -1 to 1; null for a silent target", 0.31),
    "presence": ("probability that the mixture holds the wanted sound at all", 0.97),
}
_SCORES = {name: {"type": ["number", "null"], "description": text} for name, (text, _) in _NUMBERS.items()}
_EXAMPLE = {name: value for name, (_, value) in _NUMBERS.items()}
_WORSE = {**_EXAMPLE, "overall": 2.2, "recall": 4.5, "precision": 1.6, "similarity": 0.12}

_NOTES = {
    "type": "array",
    "items": {"type": "string"},
    "description": "what was done to the sounds before they were judged, and why a score is missing",
}
_CURVE_NAMES = ("overall", "recall", "precision", "faithfulness")
_CURVE = {
    "type": ["object", "null"],
    "description": "on request: the scores of every `step` seconds; null where the mixture is silent",
    "required": ["step", *_CURVE_NAMES],
    "properties": {
        "step": {"type": "number"},
        **{name: {"type": "array", "items": {"type": ["number", "null"]}} for name in _CURVE_NAMES},
    },
}
SCORE = {
    "type": "object",
    "required": ["prompt", *_SCORES, "notes"],
    "properties": {"prompt": {"type": "string"}, **_SCORES, "notes": _NOTES, "curve": _CURVE},
}
RANKING = {
    "type": "object",
    "required": ["prompt", "ranking"],
    "properties": {
        "prompt": {"type": "string"},
        "ranking": {
            "type": "array",
            "description": "best first",
            "items": {
                "type": "object",
                "required": ["rank", "index", "name", "ranked_by", *_SCORES, "notes"],
                "properties": {
                    "rank": {"type": "integer", "minimum": 1},
                    "index": {"type": "integer", "minimum": 0, "description": "which of the targets, from 0"},
                    "name": {"type": "string", "description": "the file name that came with it"},
                    "ranked_by": {
                        "type": ["number", "null"],
                        "description": "what the order goes by; compares targets of this ranking only",
                    },
                    **_SCORES,
                    "notes": _NOTES,
                },
            },
        },
    },
}
ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message", "request_id"],
            "properties": {
                "code": {"type": "string", "description": "a word for programs"},
                "message": {"type": "string", "description": "a line for people"},
                "request_id": {"type": "string", "description": "also in the header X-Request-ID and in the log"},
            },
        }
    },
}
STATE = {"type": "object", "required": ["status"], "properties": {"status": {"type": "string"}}}
_DONE = ["the mixture was mixed to mono from 2 channels"]
SCORED = {"prompt": "guitar", **_EXAMPLE, "notes": _DONE}
RANKED = {
    "prompt": "guitar",
    "ranking": [
        {"rank": 1, "index": 1, "name": "b.wav", "ranked_by": 1.5, **_EXAMPLE, "notes": _DONE},
        {"rank": 2, "index": 0, "name": "a.wav", "ranked_by": -1.5, **_WORSE, "notes": _DONE},
    ],
}
_SOUND = {"type": "string", "contentMediaType": "application/octet-stream", "format": "binary"}
_PROMPT = {"type": "string", "minLength": 1, "description": "words that name the wanted sound", "examples": ["guitar"]}
_ERRORS = {
    400: ("malformed", "the body ends before its last boundary"),
    401: ("no_token", "send the header Authorization: Bearer TOKEN"),
    408: ("slow_upload", "the upload took longer than 60 s; send less, or over a faster line"),
    413: ("too_large", "the mixture: lasts longer than 600 s; send a part of it"),
    415: ("not_multipart", "send the sounds and the prompt as multipart/form-data"),
    422: ("unusable", "the target: is not audio, or in an unknown format; convert it to wav or flac"),
    429: ("busy", "the server is busy; try again in 3 s"),
    500: ("internal", "something went wrong on the server; its log has the request id"),
    503: ("unavailable", "the model is still loading"),
}
_MEANINGS = {
    400: "The body cannot be read as multipart/form-data.",
    401: "The server wants a token, and this is not it.",
    408: "The upload took too long.",
    413: "A limit on bytes, seconds or decoded size is exceeded.",
    415: "The body is something else than multipart/form-data.",
    422: "A part is missing, a sound is broken, or the lengths do not agree.",
    429: "All places are taken; see Retry-After.",
    500: "A fault of the server.",
    503: "Loading, stopping, or the answer took too long; see Retry-After.",
}


def json_content(schema: dict, example: Any) -> dict:
    return {"application/json": {"schema": schema, "example": example}}


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The ``responses`` entries of these statuses."""
    found: dict[int | str, dict[str, Any]] = {}
    for status in statuses:
        code, message = _ERRORS[status]
        example = {"error": {"code": code, "message": message, "request_id": _REQUEST_ID}}
        found[status] = {"description": _MEANINGS[status], "content": json_content(ERROR, example)}
    return found


def score_body(settings: Settings) -> dict:
    """The ``requestBody`` of a scoring."""
    files = {
        "mixture": _sound("the recording that was separated", settings),
        "target": _sound("what was separated from it", settings),
    }
    curve = {"type": "string", "enum": ["true", "false"], "description": "whether to send the scores of every second"}
    return _body(files, {"curve": curve})


def rank_body(settings: Settings) -> dict:
    """The ``requestBody`` of a ranking."""
    targets = {
        "type": "array",
        "items": _SOUND,
        "minItems": 1,
        "maxItems": settings.targets,
        "description": "the outputs to compare; repeat the field",
    }
    return _body({"mixture": _sound("the recording that was separated", settings), "targets": targets}, {})


def _sound(what: str, settings: Settings) -> dict:
    limits = f"at most {settings.seconds:g} s; all parts together at most {settings.upload_bytes / MIB:g} MiB"
    return {**_SOUND, "description": f"{what}; wav, flac, mp3, ogg and what else FFmpeg reads, {limits}"}


def _body(files: dict[str, Any], optional: dict[str, Any]) -> dict:
    schema = {
        "type": "object",
        "required": [*files, "prompt"],
        "properties": {**files, "prompt": _PROMPT, **optional},
        "additionalProperties": False,
    }
    return {"required": True, "content": {"multipart/form-data": {"schema": schema}}}


def curl(path: str, with_token: bool) -> str:
    """The request of the examples as one command."""
    token = ' -H "Authorization: Bearer $JUDGE_TOKEN"' if with_token else ""
    files = "-F target=@guitar.wav" if path.endswith("score") else "-F targets=@a.wav -F targets=@b.wav"
    return f"curl{token} -F mixture=@mix.wav {files} -F prompt=guitar http://127.0.0.1:8000{path}"
