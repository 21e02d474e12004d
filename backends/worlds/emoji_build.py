"""Build the sprite sheet and concept list of the emoji world from its packages.

    python -m backends.worlds.emoji_build      # needs npm; writes assets/worlds/emoji/

Sources: Fluent 3D emoji (MIT) for the pictures, emojibase-data (MIT) for names and tags. The result
(a WebP sheet and a JSON list) is committed, so the studio itself never runs this.
"""

import json
import subprocess
import tarfile
import tempfile
from pathlib import Path

from PIL import Image

PACKAGES = ("@lobehub/fluent-emoji-3d@1.1.0", "emojibase-data@17.0.0")
OUT = Path(__file__).resolve().parents[2] / "assets" / "worlds" / "emoji"
SPRITE = 112  # px; the longest side of a trimmed sprite
COLUMNS = 32
GROUPS = {0: "face", 3: "animal", 4: "food", 5: "travel", 6: "activity", 7: "object"}

# Labels that nobody would type, replaced by the everyday word.
RENAME = {
    "honeybee": "bee", "lady beetle": "ladybug", "automobile": "car", "hot beverage": "cup of coffee",
    "ear of corn": "corn cob", "cheese wedge": "piece of cheese", "wrapped gift": "gift box",
    "soft ice cream": "ice cream cone", "ice cream": "bowl of ice cream", "american football": "football",
    "pool 8 ball": "billiard ball", "T-Rex": "dinosaur",
    "sauropod": "long-necked dinosaur", "ewe": "sheep", "chicken": "hen", "bouquet": "bouquet of flowers",
    "closed book": "red book", "hourglass done": "hourglass", "hamburger": "burger",
    "doughnut": "donut", "cut of meat": "steak", "meat on bone": "meat on a bone",
    "flying saucer": "ufo", "passenger ship": "cruise ship", "locomotive": "steam train",
    "evergreen tree": "pine tree", "deciduous tree": "tree", "wine glass": "glass of wine",
    "french fries": "fries", "pile of poo": "poo", "tear-off calendar": "calendar page",
    "high voltage": "lightning bolt", "ringed planet": "planet",
}  # fmt: skip

# The 200 everyday concepts that make up most of the world's scenes and that the model's bars name.
COMMON = """
dog face; dog; cat face; cat; black cat; lion; tiger face; horse; unicorn; zebra; cow;
pig; pig face; sheep; giraffe; elephant; mouse face; rabbit; rabbit face; chipmunk;
hedgehog; bat; bear; polar bear; koala; panda; fox; wolf; 
monkey; monkey face; hen; rooster; baby chick; bird; penguin; owl; duck; swan; flamingo; parrot;
frog; crocodile; turtle; snake; dinosaur; whale; dolphin; fish; tropical fish; shark; octopus; crab;
lobster; snail; butterfly; bee; ladybug; spider; rose; sunflower; tulip; cactus; palm tree;
pine tree; tree; potted plant; mushroom; four leaf clover; maple leaf; bouquet of flowers;
grapes; watermelon; lemon; banana; pineapple; red apple; green apple; pear; peach; cherries;
strawberry; kiwi fruit; tomato; coconut; avocado; eggplant; carrot; corn cob; hot pepper; broccoli; bread;
croissant; pancakes; piece of cheese; burger; fries; pizza; hot dog; egg; popcorn; sushi;
ice cream cone; donut; birthday cake; cupcake; chocolate bar; lollipop; honey pot;
glass of milk; cup of coffee; teapot; glass of wine; beer mug; 
house; castle; tent; ferris wheel; steam train; bus; police car; taxi; car; tractor;
racing car; motorcycle; bicycle; skateboard; sailboat; cruise ship; airplane; helicopter; rocket; ufo;
volcano; alarm clock; hourglass; sun; full moon face; planet; star; cloud; rainbow; umbrella; snowman;
fire; droplet; lightning bolt; jack-o-lantern; Christmas tree; balloon; gift box; trophy;
soccer ball; basketball; tennis; kite; teddy bear; magic wand; game die; 
glasses; t-shirt; jeans; dress; backpack; crown; top hat; ring; gem stone; bell; guitar; 
drum; mobile phone; laptop; television; camera; light bulb; candle; red book; books; money bag; pencil;
scissors; key; hammer; axe; bomb; chair; 
ghost; alien; robot; skull; clown face; red heart; grinning face; crying face; enraged face;
smiling face with sunglasses; sleeping face; cowboy hat face; poo
"""

