"""The file with other words for reports to senders, read when the configuration is."""

from __future__ import annotations

from typing import Annotated

from pydantic import PlainValidator, ValidationInfo, WithJsonSchema

from smtpmaild.config.paths import absolute_path
from smtpmaild.queue.words import ENGLISH, Words, parse

#: A few sentences; a larger file was named by mistake.
_LARGEST = 64 * 1024


def _words(value: object, info: ValidationInfo) -> Words:
    if not isinstance(value, str):
        raise ValueError("the name of a file is wanted here")
    path = absolute_path(value, info)
    try:
        with open(path, "rb") as file:
            text = file.read(_LARGEST + 1)
    except OSError as error:
        raise ValueError(f"cannot read '{path}': {error.strerror}") from None
    if len(text) > _LARGEST:
        raise ValueError(f"'{path}' is too large for the words of reports")
    try:
        return parse(text.decode(), ENGLISH)
    except UnicodeDecodeError:
        raise ValueError(f"'{path}' is not text in UTF-8") from None
    except ValueError as mistake:
        raise ValueError(f"'{path}', {mistake}") from None


#: In the file the name of a file; in the model what it says.
WordsFile = Annotated[
    Words, PlainValidator(_words), WithJsonSchema({"type": "string", "examples": ["report-words.txt"]})
]
