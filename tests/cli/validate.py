"""Validates documents with PyPI's jsonschema: {"schema", "documents"} -> a list of errors or null."""

import json
import sys

from jsonschema import Draft202012Validator

given = json.load(sys.stdin)
Draft202012Validator.check_schema(given["schema"])
validator = Draft202012Validator(given["schema"])
errors = [next(validator.iter_errors(document), None) for document in given["documents"]]
print(json.dumps([error and f"{error.json_path}: {error.message[:200]}" for error in errors]))
