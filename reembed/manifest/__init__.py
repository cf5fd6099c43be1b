"""The manifest: the YAML file that describes one migration."""

from reembed.manifest.manifest import (
    Embed,
    FunctionChoice,
    Layout,
    LineBreaks,
    Manifest,
    Model,
    Provider,
    Source,
    Swap,
    SwapKind,
    Target,
    Verify,
    Watch,
)
from reembed.manifest.schema import json_schema
from reembed.manifest.sections import WithoutVector

__all__ = [
    "Embed",
    "FunctionChoice",
    "Layout",
    "LineBreaks",
    "Manifest",
    "Model",
    "Provider",
    "Source",
    "Swap",
    "SwapKind",
    "Target",
    "Verify",
    "Watch",
    "WithoutVector",
    "json_schema",
]
