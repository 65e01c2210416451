"""Where the surface of a mask runs, and how large each piece of it is, in 3-D and (as an outline) in 2-D.

The surface is looked at from the corners at which 2 × 2 × 2 voxels meet. Which of the eight are inside makes a
code of 8 bits, of 4 bits for the 2 × 2 pixels of an image; a piece of surface lies wherever not all are alike.
The piece is that of marching cubes (W. Lorensen, H. Cline, SIGGRAPH 1987), as large as code and spacing make it.
So S. Nikolov et al. (arXiv 1809.04430, figure 10) define the surface for their Dice coefficient.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import product

import numpy as np
from numpy.typing import NDArray

Corner = tuple[int, int, int]
Point = tuple[float, float, float]

CORNERS: tuple[Corner, ...] = tuple((z, y, x) for z, y, x in product((0, 1), repeat=3))
"""Corner i of a cube is bit 7 - i of its code."""


def corner_codes(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Code at every corner of a mask's voxels; outside of the mask's array is outside of the mask.

    (n, m[, k]) to (n + 1, m + 1[, k + 1]); 0 has no voxel inside, 255 (in 2-D 15) has no voxel outside.
    The highest bit is the voxel that lies before the corner along every axis, the lowest the one after it.
    """
    codes = np.pad(mask, 1).view(np.uint8)
    for axis, bits in zip(reversed(range(mask.ndim)), (1, 2, 4), strict=False):
        along = np.moveaxis(codes, axis, 0)
        codes = np.moveaxis(along[:-1] << np.uint8(bits) | along[1:], 0, axis)
    return codes


def on_surface(codes: NDArray[np.uint8], dimensions: int) -> NDArray[np.bool_]:
    """Whether a piece of surface lies at each corner."""
    there: NDArray[np.bool_] = (codes != 0) & (codes != full_code(dimensions))
    return there


def full_code(dimensions: int) -> int:
    """The code of a corner with nothing but inside about it: 15 or 255."""
    return int(2 ** (2**dimensions)) - 1


def surface_sizes(spacing_mm: Sequence[float]) -> NDArray[np.float64]:
    """Size of the surface for each code: (256,) mm² for three spacings, (16,) mm for two.

    Spacings are in the order of the mask's axes.
    """
    return _lengths(*spacing_mm) if len(spacing_mm) == 2 else _areas(*spacing_mm)


def _lengths(row_mm: float, column_mm: float) -> NDArray[np.float64]:
    """A lone pixel is cut off by a diagonal of half a pixel, a pair side by side by a straight line."""
    diagonal = float(np.hypot(row_mm, column_mm)) / 2
    lengths = np.full(16, diagonal)
    lengths[[0, 15]] = 0
    lengths[[0b0011, 0b1100]] = column_mm
    lengths[[0b0101, 0b1010]] = row_mm
    lengths[[0b0110, 0b1001]] = 2 * diagonal
    return lengths


def _areas(*spacing_mm: float) -> NDArray[np.float64]:
    """A triangle's normal grows along each axis with the spacings of the two others."""
    volume = float(np.prod(spacing_mm))
    grown: NDArray[np.float64] = _normals() * (volume / np.array(spacing_mm))
    areas: NDArray[np.float64] = np.linalg.norm(grown, axis=-1).sum(axis=-1)
    return areas


@cache
def _normals() -> NDArray[np.float64]:
    """(256, 4, 3) normals of every code's triangles, as long as their area in a cube of side 1; the rest are 0."""
    normals = np.zeros((256, 4, 3))
    for code in range(1, 255):
        inside = {corner for index, corner in enumerate(CORNERS) if code >> (7 - index) & 1}
        fewer = inside if len(inside) <= 4 else set(CORNERS) - inside
        triangles = [triangle for piece in _pieces(fewer) for triangle in _largest_sheet(_rim(piece))]
        normals[code, : len(triangles)] = triangles
    return normals


def _pieces(corners: set[Corner]) -> Iterator[set[Corner]]:
    """Corners that hang together along the edges of the cube; those across a diagonal are apart."""
    left = set(corners)
    while left:
        piece = {left.pop()}
        while grown := {corner for corner in left if any(_are_neighbours(corner, each) for each in piece)}:
            piece |= grown
            left -= grown
        yield piece


def _are_neighbours(a: Corner, b: Corner) -> bool:
    return sum(i != j for i, j in zip(a, b, strict=True)) == 1


def _rim(piece: Iterable[Corner]) -> list[Point]:
    """The closed line around a piece of at most four corners: middles of the cut edges, along the cube's faces."""
    inside = set(piece)
    cut = [(a, b) for a in inside for b in CORNERS if b not in inside and _are_neighbours(a, b)]
    left = {((a[0] + b[0]) / 2, (a[1] + b[1]) / 2, (a[2] + b[2]) / 2) for a, b in cut}
    rim = [min(left)]
    left.remove(rim[0])
    while left:
        rim.append(min(point for point in left if _share_a_face(point, rim[-1])))
        left.remove(rim[-1])
    return rim


def _share_a_face(a: Point, b: Point) -> bool:
    return any(i == j and i in {0, 1} for i, j in zip(a, b, strict=True))


def _largest_sheet(rim: list[Point]) -> list[NDArray[np.float64]]:
    """Normals of the triangles that fill a rim; of all ways to fill one that is not flat, the largest.

    It is also the one that keeps the rim's symmetry, so that the table does not depend on the patient's side.
    """
    corners = np.array(rim)
    sheets = [
        [np.cross(corners[b] - corners[a], corners[c] - corners[a]) / 2 for a, b, c in triangles]
        for triangles in _triangulations(tuple(range(len(rim))))
    ]
    return max(sheets, key=lambda sheet: round(sum(float(np.linalg.norm(normal)) for normal in sheet), 9))


def _triangulations(ring: tuple[int, ...]) -> list[list[tuple[int, int, int]]]:
    """Every way to cut a polygon into triangles."""
    if len(ring) < 3:
        return [[]]
    return [
        [(ring[0], ring[middle], ring[-1]), *one, *other]
        for middle in range(1, len(ring) - 1)
        for one in _triangulations(ring[: middle + 1])
        for other in _triangulations(ring[middle:])
    ]
