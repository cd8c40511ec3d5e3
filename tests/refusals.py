"""Assertions on the parts that an error names, not on its sentence."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from vidtl.errors import UserError


@contextmanager
def refused(*parts: object) -> Iterator[None]:
    """Expect a one-line UserError that names all `parts`: file, line or key, value received, value allowed."""
    with pytest.raises(UserError) as caught:
        yield
    assert_refusal(str(caught.value), *parts)


def assert_refusal(message: str, *parts: object) -> None:
    """Check that a message (an exception's, or stderr of a tool) is one line and names all `parts`."""
    lines = message.strip().splitlines()
    assert len(lines) == 1, message
    missing = [str(part) for part in parts if str(part) not in lines[0]]
    assert not missing, f"{missing} not in: {message}"
