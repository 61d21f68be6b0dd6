"""Scenes: what the pictures of the sample dataset show.

Each scene is a function that paints named things back to front: parts inside their wholes (fingers
in a hand in a person), things in front of others, things that the border cuts, several instances
of a noun, and nouns that careless readers lose, such as the bread ``nan``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from maskcube.painting import Outline, Painting, Thing, blob, limb, oval, placed, ring, smooth

__all__ = ["SCENES", "duet", "illusion"]

Random = np.random.Generator
Scene = Callable[[Painting, Random], None]


def duet(picture: Painting, rng: Random) -> None:
    """Two pianists at a grand piano, from above: hands on the keys, fingers on the hands."""
    case = smooth(".05,.57 .05,.06 .22,.02 .4,.04 .52,.17 .7,.22 .93,.3 .95,.57")
    piano = picture.add("piano", case)
    picture.add("keys", smooth(".1,.44 .9,.44 .9,.54 .1,.54", rounds=0), whole=piano)
    pages = smooth("0,.03 -.15,0 -.17,-.16 0,-.14 .17,-.16 .15,0", rounds=2, cut=0.08)
    tilt = rng.uniform(-0.05, 0.05)
    picture.add("sheet music", *placed([pages], rng.uniform(0.44, 0.5), 0.37, turn=tilt))
    for seat, garment in ((0.29, "pullover"), (0.71, "")):
        x, y = seat + rng.uniform(-0.015, 0.015), 0.86 + rng.uniform(-0.015, 0.015)
        trunk = blob(rng, x, y + 0.09, 0.19, 0.17, rough=0.015)
        person = picture.add("person", trunk)
        sleeves = picture.add(garment, trunk, whole=person) if garment else person
        for side in (-1, 1):
            wrist = (x + side * rng.uniform(0.085, 0.1), rng.uniform(0.575, 0.595))
            arm = [(x + side * 0.13, y), (x + side * 0.175, 0.72), wrist]
            picture.cover(sleeves, *limb(arm, 0.055, 0.042, 0.028))
            found = bool(garment) or side < 0  # a detector would miss some, too
            _hand(picture, person, wrist, 0.085, turn=-0.15 * side, flip=side < 0, fingers=found)
        picture.cover(person, blob(rng, x, y - 0.05, 0.075, 0.085, rough=0.02))


def _hand(
    picture: Painting,
    person: Thing,
    wrist: tuple[float, float],
    size: float,
    *,
    turn: float,
    flip: bool = False,
    fingers: bool = True,
) -> None:
    """Add a hand that points up from its wrist, thumb left."""
    palm = smooth("-.25,.2 -.42,-.6 .42,-.6 .3,.2", rounds=2)
    bones = limb("-.3,-.15 -.55,-.45 -.6,-.75", 0.13, 0.11, 0.09)
    for x, y in ((-0.5, -1.25), (-0.17, -1.45), (0.17, -1.4), (0.5, -1.1)):
        bones += limb([(0.62 * x, -0.5), (x, y)], 0.11, 0.09)
    palm, *bones = placed([palm, *bones], *wrist, size, turn=turn, flip=flip)
    hand = picture.add("hand", palm, *bones, whole=person)
    if fingers:
        picture.add("fingers", *bones, whole=hand)


def _dinner(picture: Painting, rng: Random) -> None:
    picture.add("table", smooth("-.1,.1 1.1,.1 1.1,1.1 -.1,1.1", rounds=0))
    for x, y, bread in ((0.27, 0.4, True), (0.66, 0.62, True), (0.97, 0.2, False)):
        picture.add("plate", oval(x + rng.uniform(-0.02, 0.02), y + rng.uniform(-0.02, 0.02), 0.19))
        if bread:
            picture.add("nan", blob(rng, x, y, 0.13, 0.095, turn=rng.uniform(0, 3)))
    bowl = picture.add("bowl", oval(0.25, 0.78, 0.115))
    picture.add("crème brûlée", blob(rng, 0.25, 0.78, 0.095, rough=0.01), whole=bowl)
    tines = limb(".025,.24 .027,.34", 0.006, 0.01) + limb(".065,.24 .063,.34", 0.006, 0.01)
    picture.add("fork", *tines, *limb(".045,.24 .045,.36 .04,.58", 0.007, 0.016, 0.012))
    picture.add("knife", *limb(".52,.22 .515,.37 .51,.5", 0.008, 0.021, 0.013))
    for x in (0.62, 0.7):
        picture.add("salt, pepper", oval(x, rng.uniform(0.2, 0.25), 0.032))
    picture.add("glass", oval(rng.uniform(0.44, 0.47), 0.4, 0.075), through=None)
    person = picture.add("person", *limb("1.08,1.04 .9,.9", 0.08, 0.05))
    _hand(picture, person, (0.9, 0.9), 0.1, turn=-0.85)


def _street(picture: Painting, rng: Random) -> None:
    picture.add("road", smooth("-.1,.62 1.1,.58 1.1,1.1 -.1,1.1", rounds=0))
    crown = [blob(rng, x, y, 0.11) for x, y in ((0.75, 0.29), (0.91, 0.28), (0.83, 0.18))]
    picture.add("tree", *limb(".84,.64 .83,.3", 0.03, 0.02), *crown)
    lamps = smooth(".465,.14 .535,.14 .535,.34 .465,.34")
    picture.add("traffic light", lamps, *limb(".5,.66 .5,.3", 0.009, 0.009))
    _walker(picture, rng, 0.63, 0.74, 0.44)
    window = _car(picture, rng, 0.33, 0.72, 0.27)
    picture.add("person", oval(0.34, 0.63, 0.021, 0.025), through=(window,))
    _car(picture, rng, rng.uniform(0.76, 0.82), 0.88, 0.32)


def _walker(picture: Painting, rng: Random, x: float, y: float, size: float) -> None:
    step = rng.uniform(0.05, 0.09)
    legs = limb([(-step, 0), (-0.05, -0.5)], 0.035, 0.065)
    legs += limb([(step, 0), (0.05, -0.5)], 0.035, 0.065)
    skin = limb("-.19,-.62 -.2,-.42", 0.03, 0.022) + limb(".19,-.62 .26,-.86", 0.03, 0.022)
    skin.append(oval(0, -0.93, 0.065, 0.085))
    shirt = limb("-.11,-.78 -.19,-.62", 0.045, 0.038) + limb(".11,-.78 .19,-.62", 0.045, 0.038)
    shirt.append(smooth("-.12,-.46 -.15,-.84 .15,-.84 .12,-.46"))
    person = picture.add("person", *placed(legs + skin, x, y, size))
    picture.add("T-shirt", *placed(shirt, x, y, size), whole=person)


def _car(picture: Painting, rng: Random, x: float, y: float, size: float) -> Thing:
    body = smooth("-1,.2 -1,-.12 -.62,-.2 -.36,-.52 .28,-.52 .56,-.18 .98,-.08 1,.2")
    pane = smooth("-.5,-.18 -.31,-.44 .24,-.44 .44,-.18")
    tyres = [oval(axle, 0.18, 0.19) for axle in (-0.6, 0.6)]
    body, pane, *tyres = placed([body, pane, *tyres], x, y, size, flip=bool(rng.integers(2)))
    car = picture.add("car", body, *tyres)
    for tyre in tyres:
        picture.add("wheel", tyre, whole=car)
    return picture.add("window", pane, whole=car)


def _meadow(picture: Painting, rng: Random) -> None:
    for x in (0.2, 0.7):
        y = rng.uniform(0.12, 0.18)
        puffs = [blob(rng, x, y, 0.13, 0.055), blob(rng, x + 0.08, 0.17, 0.09, 0.045)]
        picture.add("cloud", *puffs)
    hill = [(-0.1, 0.5), (0.3, rng.uniform(0.42, 0.5)), (0.7, rng.uniform(0.5, 0.58)), (1.1, 0.5)]
    picture.add("grass", smooth([*hill, (1.1, 1.1), (-0.1, 1.1)]))
    crown = blob(rng, 0.1, 0.31, 0.15, 0.13)
    picture.add("tree", *limb(".13,.62 .12,.36", 0.03, 0.02), crown)
    _dog(picture, rng, 0.34, 0.66, 0.15)
    _dog(picture, rng, rng.uniform(0.7, 0.74), 0.74, 0.19)
    picture.add("ball", oval(rng.uniform(0.4, 0.5), 0.9, 0.06))


def _dog(picture: Painting, rng: Random, x: float, y: float, size: float) -> None:
    trunk = [smooth("-.8,.25 -.85,-.3 0,-.25 .75,-.45 .85,.3 0,.22")]
    for hip, foot in ((-0.65, -0.75), (-0.5, -0.42), (0.5, 0.45), (0.65, 0.72)):
        trunk += limb([(hip, 0), (foot, 0.95)], 0.16, 0.08)
    trunk += limb(".6,-.2 .85,-.6", 0.25, 0.2) + limb(".9,-.68 1.25,-.6", 0.23, 0.12)
    tail = limb([(-0.75, -0.1), (-1.05, -0.5), (-1, -rng.uniform(0.8, 1))], 0.1, 0.08, 0.05)
    parts = {"ear": limb(".78,-.82 .62,-.42", 0.08, 0.13), "tail": tail}
    _animal(picture, "dog", trunk, parts, place=(x, y, size), flip=bool(rng.integers(2)))


def _animal(
    picture: Painting,
    noun: str,
    trunk: Sequence[Outline],
    parts: dict[str, list[Outline]],
    *,
    place: tuple[float, float, float],
    flip: bool,
) -> Thing:
    """Add an animal with one part a noun, and return it."""
    whole = picture.add(noun, *placed(trunk, *place, flip=flip))
    for part, outlines in parts.items():
        picture.add(part, *placed(outlines, *place, flip=flip), whole=whole)
    return whole


def _harbour(picture: Painting, rng: Random) -> None:
    picture.add("sea", smooth("-.1,.55 1.1,.55 1.1,1.1 -.1,1.1", rounds=0))
    tower = smooth(".79,.6 .815,.2 .885,.2 .91,.6", rounds=0)
    roof = smooth(".8,.21 .85,.06 .9,.21", rounds=2, cut=0.1)
    lighthouse = picture.add("lighthouse", tower, roof)
    picture.add("window", oval(0.85, 0.3, 0.018, 0.026), whole=lighthouse)
    picture.add("rock", blob(rng, 0.86, 0.62, 0.18, 0.06))
    _boat(picture, rng.uniform(0.44, 0.48), 0.58, 0.1)
    _boat(picture, rng.uniform(0.6, 0.66), 0.72, 0.2)
    _boat(picture, rng.uniform(0.14, 0.2), 0.86, 0.28)
    for x in (0.36, 0.58):
        wings = limb("-.05,-.03 0,0 .05,-.035", 0.004, 0.013, 0.004)
        picture.add("bird", *placed(wings, x + rng.uniform(-0.05, 0.05), rng.uniform(0.06, 0.2)))


def _boat(picture: Painting, x: float, y: float, size: float) -> None:
    hull = smooth("-.85,-.1 .95,-.14 .6,.25 -.6,.25")
    mast = limb(".05,0 .05,-1.65", 0.025, 0.018)
    sails = [
        smooth("0,-.2 -.72,-.2 0,-1.6 0,-1.6", rounds=2),
        smooth(".1,-.2 .75,-.2 .1,-1.4 .1,-1.4", rounds=2),
    ]
    boat = picture.add("boat", *placed([hull, *mast, *sails], x, y, size))
    picture.add("sail", *placed(sails, x, y, size), whole=boat)


def _portrait(picture: Painting, rng: Random) -> None:
    curls = blob(rng, 0.5, 0.42, 0.29, 0.33, rough=0.03)
    person = picture.add("person", curls)
    hair = picture.add("hair", curls, whole=person)
    picture.cover(person, *limb(".5,.6 .5,.85", 0.1, 0.11))
    shoulders = smooth("0,1.2 .08,.84 .4,.78 .5,.86 .6,.78 .92,.84 1,1.2")
    picture.add("T-shirt", shoulders, whole=person)
    face = picture.add("face", smooth(".3,.25 .7,.25 .71,.5 .6,.73 .4,.73 .29,.5"), whole=person)
    picture.cover(hair, blob(rng, 0.5, 0.22, 0.2, 0.08))
    for x in (0.4, 0.6):
        eye = placed([smooth("-.06,0 0,-.045 .06,0 0,.035", rounds=2)], x, 0.42)
        picture.add("eye", *eye, whole=face)
    picture.add("nose", smooth(".5,.4 .55,.55 .5,.575 .45,.55"), whole=face)
    smile = [(0.4, 0.63), (0.5, 0.61), (0.6, 0.63), (0.5, rng.uniform(0.66, 0.72))]
    picture.add("mouth", smooth(smile, rounds=2), whole=face)
    rims = [ring(x, 0.42, 0.088, 0.076) for x in (0.4, 0.6)]
    picture.add("glasses", *rims, *limb(".485,.41 .515,.41", 0.007, 0.007), whole=face)
    for x in (0.28, 0.72):
        picture.add("earring", ring(x, rng.uniform(0.59, 0.61), 0.035, 0.022), whole=person)


def _desk(picture: Painting, rng: Random) -> None:
    picture.add("desk", smooth("-.1,.66 1.1,.66 1.1,1.1 -.1,1.1", rounds=0))
    shade = smooth(".16,.2 .23,.17 .33,.33 .17,.38", rounds=1)
    pole = limb(".13,.78 .06,.5 .2,.27", 0.013, 0.013, 0.013)
    picture.add("lamp", shade, *pole, oval(0.13, 0.79, 0.08, 0.025))
    lid = smooth(".27,.38 .69,.38 .69,.72 .27,.72", rounds=2, cut=0.04)
    base = smooth(".27,.7 .69,.7 .76,.87 .2,.87", rounds=2, cut=0.06)
    laptop = picture.add("laptop", lid, base)
    picture.add("screen", smooth(".3,.41 .66,.41 .66,.67 .3,.67", rounds=0), whole=laptop)
    picture.add("keyboard", smooth(".3,.725 .66,.725 .7,.8 .26,.8", rounds=0), whole=laptop)
    leaves = limb("0,.15 0,0", 0.012, 0.01)
    for turn in (-1.0, -0.5, 0.05, 0.5, 1.0):
        leaf = smooth("0,0 .055,-.12 0,-.27 -.055,-.12")
        leaves += placed([leaf], 0, 0, turn=turn + rng.uniform(-0.12, 0.12))
    plant = picture.add("plant", *placed(leaves, 0.88, 0.53))
    vase = smooth(".79,.6 .97,.6 .94,.78 .82,.78", rounds=2, cut=0.08)
    picture.add("pot", vase, whole=plant)
    mug = smooth("0,.82 .14,.82 .13,.98 .01,.98", rounds=2, cut=0.1)
    cup = picture.add("cup", ring(0.155, 0.89, 0.05, 0.03), mug)
    picture.add("coffee", oval(0.07, 0.832, 0.055, 0.012), whole=cup)
    for y in (0.86, 0.905):
        cover = smooth("0,0 .3,0 .3,.04 0,.04", rounds=2, cut=0.04)
        picture.add("book", *placed([cover], rng.uniform(0.78, 0.81), y))


def _sofa(picture: Painting, rng: Random) -> None:
    picture.add("rug", oval(0.5, 0.95, 0.6, 0.13))
    picture.add("window", smooth(".3,.04 .7,.04 .7,.36 .3,.36", rounds=0))
    for x in (0.28, 0.72):
        drape = smooth("-.06,.01 .06,.01 .04,.2 .07,.4 -.07,.4 -.04,.2")
        picture.add("curtain", *placed([drape], x, 0))
    sofa = picture.add("sofa", smooth(".08,.88 .08,.5 .2,.44 .8,.44 .92,.5 .92,.88", rounds=2))
    for x, tilt in ((0.25, -0.25), (0.72, 0.2), (0.84, 0.5)):
        pillow = smooth("-.11,-.1 .11,-.1 .1,.1 -.1,.1", rounds=2)
        turn = tilt + rng.uniform(-0.1, 0.1)
        picture.add("cushion", *placed([pillow], x, 0.6, turn=turn), whole=sofa)
    _cat(picture, rng, rng.uniform(0.46, 0.5), 0.66, 0.18)


def _cat(picture: Painting, rng: Random, x: float, y: float, size: float) -> None:
    trunk = [blob(rng, 0, 0.2, 0.68, 0.72, rough=0.015), oval(-0.05, -0.7, 0.5, 0.4)]
    tail = limb(".4,.7 .95,.75 1.1,.35 .9,.05", 0.13, 0.12, 0.11, 0.09)
    cat = _animal(
        picture, "cat", trunk, {"tail": tail}, place=(x, y, size), flip=bool(rng.integers(2))
    )
    for side in (-1, 1):
        ear = smooth("-.55,-.8 -.5,-1.4 -.1,-1.02", rounds=2, cut=0.1)
        picture.add("ear", *placed([ear], x, y, size, flip=side > 0), whole=cat)
        leg = placed(limb("-.2,.4 -.25,.85", 0.13, 0.14), x, y, size, flip=side > 0)
        picture.add("paw", *leg, whole=cat)


def illusion(picture: Painting, rng: Random) -> None:
    """Kanizsa's triangle, whose edges no line draws, and rings inside rings."""
    angles = rng.uniform(0, 2 * np.pi) + np.array([0, 2, 4]) * np.pi / 3
    corners = [(0.4 + 0.26 * np.cos(angle), 0.4 + 0.26 * np.sin(angle)) for angle in angles]
    for x, y in corners:
        picture.add("circle", oval(x, y, 0.11))
    picture.add("triangle", smooth(corners, rounds=0))
    disc = picture.add("disc", oval(0.76, 0.76, 0.19))
    for radius in (0.165, 0.115, 0.065):
        picture.add("ring", ring(0.76, 0.76, radius, radius - 0.022), whole=disc)
    square = smooth("-.1,-.1 .1,-.1 .1,.1 -.1,.1", rounds=0)
    for place in ((0.96, 0.2), (0.16, 0.86)):
        picture.add("square", *placed([square], *place, turn=rng.uniform(0, 1.5)))


SCENES: tuple[tuple[Scene, str], ...] = (
    (duet, "music"),
    (_dinner, "food"),
    (_street, "traffic"),
    (_meadow, "summer"),
    (_harbour, "holiday"),
    (_portrait, "happiness"),
    (_desk, "office"),
    (_sofa, "living room"),
)
"""Scenes and, for each, a noun that is true of all of it: nothing that a mask could outline."""
