"""Audio in and out, pictures in: the only place that touches files with sound in them.

Waveforms are float32 ``[C, T]`` (channels, samples), full scale is 1.0, and travel with their rate in Hz.

Modules
-------
info            what is known about a file, and the limits on what is accepted
probe           one gate in, for facts: `probe`
reader          one gate in, for samples: `read` (whole) and `stream` (bounded memory)
soundfile_input wav, flac, ogg, mp3, aiff and other files that libsndfile opens
video           a film's pictures by time, decoded as needed
pyav_input      m4a, mp4, mkv, mov, webm and everything else that FFmpeg opens
quiet           keeps native libraries from writing to the terminal
writer          one gate out: `Writer` and `write`, whole files or none
formats         what can be written, and what each format can hold
encoders        samples to bytes: wav, and through libsndfile flac, mp3 and ogg
wav             the wav header, up to and beyond 4 GiB
partial         temporary files beside their targets, and cleaning up after dead runs
resample        `resample` and, for streams, `StreamResampler`
"""

from peav.media.formats import FORMATS
from peav.media.info import MAX_CHANNELS, MAX_RATE, MIN_RATE, AudioInfo
from peav.media.partial import cleanup_stale, temporary_sibling
from peav.media.probe import probe
from peav.media.reader import AudioStream, read, stream
from peav.media.resample import StreamResampler, resample
from peav.media.writer import Writer, write

__all__ = [
    "FORMATS",
    "MAX_CHANNELS",
    "MAX_RATE",
    "MIN_RATE",
    "AudioInfo",
    "AudioStream",
    "StreamResampler",
    "Writer",
    "cleanup_stale",
    "probe",
    "read",
    "resample",
    "stream",
    "temporary_sibling",
    "write",
]
