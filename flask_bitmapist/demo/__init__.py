"""Marginalia: a tiny blogging community with a year of history, to look at real activity.

``python -m flask_bitmapist.demo`` plays the year once, then serves the app and its dashboard.
Start reading at `app`.
"""
