"""What simulated content looks, reads and sounds like: covers, titles and sound, drawn from hidden factors.

No factor stands in two of them at full strength. A cover tells the style (which small motifs are there) and
its appeal (whether a face and a text block are there, and which lies above the other); a title tells the
wording (claims, some of them turned by a negation) and only hints at the style; sound tells the energy.

Shapes: ``C`` pieces of content, ``K`` style dimensions.
"""

import numpy as np
from scipy.special import expit, ndtr

STYLE = ("ring", "weave", "stripe", "arrow")  # the motif that speaks of each style dimension
K = len(STYLE)
SIDE, CELL, GRID = 32, 8, 4
MEL_BANDS, FRAMES = 16, 24

# --- covers -------------------------------------------------------------------------------------------------


def _motif(drawing: str) -> np.ndarray:
    return np.array([[mark == "#" for mark in row] for row in drawing.split()], dtype=np.float32)


STYLE_MOTIFS = (
    _motif(".####. #....# #....# #....# #....# .####."),
    _motif("##..## ##..## ..##.. ..##.. ##..## ##..##"),
    _motif("###### ...... ###### ...... ###### ......"),
    _motif("..##.. ..##.. .####. .####. ###### ######"),
)
FACE = _motif(".######. #......# #.#..#.# #......# #......# #.####.# #..##..# .######.")
TEXT = _motif("##.###.####. ............ ###.##.###.# ............ #.####.##.##")
# Where a face (four cells) and a text block (two cells) can lie without touching: row and column of both.
LAYOUTS = np.array([
    (top, left, row, column)
    for top in range(GRID - 1) for left in range(GRID - 1) for row in range(GRID) for column in range(GRID - 1)
    if not (top <= row <= top + 1 and left - 1 <= column <= left + 1)
])  # fmt: skip
COPIES = 2  # motifs of each style dimension on a cover