# Left out: words or clock faces drawn in the picture, near-twins, and what a small studio need not show.
EXCLUDE_WORDS = (
    "o’clock", "thirty", "globe with", "map of Japan", "speech", "bubble", "chart", "cigarette", "coffin",
    "hundred points", "anger symbol", "ZZZ", "dashing", "hole", "banknote", "bookmark tabs", "love hotel",
    "briefs", "pill", "syringe", "drop of blood", "x-ray", "funeral", "incoming", "outbox", "inbox",
    "joker", "mahjong", "flower playing", "page ", "identification", "placard", "love letter", "suit",
    "foggy", "fog", "sunrise", "sunset", "cityscape", "night", "milky way", "stadium", "bell with slash",
    "speaker low", "speaker medium", "muted", "with arrow", "lowered flag", "locked with", "low battery",
    "linked", "level slider", "control knobs", "umbrella on ground", "water wave", "wedding", "desert",
    "park", "railway track", "motorway", "symbols on mouth", "Japanese post", "office", "bank", "convenience",
    "facing", "not done", "wind face", "dotted line", "face without mouth", "rosette", "label", "ledger",
)  # fmt: skip


def download(folder: Path) -> None:
    for package in PACKAGES:
        name = subprocess.run(["npm", "pack", "--silent", package], cwd=folder, check=True,
                              capture_output=True, text=True).stdout.split()[-1]  # fmt: skip
        with tarfile.open(folder / name) as tar:
            tar.extractall(folder / package.split("@")[-2].replace("/", "-"), filter="data")


def sprite(path: Path) -> Image.Image:
    """Trim the transparent margin and fit the picture into a SPRITE px square."""
    image = Image.open(path).convert("RGBA")
    box = image.getchannel("A").point(lambda a: 255 * (a > 8)).getbbox()
    image = image.crop(box)
    scale = SPRITE / max(image.size)
    image = image.resize([max(1, round(side * scale)) for side in image.size], Image.LANCZOS)
    square = Image.new("RGBA", (SPRITE, SPRITE))
    square.paste(image, ((SPRITE - image.width) // 2, (SPRITE - image.height) // 2))
    return square


def main() -> None:
    with tempfile.TemporaryDirectory() as tmp:
        folder = Path(tmp)
        download(folder)
        pictures = {p.stem: p for p in (folder / "lobehub-fluent-emoji-3d/package/assets").glob("*.webp")}
        data = json.loads((folder / "emojibase-data/package/en/data.json").read_text())
        common = {name.strip() for name in COMMON.replace("\n", " ").split(";")}
        concepts, sprites, names = [], [], set()
        for entry in sorted(data, key=lambda e: e.get("order", 0)):
            group, label = GROUPS.get(entry.get("group")), entry["label"]
            if group is None or any(word in label for word in EXCLUDE_WORDS):
                continue
            code = entry["hexcode"].lower()
            path = next((pictures[c] for c in (code, code + "-fe0f", code.replace("-fe0f", "")) if c in pictures), None)
            name = RENAME.get(label, label)
            if path is None or name in names:
                continue
            names.add(name)
            concepts.append({"name": name, "group": group, "common": name in common,
                             "tags": [t for t in entry.get("tags", []) if t not in name.split()]})  # fmt: skip
            sprites.append(sprite(path))
        # A tag that several concepts carry names none of them: keep the distinctive ones.
        carriers: dict[str, int] = {}
        for concept in concepts:
            for tag in concept["tags"]:
                carriers[tag] = carriers.get(tag, 0) + 1
        for concept in concepts:
            concept["tags"] = [t for t in concept["tags"] if carriers[t] == 1 and t not in names and t.isalpha()
                               and concept["group"] != "face" and not t.endswith("s")]  # fmt: skip
        rows = -(-len(sprites) // COLUMNS)
        sheet = Image.new("RGBA", (COLUMNS * SPRITE, rows * SPRITE))
        for i, picture in enumerate(sprites):
            sheet.paste(picture, ((i % COLUMNS) * SPRITE, (i // COLUMNS) * SPRITE))
        OUT.mkdir(parents=True, exist_ok=True)
        sheet.save(OUT / "sprites.webp", quality=88, alpha_quality=95, method=6)
        (OUT / "concepts.json").write_text("[\n" + ",\n".join(json.dumps(c, ensure_ascii=False) for c in concepts) + "\n]\n")
        missing = common - names
        print(f"{len(concepts)} concepts, {sum(c['common'] for c in concepts)} common, missing: {missing}")


if __name__ == "__main__":
    main()
