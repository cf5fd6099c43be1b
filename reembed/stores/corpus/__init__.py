"""Files of records as a source: Parquet and JSON lines."""
