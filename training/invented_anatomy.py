"""Draw what a map of organs leaves out: skin, muscle, fat, bones and air, placed by the organs."""

import numpy as np
from scipy import ndimage

from training.scene import AIR, FAT, WATER, Region, Scene, Volume, ramp, shifted, stretch, superellipse


def invent_anatomy(s: Scene) -> None:
    """Fill the scene from the skin inwards; what comes later lies over what came before."""
    s.depth = _depth_below_skin(s)
    for draw in (_soft_tissue, _thorax, _spine, _skull, _face, _orbits, _airway, _outside):
        draw(s)


def _depth_below_skin(s: Scene) -> Volume:
    """Millimetres below the skin, negative outside the patient."""
    scalp = s.rng.uniform(10, 15)
    body = s.brain_distance < scalp
    for name, reach in (("Bone_Mandible", 11.0), ("Eye_L", 3.0), ("Eye_R", 3.0)):
        body |= s.distance(s.organs[name], 20) < reach * s.rng.uniform(0.8, 1.2)
    for name in (
        "Parotid_L",
        "Parotid_R",
        "Glnd_Submand_L",
        "Glnd_Submand_R",
        "Glnd_Lacrimal_L",
        "Glnd_Lacrimal_R",
    ):
        if name in s.organs:
            body |= s.distance(s.organs[name], 20) < 6
    body |= _face_and_nose(s)
    # Neck, widening into the shoulders.
    wide = ramp(s.z, s.apex + s.rng.uniform(35, 70), s.apex - s.rng.uniform(15, 40))
    half_width = s.rng.uniform(54, 68) * (1 - wide) + s.rng.uniform(190, 225) * wide
    half_depth = s.rng.uniform(54, 66) * (1 - wide) + s.rng.uniform(78, 95) * wide
    forward = 8 + 18 * wide
    neck = superellipse((s.x - s.cord_x) / half_width, (s.y - s.cord_y + forward) / half_depth, 2.4) < 1
    body |= neck & (s.z < s.centre("Brainstem")[0] - 15)
    for name in ("Lung_L", "Lung_R"):
        if name in s.organs:
            body |= s.distance(s.organs[name], 40) < s.rng.uniform(22, 34)
    for side in (-1, 1):
        arm = superellipse((s.x - s.cord_x - side * 190) / 45, (s.y - s.cord_y + 5) / 50, 2)
        body |= (arm < 1) & (s.z < s.apex - 45)
    coarse = np.pad(body[::2, ::2, ::2], ((6, 6), (0, 0), (0, 0)), mode="edge")
    mm = [2 * m for m in s.spacing]
    closed = ndimage.distance_transform_edt(~coarse, sampling=mm) < 16
    closed = ndimage.distance_transform_edt(closed, sampling=mm) > 16
    closed = np.array([ndimage.binary_fill_holes(level) for level in closed | coarse])
    signed = ndimage.distance_transform_edt(closed, sampling=mm) - ndimage.distance_transform_edt(
        ~closed, sampling=mm
    )
    signed = ndimage.gaussian_filter(signed, [4 / m for m in mm])[6:-6].astype(np.float32)
    for axis in range(3):
        signed = stretch(signed, axis, 2, s.hu.shape[axis])
    return signed


def _face_and_nose(s: Scene) -> Region:
    chin_z, jaw_top = s.extent("Bone_Mandible", 0)
    chin_y, jaw_back = s.extent("Bone_Mandible", 1)
    eyes = (s.centre("Eye_L") + s.centre("Eye_R")) / 2
    half_span = abs(s.centre("Eye_L")[2] - s.centre("Eye_R")[2]) / 2
    cornea = min(s.extent("Eye_L", 1)[0], s.extent("Eye_R", 1)[0])
    rise = np.clip((s.z - chin_z) / (eyes[0] - chin_z), 0, 1)
    front = chin_y - 9 + ramp(rise, 0.4, 1) * (cornea + 4 - chin_y + 9)
    half_width = np.minimum(half_span * (1.55 + 0.55 * rise), (jaw_top - chin_z) + 20)
    side = superellipse(
        (s.x - s.midline) / half_width, np.minimum(s.y - jaw_back, 0) / (jaw_back - front), 2.4
    )
    face = (side < 1) & (s.y < jaw_back) & (s.z > chin_z + 5) & (s.z < eyes[0] + 5)
    bridge, tip = eyes[0] - 2, eyes[0] - s.rng.uniform(42, 52)
    down = np.clip((bridge - s.z) / (bridge - tip), 0, 1)
    ridge = cornea + 4 - s.rng.uniform(18, 26) * down
    nose = (
        (np.abs(s.x - s.midline) < 5 + 10 * down - 0.25 * (front - s.y)) & (s.y > ridge) & (s.y < front + 15)
    )
    return np.asarray(face | (nose & (s.z > tip - 4) & (s.z < bridge)))


