"""`resilient schema`: the JSON Schema of a document of policies."""

import argparse
import json
from typing import Any

from resilient.cli.screen import Unusable

__all__ = ("add_to",)


def add_to(commands: Any) -> None:
    """Add the command to the command line."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "schema",
        help="the JSON Schema of documents of policies",
        description="Prints the JSON Schema (draft 2020-12) of documents of policies, for editors: "
        "resilient schema > policies.schema.json",
    )
    parser.set_defaults(run=_run)


def _run(_: argparse.Namespace) -> int:
    try:
        from resilient.policy.document import document_schema  # noqa: PLC0415  it needs an extra
    except ModuleNotFoundError as error:
        raise Unusable(str(error)) from error
    print(json.dumps(document_schema(), indent=2))
    return 0
