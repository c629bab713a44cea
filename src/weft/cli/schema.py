"""``weft schema``"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from weft.config import Settings
from weft.files import json_text, write_whole


def schema(*, out: Annotated[Path | None, Parameter(name=["--out", "-o"])] = None) -> None:
    """Write the JSON Schema of pipeline files, with which editors complete and explain them.

    A pipeline file that begins with ``# yaml-language-server: $schema=weft.schema.json`` is then checked while it is
    typed, in every editor with a YAML language server (VS Code, Neovim, Emacs, JetBrains).

    Args:
        out: Where it goes, e.g. weft.schema.json (default: stdout).
    """
    text = json_text({"$schema": "https://json-schema.org/draft/2020-12/schema", **Settings.model_json_schema()})
    if out is None:
        print(text)
        return
    write_whole(out, text.encode())
    print(f"schema: {out}\nFirst line of a pipeline file beside it:  # yaml-language-server: $schema={out.name}")
