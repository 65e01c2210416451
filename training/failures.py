"""What can go wrong in a tool of the training, told in one sentence instead of a traceback."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from rich.console import Console

from model.errors import BundleError
from training.config import ConfigurationError
from training.dataset import PackUnreadableError
from training.stop import TrainingStoppedError


@contextmanager
def failures_in_words(afterwards: str = "") -> Iterator[None]:
    """End the program with one sentence: status 2 for what it was given, 1 for what happened on the way.

    Parameters
    ----------
    afterwards
        What is left of the work where a file cannot be read or written, and what to do.
    """
    try:
        yield
    except (ConfigurationError, PackUnreadableError, BundleError) as error:
        _end(str(error), 2)
    except TrainingStoppedError as error:
        _end(str(error), 1)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _end("; ".join(filter(None, (f"{where}{error.strerror or error}", afterwards))), 1)


def _end(why: str, status: int) -> NoReturn:
    Console(stderr=True).print(why, style="red", markup=False, soft_wrap=True)
    sys.exit(status)
