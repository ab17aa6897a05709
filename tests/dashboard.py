"""The dashboard as a browser meets it: cookies, forms, and redirects that are not followed by themselves."""

from __future__ import annotations

import http.client
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import unescape
from urllib.parse import urlencode

from tests.serving import Answer, Served

OURS = {"sec-fetch-site": "same-origin"}


@dataclass(slots=True)
class Visitor:
    """Somebody with a cookie jar."""

    served: Served
    cookies: dict[str, str] = field(default_factory=dict)

    def ask(
        self, method: str, path: str, form: Mapping[str, str] | None = None, headers: Mapping[str, str] = OURS
    ) -> Answer:
        """One request; the cookies that come back are kept."""
        jar = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        sent = {**headers, **({"cookie": jar} if jar else {})}
        body = None
        if form is not None:
            body, sent["content-type"] = urlencode(form), "application/x-www-form-urlencoded"
        connection = http.client.HTTPConnection("127.0.0.1", self.served.port, timeout=60)
        try:
            connection.request(method, path, body, sent)
            response = connection.getresponse()
            for name, value in response.getheaders():
                if name.lower() == "set-cookie":
                    key, _, rest = value.partition("=")
                    self.cookies[key] = rest.split(";")[0]
            names = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, names, response.read())
        finally:
            connection.close()

    def page(self, path: str, status: int = 200) -> str:
        """The text of a page that must come with this status."""
        answer = self.ask("GET", path)
        assert answer.status == status, (path, answer.status, answer.headers.get("location"), answer.body[:2_000])
        return answer.body.decode()

    def sign_in(self, token: str) -> Visitor:
        """Sign in, which must work."""
        answer = self.ask("POST", "/sign-in", {"token": token})
        assert answer.status == 303, answer.body
        return self


def visible(page: str) -> str:
    """The words of a page, on one line."""
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", page)).split())
