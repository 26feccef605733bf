"""The import path of `execute` and `compress` in version 0.2, for scripts that use it."""

from prunelora.run.execute import compress as compress
from prunelora.run.execute import execute as execute
