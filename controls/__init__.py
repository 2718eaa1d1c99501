"""The controls that come with dlmctl, registered through the same entry points as anybody's."""

from controls.pos import Pos

__all__ = ["Pos"]
