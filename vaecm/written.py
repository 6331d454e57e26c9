"""What a written value means: numbers, yes and no, times.

People write one value in many ways. A column is looked at as a whole to tell how (`cell_style`); each cell is then read
by itself (`read_cells`), so that what a row says does not hang on the rows beside it.
"""

import re
import unicodedata
from numbers import Real

import numpy as np
import pandas as pd
from pandas.api import types

NUMBER_GAPS = ("", "nan", "na", "n/a", "#n/a", "null", "none", "nil", "-", "--", "\\n", "?", "无", "暂无")
YES, NO = ("true", "t", "yes", "y", "是"), ("false", "f", "no", "n", "否")

MONEY = r"(?:us\$|r\$|[¥$€£₩₹]|cny|rmb|usd|eur|gbp|jpy|元|円|yuan)"
PLAIN = r"[-−]?(?:0|[1-9]\d{0,17})(?:\.\d+)?(?:e[+-]?\d+)?"  # 007 and 28 digits are none: such are codes
SURE = 0.9  # share of the values that makes a column one of numbers or times
UNITS = {"万": 1e4, "w": 1e4, "亿": 1e8, "k": 1e3, "%": 0.01}


def written_kind(texts: pd.Series) -> str | None:
    """What most of some distinct texts say: "flag" (yes and no), "number" (¥1,299, 12 %), "time", or None.

    Nine in ten have to; yes and no have to be all there is. What means that nothing is there (n/a, -) does not count.

    Examples
    --------
    >>> [written_kind(pd.Series(texts)) for texts in (["yes", "no"], ["¥1,299", "¥5", "n/a"], ["007", "008"])]
    ['flag', 'number', None]
    """
    texts = _folded(texts.astype(object))
    texts = texts[~texts.isin(NUMBER_GAPS)]
    if not len(texts):
        return None
    if texts.isin(YES + NO).all() and texts.str.len().max() > 1:
        return "flag"
    if texts.str.fullmatch(r"\d+").all() and texts.str.match(r"0\d").any():
        return None
    signed = texts.str.contains(rf"^[-(]?\s*{MONEY}|{MONEY}\)?$|\d\s*[%万亿]$")
    shaped = (
        signed | texts.str.fullmatch(PLAIN) | texts.str.fullmatch(r"[-−]?[1-9]\d{0,2}(?:,\d{3})+(?:\.\d+)?")
    )
    if shaped.mean() >= SURE:
        return "number" if (shaped & ~read_numbers(texts)[1]).mean() >= SURE else None
    dated = texts.str.contains(r"\d[-/.年]\s?\d|[a-z]{3}.*\d{4}")
    return "time" if dated.mean() >= SURE and (dated & read_times(texts).notna()).mean() >= SURE else None


def cell_style(values: pd.Series, kind: str) -> bool:
    """Whether a comma begins decimals ("number"), or the day stands before the month ("time"), by the whole column.

    False where nothing tells, and for other kinds.

    Examples
    --------
    >>> cell_style(pd.Series(["12,50 €", "1.299 €"]), "number"), cell_style(pd.Series(["25/03/2024"]), "time")
    (True, True)
    """
    if types.is_numeric_dtype(values.dtype) or types.is_datetime64_any_dtype(values.dtype):
        return False
    if kind == "number":
        return read_numbers(values)[2]
    parts = values.dropna().astype(str).str.extract(NUMERIC)
    return bool(kind == "time" and _day_first(parts).any())


