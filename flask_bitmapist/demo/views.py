"""The pages of Marginalia, and what a click on them marks."""

from __future__ import annotations

from dataclasses import dataclass

from flask import Blueprint, abort, flash, redirect, render_template, request, url_for
from flask_login import current_user, login_user, logout_user
from redis import RedisError
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from werkzeug.wrappers import Response

from flask_bitmapist import DayEvents, mark, mark_event

from .models import Like, Post, User, db

POSTS_A_PAGE = 12
SHORTEST_PASSWORD = 8

pages = Blueprint("pages", __name__)


@dataclass(frozen=True)
class Click:
    """Something to do, the event it marks, and the part of Flask-Bitmapist that marks it."""

    action: str
    event: str
    marked_by: str


CLICKS = (
    Click("Sign up", "user:created", "model"),
    Click("Log in", "user:logged_in", "Flask-Login"),
    Click("Come back", "user:seen", "Flask-Login"),
    Click("Open a post", "post:read", "@mark"),
    Click("Like it", "post:liked", "mark_event"),
    Click("Write one", "post:created", "model"),
    Click("Go premium", "user:upgraded", "mark_event"),
    Click("Log out", "user:logged_out", "Flask-Login"),
    Click("Close the account", "user:deleted", "model"),
)


@pages.get("/")
def index() -> str:
    newest_first = select(Post).order_by(Post.id.desc()).limit(POSTS_A_PAGE + 1)
    before = request.args.get("before", type=int)
    if before is not None:
        newest_first = newest_first.where(Post.id < before)
    *posts, further = [*db.session.scalars(newest_first), None]
    if len(posts) > POSTS_A_PAGE:
        further = posts.pop()
    return render_template(
        "marginalia/index.html",
        posts=posts,
        older=posts[-1].id if further else None,
        likes=_count_likes(posts),
        clicks=CLICKS,
        marked_today=_marked_today(),
    )


def _count_likes(posts: list[Post]) -> dict[int, int]:
    counts = (
        select(Like.post_id, func.count().label("likes"))
        .where(Like.post_id.in_([post.id for post in posts]))
        .group_by(Like.post_id)
    )
    return {row.post_id: row.likes for row in db.session.execute(counts)}


def _marked_today() -> set[str] | None:
    """The visitor's events of today, read by `DayEvents`; None if Redis is away.

    Marking never breaks a page. A page that *reads* decides what to show if there is no answer.
    """
    if not current_user.is_authenticated:
        return set()
    try:
        return {click.event for click in CLICKS if current_user.id in DayEvents(click.event)}
    except RedisError:
        return None


@pages.get("/posts/<int:post_id>")
@mark("post:read")  # by whoever is logged in; a stranger, or a 404, marks nothing
def read(post_id: int) -> str:
    post = db.get_or_404(Post, post_id)
    liked = current_user.is_authenticated and db.session.get(Like, (post.id, current_user.id))
    return render_template(
        "marginalia/post.html", post=post, likes=_count_likes([post]).get(post.id, 0), liked=liked
    )


@pages.post("/posts/<int:post_id>/like")
def like(post_id: int) -> Response:
    user, post = _visitor(), db.get_or_404(Post, post_id)
    db.session.add(Like(post_id=post.id, user_id=user.id))
    try:
        db.session.commit()
    except IntegrityError:  # liked already, by an impatient double click: there is nothing to mark
        db.session.rollback()
    else:
        mark_event("post:liked", user.id)
        flash(f"You like “{post.title}”.", "post:liked")
    return redirect(url_for(".read", post_id=post_id))


@pages.route("/write", methods=["GET", "POST"])
def write() -> str | Response:
    user, error = _visitor(), None
    title, body = _field("title"), _field("body")
    if request.method == "POST":
        error = _length_error("title", title, 120) or _length_error("text", body, 5000)
        if error is None:
            post = Post(author_id=user.id, title=title, body=body)
            db.session.add(post)
            db.session.commit()
            flash("Your post is out.", "post:created")
            return redirect(url_for(".read", post_id=post.id))
    return render_template("marginalia/write.html", title=title, body=body, error=error)


@pages.route("/signup", methods=["GET", "POST"])
def sign_up() -> str | Response:
    name, password, error = _field("name"), request.form.get("password", ""), None
    if request.method == "POST":
        error = _length_error("name", name, 40)
        if error is None and len(password) < SHORTEST_PASSWORD:
            error = f"A password has at least {SHORTEST_PASSWORD} characters."
        if error is None:
            user = User(name=name)
            user.set_password(password)
            db.session.add(user)
            try:
                db.session.commit()
            except IntegrityError:
                db.session.rollback()
                error = f"Somebody is called {name} already."
            else:
                flash(f"Welcome, {name}.", "user:created")
                return _let_in(user)
    return render_template("marginalia/sign_up.html", name=name, error=error)


@pages.route("/login", methods=["GET", "POST"])
def log_in() -> str | Response:
    name, error = _field("name"), None
    if request.method == "POST":
        user = db.session.scalar(select(User).where(User.name == name))
        if user is not None and user.has_password(request.form.get("password", "")):
            return _let_in(user)
        error = "No account has this name and this password."
    return render_template("marginalia/log_in.html", name=name, error=error)


@pages.post("/login/random")
def log_in_as_random_reader() -> Response:
    """Log in as somebody from the played year. They have no passwords."""
    anybody = select(User).where(User.password_hash.is_(None)).order_by(func.random()).limit(1)
    user = db.session.scalar(anybody)
    if user is None:
        flash("Nobody is here yet: sign up to be the first.", "error")
        return redirect(url_for(".sign_up"))
    return _let_in(user)


def _let_in(user: User) -> Response:
    login_user(user)  # its signal marks user:logged_in
    flash(f"You are {user.name} now.", "user:logged_in")
    return redirect(url_for(".index"))


@pages.post("/logout")
def log_out() -> Response:
    _visitor()
    logout_user()
    flash("You are logged out.", "user:logged_out")
    return redirect(url_for(".index"))


@pages.get("/account")
def account() -> str:
    return render_template("marginalia/account.html", user=_visitor())


@pages.post("/account/upgrade")
def upgrade() -> Response:
    user = _visitor()
    if not user.premium:
        user.premium = True  # the commit sets the flag user:premium
        db.session.commit()
        mark_event("user:upgraded", user.id)
        flash("You are a premium reader now.", "user:upgraded")
    return redirect(url_for(".account"))


@pages.post("/account/close")
def close_account() -> Response:
    user = _visitor()
    logout_user()
    db.session.delete(user)
    db.session.commit()
    flash("Your account and your posts are gone.", "user:deleted")
    return redirect(url_for(".index"))


def _visitor() -> User:
    """The user who is logged in. Anybody else is sent to the login page."""
    if not current_user.is_authenticated:
        flash("Log in first, or become a random reader.", "error")
        abort(redirect(url_for(".log_in")))
    user: User = current_user._get_current_object()  # the session wants the user, not a proxy
    return user


def _field(name: str) -> str:
    return request.form.get(name, "").strip()


def _length_error(label: str, text: str, longest: int) -> str | None:
    if not text:
        return f"The {label} is missing."
    if len(text) > longest:
        return f"The {label} is longer than {longest} characters."
    return None