def _soft_tissue(s: Scene) -> None:
    """Skin, fat below it, and muscle divided by sheets of fat that run mostly from head to feet."""
    body = s.depth > 0
    muscle = s.rng.uniform(48, 66) + 8 * s.grain
    sheets = np.exp(-((s.texture(5.0, along=3) / s.rng.uniform(0.05, 0.25)) ** 2))
    s.hu[body] = (muscle + sheets * (FAT - muscle) * s.rng.uniform(0.5, 1))[body]
    low = s.z < s.centre("Brainstem")[0]
    fat_mm = s.rng.uniform(2, 12) * np.where(low, 1, 0.4) * (1 + 0.3 * s.texture(15))
    s.hu[body & (s.depth < fat_mm)] = FAT + s.rng.normal(0, 8)
    skin = body & (s.depth < 1.8)
    s.hu[skin] = s.rng.uniform(-40, 40)
    for side in (-1, 1):
        _neck_strings(s, side)


def _neck_strings(s: Scene, side: int) -> None:
    """Sternocleidomastoid, carotid artery, jugular vein and thyroid lobe of one side."""
    ear = s.centre("Cochlea_L" if side > 0 else "Cochlea_R")
    bottom = s.apex - 10
    at = np.array(
        [
            bottom,
            np.interp(bottom, s.z.ravel(), s.cord_y.ravel()),
            np.interp(bottom, s.z.ravel(), s.cord_x.ravel()),
        ]
    )
    body = s.depth > 3
    mastoid = shifted(ear, -25, 18, side * 12)
    s.hu[(s.rod((mastoid, shifted(at, 0, -55, side * 18))) < 9) & body] = 60
    blood = s.rng.choice([s.rng.uniform(38, 55), s.rng.uniform(110, 230)])
    for sideways, radius in ((19, 3.2), (27, 5.0)):
        foot = shifted(at, 0, -35, side * sideways)
        vessel = s.rod((shifted(ear, -25, 0, side * (sideways - 32)), foot))
        s.hu[vessel < radius + 3] = FAT * 0.8
        s.hu[vessel < radius] = blood
    lobe = s.ellipsoid(shifted(at, 30, -38, side * 18), (22, 9, 8))
    s.hu[lobe < 1] = s.rng.uniform(70, 170)


def _thorax(s: Scene) -> None:
    """Ribs, clavicles, sternum, shoulder blades and upper arms."""
    lungs = [s.organs[n] for n in ("Lung_L", "Lung_R") if n in s.organs]
    deep = s.depth > 5
    if lungs:
        away = s.distance(np.logical_or.reduce(lungs), 40)
        slope = s.z + 0.35 * s.y + s.rng.uniform(0, 25)
        ribs = (np.mod(slope, s.rng.uniform(21, 27)) < 9) & (away > 2) & (away < 10) & deep
        s.bone(np.where(ribs & (np.abs(s.x - s.cord_x) > 18), np.minimum(away - 2, 10 - away), -1), 1.5)
        plate = (np.abs(away - 22) < 4) & (s.y > s.cord_y - 5) & (np.abs(np.abs(s.x - s.cord_x) - 105) < 45)
        s.bone(np.where(plate & deep & (s.z < s.apex + 5), 4 - np.abs(away - 22), -1))
        s.hu[(away > 10) & (away < 18) & (s.hu > -50) & (s.hu < 100)] = 55
        s.hu[(away < 3)] = FAT * 0.6
    back = float(np.interp(s.apex - 20, s.z.ravel(), s.cord_y.ravel()))
    middle = float(np.interp(s.apex - 20, s.z.ravel(), s.cord_x.ravel()))
    for side in (-1, 1):
        inner = np.array([s.apex - 22, back - 85, middle + side * 20])
        outer = np.array([s.apex + s.rng.uniform(0, 15), back - 25, middle + side * 150])
        s.bone(np.where(s.depth > 2, 7 - s.rod((inner, outer)), -1))
        head = np.array([s.apex - 25, back - 15, middle + side * 165])
        s.bone(np.where(deep, 23 - s.rod((head, shifted(head, 0, 0, side))), -1))
        s.bone(
            np.where(
                deep, 12 - s.rod((shifted(head, -20, 0, side * 10), shifted(head, -250, 0, side * 18))), -1
            ),
            4,
        )
    breast = s.rod((np.array([s.apex - 30, back - 92, middle]), np.array([s.apex - 160, back - 125, middle])))
    s.bone(np.where(deep, 11 - breast, -1))


