"""The documents of the HTTP API, defined once for both ends, and so what every `--json` prints."""
