"""A browser without a screen: cookies, redirects and forms over HTTP. It sends only what a page's own forms offer."""

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import httpx

from workers.simulate.page import Form, Page, PageError, parse, shorten

HTTP_ERRORS = (httpx.HTTPError, httpx.InvalidURL)
"""What the connection itself may raise."""

TIMEOUT_SECONDS = 120.0
"""Training may hold both cores; a page that takes longer than this is a failure."""


class Browser:
    """One person's browser, with cookies of its own. Use as a context manager."""

    def __init__(self, url: str) -> None:
        """`url` is the address of the site; every path is below it."""
        self.url = url.rstrip("/")
        self._client = httpx.Client(base_url=self.url, follow_redirects=True, timeout=TIMEOUT_SECONDS)

    def __enter__(self) -> "Browser":
        """Begin."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections."""
        self._client.close()

    def open(self, path: str) -> Page:
        """Follow a link. Raises PageError for an error page."""
        return self._page(self._client.get(path))

    def submit(self, form: Form, on: Page, **values: str | None) -> Page:
        """Fill a form that stands on the page `on`, press its button, and arrive where that leads.

        Raises PageError for fields the form lacks, values it does not offer, and for an error page in answer.
        """
        return self._send(form, on, form.filled(**values), {})

    def upload(self, form: Form, on: Page, files: Mapping[str, Path], **values: str | None) -> Page:
        """As `submit`, with files chosen for the fields that take them."""
        return self._send(form, on, form.filled(**values), files)

    def text(self, path: str) -> str:
        """What a link leads to where that is no page, such as JSON."""
        response = self._client.get(path)
        if response.is_error:
            raise PageError(f"{response.url} answered {response.status_code}: {shorten(response.text)}")
        return response.text

    def download(self, path: str, to: Path) -> Path:
        """Save what a link leads to as the file `to`."""
        with self._client.stream("GET", path) as response, to.open("wb") as stream:
            if response.status_code != httpx.codes.OK:
                raise PageError(f"{response.url} answered {response.status_code} instead of a file")
            for block in response.iter_bytes():
                stream.write(block)
        return to

    def is_up(self, path: str) -> bool:
        """Whether the page answers 200 right now."""
        try:
            return self._client.get(path).status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    def _send(self, form: Form, on: Page, sent: dict[str, list[str]], files: Mapping[str, Path]) -> Page:
        target = httpx.URL(on.url).join(form.action or "")
        if form.method == "get":
            return self._page(self._client.get(target, params=sent))
        headers = {"Origin": self.url, "Sec-Fetch-Site": "same-origin", "Referer": on.url}
        chosen = {name: (path.name, path.read_bytes()) for name, path in files.items()}
        return self._page(self._client.post(target, data=sent, files=chosen or None, headers=headers))

    def _page(self, response: httpx.Response) -> Page:
        page = parse(response.text, str(response.url), response.status_code)
        if response.is_error:
            raise PageError(
                f"{response.request.method} {response.url} answered {response.status_code}: {shorten(page.text())}"
            )
        return page
