"""The version of this program, as it is installed."""

from importlib.metadata import version
from typing import Final

VERSION: Final = version("vectorindex-cli")
