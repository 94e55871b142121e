"""Known data sets of images and masks: names of their classes, what the values in their masks mean, where files lie."""

from dataclasses import dataclass

from sequencer2d.data import mask_layouts
from sequencer2d.data.labels import LabelRules
from sequencer2d.data.mask_layouts import Layout


@dataclass(frozen=True)
class MaskSet:
    """A known data set: names of its classes in the order of their numbers, its label rules, its layout."""

    class_names: tuple[str, ...]
    rules: LabelRules
    layout: Layout = mask_layouts.plain


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(","))


_CAMVID = _names("Sky, Building, Pole, Road, Pavement, Tree, SignSymbol, Fence, Car, Pedestrian, Bicyclist")
_CITYSCAPES = _names(
    """road, sidewalk, building, wall, fence, pole, traffic light, traffic sign, vegetation, terrain, sky, person,
    rider, car, truck, bus, train, motorcycle, bicycle"""
)
_CITYSCAPES_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
_VOC = _names(
    """background, aeroplane, bicycle, bird, boat, bottle, bus, car, cat, chair, cow, diningtable, dog, horse,
    motorbike, person, pottedplant, sheep, sofa, train, tvmonitor"""
)
_ADE20K = _names(
    """wall, building, sky, floor, tree, ceiling, road, bed, windowpane, grass, cabinet, sidewalk, person, earth, door,
    table, mountain, plant, curtain, chair, car, water, painting, sofa, shelf, house, sea, mirror, rug, field,
    armchair, seat, fence, desk, rock, wardrobe, lamp, bathtub, railing, cushion, base, box, column, signboard,
    chest of drawers, counter, sand, sink, skyscraper, fireplace, refrigerator, grandstand, path, stairs, runway,
    case, pool table, pillow, screen door, stairway, river, bridge, bookcase, blind, coffee table, toilet, flower,
    book, hill, bench, countertop, stove, palm, kitchen island, computer, swivel chair, boat, bar, arcade machine,
    hovel, bus, towel, light, truck, tower, chandelier, awning, streetlight, booth, television receiver, airplane,
    dirt track, apparel, pole, land, bannister, escalator, ottoman, bottle, buffet, poster, stage, van, ship,
    fountain, conveyer belt, canopy, washer, plaything, swimming pool, stool, barrel, basket, waterfall, tent, bag,
    minibike, cradle, oven, ball, food, step, tank, trade name, microwave, pot, animal, bicycle, lake, dishwasher,
    screen, blanket, sculpture, hood, sconce, vase, traffic light, tray, ashcan, fan, pier, crt screen, plate,
    monitor, bulletin board, shower, radiator, glass, clock, flag"""
)
MASK_SETS: dict[str, MaskSet] = {
    "camvid": MaskSet(_CAMVID, LabelRules(11, ignored=(11,))),
    "ade20k": MaskSet(_ADE20K, LabelRules(150, ignored=(), reduce_zero=True), mask_layouts.ade20k),
    "cityscapes": MaskSet(
        _CITYSCAPES,
        LabelRules(19, tuple(set(range(34)) - set(_CITYSCAPES_IDS)) + (255,), values=_CITYSCAPES_IDS),
        mask_layouts.cityscapes,
    ),
    "cityscapes_train_ids": MaskSet(_CITYSCAPES, LabelRules(19), mask_layouts.cityscapes_train_ids),
    "voc": MaskSet(_VOC, LabelRules(21), mask_layouts.voc),
}
"""CamVid: what SegNet's split calls void has the value 11. ADE20K: 0 is everything else. Cityscapes: the 19 ids that
are scored, or the numbers that its scripts make of them. VOC: 0 is the background, a class; 255 the rim of objects."""
