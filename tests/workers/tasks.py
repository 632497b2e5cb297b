"""The task that Celery's workers run."""

from __future__ import annotations

import os

import celery

from workers.marking import mark

app = celery.Celery("tasks", broker=os.environ["MARKS_BROKER"])
app.conf.update(task_ignore_result=True, broker_connection_retry_on_startup=True)
mark_later = app.task(mark, name="mark")
