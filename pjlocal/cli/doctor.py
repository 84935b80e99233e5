"""``pjlocal doctor``: a check of the installation."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

import typer

from ..screen.display import in_columns
from ..visible import one_line
from .options import JsonOption, ModelOption


def doctor(model: ModelOption = None, as_json: JsonOption = False) -> int:
    from ..doctor.checks import findings

    results = []
    for finding in findings(model):
        results.append(finding)
        if not as_json:
            mark = "BROKEN" if finding.state == "broken" else finding.state
            head = f"{mark:6}  {finding.what:14}  "
            typer.echo(in_columns(head, one_line(finding.text), sys.stdout))
    is_well = all(finding.state != "broken" for finding in results)
    if as_json:
        typer.echo(json.dumps({"ok": is_well, "findings": [*map(asdict, results)]}, ensure_ascii=False))
    return 0 if is_well else 1
