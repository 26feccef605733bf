"""A layer's own view of the model's configuration, where its code reads counts from there that a cut changed."""

from typing import Any


class LayerConfig:
    """The model's configuration, with some values of one layer's own.

    Everything else, such as the implementation of attention, is read from the model's configuration at the moment it is
    asked for, and written there.
    """

    def __init__(self, shared: Any, **own: Any) -> None:
        """Take the shared configuration, and the values that differ."""
        known = vars(shared)["_own"] if isinstance(shared, LayerConfig) else {}
        inner = vars(shared)["_shared"] if isinstance(shared, LayerConfig) else shared
        vars(self).update(_shared=inner, _own={**known, **own})

    def __getattr__(self, name: str) -> Any:
        """Look a value up: the layer's own first."""
        if name in ("_own", "_shared"):  # While a copy is being made, before it has anything.
            raise AttributeError(name)
        own = vars(self)["_own"]
        return own[name] if name in own else getattr(vars(self)["_shared"], name)

    def __setattr__(self, name: str, value: Any) -> None:
        """Set a value where it is read from."""
        own = vars(self)["_own"]
        if name in own:
            own[name] = value
        else:
            setattr(vars(self)["_shared"], name, value)