def read_cells(values: pd.Series, kind: str, style: bool = False) -> np.ndarray:
    """Cells by a kind that was learned, each by itself: numbers, flags as 1 and 0, times in seconds since 1970.

    Parameters
    ----------
    values : Series of any type
    kind : str
        "number", "flag" or "time".
    style : bool
        What `cell_style` found where it was learned; a cell that tells its own style is read by that.

    Returns
    -------
    ndarray (n,) float64
        NaN for what is missing, or not of the kind.

    Examples
    --------
    >>> read_cells(pd.Series(["yes", "no", "maybe", True, 1.0]), "flag").tolist()
    [1.0, 0.0, nan, 1.0, 1.0]
    >>> read_cells(pd.Series(["¥1,299", "free", 5]), "number").tolist()
    [1299.0, nan, 5.0]
    """
    if types.is_complex_dtype(values.dtype):
        return np.full(len(values), np.nan)
    if kind == "time":
        return _seconds(values, style)
    if types.is_numeric_dtype(values.dtype) or types.is_bool_dtype(values.dtype):
        found = values.to_numpy(dtype=float, na_value=np.nan) if _extended(values) else values.to_numpy(float)
        return np.where(np.isfinite(found), found, np.nan)
    text, scale = _bare(values)
    shows_comma, shows_point = _shown(text)
    found = _parsed(text, (shows_comma | (style & ~shows_point)).to_numpy(bool)) * scale
    words = text.map(dict.fromkeys(YES, 1.0) | dict.fromkeys(NO, 0.0)) if kind == "flag" else found
    found = found.where(found.notna(), words).to_numpy(float)
    return np.where(np.isfinite(found), found, np.nan)


def _extended(values):
    return not isinstance(values.dtype, np.dtype | pd.SparseDtype)


def _seconds(values, day_first):
    if not types.is_datetime64_any_dtype(values.dtype):
        values = written_times(values, day_first)["utc"]
    elif not isinstance(values.dtype, np.dtype):
        values = pd.to_datetime(values.astype(object), utc=True).dt.tz_localize(None)
    return np.where(values.isna(), np.nan, values.to_numpy("datetime64[ms]").astype(np.int64) / 1_000)


# --- numbers ----------------------------------------------------------------------------------------------


def read_numbers(column: pd.Series, comma: bool | None = None) -> tuple[pd.Series, np.ndarray, bool]:
    """Numbers as people write them: ¥1,299.00, 1.299,50, 1 299,50, 3.5万, 12 %.

    Whether a comma or a point begins the decimals is decided for the column as a whole; `comma` is True where other
    columns of the file have decimal commas. Gives the numbers (NaN for what is missing or not read), the mask of
    what is there and not a number, and whether this column shows decimal commas.

    Examples
    --------
    >>> read_numbers(pd.Series(["1.299,50", "¥12,90", "n/a"]))[0].tolist()
    [1299.5, 12.9, nan]
    """
    text, scale = _bare(column)
    shows_comma, shows_point = _shown(text)
    style = bool(shows_comma.any() or (comma and not shows_point.any()))
    numbers = _parsed(text, np.full(len(text), style)) * scale
    there = text.str.len().to_numpy() > 0
    unread = (numbers.isna().to_numpy() & there) | (shows_comma.any() & shows_point).to_numpy(bool)
    return numbers.mask(unread), unread, bool(shows_comma.any())


def _folded(values):
    """Values as texts in which digits, width, case and outer spaces tell nothing."""
    texts = values.map(lambda value: plain_digits(str(value)))
    return texts.str.normalize("NFKC").str.strip().str.lower()


def _bare(column):
    """Texts without gaps, money and units, and what the units multiply."""
    text = _folded(column.astype(object).where(column.notna(), ""))
    text = text.mask(text.isin(NUMBER_GAPS), "")
    text = text.str.replace(rf"^(-?)\s*{MONEY}\s*|\s*{MONEY}$", r"\1", regex=True).str.replace(
        "−", "-", regex=False
    )
    text = text.str.replace(r"^\((.+)\)$", r"-\1", regex=True)
    text = text.str.replace(r"(?<=\d)[\s'’](?=\d{3}(?!\d))", "", regex=True)
    unit = text.str.extract(r"(?<=\d)\s*([万亿wk%])$")[0]
    scale = unit.map(UNITS).fillna(1.0).astype(float)
    return text.str.replace(r"(?<=\d)\s*[万亿wk%]$", "", regex=True), scale


def decimals(column: pd.Series) -> tuple[bool, bool]:
    """Whether some value shows a decimal comma, and whether some shows a decimal point.

    Examples
    --------
    >>> decimals(pd.Series(["1.299,50", "12"])), decimals(pd.Series(["1.299"]))
    ((True, False), (False, False))
    """
    return tuple(bool(mask.any()) for mask in _shown(_bare(column)[0]))


