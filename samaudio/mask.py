"""The mask separator. The network itself lies in `peav.mask`, where the Judge can reach it too."""

from peav.mask import ANYWHERE, INSIDE, OUTSIDE, FilmConv, MaskConfig, MaskOutput, MaskSeparator, agreement_of, hints_of

__all__ = ["ANYWHERE", "INSIDE", "OUTSIDE", "FilmConv", "MaskConfig", "MaskOutput", "MaskSeparator", "agreement_of",
           "hints_of"]
