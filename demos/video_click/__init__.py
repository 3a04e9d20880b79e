"""A page in the browser: load a film, click on what makes a sound, hear it alone (docs/video-click.md).

Modules
-------
__main__    the command line
server      the web server: the page, and each user's own files
app         the page: what stands where, and what happens when
studio      what the page can do, without the page
session     what belongs to one user: a folder that nobody else is told of, and what was pointed at
recording   a file that was loaded: what it is, its sound as wav, its waveform
takes       what came out: files for every candidate
pictures    a film's picture with the mask and the points drawn over it
words       scores, spans and errors as HTML
widgets     the picture, the waveform and the player as HTML and JavaScript
work        long work in the background, with the time that is left
"""