def _shown(text):
    """Masks of the texts that show a decimal comma, and of those that show a decimal point."""
    signs = text.str.replace(r"[^,.]", "", regex=True)
    thousands = text.str.fullmatch(r"-?[1-9]\d{0,2}(?:,\d{3})+")
    shows_comma = signs.str.fullmatch(r"\.+,") | ((signs == ",") & ~thousands) | signs.str.fullmatch(r"\.\.+")
    shows_point = signs.str.fullmatch(r",+\.") | signs.str.fullmatch(r",,+")
    shows_point |= (signs == ".") & ~text.str.fullmatch(r"-?[1-9]\d{0,2}\.\d{3}")
    return shows_comma, shows_point


def _parsed(text, comma):
    """Numbers of bare texts; a mask tells where a comma begins decimals. Other signs divide thousands (1.2.3 is none)."""
    text = text.where(~comma, text.str.translate(str.maketrans(".,", ",.")))
    sound = ~text.str.contains(",") | text.str.fullmatch(r"-?\d{1,3}(?:,\d{2,3})*,\d{3}(?:\.\d*)?")
    text = text.str.replace(",", "", regex=False)
    return pd.to_numeric(text.where(sound & (text != "")), errors="coerce").astype(float)


def plain_digits(text: str) -> str:
    """A text with the digits 0 to 9 for those of any script; half a character, which pandas cannot read, is replaced.

    Examples
    --------
    >>> plain_digits("٢٠٢٤年"), plain_digits("２０２４")
    ('2024年', '2024')
    """
    if text.isascii():
        return text
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return "".join(str(unicodedata.decimal(c)) if c.isdecimal() else c for c in text)


# --- times ------------------------------------------------------------------------------------------------

ZONE = (
    r"(?i)(?<=[:t\d]\d\d)((?:[.,]\d+)?(?:\s*[ap]m)?)\s*"
    r"(z|utc|gmt|(?:utc|gmt)?[+-]\d{1,2}(?::?\d\d)?|[a-z]+/[a-z_]+(?:/[a-z_]+)?)$"
)
NUMERIC = (
    r"(?i)^(?P<a>\d{1,4})(?P<sep>[-/.])(?P<b>\d{1,2})[-/.](?P<c>\d{1,4})"
    r"(?:[ t,]+(?P<hour>\d{1,2}):(?P<minute>\d{1,2})"
    r"(?::(?P<second>\d{1,2})(?:[.,](?P<part>\d{1,6})\d*)?)?\s*(?P<half>am|pm)?)?$"
)
MONTHS = {name: str(k) for k, name in enumerate("jan feb mar apr may jun jul aug sep oct nov dec".split(), 1)}
MONTH = rf"({'|'.join(MONTHS)})[a-z]*\.?"
REWRITE = tuple((re.compile(pattern, re.IGNORECASE), new) for pattern, new in (
    (r"^(\d{4})(\d\d)(\d\d)(?=[ T]\d)", r"\1-\2-\3"),
    (r"^(?:mon|tue|wed|thu|fri|sat|sun)[a-z]*\.?,?\s+", ""),
    (rf"^(\d{{1,2}})[ -]{MONTH}[ ,-]+(\d{{4}})", lambda m: f"{m[3]}-{MONTHS[m[2].lower()]}-{m[1]}"),
    (rf"^{MONTH} (\d{{1,2}}),? (\d{{4}})", lambda m: f"{m[3]}-{MONTHS[m[1].lower()]}-{m[2]}"),
    (r"[(]?(?:周|星期|礼拜)[一二三四五六日天][)]?", " "),
    (r"(?:上午|早上|凌晨)\s*([\d时点分秒:]+)", r" \1 am"),
    (r"(?:下午|晚上|傍晚|中午)\s*([\d时点分秒:]+)", r" \1 pm"),
    (r"(?:上午|早上|凌晨)$", "am"),
    (r"(?:下午|晚上|傍晚|中午)$", "pm"),
    (r"\s*[年月]\s*", "-"),
    (r"[日号]\s*", " "),
    (r"[时点]", ":"),
    (r"(\d)分(?=\d)", r"\1:"),
    (r"[分秒]", ""),
    (r"(?<!\d)(\d{1,2}):(?=\s|$)", r"\1:00"),
    (r"\s+", " "),
))  # fmt: skip