def draw_covers(
    rng: np.random.Generator, style: np.ndarray, face: np.ndarray, text: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    r"""Draw covers: a ground, a face, a text block and eight small motifs, each of them real or scrambled.

    A motif of style dimension k is real with probability :math:`\sigma(2 s_k)`; a scrambled one has the same
    pixels in another order, so that counting dark pixels tells nothing. Light and texture of the ground hint
    at the first two dimensions. Places, sizes, contrast and noise are drawn at random.

    Parameters
    ----------
    rng : numpy.random.Generator
    style : array, shape (C, K)
        About standard normal.
    face, text : bool array, shape (C,)
        Whether the face and the text block are real.

    Returns
    -------
    covers : array, shape (C, 32, 32), uint8
    above : array, shape (C,)
        How far the face lies above the text block, from -1 to 1.

    Examples
    --------
    >>> covers, above = draw_covers(np.random.default_rng(0), np.zeros((2, 4)), np.ones(2, bool), np.ones(2, bool))
    >>> covers.shape, covers.dtype, above.shape
    ((2, 32, 32), dtype('uint8'), (2,))
    """
    parts = [slice(start, start + 5_000) for start in range(0, len(style), 5_000)]
    drawn = [_draw_block(rng, style[part], face[part], text[part]) for part in parts]
    return np.concatenate([cover for cover, _ in drawn]), np.concatenate([above for _, above in drawn])


def _draw_block(rng, style, face, text):
    n = len(style)
    top, left, row, column = LAYOUTS[rng.integers(len(LAYOUTS), size=n)].T
    picture, strength = _ground(rng, style)
    size = rng.integers(10, 16, size=n)
    _paste(rng, picture, _scrambled(rng, FACE, face), strength, (size, size), (top, left), (2, 2))
    height, width = rng.integers(5, 9, size=n), rng.integers(12, 17, size=n)
    _paste(rng, picture, _scrambled(rng, TEXT, text), strength, (height, width), (row, column), (1, 2))
    for k, cell in enumerate(_free_cells(rng, top, left, row, column)):
        real = rng.random(n) < expit(2 * style[:, k // COPIES])
        size = rng.integers(5, 9, size=n)
        motif = _scrambled(rng, STYLE_MOTIFS[k // COPIES], real)
        _paste(rng, picture, motif, strength, (size, size), (cell // GRID, cell % GRID), (1, 1))
    picture += 0.04 * rng.standard_normal(picture.shape, dtype=np.float32)
    return (np.clip(picture, 0.004, 1) * 255).round().astype(np.uint8), (row - top - 0.5) / 2.5


def _ground(rng, style):
    """A lit, softly textured ground, and how much darker or lighter what lies on it is."""
    n = len(style)
    y, x = np.meshgrid(*[np.linspace(-1, 1, SIDE, dtype=np.float32)] * 2, indexing="ij")

    def column(values):
        return np.asarray(values, dtype=np.float32)[:, None, None]

    light = np.clip(0.5 + 0.05 * style[:, 0] + 0.12 * rng.normal(size=n), 0.2, 0.8)
    waves = np.exp(0.25 * style[:, 1] + 0.4 * rng.normal(size=n))
    angle, phase = rng.uniform(0, np.pi, n), rng.uniform(0, 2 * np.pi, n)
    texture = np.sin(
        np.pi * column(waves) * (x * column(np.cos(angle)) + y * column(np.sin(angle))) + column(phase)
    )
    slope = 0.12 * rng.normal(size=(2, n))
    picture = column(light) + column(slope[0]) * x + column(slope[1]) * y + 0.06 * texture
    strength = 0.4 * np.where(light < 0.5, 1, -1) * np.exp(0.15 * rng.normal(size=n))
    return picture, strength.astype(np.float32)


def _scrambled(rng, motif, real):
    """(C, h, w): the motif, its pixels in random order where it is not real."""
    pixels = np.broadcast_to(motif, (len(real), *motif.shape)).reshape(len(real), -1)
    return np.where(real[:, None], pixels, rng.permuted(pixels, axis=1)).reshape(-1, *motif.shape)


def _free_cells(rng, top, left, row, column):
    """For each style motif one cell of the grid that neither face nor text block covers: (K * COPIES, C)."""
    key, index = rng.random((len(top), GRID * GRID)), np.arange(len(top))
    for down in (0, 1):
        for right in (0, 1):
            key[index, (top + down) * GRID + left + right] = 9
        key[index, row * GRID + column + down] = 9
    return np.argsort(key, axis=1)[:, : K * COPIES].T


def _paste(rng, picture, motif, strength, sizes, place, cells):
    """Scale each motif to its size and lay it somewhere in its cells."""
    (height, width), (row, column) = sizes, place
    for h, w in {*zip(height.tolist(), width.tolist(), strict=True)}:
        rows = np.flatnonzero((height == h) & (width == w))
        patch = motif[rows][:, np.arange(h) * motif.shape[1] // h][:, :, np.arange(w) * motif.shape[2] // w]
        y = row[rows] * CELL + rng.integers(0, cells[0] * CELL - h + 1, len(rows))
        x = column[rows] * CELL + rng.integers(0, cells[1] * CELL - w + 1, len(rows))
        ys, xs = y[:, None, None] + np.arange(h)[:, None], x[:, None, None] + np.arange(w)
        picture[rows[:, None, None], ys, xs] += patch * strength[rows, None, None]


# --- titles -------------------------------------------------------------------------------------------------

NOUNS = {
    "phones": "phone handset charger screen case earbuds",
    "laptops": "laptop notebook keyboard monitor dock mouse",
    "kitchen": "kettle pan knife blender oven steamer",
    "skincare": "serum cream mask sunscreen toner cleanser",
    "makeup": "lipstick palette mascara brush foundation blush",
    "shoes": "sneakers boots sandals loafers heels trainers",
    "dresses": "dress skirt blouse gown cardigan scarf",
    "outdoor": "tent backpack jacket lantern stove compass",
    "toys": "puzzle robot blocks doll kite train",
    "furniture": "chair desk sofa shelf lamp table",
    "snacks": "tea nuts biscuits chocolate noodles jerky",
    "sports": "racket ball mat dumbbell bicycle helmet",
}
NOUNS_ZH = (
    "手机 话筒 充电器 屏幕 外壳 耳机", "电脑 笔记本 键盘 显示器 扩展坞 鼠标", "水壶 平锅 菜刀 搅拌机 烤箱 蒸锅",
    "精华 面霜 面膜 防晒霜 爽肤水 洗面奶", "口红 眼影盘 睫毛膏 刷子 粉底 腮红", "球鞋 靴子 凉鞋 便鞋 高跟鞋 跑鞋",
    "连衣裙 短裙 衬衫 礼服 开衫 围巾", "帐篷 背包 夹克 提灯 炉子 指南针", "拼图 机器人 积木 娃娃 风筝 火车",
    "椅子 书桌 沙发 架子 台灯 餐桌", "茶叶 坚果 饼干 巧克力 面条 肉干", "球拍 皮球 垫子 哑铃 单车 头盔",
)  # fmt: skip
CATEGORIES = np.array(list(NOUNS))
POLES = (  # words that hint at the low and at the high end of each style dimension
    ("plain simple clean basic", "round curved ringed rolling"),
    ("smooth even sleek bare", "woven knitted checked textured"),
    ("quiet calm soft gentle", "striped lined banded graphic"),
    ("flat wide low broad", "pointed rising tall upward"),
)
POLES_ZH = (
    ("朴素 简单 干净 基础", "圆润 弧形 环形 滚动"), ("光滑 平整 流线 素面", "编织 针织 格纹 纹理"),
    ("安静 平和 柔软 温和", "条纹 线条 横纹 图案"), ("扁平 宽阔 低矮 宽大", "尖顶 上升 高挑 向上"),
)  # fmt: skip
CLAIMS = "dull useful honest costly smart weak fresh slow"
CLAIMS_ZH = "乏味 实用 诚实 昂贵 聪明 薄弱 新鲜 缓慢"
CLAIM_VALUE = np.array([-1.0, 0.9, 1.0, -0.9, 0.8, -0.8, 0.7, -0.7])
TURNS = ("truly really", "not never")  # what leaves the next claim as it is, and what turns it
TURNS_ZH = ("真正 确实", "不 绝不")
BAIT, BAIT_ZH = "secret shocking unbelievable insane", "秘密 震惊 难以置信 疯狂"
FILLERS, FILLERS_ZH = (
    "the for your with this our new and home daily",
    "这款 为你 您的 搭配 本周 我们 全新 以及 居家 日常",
)
SLOTS = 10


def write_titles(
    rng: np.random.Generator, category: np.ndarray, style: np.ndarray, language: str = "en"
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Write titles whose claims count, and are turned by a negation before them.

    "not dull" is good, "not useful" is bad, and neither word tells anything alone. Nouns tell the category,
    adjectives hint at the style.

    Parameters
    ----------
    rng : numpy.random.Generator
    category : int array, shape (C,)
    style : array, shape (C, K)
    language : str
        "en", or "zh" for Chinese without spaces.

    Returns
    -------
    titles : list of str
    wording : array, shape (C,)
        Sum of the claims' values, each with its sign.
    bait : array, shape (C,)
        1 where the title opens with bait.

    Examples
    --------
    >>> titles, wording, bait = write_titles(np.random.default_rng(3), np.zeros(2, int), np.zeros((2, 4)))
    >>> len(titles), wording.shape
    (2, (2,))
    """
    nouns, poles, claims, turns, baits, fillers, space = _words(language)
    n = len(category)
    words = np.full((n, SLOTS), "", dtype="<U14")
    kind = rng.choice(3, size=(n, SLOTS), p=[0.3, 0.35, 0.35])
    dim = rng.integers(K, size=(n, SLOTS))
    pole = (rng.random((n, SLOTS)) < expit(0.8 * np.take_along_axis(style, dim, axis=1))).astype(int)
    sources = (
        nouns[category[:, None], rng.integers(6, size=(n, SLOTS))],
        poles[dim, pole, rng.integers(4, size=(n, SLOTS))],
        fillers[rng.integers(len(fillers), size=(n, SLOTS))],
    )
    for index, source in enumerate(sources):
        words = np.where(kind == index, source, words)
    words[np.arange(SLOTS) >= rng.integers(5, SLOTS + 1, size=n)[:, None]] = ""
    wording = np.zeros(n)
    for place, chance in ((1, 0.85), (4, 0.6), (7, 0.35)):
        claim, turn, word = rng.integers(8, size=n), rng.integers(2, size=n), rng.integers(2, size=n)
        used = rng.random(n) < chance
        words[used, place], words[used, place + 1] = turns[turn, word][used], claims[claim[used]]
        wording += used * np.where(turn == 1, -1, 1) * CLAIM_VALUE[claim]
    bait = rng.random(n) < 0.15
    words[bait, 0] = baits[rng.integers(4, size=bait.sum())]
    return [space.join(word for word in row if word) for row in words], wording, bait.astype(float)


def _words(language):
    if language == "zh":
        parts = (NOUNS_ZH, POLES_ZH, CLAIMS_ZH, TURNS_ZH, BAIT_ZH, FILLERS_ZH, "")
    else:
        parts = (tuple(NOUNS.values()), POLES, CLAIMS, TURNS, BAIT, FILLERS, " ")
    nouns, poles, claims, turns, baits, fillers, space = parts
    return (
        np.array([row.split() for row in nouns]), np.array([[end.split() for end in pair] for pair in poles]),
        np.array(claims.split()), np.array([row.split() for row in turns]), np.array(baits.split()),
        np.array(fillers.split()), space,
    )  # fmt: skip


# --- sound --------------------------------------------------------------------------------------------------


def draw_sound(rng: np.random.Generator, energy: np.ndarray) -> np.ndarray:
    """Draw mel spectrograms: a tone with a beat whose tempo and depth tell the energy; pitch, start and noise do not.

    Parameters
    ----------
    rng : numpy.random.Generator
    energy : array, shape (C,)
        Standard normal.

    Returns
    -------
    array, shape (C, 16, 24), uint8
        Mel bands by frames.

    Examples
    --------
    >>> draw_sound(np.random.default_rng(0), np.zeros(2)).shape
    (2, 16, 24)
    """
    n, squashed = len(energy), ndtr(energy)
    frames, bands = np.arange(FRAMES, dtype=np.float32), np.arange(MEL_BANDS, dtype=np.float32)[:, None]

    def column(values):
        return np.asarray(values, dtype=np.float32)[:, None, None]

    tempo = column(0.05 + 0.25 * squashed + 0.02 * rng.normal(size=n))
    beat = 0.5 + 0.5 * np.cos(2 * np.pi * tempo * (frames + column(rng.uniform(0, 20, n))))
    tone = np.exp(-0.5 * ((bands - column(rng.uniform(3, 13, n))) / column(rng.uniform(1, 3, n))) ** 2)
    sound = tone * (1 - column(0.3 + 0.5 * squashed) * beat) * column(rng.uniform(0.5, 0.9, n))
    sound = sound + 0.08 * np.abs(rng.standard_normal((n, MEL_BANDS, FRAMES), dtype=np.float32))
    return (np.clip(sound, 0.004, 1) * 255).round().astype(np.uint8)
