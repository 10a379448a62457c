"""What people call the things that analyzers label: synonyms, kinds of things, and what has no name of its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Final

from edi_storage.models import EntityData

#: Labels of living things, of what moves people, and of what one eats, by the names of COCO-80.
ANIMALS: Final = ("dog", "cat", "bird", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe")
VEHICLES: Final = ("car", "truck", "bus", "motorcycle", "bicycle", "train", "airplane", "boat")
FOOD: Final = ("banana", "apple", "sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake")
_DISHES: Final = ("cup", "bowl", "wine glass", "bottle", "fork", "knife", "spoon")

#: Label: the words for one of them, and those for several. What cannot be counted stands in the second list.
_ONE_AND_MANY: Final[Mapping[str, tuple[str, str]]] = {
    "sky": ("", "sky|skies|cloud|clouds|heaven|heavens"),
    "vegetation": (
        "",
        "vegetation|tree|trees|grass|lawn|plant|plants|leaf|leaves|foliage|forest|wood|woods|bush|bushes|greenery|"
        "garden|meadow|meadows|field|fields|hedge|hedges|jungle|nature|pasture|park|turf|treetops|branches|ivy|palms",
    ),
    "water": (
        "",
        "water|sea|ocean|lake|river|pond|wave|waves|stream|pool|bay|waters|surf|creek|canal|fountain|waterfall|puddle",
    ),
    "ground": (
        "",
        "ground|floor|sand|beach|road|roads|street|streets|pavement|sidewalk|path|asphalt|tarmac|soil|dirt|earth|shore|"
        "foreground ground|pathway|driveway|cobblestones|gravel|square|lane",
    ),
    "building": (
        "building|house|temple|palace|church|tower|castle|cathedral|pagoda|skyscraper|hotel|bridge|monument|barn|"
        "cottage|cabin|hut|shop|mosque|lighthouse|shed|villa|mansion|home|farmhouse",
        "buildings|houses|temples|towers|architecture|structure|structures|roof|roofs|rooftops|facade|facades|city|"
        "skyline|skyscrapers|town|village|walls of the palace|walls of the house|walls of the building|brickwork",
    ),
    "person": (
        "person|man|woman|girl|boy|child|kid|guy|lady|baby|toddler|bride|groom|model|dude|gentleman|pedestrian|"
        "tourist|stranger|wife|husband|son|daughter|mom|mum|mother|dad|father|friend|brother|sister|ex|girlfriend|"
        "boyfriend|grandma|grandmother|grandpa|grandfather|grandad|uncle|aunt|cousin|boss|player|runner|cyclist|"
        "surfer|teenager|human|photobomber|passerby",
        "people|persons|men|women|girls|boys|children|kids|guys|ladies|babies|couple|everyone|everybody|family|group|"
        "crowd|friends|pedestrians|tourists|strangers|humans|parents|brothers|sisters|folks|team|players|bridesmaids|"
        "passersby|photobombers|skin|skin tone|skin tones",
    ),
    "face": ("face", "faces"),
    "dog": ("dog|puppy|pup|doggy|doggie|hound|doggo", "dogs|puppies|pups"),
    "cat": ("cat|kitty|kitten|kittie|tomcat", "cats|kittens|kitties"),
    "bird": (
        "bird|seagull|gull|pigeon|duck|swan|eagle|parrot|owl|sparrow|chicken|goose|crow",
        "birds|seagulls|gulls|pigeons|ducks|swans|eagles|parrots|owls|sparrows|chickens|geese|crows",
    ),
    "horse": ("horse|pony|foal|mare|stallion", "horses|ponies|foals"),
    "sheep": ("lamb|ram|ewe", "sheep|lambs"),
    "cow": ("cow|bull|calf|ox", "cows|cattle|bulls|calves"),
    "car": (
        "car|automobile|sedan|taxi|cab|convertible|sports car|suv|jeep",
        "cars|automobiles|taxis|cabs",
    ),
    "truck": ("truck|lorry|van|pickup", "trucks|lorries|vans"),
    "bus": ("bus|coach|minibus", "buses|coaches"),
    "motorcycle": ("motorcycle|motorbike|scooter|moped", "motorcycles|motorbikes|scooters"),
    "bicycle": ("bicycle|bike|cycle|pushbike", "bicycles|bikes"),
    "airplane": ("airplane|aeroplane|plane|jet|aircraft", "airplanes|aeroplanes|planes|jets"),
    "train": ("train|tram|locomotive", "trains|trams"),
    "boat": (
        "boat|ship|yacht|sailboat|ferry|canoe|kayak|vessel|dinghy|rowboat",
        "boats|ships|yachts|sailboats|ferries|canoes|kayaks",
    ),
    "traffic light": ("traffic light|stop light|stoplight|traffic signal", "traffic lights|stop lights|stoplights"),
    "couch": ("couch|sofa|settee", "couches|sofas"),
    "chair": ("chair|armchair|stool|seat", "chairs|armchairs|stools|seats"),
    "bench": ("bench", "benches"),
    "bed": ("bed", "beds"),
    "dining table": ("dining table|table|desk|tabletop|table top", "tables|desks"),
    "potted plant": ("potted plant|houseplant|pot plant", "potted plants|houseplants"),
    "cup": ("cup|mug|teacup|coffee cup", "cups|mugs"),
    "bowl": ("bowl|salad bowl", "bowls"),
    "wine glass": ("wine glass|glass", "wine glasses|glasses"),
    "bottle": ("bottle", "bottles"),
    "cake": ("cake|birthday cake|pie|tart", "cakes|cupcakes|pies"),
    "pizza": ("pizza", "pizzas"),
    "tv": ("tv|television|screen|monitor", "tvs|screens|monitors"),
    "laptop": ("laptop|notebook|computer", "laptops|computers"),
    "cell phone": ("cell phone|phone|mobile|smartphone|mobile phone", "phones|smartphones"),
    "umbrella": ("umbrella|parasol", "umbrellas|parasols"),
    "backpack": ("backpack|rucksack", "backpacks"),
    "handbag": ("handbag|bag|purse", "handbags|bags"),
    "sports ball": ("sports ball|ball|football|basketball", "balls"),
    "teddy bear": ("teddy bear|teddy|stuffed animal|plush", "teddy bears|teddies"),
    "book": ("book", "books"),
    "clock": ("clock", "clocks"),
    "vase": ("vase", "vases"),
}
#: Words for a kind of thing, for one and for several, and its labels, the likelier ones first.
_KINDS: Final[tuple[tuple[str, str, tuple[str, ...]], ...]] = (
    ("animal|pet|creature|beast|critter", "animals|pets|creatures|beasts", ANIMALS),
    ("vehicle|motor", "vehicles|traffic", VEHICLES[:5]),
    ("he|she|him|her|himself|herself|me|myself|i", "us|we|ourselves", ("person",)),
    ("", "food|meal|dish of food|dessert|snack|fruit|breakfast|lunch|dinner", FOOD),
    ("", "dishes|tableware|crockery|cutlery", _DISHES),
    ("", "furniture", ("couch", "chair", "bed", "dining table", "bench")),
)
#: Where a word's own label is missing, the next best one: a field may be called ground, a street lamp nothing at all.
_ELSE: Final[Mapping[str, tuple[str, ...]]] = {
    "he": ANIMALS,
    "she": ANIMALS,
    "him": ANIMALS,
    "her": ANIMALS,
    "field": ("ground",),
    "fields": ("ground",),
    "garden": ("ground",),
    "square": ("building",),
    "beach": ("water",),
    "plant": ("potted plant",),
    "plants": ("potted plant",),
    "face": ("person",),
    "faces": ("person",),
    "van": ("car", "bus"),
    "bike": ("motorcycle",),
    "taxi": ("truck",),
    "glass": ("cup", "bottle"),
    "bag": ("backpack", "suitcase"),
}
#: COCO-80 names that stand for themselves.
_PLAIN: Final = (
    "fire hydrant|stop sign|parking meter|elephant|bear|zebra|giraffe|tie|suitcase|frisbee|skis|snowboard|kite|"
    "baseball bat|baseball glove|skateboard|surfboard|tennis racket|fork|knife|spoon|banana|apple|sandwich|broccoli|"
    "carrot|hot dog|donut|toilet|mouse|remote|keyboard|microwave|oven|toaster|sink|refrigerator|scissors|hair drier|"
    "toothbrush|subject"
)
#: What is most of a thing, and no entity of its own: "the dog's fur" is about the dog, its collar is not.
PARTS: Final = (
    "fur|coat|mane|feathers|body|skin|walls|facade|paintwork|bodywork|paint|colour|color|colours|colors|tones|tone|"
    "surface|side|edges|shape|look"
)


#: What belongs to a thing that has a label: where it is asked for, its owner is the likeliest guess.
OWNERS: Final[Mapping[str, tuple[str, ...]]] = {
    # Clothes and what a face has.
    "shirt|dress|jacket|hat|hair|eyes|eye|teeth|lips|trousers|pants|jeans|shoes|suit|skirt|sweater|jumper|scarf": (
        "person",
    ),
    "hands|arms|legs|nose|glasses|beard|uniform|clothes|clothing|outfit|veil|gown|shorts|hoodie|cap|sunglasses|tee": (
        "person",
    ),
    "door|doors|window|windows|roof|wall|walls|balcony|chimney|porch|gate|bricks|columns|stairs": ("building",),
    "wheel|wheels|tyres|tires|bonnet|hood|windscreen|windshield|headlights|bumper|number plate|license plate": VEHICLES,
    "collar|leash|lead|paws|paw|tail|ears|saddle|wings|beak": ANIMALS,
    "sun|moon|stars|star": ("sky",),
    "reflection|reflections|ripples|foam": ("water",),
    "flower|flowers|rose|roses|tulip|tulips|blossoms|petals": ("vegetation", "potted plant", "vase"),
    "mountain|mountains|hill|hills|rock|rocks|cliff|cliffs|peak": ("vegetation", "ground"),
}


@dataclass(frozen=True)
class Noun:
    """What a word may mean: all of these labels, or, where there are none of them, the first of the others."""

    labels: tuple[str, ...]
    otherwise: tuple[str, ...] = ()
    #: It means several things, or what cannot be counted.
    plural: bool = False


@cache
def nouns() -> Mapping[str, Noun]:
    """Every word and phrase for a thing."""
    found: dict[str, Noun] = {}
    rows: list[tuple[tuple[str, ...], str, str]] = [
        ((label,), one, many) for label, (one, many) in _ONE_AND_MANY.items()
    ]
    rows += [(labels, one, many) for one, many, labels in _KINDS]
    for labels, one, many in rows:
        for words, plural in ((one, False), (many, True)):
            found |= {word: Noun(labels, _ELSE.get(word, ()), plural) for word in words.split("|") if word}
    for label in _PLAIN.split("|"):
        found[label] = Noun((label,))
        found.setdefault(label if label.endswith("s") else f"{label}s", Noun((label,), plural=True))
    return found


def names_of(entities: Iterable[EntityData]) -> dict[str, str]:
    """What to call each entity, by its id: its label, with a number where several have the same."""
    listed = list(entities)
    alike = Counter(entity.label for entity in listed)
    seen: Counter[str] = Counter()
    names = {}
    for entity in sorted(listed, key=lambda entity: entity.entity_id):
        seen[entity.label] += 1
        names[entity.entity_id] = f"{entity.label} {seen[entity.label]}" if alike[entity.label] > 1 else entity.label
    return names