def read_times(column: pd.Series, day_first: bool | None = None) -> pd.Series:
    """Times that were written as text or numbers; NaT where there is none or where it is not clear.

    Read are ISO 8601, dates with the year first, dates with the year last where some value of the column tells
    the day from the month, names of months, Chinese dates such as 2024年5月13日 08:00, and seconds, milliseconds,
    micro- and nanoseconds since 1970. What has a time zone is given in UTC, and so is a count since 1970.

    Parameters
    ----------
    column : Series of str or numbers
    day_first : bool, optional
        Whether the day stands before the month where a value does not tell; None: as the column as a whole tells.

    Returns
    -------
    Series of datetime64
        In whole seconds unless some value has a part of one.

    Examples
    --------
    >>> read_times(pd.Series(["13/05/2024 08:00", "2024年5月13日 08:00", "1715587200"])).nunique()
    1
    """
    return written_times(column, day_first)["utc"]


def written_times(column: pd.Series, day_first: bool | None = None) -> pd.DataFrame:
    """As `read_times`, with what was written: `wall` (the clock that was read), `offset` (seconds, NaN for none)."""
    text = column.astype(object).where(column.notna(), None).map(_cell_text, na_action="ignore")
    zone = text.astype("string").str.extract(ZONE)[1].astype(object)
    zone = zone.where(zone.notna(), None)
    bare = text
    if zone.notna().any():
        bare = text.where(
            zone.isna(), text.astype("string").str.replace(ZONE, r"\1", regex=True).astype(object)
        )
    wall = _iso(bare)
    counted = wall.isna() & bare.notna()
    if counted.any():
        wall[counted], since_1970 = _epochs(bare[counted])
        zone[since_1970.index[since_1970]] = "utc"
    left = wall.isna() & bare.notna()
    if left.any():
        wall[left] = _worded(bare[left], day_first)
    offset = _offsets(zone, wall)
    shift = pd.to_timedelta(offset.fillna(0), unit="s").astype("timedelta64[us]")
    utc = (wall - shift).where(zone.isna() | offset.notna())
    frame = pd.DataFrame({"utc": utc, "wall": wall.where(utc.notna()), "offset": offset})
    whole = (frame["wall"].dropna() == frame["wall"].dropna().dt.floor("s")).all()
    return frame.astype({"utc": "datetime64[s]", "wall": "datetime64[s]"}) if whole else frame


def _cell_text(value):
    """A cell as text: a count in plain digits, a time of any type in ISO 8601."""
    if isinstance(value, str):
        return plain_digits(value).partition("[")[0].strip()
    if isinstance(value, Real) and abs(value) < np.inf:
        return str(int(value)) if value == int(value) else np.format_float_positional(value, trim="-")
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def _iso(text):
    """ISO 8601 with a whole date, without a zone."""
    shape = text.astype("string").str.match(r"\d{4}-\d\d-\d\d|\d{8}(?:T\d{4}|$)").fillna(False).to_numpy(bool)
    wall = pd.Series(pd.NaT, index=text.index, dtype="datetime64[us]")
    if shape.any():
        read = pd.to_datetime(text[shape], format="ISO8601", errors="coerce")
        wall[shape] = read.astype("datetime64[us]")
    return wall


def _epochs(text):
    """Seconds, milliseconds, micro- or nanoseconds since 1970, told apart by their size; YYYYMMDDhhmmss."""
    digits = text.astype("string").str.fullmatch(r"\d{5,19}(?:\.\d+)?").fillna(False).to_numpy(bool)
    wall = pd.Series(pd.NaT, index=text.index, dtype="datetime64[us]")
    for unit, scale in (("s", 1), ("ms", 1e3), ("us", 1e6), ("ns", 1e9)):
        size = pd.to_numeric(text.where(digits), errors="coerce")
        inside = (size >= 631_152_000 * scale) & (size < 4_102_444_800 * scale)
        if inside.any():
            whole = text[inside].astype(str).str.partition(".")
            read = pd.to_datetime(whole[0].astype(np.int64), unit=unit).astype("datetime64[us]")
            part = pd.to_numeric("0." + whole[2].replace("", "0")) / scale
            wall[inside] = read + pd.to_timedelta((part * 1e6).round(), unit="us").astype("timedelta64[us]")
    since_1970 = wall.notna()
    packed = text.astype("string").str.fullmatch(r"(?:19|20)\d{12}").fillna(False).to_numpy(bool)
    if packed.any():
        read = pd.to_datetime(text[packed], format="%Y%m%d%H%M%S", errors="coerce")
        wall[packed] = read.astype("datetime64[us]")
    return wall, since_1970


