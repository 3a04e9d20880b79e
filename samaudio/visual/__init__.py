"""From what the user points at in a film to the object's mask through time.

>>> track = samaudio.visual.track("clip.mp4", [Click(412, 230, 1.5)], times=[0.0, 0.5, 1.0])   # doctest: +SKIP
>>> track.masks.shape, track.segmenter                                                         # doctest: +SKIP
(torch.Size([3, 216, 384]), 'GrabCut with optical flow')

Modules
-------
track      the entry: `track` and its `ObjectTrack`
parse      ``412,230@1.5`` to prompts
check      does what was pointed at lie in the film
pictures   a film's pictures by number, decoded by need
segment    one picture and clicks to one mask: GrabCut, or a random walker for tiny objects
seeds      candidates for the object around a click, and which is best
colours    how likely a pixel's colour is the object's
motion     dense optical flow, and what moves together
follow     a mask from one picture to the next
classical  `segment` and `follow` over a whole film
sam        SAM 2 and SAM 3 by transformers, from a folder or hub id
masks      masks that were drawn elsewhere, from pictures and films
"""

from .parse import parse_box, parse_click
from .track import ObjectTrack, track

__all__ = ["ObjectTrack", "parse_box", "parse_click", "track"]
