"""Every kind of error that pydantic has for the models, in our words."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, StrictBool, ValidationError

from smtpmaild.config.wording import Wording
from smtpmaild.config.yaml_nodes import Document


class Cat(BaseModel):
    model_config = ConfigDict(extra="forbid")
    type: Literal["cat"]
    lives: int = 9


class Dog(BaseModel):
    model_config = ConfigDict(extra="forbid")
    type: Literal["dog"]
    tricks: tuple[str, ...] = ()


class Zoo(BaseModel):
    model_config = ConfigDict(extra="forbid")
    pets: dict[str, Annotated[Cat | Dog, Field(discriminator="type")]] = {}
    staff: tuple[Cat, ...] = ()
    colour: Literal["red", "green"] = "red"
    open: StrictBool = True
    price: Annotated[float, Field(gt=0, lt=100)] = 1.0
    code: Annotated[str, Field(pattern=r"^\d+$", min_length=1, max_length=3)] = "1"
    names: Annotated[list[str], Field(min_length=1, max_length=2)] = ["a"]
    count: Annotated[int, Field(ge=1, le=9, multiple_of=2)] = 2


def explained(text: str) -> list[str]:
    document = Document("zoo.yaml", text, {})
    assert not document.mistakes
    wording = Wording(document, Zoo.model_json_schema())
    with pytest.raises(ValidationError) as caught:
        Zoo.model_validate(document.value())
    mistakes = [wording.mistake(error) for error in caught.value.errors()]
    return [f"{mistake.line}:{mistake.column} {mistake.message}" for mistake in mistakes if mistake]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("opne: true", "1:1 unknown key 'opne'; did you mean 'open'?"),
        ("milters: x", "1:1 'milters' comes with a later version"),
        ("pets: {a: {type: cat, live: 7}}", "1:23 unknown key 'live' in pets.a; did you mean 'lives'?"),
        ("pets: {a: {type: dog, live: 7}}", "1:23 unknown key 'live' in pets.a"),  # a key of the other kind is no help
        ("pets: {a: {type: cat, lives: x}}", "1:30 'lives' must be a whole number, not 'x'"),
        ("pets: {a: {type: cats}}", "1:18 unknown value 'cats' for 'type': one of cat, dog; did you mean 'cat'?"),
        ("pets: {a: {lives: 3}}", "1:8 missing key 'type' in pets.a"),
        ("pets: {a: [cat]}", "1:11 'a' must be a mapping of keys to values, not a list"),
        ("pets: {a: {type: dog, tricks: sit}}", "1:31 'tricks' must be a list, as in [a, b], not 'sit'"),
        (
            "pets: {a: {type: dog, tricks: [1]}}",
            ("1:32 an entry of 'tricks' must be text, not the number 1; put it in quotes if it is meant as text"),
        ),
        ("staff: [{lives: 3}]", "1:10 missing key 'type' in staff.1"),
        ("staff: [{type: cat, name: x, lvies: 1}]", "1:21 unknown key 'name' in staff.x"),
        ("colour: gren", "1:9 unknown value 'gren' for 'colour': one of red, green; did you mean 'green'?"),
        ("colour: [red]", "1:9 unknown value a list for 'colour': one of red, green"),
        ("open: no", "1:7 'open' must be true or false, not 'no'"),
        ("price: free", "1:8 'price' must be a number, not 'free'"),
        ("price: {a: 1}", "1:9 'price' must be a number, not a mapping"),
        ("price: 0", "1:8 'price' must be more than 0"),
        ("price: 100.5", "1:8 'price' must be less than 100"),
        ("code: a", "1:7 'code': 'a' does not have the form ^\\d+$"),
        ('code: ""', "1:7 'code' must not be empty"),
        ('code: "1234"', "1:7 'code' must be text with a length of at most 3"),
        ("code: true", "1:7 'code' must be text, not true; put it in quotes if it is meant as text"),
        ("names: []", "1:8 'names' must not be empty"),
        ("count: 0", "1:8 'count' must be at least 1"),
        ("count: 10", "1:8 'count' must be at most 9"),
        ("count: 1.5", "1:8 'count' must be a whole number, not the number 1.5"),
        ("count: 3", "1:8 'count': input should be a multiple of 2"),  # what has no words of ours
    ],
)
def test_words(text: str, message: str) -> None:
    assert message in explained(text)


def test_file_as_a_whole() -> None:
    document = Document("zoo.yaml", "- a", {})
    wording = Wording(document, Zoo.model_json_schema())
    with pytest.raises(ValidationError) as caught:
        Zoo.model_validate(document.value())
    (error,) = caught.value.errors()
    mistake = wording.mistake(error)
    assert mistake is not None
    assert mistake.message == "the file must be a mapping of keys to values, not a list"


def test_recursive_schema_has_an_end() -> None:
    """A location longer than the schema knows finds no words rather than failing."""
    document = Document("zoo.yaml", "colour: red", {})
    wording = Wording(document, Zoo.model_json_schema())
    nowhere: tuple[Any, ...] = ("colour", "a", 0, "b")
    assert wording.keys(nowhere) == []
    assert wording.values(nowhere) == []
