"""A layer's view of the model's configuration, for attention code that reads counts from there."""

from typing import Any


class LayerConfig:
    """The model's configuration with some values overridden for one layer.

    All other values, such as the attention implementation, are read from and written to the model's configuration.
    """

    def __init__(self, shared: Any, **own: Any) -> None:
        """Take the model's configuration, or another LayerConfig to extend, and the layer's own values."""
        known = vars(shared)["_own"] if isinstance(shared, LayerConfig) else {}
        inner = vars(shared)["_shared"] if isinstance(shared, LayerConfig) else shared
        vars(self).update(_shared=inner, _own={**known, **own})

    def __getattr__(self, name: str) -> Any:
        """Return the layer's own value, or the model's."""
        if name in ("_own", "_shared"):  # copy.copy asks for attributes before it has set any.
            raise AttributeError(name)
        own = vars(self)["_own"]
        return own[name] if name in own else getattr(vars(self)["_shared"], name)

    def __setattr__(self, name: str, value: Any) -> None:
        """Set the layer's own value if there is one, else the model's."""
        own = vars(self)["_own"]
        if name in own:
            own[name] = value
        else:
            setattr(vars(self)["_shared"], name, value)