def _spine(s: Scene) -> None:
    """Vertebrae with discs, lateral masses, arches and spines around the canal, growing towards the chest."""
    canal = s.distance(s.organs["SpinalCanal"], 60)
    grow = 1 + 0.5 * ramp(s.z, s.centre("Bone_Mandible")[0] - 40, s.apex - 60)
    below_skull = s.z < s.centre("Brainstem")[0] - 22
    period = np.cumsum(s.spacing[0] / (18 * grow.ravel())).reshape(-1, 1, 1) + s.rng.uniform()
    phase = np.mod(period, 1)
    disc = phase < 0.22
    x, y = np.abs(s.x - s.cord_x), s.y - s.cord_y
    body = 1 - superellipse(x / (12 * grow), (y + 8 * grow + 9) / (8.5 * grow), 2.5)
    s.bone(np.where(below_skull & ~disc, body * 9, -1))
    s.hu[(body > 0.1) & disc & below_skull] = s.rng.uniform(70, 110)
    masses = 8 * (1 - superellipse((x - 19) / 8, (y + 1) / 9, 2.5))
    s.bone(np.where(below_skull & (np.mod(phase + 0.5, 1) > 0.12), masses, -1))
    arch = np.where((canal > 2) & (y > 0), np.minimum(canal - 2, 7 - canal), -1)
    s.bone(np.where(below_skull & (phase > 0.45), arch, -1))
    lean = np.mod(phase + 0.012 * canal, 1)
    spine = np.minimum(4 - x, np.minimum(canal - 3, 24 + 8 * grow - canal))
    s.bone(np.where(below_skull & (lean > 0.5) & (y > 0), spine, -1))
    wing = np.minimum(np.minimum(4.5 - np.abs(y - 4 * (grow - 1) + 3), 28 * grow - x), x - 12)
    s.bone(np.where(below_skull & (np.abs(phase - 0.7) < 0.2), wing, -1))


def _skull(s: Scene) -> None:
    """Vault of two tables with marrow between, petrous bones with air cells, and the sphenoid."""
    brain = s.brain_distance
    thick = s.rng.uniform(5, 8) + 1.0 * s.texture(18)
    stem = s.distance(s.organs["Brainstem"], 30)
    foramen = (stem < 10) & (s.z < s.centre("Brainstem")[0] - 12)
    ears = [s.centre("Cochlea_L"), s.centre("Cochlea_R")]
    s.bone(np.where((brain > 1) & ~foramen, np.minimum(brain - 1, thick + 1 - brain), -1), 1.8)
    s.hu[brain <= 1.5] = WATER
    for side, ear in zip((1, -1), ears, strict=True):
        tip, mastoid = shifted(ear, -4, -12, -side * 16), shifted(ear, -12, 16, side * 22)
        petrous = np.maximum(13 - s.rod((tip, mastoid)), 12 - s.rod((mastoid, shifted(mastoid, -16, 2, 0))))
        outside = (brain > 0.5) & (s.depth > 3)
        s.bone(np.where(outside, petrous, -1), 4)
        cells = (
            (s.rod((shifted(ear, -4, 8, side * 10), shifted(mastoid, -8, 0, 0))) < 9)
            & (s.texture(2.0) > 0.1)
            & outside
        )
        s.hu[cells] = s.rng.uniform(-800, -300)
        canal = s.rod((shifted(ear, -6, 2, side * 8), shifted(ear, -8, 4, side * 60)))
        s.hu[(canal < 3) & (s.depth > -3)] = AIR
    base = np.mean(ears, axis=0)
    sella = s.ellipsoid(shifted(base, 6, -28, 0), (16, 16, 18))
    s.bone(np.where(brain > 0.5, (1 - sella) * 15, -1))
    s.hu[
        (s.ellipsoid(shifted(base, 4, -32, 0), (10, 11, 13)) < 1) & (brain > 2) & (np.abs(s.x - base[2]) > 1)
    ] = AIR
    clivus = s.rod((shifted(base, 0, -22, 0), shifted(base, -30, -6, 0)))
    s.bone(np.where((brain > 0.5) & (stem > 5), 8 - clivus, -1))


