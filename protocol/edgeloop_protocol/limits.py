"""Every limit on what crosses the wire, named once. Units stand last in the names.

A limit that an operator may change is a field of a configuration with one of these as its default
or its ceiling. docs/spec/wire.md cites them by name.
"""

from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB

# MQTT (EL-MSG-1): NATS and rumqttd refuse larger ones by default configuration; 128 KiB fits all.
PAYLOAD_MAX_BYTES: Final = 128 * KIB
DEVICE_ID_MAX_CHARS: Final = 64
NAME_MAX_CHARS: Final = 64
TEXT_MAX_CHARS: Final = 500
REFERENCE_MAX_CHARS: Final = 200

# Model packages.
MANIFEST_MAX_BYTES: Final = 4 * MIB
ARTIFACT_MAX_BYTES: Final = 2048 * MIB
FEATURES_MAX: Final = 1024
LABELS_MAX: Final = 4096
GOLDEN_EXAMPLES_MAX: Final = 64
PATCH_FORMATS_MAX: Final = 8
SENSORS_MAX: Final = 64
PATCH_SHARE_MAX: Final = 0.7
"""Of the artifact's size: a patch above it is not worth its risk (EL-ART-4)."""

HISTOGRAM_BINS_MAX: Final = 64
RELEASE_MAX: Final = 2**53 - 1
"""Release counters: the largest whole number that every JSON reader keeps."""
SELECTOR_MAX_CHARS: Final = 4096
"""Longer selectors are refused: what keeps a selector also shows it."""
SLOTS_MAX: Final = 16

# Remote diagnosis: an answer is split; a character is at most 6 bytes in JSON.
REQUEST_LINES_MAX: Final = 2000
RESPONSE_PART_MAX_CHARS: Final = 20_000
RESPONSE_PARTS_MAX: Final = 4
REQUESTS_REMEMBERED_MAX: Final = 64
CAPTURE_EXAMPLES_MAX: Final = 100
"""That a request lets a runner send; what an older one left to send is not added."""

# Telemetry.
BATCH_RECORDS_MAX: Final = 500
BATCH_TARGET_BYTES: Final = 96 * KIB
OUTBOX_DEFAULT_MAX_BYTES: Final = 16 * MIB
BUDGET_DEFAULT_BYTES_PER_DAY: Final = 5 * MIB

# Between the supervisor and its runner (one JSON document a line).
RUNNER_LINE_MAX_BYTES: Final = 1 * MIB
RUNNER_LOG_MAX_BYTES: Final = 1 * MIB
EVENT_QUEUE_MAX: Final = 1000

# Download.
DOWNLOAD_CHUNK_BYTES: Final = 256 * KIB
DOWNLOAD_MIN_BYTES_PER_S: Final = 1 * KIB
"""The lowest cap that a device may set on its downloads: a smaller one would never arrive."""

# Reconnects, downloads and acknowledgements: full jitter between these.
BACKOFF_S_MIN: Final = 0.5
BACKOFF_S_MAX: Final = 60.0
ACK_TIMEOUT_S: Final = 10.0