def _day_first(parts):
    """Mask of the dates, in parts, that show the day before the month."""
    ends_in_year = (parts["c"].str.len() == 4) & (parts["a"].str.len() <= 2)
    return ends_in_year & ((pd.to_numeric(parts["a"]) > 12) | (parts["sep"] == "."))


def _worded(text, day_first):
    """Dates whose parts have no fixed width, or stand in another order; one order for the whole column."""
    parts = text.astype(str).str.extract(NUMERIC)
    left = parts["a"].isna()
    if left.any():
        parts[left] = text[left].map(_in_numbers).str.extract(NUMERIC)
    first, second = pd.to_numeric(parts["a"]), pd.to_numeric(parts["b"])
    ahead, last = parts["a"].str.len() == 4, (parts["c"].str.len() == 4) & (parts["a"].str.len() <= 2)
    days, months = _day_first(parts), last & (second > 12)
    if day_first is None:
        last &= days.any() != months.any() or bool((first == second)[last].all())
        swap = days | bool(days.any())
    else:
        swap = days | (day_first & ~months)
    year = pd.to_numeric(parts["a"].where(ahead, parts["c"].where(last)))
    month = second.where(ahead | swap, first)
    day = pd.to_numeric(parts["c"]).where(ahead, first.where(swap, second))
    return _joined(year, month, day, parts)


def _in_numbers(text):
    """A date in words as one in numbers."""
    text = unicodedata.normalize("NFKC", str(text)).strip()
    for pattern, new in REWRITE:
        text = pattern.sub(new, text)
    return text.strip()


def _joined(year, month, day, parts):
    hour = pd.to_numeric(parts["hour"]).fillna(0)
    half = parts["half"].str.lower()
    wrong = half.notna() & ((hour > 12) & (half == "am") | (hour < 1))
    hour = (hour % 12).where(half.notna() & (hour <= 12), hour) + 12 * ((half == "pm") & (hour <= 12))
    frame = pd.DataFrame({
        "year": year, "month": month, "day": day, "hour": hour,
        "minute": pd.to_numeric(parts["minute"]).fillna(0), "second": pd.to_numeric(parts["second"]).fillna(0),
        "us": pd.to_numeric(parts["part"].str.ljust(6, "0")).fillna(0),
    })  # fmt: skip
    sound = year.between(1000, 9999) & ~wrong & (frame["hour"] < 24)
    return pd.to_datetime(frame.where(sound), errors="coerce").astype("datetime64[us]")


def _offsets(zone, wall):
    """Seconds that the written clock is ahead of UTC; NaN without a zone, and where the zone is not known."""
    offset = pd.Series(np.nan, index=zone.index)
    for name in zone.dropna().unique():
        rows = zone == name
        found = re.fullmatch(r"(?i)(?:utc|gmt)?([+-])(\d{1,2}):?(\d\d)?", name)
        if name.lower() in ("z", "utc", "gmt"):
            offset[rows] = 0.0
        elif found and int(found[2]) <= 14 and int(found[3] or 0) < 60:
            sign, hours, minutes = found.groups()
            offset[rows] = (3600 * int(hours) + 60 * int(minutes or 0)) * (-1 if sign == "-" else 1)
        else:
            try:
                local = wall[rows].dt.tz_localize(name, ambiguous="NaT", nonexistent="NaT")
            except (KeyError, ValueError, OSError):
                continue
            offset[rows] = (wall[rows] - local.dt.tz_convert("UTC").dt.tz_localize(None)).dt.total_seconds()
    return offset


def has_zone(column: pd.Series) -> np.ndarray:
    """Mask of the texts that end in a time zone: "Z", "+08:00", " UTC", "Asia/Shanghai"."""
    return column.astype("string").str.strip().str.extract(ZONE)[1].notna().to_numpy(bool)
