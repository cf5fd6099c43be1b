"""The manifest's section `report`: where a run's verdict and figures are logged besides."""

from __future__ import annotations

from pydantic import Field, field_validator

from reembed.manifest.sections import Section
from reembed.redaction import remember_url


class Mlflow(Section):
    """An MLflow server that each run is logged to, as a run of an experiment."""

    tracking_uri: str
    """address of the server, e.g. https://mlflow.example.org"""
    experiment: str = Field(default="reembed", min_length=1, max_length=250)
    """name of the experiment; it is made if it is not there"""
    texts: bool = False
    """log report.html and the whole verdict.json too, which hold texts and ids of records"""

    @field_validator("tracking_uri")
    @classmethod
    def _is_a_server(cls, value: str) -> str:
        if value.partition("://")[0] not in ("http", "https") or not value.partition("://")[2]:
            raise ValueError(
                "is the address of an MLflow server, http:// or https://; to a folder or a "
                "database `mlflow server --backend-store-uri ...` gives one"
            )
        remember_url(value)
        return value.rstrip("/")


class Reporting(Section):
    """Where a run's verdict and figures are logged besides the run directory."""

    mlflow: Mlflow | None = None
    """an MLflow server: {tracking_uri: ..., experiment: ..., texts: false}; default: none"""
