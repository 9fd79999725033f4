"""An application whose users send each other notes: everybody sees only what is for him.

    noti run --publisher-jwt-key-file secret --cors-origins http://127.0.0.1:5000
    NOTI_URL=http://127.0.0.1:8402 JWT_KEY_FILE=secret python -m tests.examples.notes 5000

Two things join it to noti. At login it sets the cookie that noti reads: a token that may subscribe
to the topic of this user. And it publishes each note as a private event on the topic of the user it
is for, by POST, with a token that may publish there.
"""

import os
import sys
import time
from pathlib import Path

import httpx
import jwt
from quart import Quart, redirect, render_template_string, request, session
from quart.typing import ResponseReturnValue

NOTI_URL = os.environ["NOTI_URL"]
KEY = Path(os.environ["JWT_KEY_FILE"]).read_text().strip()
PASSWORDS = {"alice": "looking-glass", "bob": "builder"}
LOGIN_S = 3600

app = Quart(__name__)
app.secret_key = os.urandom(32)


def topic_of(user: str) -> str:
    return f"https://notes.example/users/{user}"


def token(expires_s: float, **rights: list[str]) -> str:
    return jwt.encode({"mercure": rights, "exp": time.time() + expires_s}, KEY, "HS256")


@app.get("/")
async def home() -> str:
    user = session.get("user")
    page = NOTES if user else LOGIN
    return await render_template_string(
        page, user=user, users=PASSWORDS, noti_url=NOTI_URL, topic=topic_of(user or "")
    )


@app.post("/login")
async def login() -> ResponseReturnValue:
    form = await request.form
    user = form["user"]
    if user not in PASSWORDS or form["password"] != PASSWORDS[user]:
        return "This user and password are not known.", 403
    session["user"] = user
    response = redirect("/")
    response.set_cookie(
        "mercureAuthorization",
        token(LOGIN_S, subscribe=[topic_of(user)]),
        max_age=LOGIN_S,
        path="/.well-known/mercure",
        httponly=True,
        secure=request.is_secure,
        samesite="Strict",
    )
    return response


@app.post("/notes")
async def send() -> ResponseReturnValue:
    if "user" not in session:
        return "Log in first.", 403
    form = await request.form
    if form["to"] not in PASSWORDS:
        return "There is no such user.", 400
    topic = topic_of(form["to"])
    async with httpx.AsyncClient() as client:
        answer = await client.post(
            f"{NOTI_URL}/.well-known/mercure",
            headers={"Authorization": f"Bearer {token(60, publish=[topic])}"},
            data={
                "topic": topic,
                "type": "note",
                "data": f"{session['user']}: {form['text']}",
                "private": "on",
            },
        )
    answer.raise_for_status()
    return "sent", 200


LOGIN = """<!doctype html><title>Notes</title>
<form method="post" action="/login">
  <input name="user" placeholder="user"> <input name="password" type="password">
  <button>Log in</button>
</form>"""

NOTES = """<!doctype html><title>Notes of {{ user }}</title>
<h1>Notes for {{ user }}</h1>
<ul id="notes"></ul>
<form id="send">
  <select name="to">{% for name in users %}<option>{{ name }}</option>{% endfor %}</select>
  <input name="text"> <button>Send</button>
</form>
<script type="module">
import { Noti } from "{{ noti_url }}/noti.js";

new Noti({{ noti_url|tojson }}, {
  topics: [{{ topic|tojson }}],
  cookies: true,
  share: {{ user|tojson }},
  last: 20,
  onevent({ data }) {
    const note = document.createElement("li");
    note.textContent = data;
    document.querySelector("#notes").append(note);
  },
  ongap: () => location.reload(),
  onstate: ({ state }) => { document.body.dataset.state = state; },
});

document.querySelector("#send").onsubmit = async (submitted) => {
  submitted.preventDefault();
  await fetch("/notes", { method: "POST", body: new FormData(submitted.target) });
};
</script>"""

if __name__ == "__main__":
    app.run(port=int(sys.argv[1]))
