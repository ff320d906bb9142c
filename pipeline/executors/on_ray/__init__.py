"""Everything that imports ray. The environment is set here, since ray reads it when it is imported."""

from __future__ import annotations

import os
from pathlib import Path

# Ray reports nothing to anybody. A cluster's token is used where this user has one.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
# Ray's processes look for sockets of others again after 10 ms, for 30 s: who was too early slept a second.
os.environ.setdefault("RAY_raylet_client_connect_timeout_milliseconds", "10")
os.environ.setdefault("RAY_raylet_client_num_connect_attempts", "3000")
_TOKEN_FILE = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
if os.environ.get("RAY_AUTH_TOKEN") or _TOKEN_FILE.is_file():
    os.environ.setdefault("RAY_AUTH_MODE", "token")
