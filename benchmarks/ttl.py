"""What repeated marks of one user cost a server in bytes of its append-only file and in changes.

    python benchmarks/ttl.py

Both should be 0 for all marks but the first, whatever `BITMAPIST_TTL` says.
"""

from __future__ import annotations

import tempfile
from datetime import timedelta

from flask import Flask

from flask_bitmapist import FlaskBitmapist, mark_event

MARKS = 1_000
TTLS = {
    "without a time to live": {},
    "hours, days, weeks, months": dict.fromkeys(
        ("hour", "day", "week", "month"), timedelta(days=400)
    ),
}


def main() -> None:
    for name, ttl in TTLS.items():
        with tempfile.TemporaryDirectory() as folder:
            app = Flask("app", instance_path=folder)
            options = {"BITMAPIST_REDIS_URL": f"embedded://{folder}/server", "BITMAPIST_TTL": ttl}
            client = FlaskBitmapist(app, options).tracker_of(app).redis
            client.config_set("appendonly", "yes")
            with app.app_context():
                mark_event("first", 1, track_hourly=True)
                mark_event("repeated", 1, track_hourly=True)
                before = client.info("persistence")
                for _ in range(MARKS):
                    mark_event("repeated", 1, track_hourly=True)
                after = client.info("persistence")
            grown, changed = (
                after[field] - before[field]
                for field in ("aof_current_size", "rdb_changes_since_last_save")
            )
            print(f"{name:28} {grown:9,} bytes {changed:7,} changes")


if __name__ == "__main__":
    main()
