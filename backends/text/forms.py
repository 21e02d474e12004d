"""What a visitor types as a form: a JSON Schema, or the fields' names."""

import json
import math

from backends.spec import BadInput
from backends.worlds.text import NULL, form_prompt

KINDS = ("string", "integer", "number", "boolean")
MOST, LONGEST = 12, 40
READ = ("$schema", "$id", "title", "description", "type", "properties", "required", "additionalProperties")  # of a schema: every key is written, and no other


def fields_of(form: str) -> dict[str, str]:
    """field -> its type, one of KINDS, in the form's order. Raises BadInput with what to change."""
    form = form.strip()
    if not form:
        raise BadInput("The form is empty; give a JSON Schema or fields such as “name, age, city”.")
    found = _schema(form) if form[0] in "{[" else {f.strip(): "string" for f in form.split(",") if f.strip()}
    if not found:
        raise BadInput("The form names no field; give fields such as “name, age, city”.")
    if len(found) > MOST:
        raise BadInput(f"The form has {len(found)} fields; at most {MOST} are taken.")
    for field in found:
        if len(field) > LONGEST or not field.isprintable() or '"' in field or "\\" in field:
            raise BadInput(f"“{_quoted(field)}” can't be a field's name; use at most {LONGEST} plain characters.")
    return found


def _quoted(given) -> str:
    """Safe to say back: short, and without halves of surrogate pairs, which no response can carry."""
    return str(given)[:LONGEST].encode("utf-8", "backslashreplace").decode()


def _schema(form: str) -> dict[str, str]:
    try:
        schema = json.loads(form)
    except (ValueError, RecursionError) as error:
        where = f" (line {error.lineno}, column {error.colno})" if isinstance(error, json.JSONDecodeError) else ""
        raise BadInput(f"The form begins like a JSON Schema but is not JSON{where}; mend it, or give fields separated by commas.") from None
    properties = schema.get("properties") if isinstance(schema, dict) else None
    if not isinstance(properties, dict):
        raise BadInput('The schema must describe an object with “properties”, such as {"properties": {"name": {"type": "string"}}}.')
    kinds = {f: (p.get("type", "string") if isinstance(p, dict) else p) for f, p in properties.items()}
    for where, asked in (("The schema", schema), *((f"The schema's field “{_quoted(f)}”", p) for f, p in properties.items() if isinstance(p, dict))):
        if beyond := [k for k in asked if k not in READ]:
            raise BadInput(f"{where} asks for “{_quoted(beyond[0])}”, which would not be kept here; only names and types are. Leave it out.")
    for field, kind in kinds.items():
        if kind not in KINDS:
            raise BadInput(f"The schema's field “{_quoted(field)}” is of type {_quoted(kind)}; only {', '.join(KINDS)} are taken, side by side.")
    return kinds


def typed(value: str | None, kind: str):
    """A slot's text as its JSON type; None when it is empty, the text itself when it does not read as one."""
    if value is None or kind == "string":
        return value
    if kind == "boolean":
        return {"true": True, "yes": True, "false": False, "no": False}.get(value.lower(), value)
    try:
        number = float(value)
    except ValueError:
        return value
    if not math.isfinite(number) or (kind == "integer" and not number.is_integer()):
        return value
    return int(number) if number.is_integer() else number


def asked(model, text: str, fields, null: bool) -> str:
    """The prompt that asks for a form: as the embedded model was trained on it, or in words; with `null` these tell of the filler."""
    if "null" in model.card.capabilities:
        return form_prompt(text, fields)
    filler = f" Where the text says nothing of a key, its value is {NULL}, written as often as there is room." if null else ""
    return f"{text}\n\nWrite this as a JSON object with the keys {', '.join(fields)}.{filler} Answer with the JSON object alone."