def _face(s: Scene) -> None:
    """Maxilla and teeth on the arch of the mandible, cheek bones, sinuses and the nasal cavity."""
    jaw = s.organs["Bone_Mandible"]
    chin_z = s.low("Bone_Mandible")
    chin_y, jaw_back = s.extent("Bone_Mandible", 1)
    eyes = (s.centre("Eye_L") + s.centre("Eye_R")) / 2
    half_span = abs(s.centre("Eye_L")[2] - s.centre("Eye_R")[2]) / 2
    front = s.y.ravel() < chin_y + 0.45 * (jaw_back - chin_y)
    levels = np.flatnonzero(jaw[:, front].any(axis=(1, 2)))
    teeth_z = float(np.percentile(levels, 92)) * s.spacing[0]
    row = jaw[(s.z.ravel() > teeth_z - 14) & (s.z.ravel() <= teeth_z)].any(axis=0) & front[:, None]
    arch = ndimage.distance_transform_edt(row, sampling=s.spacing[1:])[None]
    crowns = (arch > 2) & (s.z > teeth_z - 4) & (s.z < teeth_z + 14) & (s.texture(3.0) > -0.7)
    palate = teeth_z + 0.3 * (eyes[0] - teeth_z) + 6
    s.bone(np.where((s.z > teeth_z + 12) & (s.z < palate + 6), arch + 3 - 3 * (arch == 0), -1))
    s.hu[crowns] = s.rng.uniform(1300, 2400)
    inner = ndimage.binary_fill_holes(np.any(row, axis=0)[None] | row)
    floor = (
        (np.abs(s.z - palate) < 2.5)
        & (np.abs(s.x - s.midline) < 0.7 * half_span)
        & (s.y > chin_y + 8)
        & (s.y < chin_y + 50)
    )
    s.bone(np.where(floor & (s.depth > 4) & np.any(inner), 1.0, -1))
    muscle = s.distance(jaw, 14)
    chewing = (muscle < 12) & (s.z > chin_z + 12) & (s.y > chin_y + 40) & (s.depth > 4) & (s.hu < 200)
    s.hu[chewing] = 60 + 5 * s.grain[chewing]
    open_air = s.rng.random() < 0.8
    for side, eye in ((1, s.centre("Eye_L")), (-1, s.centre("Eye_R"))):
        sinus = s.ellipsoid(
            np.array([eye[0] - 34, eye[1] + 18, s.midline.mean() + side * 0.8 * half_span]), (18, 19, 13)
        )
        sinus = sinus + 0.05 * s.grain
        s.bone(np.where(s.depth > 4, (1.1 - sinus) * 15, -1), 9)
        s.hu[(sinus < 1) & (s.depth > 6)] = AIR if open_air else 20
        cheek = s.rod(
            (
                shifted(eye, -24, 2, side * 16),
                np.array([eye[0] - 26, s.centre("Cochlea_L")[1] - 12, eye[2] + side * 34]),
            )
        )
        s.bone(np.where(s.depth > 3, 4.5 - cheek, -1))
    cavity = (
        (np.abs(s.x - s.midline) < 13 - 4 * ramp(s.z, eyes[0] - 20, eyes[0]))
        & (s.z > palate)
        & (s.z < eyes[0] + 4)
    )
    cavity = (
        cavity
        & (s.y > np.minimum(s.extent("Eye_L", 1)[0], s.extent("Eye_R", 1)[0]) - 8)
        & (s.y < eyes[1] + 50)
        & (s.depth > 3)
    )
    walls = (np.abs(s.x - s.midline) < 1.2) | (s.texture(3.0, along=0.7) > 0.35)
    s.hu[cavity] = AIR
    s.hu[cavity & walls] = s.rng.uniform(30, 70)
    s.hu[cavity & walls & (s.grain > 0.8)] = 350


