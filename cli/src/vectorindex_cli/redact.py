"""Takes out of objects and logs what could be a password, before a support bundle leaves the cluster. Pure.

Nobody needs values of environment variables, or annotations of others, to understand an index: they are left out whole. What is kept is
searched for what looks like a credential. Better one word too few in a bundle than one too many.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

LEFT_OUT: Final = "(left out)"

_KEPT_ANNOTATIONS: Final = re.compile(r"(?:[-\w.]+\.)?(?:vectorindex\.dev|kubernetes\.io|k8s\.io|helm\.sh)/[-\w.]+")
_LAST_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"
_WORDS: Final = r"(?:pass(?:word|wd|phrase)?|pwd|secret(?:[-_]?key)?|token|(?:api|access|private)[-_]?key|authorization|credentials?)"
_SECRET_KEY: Final = re.compile(rf"(?i)(?:.*[-_.])?(?:\w*{_WORDS})")
_SECRET_FLAG: Final = re.compile(rf"(?i)--?[-\w]*{_WORDS}")

_PATTERNS: Final = (
    # a key in PEM
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL), LEFT_OUT),
    # Authorization: Bearer ..., Basic ...
    (re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]{8,}"), rf"\1 {LEFT_OUT}"),
    # password: | and what is indented below
    (re.compile(rf"(?i)({_WORDS}[\"']?[ \t]*:[ \t]*)[|>][-+\d]*[ \t]*\n(?:[ \t]+[^\n]*(?:\n|\Z))+"), rf"\1{LEFT_OUT}\n"),
    # password=..., "password": "...", PGPASSWORD='...'
    (
        re.compile(rf"(?i)({_WORDS}\\*[\"']?\s*[:=]\s*)(?:\\*\"[^\"]*\"|\\*'[^']*'|(?!\(left out\))[^\s\"',;&}}]+)"),
        rf"\1{LEFT_OUT}",
    ),
    # with password ...: a word with a digit, as "password authentication failed" is none
    (re.compile(r"(?i)\b(\w*(?:password|passphrase|secret|token)\s+(?:(?:is|was)\s+)?)(?=[^\s\d]*\d)\S{8,}"), rf"\1{LEFT_OUT}"),
    # JSON Web Tokens
    (re.compile(r"(?<![\w-])(?=[\w-]+\.[\w-]+\.)([\w-]*?)eyJ[\w-]{8,}\.[\w-]+\.[\w-]*"), rf"\1{LEFT_OUT}"),
)
_ADDRESS: Final = re.compile(r"://[^\s\"']*")
_LOGIN: Final = re.compile(r"://[^\s:@/\"']*:")


def redact_text(text: str) -> str:
    """Return the text without what looks like a credential, in time that grows with its length only: logs may hold anything."""
    text = _ADDRESS.sub(_redact_login, text)
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def _redact_login(address: re.Match[str]) -> str:
    """Return scheme://user:password@host without the password, which may hold more of the same signs."""
    text, end = address[0], address[0].rfind("@")
    user = _LOGIN.search(text, 0, max(end, 0))
    return f"{text[: user.end()]}{LEFT_OUT}{text[end:]}" if user else text


def redact_object(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a Kubernetes object without credentials, and without who wrote which field when."""
    return _redact_map(document)


def _redact(value: Any) -> Any:
    if isinstance(value, str):
        return redact_text(value)
    if isinstance(value, Mapping):
        return _redact_map(value)
    return list(_redact_list(value)) if isinstance(value, list) else value


def _redact_map(value: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _redact_field(key, part) for key, part in value.items() if key != "managedFields"}


def _redact_field(key: str, part: Any) -> Any:
    if key == "annotations" and isinstance(part, Mapping):
        return {name: _redact(text) if _is_kept(name) else LEFT_OUT for name, text in part.items()}
    if key in ("env", "httpHeaders") and isinstance(part, list):
        return [{name: LEFT_OUT if name == "value" else _redact(text) for name, text in one.items()} for one in part]
    if isinstance(part, str) and _SECRET_KEY.fullmatch(key):
        return LEFT_OUT
    if isinstance(part, list) and _SECRET_KEY.fullmatch(key.removesuffix("s")):
        return [LEFT_OUT if isinstance(one, str) else _redact(one) for one in part]
    return _redact(part)


def _is_kept(annotation: str) -> bool:
    return annotation != _LAST_APPLIED and bool(_KEPT_ANNOTATIONS.fullmatch(annotation))


def _redact_list(values: Iterable[Any]) -> Iterable[Any]:
    """Yield the parts; what follows a flag such as `--password` is its value."""
    follows = False
    for value in values:
        yield LEFT_OUT if follows and isinstance(value, str) else _redact(value)
        follows = isinstance(value, str) and bool(_SECRET_FLAG.fullmatch(value))
