"""Pachyderm's globs as regular expressions: the language of its ohmyglob library.

`*` and `?` stop at a slash, `**` does not; `[a-z]` and `[!a-z]` are classes, `{a,b}` alternatives.
`(a|b)` captures, and so do `*( )`, `+( )`, `?( )`, `@( )` and `!( )` with their usual meanings; the
captures are `$1`, `$2`, ... in `join_on` and `group_by`.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from capstan.errors import SettingError

TOKEN = re.compile(
    r"""\\(?P<escaped>.)
    | (?P<capture>[@!+?*]?\()
    | (?P<anything>\*\*(?!\())
    | (?P<star>\*)
    | (?P<single>\?)
    | \[(?P<charset>(?:\\.|\[:\^?\w+:\]|[^\]])+)\]
    | (?P<text>.)""",
    re.VERBOSE | re.DOTALL,
)
POSIX = {
    "alnum": "0-9A-Za-z",
    "alpha": "A-Za-z",
    "ascii": "\x00-\x7f",
    "blank": "\t ",
    "cntrl": "\x00-\x1f\x7f",
    "digit": "0-9",
    "graph": "!-~",
    "lower": "a-z",
    "print": " -~",
    "punct": "!-/:-@[-`{-~",
    "space": "\t\n\v\f\r ",
    "upper": "A-Z",
    "word": "0-9A-Za-z_",
    "xdigit": "0-9A-Fa-f",
}
# What follows a negation decides how far it looks; these marks stand where that matters.
NEGATION_END, BOUNDARY = "\uffff", "\ufffe"
Tokens = Iterator[re.Match[str]]


@dataclass(frozen=True)
class Glob:
    """A compiled glob."""

    pattern: str
    regex: re.Pattern[str]

    def match(self, path: str) -> bool:
        """Whether a path (`/` or `/a/b`, no slash at its end) matches."""
        if path == "/":  # the whole repo: only when asked for by name, as by the server
            return self.pattern == "/"
        return self.regex.fullmatch(path) is not None

    def replace(self, path: str, template: str) -> str:
        """The template with `$1`, `${1}`, ... (`$0`: all) replaced by what the glob captured."""
        match = self.regex.fullmatch(path)
        captures = [match[0], *match.groups("")] if match else []

        def captured(reference: re.Match[str]) -> str:
            if reference[0] == "$$":
                return "$"
            number = int(reference[1] or reference[2])
            return captures[number] if number < len(captures) else ""

        return re.sub(r"\$(?:\$|(\d+)|\{(\d+)\})", captured, template)


@lru_cache
def compile_glob(pattern: str) -> Glob:
    """Compile a glob; SettingError when its brackets do not pair up."""
    try:
        regex = "|".join(_alternatives(TOKEN.finditer(pattern), "", ""))
        return Glob(pattern, re.compile(_end_negations(regex), re.DOTALL))
    except (ValueError, re.error) as error:
        raise SettingError(f"glob {pattern}: {error}; mend it in the pipeline's spec") from error


def _alternatives(tokens: Tokens, separator: str, close: str) -> list[str]:
    """Regular expressions of the alternatives up to the closing bracket."""
    parts = [""]
    for token in tokens:
        if token["text"] and token["text"] == close:
            return parts
        if token["text"] and token["text"] == separator:
            parts.append("")
        else:
            parts[-1] += _regex(token, tokens)
    if close:
        raise ValueError(f"no {close} at its end")
    return parts


def _regex(token: re.Match[str], tokens: Tokens) -> str:
    """Regular expression of a token and, for a bracket, of all in it."""
    kind, text = token.lastgroup, token[token.lastgroup or 0]
    if kind == "capture":
        return _capture(text[:-1] or "@", _alternatives(tokens, "|", ")"))
    if kind == "charset":
        return _charset(text)
    if text == "{" and kind == "text":
        return f"(?:{'|'.join(_alternatives(tokens, ',', '}'))})"
    if text == "[" and kind == "text":
        raise ValueError("no ] after [")
    if kind == "single":
        return "[^/]"
    wild = {"anything": ".*", "star": "[^/]*"}
    return wild.get(kind or "", re.escape(text)) + BOUNDARY


def _capture(quantifier: str, parts: list[str]) -> str:
    if quantifier == "!":
        inside = f"{NEGATION_END}|".join(parts)
        return f"((?:(?!(?:{inside}{NEGATION_END}))[^/]*))"
    inside = "|".join(parts)
    return f"({inside})" if quantifier == "@" else f"((?:{inside}){quantifier})"


def _charset(text: str) -> str:
    negation = re.search(r"(?<!\\)[!^]", text)  # wherever it stands, as in Pachyderm
    if negation:
        text = text[: negation.start()] + text[negation.end() :]
    inside = re.sub(r"\\(.)", r"\1", text)
    inside = re.sub(r"\[:(\w+):\]", lambda name: POSIX.get(name[1], name[0]), inside)
    inside = re.sub(r"[\\\]\[^]", r"\\\g<0>", inside)
    return f"[{'^' if negation else ''}{inside}]"


def _end_negations(regex: str) -> str:
    """A negation looks up to the next text or star, or, without one, to the end."""
    end = regex.find(NEGATION_END + ")")
    bounded = end >= 0 and BOUNDARY in regex[end:]
    return regex.replace(NEGATION_END, "" if bounded else r"\Z").replace(BOUNDARY, "")