def _orbits(s: Scene) -> None:
    """A cone of fat behind each eye with its muscles, in thin walls of bone."""
    for side in ("L", "R"):
        eye = s.centre(f"Eye_{side}")
        nerve = f"OpticNrv_{side}"
        back = s.extent(nerve, 1)[1] if nerve in s.organs else eye[1] + 42
        apex_x = s.midline.mean() + (1 if side == "L" else -1) * 9
        t = np.clip((s.y - eye[1]) / (back - eye[1]), -0.5, 1)
        mid_x = eye[2] + np.clip(t, 0, 1) * (apex_x - eye[2])
        radius = 19 - 14 * np.clip(t, 0, 1)
        away = np.sqrt((s.z - eye[0]) ** 2 + (s.x - mid_x) ** 2)
        within = (s.y > eye[1] - 8) & (s.y < back + 2) & (s.depth > 1) & (s.brain_distance > 0.5)
        s.bone(np.where(within & (s.y > eye[1]) & (away >= radius), radius + 3 - away, -1), 9)
        cone = within & (away < radius)
        s.hu[cone] = s.rng.normal(-85, 8)
        turn = np.arctan2(s.z - eye[0], s.x - mid_x)
        straps = cone & (np.abs(away - 0.72 * radius) < 2.2) & (np.abs(np.sin(2 * turn)) < 0.4) & (t > 0.1)
        s.hu[straps] = 48


def _airway(s: Scene) -> None:
    """Pharynx, larynx with its cartilage and the hyoid, and the trachea down to the chest."""
    jaw_z = s.extent("Bone_Mandible", 0)
    chin_z, roof = jaw_z[0], s.centre("Cochlea_L")[0] - 12
    larynx = chin_z - s.rng.uniform(25, 45)
    level = [s.apex - 60, s.apex, larynx - 20, larynx, chin_z, chin_z + 30, roof]
    forward = np.interp(s.z, level, [42, 44, 40, 40, 34, 32, 30])
    wide = np.interp(s.z, level, [9, 9, 9, 7, 13, 14, 12]) * s.rng.uniform(0.8, 1.15)
    tall = np.interp(s.z, level, [9, 9, 9, 11, 7, 5, 8]) * s.rng.uniform(0.8, 1.15)
    u, v = (s.x - s.cord_x) / wide, (s.y - s.cord_y + forward) / tall
    hollow = superellipse(u, v, 2)
    tube = (s.z < roof) & (hollow < 1) & (s.hu < 200)
    s.hu[(s.z < roof) & (hollow < 1.6) & (s.hu < 200)] = 50
    s.hu[tube] = AIR
    shield = (np.abs(s.z - larynx) < 16) & (np.abs(hollow - 1.75) < 0.15) & (v < 0.3)
    s.hu[shield] = s.rng.uniform(100, 350) + 60 * s.grain[shield]
    horseshoe = (np.abs(s.z - larynx - 26) < 4) & (np.abs(hollow - 1.9) < 0.2) & (v < 0.3)
    s.bone(np.where(horseshoe, 1.0, -1))


def _outside(s: Scene) -> None:
    """Perhaps a couch, a head rest and a mask shell; the organs' crop ends where the image does."""
    outside = s.depth < 0
    if s.rng.random() < 0.6:
        top = float(np.max(np.where(s.depth > 0, s.y, 0))) + s.rng.uniform(1, 6)
        thick = s.rng.uniform(15, 40)
        slab = (s.y > top) & (s.y < top + thick) & (np.abs(s.x - s.cord_x) < s.rng.uniform(180, 250))
        rim = (s.y < top + 2.5) | (s.y > top + thick - 2.5)
        s.hu[np.broadcast_to(slab, s.hu.shape) & outside] = s.rng.uniform(-980, -880)
        s.hu[np.broadcast_to(slab & rim, s.hu.shape) & outside] = s.rng.uniform(-500, 50)
        rest = (
            outside
            & (s.depth > -25)
            & (s.y > s.cord_y)
            & (s.z > s.apex + 20)
            & (np.abs(s.x - s.cord_x) < 90)
            & (s.y < top)
        )
        s.hu[rest] = s.rng.uniform(-970, -900)
    if s.rng.random() < 0.6:
        shell = (s.depth < -0.5) & (s.depth > -3.0) & (s.z > s.apex + 25) & (s.y < s.cord_y + 20)
        s.hu[shell & (s.texture(5.0) < 1.0)] = s.rng.uniform(-600, 50)
