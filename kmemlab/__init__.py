"""kmemlab."""
from kmemlab.gfp import *
from kmemlab.gfp import __all__ as _g
from kmemlab.machine import Machine
from kmemlab.null import NULL
from kmemlab.conform import conform
__all__ = [*_g, "Machine", "NULL", "conform"]
