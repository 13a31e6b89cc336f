"""What PyYAML's syntax errors mean, in plain words."""

from __future__ import annotations

import re
from typing import Any

import yaml

_FOUND = r"(?:found|got) (?:character |unknown escape character )?((['\"]).*?\2)"

# PyYAML's wording (its beginning) -> ours; {found} is what stood there, {opened} the line where the construct began.
_IN_PLAIN_WORDS = (
    (
        "mapping values are not allowed here",
        "a ':' cannot stand here: the key is indented too deep, or a text that holds ': ' needs quotes",
    ),
    ("sequence entries are not allowed here", "a '- ' list cannot start here; put it on a line of its own"),
    ("mapping keys are not allowed here", "a '? ' key cannot start here"),
    ("could not find expected ':'", "the key on line {opened} has no ':' behind it"),
    ("expected <block end>, but found '-'", "this '- ' does not fit the block that starts on line {opened}"),
    ("expected <block end>", "the indentation or nesting does not fit the block that starts on line {opened}"),
    ("expected ',' or ']'", "the '[' of line {opened} is not closed by ']', or a ',' is missing"),
    ("expected ',' or '}'", "the '{{' of line {opened} is not closed by '}}', or a ',' is missing"),
    ("found unexpected end of stream", "the quote that opens on line {opened} is never closed"),
    ("found unexpected document separator", "the quote that opens on line {opened} is never closed"),
    ("found character '\\t'", "a tab cannot stand here; indent with spaces"),
    ("found character", "a text cannot start with {found}; quote it"),
    ("found unknown escape character", "there is no escape \\{bare}; write a backslash twice, or use single quotes"),
    ("expected escape sequence", "the escape is not complete; write a backslash twice, or use single quotes"),
    ("found undefined tag handle", "a tag cannot stand in a spec; if a text is meant, quote it"),
    ("expected '<document start>'", "this stands outside the spec's block of keys"),
    ("expected the node content", "a value is missing before {found}"),
)

# While scanning one of these, every error means the same.
_BY_CONTEXT = (
    ("while scanning an alias", "a text that starts with '*' must be quoted: \"*\""),
    ("while scanning an anchor", "a text that starts with '&' must be quoted"),
    ("while scanning a tag", "a text that starts with '!' must be quoted"),
    ("while parsing a tag", "a text that starts with '!' must be quoted"),
    ("while scanning a directive", "a text that starts with '%' must be quoted"),
    (
        "while scanning a block scalar",
        "only +, - or an indentation from 1 to 9 can follow '|' or '>' on its line; if a comparison is meant, quote it:"
        ' ">= 50"',
    ),
)


def plain_words(error: yaml.MarkedYAMLError) -> tuple[Any, str]:
    """Return PyYAML's mark of a syntax error, and what is wrong."""
    problem = str(error.problem or "")
    context = str(error.context or "")
    opening = error.context_mark or error.problem_mark
    for start, message in _BY_CONTEXT:
        if context.startswith(start):
            return opening, message
    match = re.search(_FOUND, problem)
    found = match.group(1) if match else ""
    names = {
        "found": "the end of the file" if found == "'<stream end>'" else found,
        "bare": found[1:-1],
        "opened": opening.line + 1 if opening is not None else 1,
    }
    for start, message in _IN_PLAIN_WORDS:
        if problem.startswith(start):
            return error.problem_mark or opening, message.format(**names)
    return error.problem_mark or opening, f"not valid YAML: {problem}"
