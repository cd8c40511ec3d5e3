"""What happens to one training clip: plain numbers, drawn where it is decoded, that travel with it."""

from typing import NamedTuple

from vidtl.data.sampling import Box


class Operation(NamedTuple):
    """One operation of RandAugment, the same for all frames of a clip."""

    name: str
    """A key of `vidtl.data.rand_augment.OPERATIONS`."""
    arguments: tuple[float, ...] = ()


class Erasure(NamedTuple):
    """A box of the clip that noise replaces in every frame."""

    box: Box
    """In pixels of the clip."""
    seed: int
    """Of the noise."""


class Augmentation(NamedTuple):
    """Random changes of one clip; the neutral value of each field changes nothing."""

    flip: float = 0.0
    """1 mirrors the clip."""
    brightness: float = 0.0
    """Added to RGB in 0..1."""
    saturation: float = 1.0
    """0 is grey, 1 is unchanged."""
    contrast: float = 1.0
    """0 is the frame's mean colour, 1 is unchanged."""
    hue: float = 0.0
    """Turns of the colour circle."""
    operations: tuple[Operation, ...] = ()
    """RandAugment, in this order, before everything else."""
    erasure: Erasure | None = None
    """After everything else."""

    @property
    def changes_colours(self) -> bool:
        """Whether brightness, saturation, contrast or hue do anything."""
        return (self.brightness, self.saturation, self.contrast, self.hue) != (0.0, 1.0, 1.0, 0.0)
