"""skipmodal: skip-modal generation between image, text and speech."""

import os
from typing import TYPE_CHECKING, Any

# Before torch is loaded: threads that spin while they wait take the cores from whatever else runs, and from each other.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

if TYPE_CHECKING:
    from skipmodal.translate import Translator, load

__version__ = "0.1.0"
__all__ = ["Translator", "__version__", "load"]


def __getattr__(name: str) -> Any:
    """Imports torch only when the Python API is used, so that `skipmodal --help` stays quick."""
    if name in ("Translator", "load"):
        from skipmodal import translate

        return getattr(translate, name)
    raise AttributeError(f"module 'skipmodal' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
