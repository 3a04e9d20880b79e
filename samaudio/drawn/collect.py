"""Pictures from picture fonts, once, as small PNG files that films are drawn from.

    python -m samaudio.drawn.collect PICTURES noto=NotoColorEmoji.ttf openmoji=openmoji-17.0.0.tgz

Each ``STYLE=SOURCE`` becomes a folder of PICTURES with one ``<code point>.png`` per picture of the vocabulary that the
source has. A source is a colour font with bitmaps, or a folder or ``.tgz`` with SVG, PNG or WebP files named by their
code points (``1f3b8.svg``, ``1F3B8.png``, ``emoji_u1f3b8.png``). See docs/drawn-world.md for sources and licences.
"""

from __future__ import annotations

import io
import re
import sys
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from peav import console
from peav.errors import UserError, shown

from .styles import require_extra
from .vocabulary import all_codes

SIDE = 128  # pixels of the longer side
# Where a package that holds several styles keeps this one; any other name takes what it finds.
FOLDERS = {"openmoji": "color/svg", "openmoji-black": "black/svg", "twemoji": "dist/svg", "fluent": "assets",
           "fluent-3d": "assets", "emojione": "assets/png_128x128"}
_NAME = re.compile(r"^(?:emoji_u)?([0-9a-f]{4,6})(?:[-_]fe0f)?\.(svg|png|webp)$", re.IGNORECASE)
_BITMAP = 109  # the size in which colour fonts with bitmaps hold theirs
_LARGEST = 2**24  # bytes of one picture file; more is no picture of this kind

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None,
                  context_settings={"help_option_names": ["-h", "--help"]})  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    return console.run(app, "python -m samaudio.drawn.collect", arguments)


@app.command()
def collect_command(
    folder: Annotated[Path, typer.Argument(metavar="PICTURES", help="The folder to write to.")],
    sources: Annotated[list[str], typer.Argument(metavar="STYLE=SOURCE...", help="A font, a folder or a .tgz each.")],
) -> None:
    """Write the pictures of each style as PNG files."""
    require_extra()
    for item in sources:
        style, _, source = item.partition("=")
        if not source or not re.fullmatch(r"[\w-]+", style):
            raise UserError(f"{shown(item)}: give STYLE=SOURCE, such as noto=NotoColorEmoji.ttf")
        count = collect(folder, style, source)
        console.say(f"{style}: {count} of {len(all_codes())} pictures")


def collect(folder: str | Path, style: str, source: str | Path) -> int:
    """Write the pictures of one style to ``folder/style``; returns their number.

    Raises:
        UserError: the source is missing or has none of the pictures, or the extra ``drawn`` is not installed.
    """
    source, target = Path(source), Path(folder) / style
    if not source.exists():
        raise UserError(f"{shown(source)}: no such file or folder; docs/drawn-world.md says where to get the pictures")
    count = 0
    for code, whole in _images(source, FOLDERS.get(style, "")):
        image = _fitted(whole)
        if image is None:
            continue
        target.mkdir(parents=True, exist_ok=True)
        _save(target / f"{code}.png", _filled(image) if style.endswith("-black") else image)
        count += 1
    if not count:
        raise UserError(f"{shown(source)}: has no picture named by a code point, such as 1f3b8.svg; see "
                        "docs/drawn-world.md")
    return count


def _images(source: Path, inner: str) -> Iterator[tuple[str, np.ndarray]]:
    if source.suffix.lower() in (".ttf", ".otf"):
        yield from _from_font(source)
        return
    wanted = set(all_codes())
    for name, data in _from_archive(source, inner) if source.is_file() else _from_folder(source, inner):
        match = _NAME.match(name)
        assert match
        code = match[1].lower().lstrip("0")
        if code in wanted:
            wanted.discard(code)
            yield code, _decoded(data(), match[2].lower() == "svg", name)


def _from_folder(source: Path, inner: str):
    root = source / inner if (source / inner).is_dir() else source
    for path in sorted(root.rglob("*")):
        if _NAME.match(path.name):
            yield path.name, path.read_bytes


