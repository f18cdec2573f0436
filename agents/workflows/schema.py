"""The JSON Schema of workflow files, for editors; ``docs/workflow.schema.json`` holds it.

``python -m agents.workflows.schema`` writes it to standard output.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from agents.workflows.workflow import KINDS, WorkflowFile


def workflow_schema() -> dict[str, Any]:
    """Return the schema (draft 2020-12) of a workflow file as people write it."""
    schema = WorkflowFile.model_json_schema(mode="validation")
    models = (schema, *schema["$defs"].values())
    for model in models:
        for field in model.get("properties", {}).values():
            _simplify(field)
    for name in ("Step", "Defaults"):
        env = schema["$defs"][name]["properties"]["env"]
        # A file may write `PORT: 8080`: whatever is no text yet is read as it is written.
        for pattern in env["patternProperties"]:
            env["patternProperties"][pattern] = {"type": ["string", "number", "boolean"]}
        env["additionalProperties"] = False
    schema["$defs"]["Step"]["oneOf"] = [{"required": [kind]} for kind in KINDS]
    schema["$defs"]["Step"]["dependentRequired"] = {"with": ["tool"], "model": ["prompt"], "tools": ["prompt"]}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "hive workflow",
    }


def _simplify(field: dict[str, Any]) -> None:
    """Take away what only the model needs: titles, and null for a field that is simply left out."""
    field.pop("title", None)
    if "anyOf" in field:
        kinds = [kind for kind in field["anyOf"] if kind != {"type": "null"}]
        if len(kinds) == 1:
            del field["anyOf"]
            field.update(kinds[0])
        else:
            field["anyOf"] = kinds
    if "default" in field and field["default"] is None:
        del field["default"]


def schema_text() -> str:
    """Return the schema as the file holds it."""
    return json.dumps(workflow_schema(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(schema_text())
