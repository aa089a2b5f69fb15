"""The annotation server: questions of a work folder, judged by people in a browser."""

from onereward_jax.annotation.server.annotators import annotators, make_token, revoke
from onereward_jax.annotation.server.database import AnswerDatabase
from onereward_jax.annotation.server.http_server import (
    login_link,
    traffic_warning,
    usual_address,
)
from onereward_jax.annotation.server.serve import Server, check_server, first_link, serving
from onereward_jax.annotation.server.stored_answers import (
    answer_lines,
    stored_answers,
    what_is_stored,
)

__all__ = [
    "AnswerDatabase",
    "Server",
    "annotators",
    "check_server",
    "answer_lines",
    "first_link",
    "login_link",
    "make_token",
    "revoke",
    "serving",
    "stored_answers",
    "traffic_warning",
    "usual_address",
    "what_is_stored",
]