def _from_archive(source: Path, inner: str):
    try:
        with tarfile.open(source) as archive:
            for member in archive:
                parent, _, name = member.name.rpartition("/")
                inside = not inner or f"{parent}/".endswith(f"/{inner}/")
                if inside and member.isfile() and member.size < _LARGEST and _NAME.match(name):
                    file = archive.extractfile(member)
                    assert file is not None
                    yield name, file.read
    except tarfile.TarError:
        raise UserError(f"{shown(source)}: is no archive of pictures; give a font, a folder or a .tgz") from None


def _from_font(source: Path) -> Iterator[tuple[str, np.ndarray]]:
    from PIL import Image, ImageDraw, ImageFont

    try:
        font = ImageFont.truetype(str(source), _BITMAP)
    except OSError:
        raise UserError(f"{shown(source)}: no colour font with bitmaps of {_BITMAP} pixels; take "
                        "NotoColorEmoji.ttf") from None
    missing = font.getmask("\U0010fffe", mode="RGBA").size
    for code in all_codes():
        character = chr(int(code, 16))
        canvas = Image.new("RGBA", (2 * _BITMAP, 2 * _BITMAP))
        if font.getmask(character, mode="RGBA").size in ((0, 0), missing):
            continue
        ImageDraw.Draw(canvas).text((_BITMAP // 4, _BITMAP // 4), character, font=font, embedded_color=True)
        yield code, np.asarray(canvas)


def _decoded(data: bytes, vector: bool, name: str) -> np.ndarray:
    from PIL import Image, UnidentifiedImageError

    if vector:
        try:
            import resvg_py
        except ImportError:
            raise UserError('SVG pictures need resvg: pip install "samaudio[drawn]"') from None
        try:
            data = bytes(resvg_py.svg_to_bytes(svg_string=data.decode("utf-8"), width=2 * SIDE))
        except ValueError as error:
            raise UserError(f"{shown(name)}: cannot be drawn ({shown(error)}); take its folder anew") from None
    try:
        with Image.open(io.BytesIO(data)) as opened:
            return np.asarray(opened.convert("RGBA"))
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError):
        raise UserError(f"{shown(name)}: is no picture; take its folder anew") from None


def _fitted(image: np.ndarray) -> np.ndarray | None:
    """Cut to what is drawn, the longer side `SIDE` pixels or less; None for an empty picture."""
    import cv2

    rows, columns = np.nonzero(image[..., 3] > 8)
    if len(rows) == 0:
        return None
    image = image[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    scale = SIDE / max(image.shape[:2])
    if scale >= 1:
        return np.ascontiguousarray(image)
    alpha = image[..., 3:].astype(np.float32) / 255
    premultiplied = np.concatenate((image[..., :3] * alpha, 255 * alpha), -1)
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    small = np.asarray(cv2.resize(premultiplied, (width, height), interpolation=cv2.INTER_AREA))
    colour = small[..., :3] / np.maximum(small[..., 3:] / 255, 1e-3)
    return np.concatenate((colour, small[..., 3:]), -1).round().clip(0, 255).astype(np.uint8)


def _filled(image: np.ndarray) -> np.ndarray:
    """White inside the outlines: a line drawing would be a thing with holes."""
    import cv2

    # Drawn lines leave gaps: closed first, so that an animal has a body. Air around it, as the gap may be at the rim.
    solid = np.pad(image[..., 3] > 100, SIDE // 4).astype(np.uint8)
    pen = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (SIDE // 8 + 1, SIDE // 8 + 1))
    closed = cv2.morphologyEx(solid, cv2.MORPH_CLOSE, pen)
    outer, _ = cv2.findContours(closed, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = np.zeros_like(solid)
    cv2.drawContours(filled, outer, -1, (255,), cv2.FILLED)
    inside = filled[SIDE // 4 : -SIDE // 4, SIDE // 4 : -SIDE // 4]
    alpha = image[..., 3:].astype(np.float32) / 255
    colour = image[..., :3] * alpha + 255 * (1 - alpha)
    return np.concatenate((colour, np.maximum(image[..., 3:], inside[..., None])), -1).astype(np.uint8)


def _save(path: Path, image: np.ndarray) -> None:
    from PIL import Image

    from peav.media import temporary_sibling

    temporary = temporary_sibling(path)
    try:
        Image.fromarray(image, "RGBA").save(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main())
