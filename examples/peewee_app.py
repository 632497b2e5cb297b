"""Notes on peewee's FlaskDB and Flask-Login.

pip install "flask-bitmapist[peewee,login,embedded]>=1.0"
flask --app examples/peewee_app run --debug
"""

from flask import Flask, abort, jsonify, request
from flask_login import LoginManager, UserMixin, current_user, login_user, logout_user
from peewee import ForeignKeyField, TextField
from playhouse.flask_utils import FlaskDB

from flask_bitmapist import FlaskBitmapist, PeeweeBitmapistable, get_cohort, mark

db = FlaskDB()
login = LoginManager()
bitmapist = FlaskBitmapist()


class User(UserMixin, PeeweeBitmapistable, db.Model):
    name = TextField()


class Note(PeeweeBitmapistable, db.Model):
    __bitmapist_id__ = "author_id"  # note:created is about who wrote it
    __bitmapist_events__ = ("created",)

    author = ForeignKeyField(User, on_delete="CASCADE")
    text = TextField()


login.user_loader(lambda user_id: User.get_or_none(int(user_id)))


def create_app(config=None):
    app = Flask(__name__)
    app.config.update(SECRET_KEY="change me", DATABASE="sqlite:///notes.sqlite3")
    app.config.update(config or {"BITMAPIST_REDIS_URL": "embedded://"})
    for extension in (db, login, bitmapist):
        extension.init_app(app)
    with db.database:
        db.database.create_tables([User, Note])

    @app.post("/users")
    def sign_up():
        user = User.create(name=request.form["name"])
        return jsonify(id=user.id), 201

    @app.post("/login/<int:user_id>")
    def log_in(user_id):
        login_user(User.get_or_none(user_id) or abort(404))
        return "", 204

    @app.post("/logout")
    def log_out():
        logout_user()
        return "", 204

    @app.post("/notes")
    @mark("note:attempted")  # the logged-in user, if the view succeeds
    def write():
        if not current_user.is_authenticated:
            abort(401)
        Note.create(author=current_user.id, text=request.form["text"])
        return "", 201

    @app.get("/retention")
    def retention():
        came_back, days, sizes = get_cohort("user:created", "user:seen", with_replacement=True)
        return jsonify(days=[f"{day:%F}" for day in days], sizes=sizes, came_back=came_back)

    return app
