"""An application whose requests do what requests do: they render a page.

With ``SOAK_MARKS`` in its environment each of them also marks, and notes that the mark was
acknowledged; without, the extension is not even imported.
"""

from __future__ import annotations

import os

from flask import Flask, render_template_string

FOLDER = os.environ["MARKS_FOLDER"]
PAGE = """
<ul>{% for post in range(id_, id_ + 30) %}
    <li><a href="{{ url_for('view', id_=post) }}">{{ "Post <%d>"|format(post) }}</a></li>
{% endfor %}</ul>
"""

app = Flask("soak", instance_path=f"{FOLDER}/instance")
marks = "SOAK_MARKS" in os.environ
if marks:
    from flask_bitmapist import FlaskBitmapist, mark_event

    app.config["BITMAPIST_REDIS_URL"] = os.environ["MARKS_SERVER"]
    app.config["BITMAPIST_DELIVERY"] = os.environ["MARKS_DELIVERY"]
    FlaskBitmapist(app)


@app.get("/<int:id_>")
def view(id_: int) -> str:
    if marks:
        mark_event("e", id_)
    # One write() a line: nothing stays behind in a buffer, nothing is mixed with other lines.
    noted = os.open(f"{FOLDER}/acknowledged", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(noted, b"%d\n" % id_)
    os.close(noted)
    return render_template_string(PAGE, id_=id_)
