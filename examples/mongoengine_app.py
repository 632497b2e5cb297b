"""Notes on MongoEngine and Flask-Login, with ObjectIds for keys.

pip install "flask-bitmapist[mongoengine,login,embedded]>=1.0"
flask --app examples/mongoengine_app run --debug
"""

from flask import Flask, abort, jsonify, request
from flask_login import LoginManager, UserMixin, current_user, login_user, logout_user
from mongoengine import CASCADE, Document, ReferenceField, StringField, connect

from flask_bitmapist import FlaskBitmapist, MongoEngineBitmapistable, get_cohort, mark

login = LoginManager()
bitmapist = FlaskBitmapist()


class User(UserMixin, MongoEngineBitmapistable, Document):
    name = StringField(required=True)


class Note(MongoEngineBitmapistable, Document):
    __bitmapist_events__ = ("created",)

    author = ReferenceField(User, reverse_delete_rule=CASCADE)
    text = StringField()

    def __bitmapist_id__(self):
        return self.author.id  # note:created is about who wrote it


login.user_loader(lambda user_id: User.objects(id=user_id).first())


def create_app(config=None):
    app = Flask(__name__)
    app.config.update(SECRET_KEY="change me", MONGODB={"host": "mongodb://localhost/notes"})
    app.config.update(config or {"BITMAPIST_REDIS_URL": "embedded://"})
    connect(**app.config["MONGODB"])
    for extension in (login, bitmapist):
        extension.init_app(app)

    @app.post("/users")
    def sign_up():
        user = User(name=request.form["name"]).save()
        return jsonify(id=str(user.id)), 201

    @app.post("/login/<user_id>")
    def log_in(user_id):
        login_user(User.objects(id=user_id).first() or abort(404))
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
        Note(author=current_user.id, text=request.form["text"]).save()
        return "", 201

    @app.get("/retention")
    def retention():
        came_back, days, sizes = get_cohort("user:created", "user:seen", with_replacement=True)
        return jsonify(days=[f"{day:%F}" for day in days], sizes=sizes, came_back=came_back)

    return app
