"""Forms: their fields by name, and showing one again with what is wrong in it."""

from collections.abc import Mapping
from typing import Annotated

from fastapi import Depends, Request
from starlette.responses import Response


async def read_fields(request: Request) -> Mapping[str, list[str]]:
    """Every text field with its values in order; for forms whose fields are not known beforehand."""
    form = await request.form()
    fields: dict[str, list[str]] = {}
    for name, value in form.multi_items():
        if isinstance(value, str):
            fields.setdefault(name, []).append(value)
    return fields


Fields = Annotated[Mapping[str, list[str]], Depends(read_fields)]


class FormRefused(Exception):
    """Raise it with the page that shows the form again: the request's transaction rolls back, and that page is the answer."""

    def __init__(self, page: Response) -> None:
        super().__init__("the form is shown again")
        self.page = page
