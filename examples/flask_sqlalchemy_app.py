"""Notes on Flask-SQLAlchemy and Flask-Login, with UUIDs for keys.

pip install "flask-bitmapist[sqlalchemy,login,embedded]>=1.0" flask-sqlalchemy
flask --app examples/flask_sqlalchemy_app run --debug
"""

from uuid import UUID, uuid4

from flask import Flask, abort, jsonify, request
from flask_login import LoginManager, UserMixin, current_user, login_user, logout_user
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import ForeignKey
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from flask_bitmapist import Bitmapistable, FlaskBitmapist, get_cohort, mark

db = SQLAlchemy(model_class=type("Base", (DeclarativeBase,), {}))
login = LoginManager()
bitmapist = FlaskBitmapist()


class User(UserMixin, Bitmapistable, db.Model):
    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    name: Mapped[str]


class Note(Bitmapistable, db.Model):
    __bitmapist_id__ = "author_id"  # note:created is about who wrote it
    __bitmapist_events__ = ("created",)

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    author_id: Mapped[UUID] = mapped_column(ForeignKey("user.id"))
    text: Mapped[str]


login.user_loader(lambda user_id: db.session.get(User, UUID(user_id)))


def create_app(config=None):
    app = Flask(__name__)
    app.config.update(SECRET_KEY="change me", SQLALCHEMY_DATABASE_URI="sqlite:///notes.sqlite3")
    app.config.update(config or {"BITMAPIST_REDIS_URL": "embedded://"})
    for extension in (db, login, bitmapist):
        extension.init_app(app)
    with app.app_context():
        db.create_all()

    @app.post("/users")
    def sign_up():
        user = User(name=request.form["name"])
        db.session.add(user)
        db.session.commit()
        return jsonify(id=user.id), 201

    @app.post("/login/<uuid:user_id>")
    def log_in(user_id):
        login_user(db.session.get(User, user_id) or abort(404))
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
        db.session.add(Note(author_id=current_user.id, text=request.form["text"]))
        db.session.commit()
        return "", 201

    @app.get("/retention")
    def retention():
        came_back, days, sizes = get_cohort("user:created", "user:seen", with_replacement=True)
        return jsonify(days=[f"{day:%F}" for day in days], sizes=sizes, came_back=came_back)

    return app
