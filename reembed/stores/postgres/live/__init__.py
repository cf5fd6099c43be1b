"""A live name in Postgres, for applications: see `reembed.live`."""
