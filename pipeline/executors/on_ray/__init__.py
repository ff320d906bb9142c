"""Everything that imports ray, through its public API. The environment is set here: ray reads it on import."""

from __future__ import annotations

import os
import sys
from pathlib import Path

# Ray sends no usage statistics. A cluster's token is used if this user has one.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
if not os.environ.get("RAY_ADDRESS"):
    # A cluster of this machine alone binds to loopback, as it does on macOS by default. On the network anybody could
    # run code in it.
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
_TOKEN_FILE = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or os.path.expanduser("~/.ray/auth_token"))  # noqa: PTH111
_HAS_TOKEN = bool(os.environ.get("RAY_AUTH_TOKEN")) or _TOKEN_FILE.is_file()
if _HAS_TOKEN and "ray" not in sys.modules:  # else this process has no token, and Ray's processes would ask for one
    os.environ.setdefault("RAY_AUTH_MODE", "token")
