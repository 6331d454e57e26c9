"""Laws of the features: learned from training alone, named, honest about gaps, and the same for every spelling."""

import json
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest
from fits import parts
from logs import small_log
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer

from vaecm.features import (
    Features,
    TableEncoder,
    Tokens,
    Topics,
    _distinct,
    joined,
    known_contents,
    moments,
    title_terms,
    tokenize,
)
from vaecm.items import ItemEmbeddings
from vaecm.market import MarketError
from vaecm.schema import column_kinds

MANY = list(range(4)) * 10


@pytest.fixture(scope="module")
def features():
    return Features.learn(*parts()[:2])


@pytest.fixture(scope="module")
def test_part():
    return parts()[2]


# --- words


def test_words_of_a_title():
    words = tokenize("It's 3 New_Lamps: RICE-cooker, café! ＬＥＤ")
    assert words == ["it's", "3", "new", "lamps", "rice-cooker", "café", "led"]
    assert tokenize("") == tokenize(None) == tokenize(np.nan) == tokenize("!?") == tokenize(7) == []


def test_chinese_is_read_by_characters_and_pairs():
    assert tokenize("柔光台灯") == ["柔", "柔光", "光", "光台", "台", "台灯", "灯"]
    assert tokenize("灯 LED灯") == ["灯", "led", "灯"]
    tokens = Tokens.learn(["柔光台灯", "便宜台灯", "静音风扇", "柔光风扇"], length=9)
    a, b, c = tokens.encode(["明亮台灯", "台灯", "风扇"])
    assert len(set(a[a > 1]) & set(b[b > 1])) == 3  # 台, 台灯, 灯
    assert not set(b[b > 1]) & set(c[c > 1])


def test_words_are_coded_by_frequency_whatever_their_order():
    texts = ["calm lamp", "bold lamp", "bold sofa lamp", "sofa", "once"]
    tokens = Tokens.learn(texts, length=4)
    assert tokens.words == Tokens.learn(texts[::-1], length=4).words == ["lamp", "bold", "sofa"]
    assert len(tokens) == 5
    found = tokens.encode(["LAMP once bold sofa sofa", "", None])
    assert found.tolist() == [[2, 1, 3, 4], [0] * 4, [0] * 4]
    assert found.dtype == np.int32


def test_topics_are_those_of_tfidf_and_svd():
    texts = ["not calm tea", "calm lamp", "bold tea 红灯", "bold lamp 红灯"] * 5
    weights = TfidfVectorizer(analyzer=title_terms, min_df=3, sublinear_tf=True)
    svd = TruncatedSVD(3, random_state=0).fit(found := weights.fit_transform(texts))
    topics = Topics.learn(texts, n=3)
    np.testing.assert_allclose(topics.encode(texts), svd.transform(found), atol=1e-6)
    again = Topics(*(np.array(part) for part in (topics.terms, topics.idf, topics.axes)))
    np.testing.assert_array_equal(again.encode(texts), topics.encode(texts))
    assert not topics.encode(["", "unheard-of"]).any()
    assert Topics.learn(["a b", "c d"]) is None


def test_a_summary_holds_topics_and_own_vectors_and_zeros_for_gaps():
    n = len(parts()[0].contents)
    clip = np.random.default_rng(0).normal(size=(n, 30)) @ np.diag(np.arange(30) + 1.0)
    clip[3] = np.nan
    train = replace(parts()[0], vectors={"clip": clip})
    learned = Features.learn(train)
    rows = np.array([3, 5])
    found = learned.summary(train, rows)
    topics = sum(len(part.axes) for part in learned.topics.values())
    assert found.shape == (2, topics + 24)
    assert not found[0, topics:].any()
    assert found[1, topics:].any()
    gone = replace(train, vectors=None, contents=train.contents.assign(title=None))
    assert not learned.summary(gone, rows).any()
    again = Features.from_state(*learned.to_state())
    np.testing.assert_array_equal(again.summary(train, rows), found)
    np.testing.assert_array_equal(learned.summary(train, rows[1:]), found[1:])


# --- one table


def test_gaps_stay_gaps_and_unknown_classes_are_no_class():
    frame = pd.DataFrame({"price": [1.0, np.nan, 3.0, 4.0] * 10, "tier": ["a", "b", None, "a"] * 10})
    encoder = TableEncoder.learn("content", frame, {"price": "number", "tier": "class"})
    assert encoder.names == ["content_price", "content_tier=a", "content_tier=b"]
    found = encoder.encode(pd.DataFrame({"price": [np.nan, np.inf, 2.0], "tier": ["z", None, "b"]}))
    assert np.isnan(found[:2, 0]).all()
    assert found[:, 1:].tolist() == [[0, 0], [0, 0], [0, 1]]
    assert found[2, 0] == 2
    without = encoder.encode(pd.DataFrame(index=range(2)))
    assert np.isnan(without[:, 0]).all()
    assert (without[:, 1:] == 0).all()


@pytest.mark.parametrize("values", [
    pd.Series([1.0, np.nan, 3.0]), pd.Series(["1", None, "3"]), pd.Series(["1.0", None, " 3 "]),
    pd.array([1, None, 3], dtype="Int64"), pd.Categorical([1, None, 3]), pd.Series([1, None, 3], dtype=object),
])  # fmt: skip
def test_class_numbers_are_the_same_in_every_type(values):
    encoder = TableEncoder.learn("user", pd.DataFrame({"tier": MANY}), {"tier": "class"})
    found = encoder.encode(pd.DataFrame({"tier": values}))
    assert found.tolist() == [[0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1]]


def test_spelling_is_matched_to_that_of_training():
    frame = pd.DataFrame({"device": ["iOS", "web", "Café"] * 10})
    encoder = TableEncoder.learn("user", frame, {"device": "class"})
    one = encoder.encode(pd.DataFrame({"device": ["ios", " WEB ", "cafe\u0301"]}))
    np.testing.assert_array_equal(one, encoder.encode(frame[:3]))
    assert one.sum(axis=1).tolist() == [1, 1, 1]


@pytest.mark.parametrize("values", [
    pd.Series([1.5, None]), pd.Series(["1.5", "x"]), pd.array([1.5, None], dtype="Float64"),
])  # fmt: skip
def test_numbers_are_the_same_in_every_type(values):
    encoder = TableEncoder.learn("content", pd.DataFrame({"price": [1.0, 2, 3]}), {"price": "number"})
    np.testing.assert_array_equal(encoder.encode(pd.DataFrame({"price": values})), [[1.5], [np.nan]])


def test_heavy_tails_are_logarithms_and_keep_their_sign():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"views": np.exp(rng.normal(3, 2, 500)), "length": rng.normal(50, 10, 500)})
    encoder = TableEncoder.learn("content", frame, dict.fromkeys(frame, "number"))
    assert encoder.numbers == {"views": True, "length": False}
    found = encoder.encode(pd.DataFrame({"views": [99.0, -99.0], "length": [99.0, -99.0]}))
    np.testing.assert_allclose(found, [[np.log(100), 99], [-np.log(100), -99]], rtol=1e-6)


def test_rare_levels_share_no_column_and_names_are_safe():
    frame = pd.DataFrame({"brand": ["a,b"] * 50 + ['q"[1]'] * 50 + ["once"]})
    encoder = TableEncoder.learn("content", frame, {"brand": "class"})
    assert encoder.sizes == [2]
    assert not any(sign in name for name in encoder.names for sign in '[]{}:," ')


# --- the table of all models


def test_columns_are_named_and_position_and_outcomes_are_not_among_them(features, test_part):
    table = features.table(test_part)
    assert table.columns.tolist() == features.names
    assert table.columns.is_unique
    assert (table.dtypes == np.float32).all()
    assert len(table) == len(test_part.impressions)
    wanted = {
        "content_click_rate",
        "content_format=live",
        "user_city_tier=1",
        "content_published_at_days",
        "hour_sin",
    }
    assert wanted <= set(features.names), wanted - set(features.names)
    of_the_row = [name for name in features.names if name.startswith("context_")]
    told = ("position", "policy", "propensity", "clicked", "converted", "sales", "time")
    assert not [name for name in of_the_row if name.startswith(tuple(f"context_{t}" for t in told))]


def test_the_design_does_not_hang_on_how_many_rows_are_standardised_at_once(features, monkeypatch):
    table = features.table(parts()[0])
    whole = features.design(table)
    monkeypatch.setattr("vaecm.features.CHUNK", 7)
    np.testing.assert_array_equal(features.design(table), whole)
    assert features.design(table[:0]).shape == (0, whole.shape[1])


def test_the_design_is_standardised_over_training(features):
    table = features.table(parts()[0])
    z = features.design(table)
    assert np.isfinite(z).all()
    assert np.abs(z).max() <= 6
    numbers = table.to_numpy()
    varies = np.nanstd(numbers, axis=0) > 1e-5
    known = np.where(np.isnan(numbers), np.nan, z[:, : numbers.shape[1]])
    whole = np.nanmax(np.abs(known), axis=0, initial=0) < 6  # what lies further out is cut
    assert (whole & varies).sum() > 60
    assert np.abs(np.nanmean(known, axis=0)[whole]).max() < 1e-3
    assert np.abs(np.nanstd(known, axis=0)[whole & varies] - 1).max() < 1e-3
    assert (z[:, : numbers.shape[1]][:, ~varies] == 0).all()
    gaps = features.scale["gaps"]
    np.testing.assert_array_equal(z[:, numbers.shape[1] :], ~np.isnan(numbers[:, gaps]))


def test_knots_lie_within_what_training_holds(features):
    knots, numbers = features.scale["knots"], features.scale["numbers"]
    assert knots.shape == (len(numbers), 6)
    assert (np.diff(knots, axis=1) >= 0).all()
    z = features.design(features.table(parts()[0]))[:, numbers]
    assert (knots >= z.min(axis=0)[:, None]).all()
    assert (knots <= z.max(axis=0)[:, None]).all()


def test_age_is_relative_to_the_impression(features, test_part):
    one, later = test_part.select(np.arange(len(test_part.impressions)) < 6), None
    log = one.impressions.assign(time=one.impressions["time"] + pd.Timedelta(days=3))
    later = replace(one, impressions=log, log=test_part.past)
    name = "content_published_at_days"
    a, b = (np.expm1(features.table(market)[name].to_numpy()) for market in (one, later))
    np.testing.assert_allclose(b - a, 3, atol=1e-3)


def test_a_row_does_not_depend_on_the_rest_of_the_file(features, test_part):
    whole = features.table(test_part)
    rows = np.flatnonzero(np.random.default_rng(0).random(len(whole)) < 0.1)
    part = test_part.select(np.isin(np.arange(len(whole)), rows))
    np.testing.assert_array_equal(features.table(part).to_numpy(), whole.to_numpy()[rows])


def test_a_row_does_not_depend_on_the_other_contents_and_users_of_the_file(features, test_part):
    """With as-of facts of contents that the file no longer describes: what training knew of them is kept."""
    part = test_part
    whole = features.table(part)
    row = len(whole) // 2
    one = part.impressions.iloc[[row]]
    kept = part.contents["content_id"].isin(one["content_id"]).to_numpy()
    small = replace(
        part, impressions=one.reset_index(drop=True), contents=part.contents[kept].reset_index(drop=True),
        covers=part.covers[kept], audio=part.audio[kept], vectors={name: x[kept] for name, x in part.vectors.items()},
        users=part.users[part.users["user_id"].isin(one["user_id"])].reset_index(drop=True),
        products=part.products[part.products["product_id"].isin(part.contents["product_id"][kept])].reset_index(drop=True),
    )  # fmt: skip
    np.testing.assert_allclose(features.table(small).to_numpy(), whole.to_numpy()[[row]], rtol=1e-6)
    inputs = features.content_inputs(small, np.array([0]))
    for name, x in features.content_inputs(part, part.content_rows[[row]]).items():
        np.testing.assert_array_equal(inputs[name], x)


def test_types_and_spellings_of_the_file_change_nothing(features, test_part):
    users = test_part.users.assign(
        device=test_part.users["device"].str.upper(), city_tier=test_part.users["city_tier"].astype(float)
    )
    contents = test_part.contents.assign(
        format=" " + test_part.contents["format"].str.title()
    ).convert_dtypes()
    other = replace(test_part, users=users, contents=contents)
    np.testing.assert_array_equal(features.table(other).to_numpy(), features.table(test_part).to_numpy())


def test_the_future_and_the_outcomes_of_the_present_are_unknown(features):
    """What training's rows are told does not change with what comes after them."""
    train, _, last = parts()
    log, rng = train.past.copy(), np.random.default_rng(3)
    later = log["impression_id"].isin(last.impressions["impression_id"]).to_numpy()
    log.loc[later, "clicked"] = rng.permutation(log.loc[later, "clicked"])
    soon = train.events["time"] < last.impressions["time"].min()
    other = replace(train, log=log, events=train.events[soon].reset_index(drop=True))
    again = Features.learn(other, replace(parts()[1], log=log))
    assert again.names == features.names
    np.testing.assert_array_equal(again.table(other).to_numpy(), features.table(train).to_numpy())
    first = last.impressions["time"] == last.impressions["time"].min()  # outcomes of one's own request
    request = last.select(first.to_numpy())
    turned = replace(request, log=log.assign(clicked=np.where(later, 1 - log["clicked"], log["clicked"])))
    np.testing.assert_array_equal(features.table(turned).to_numpy(), features.table(request).to_numpy())


def test_state_round_trip(features, test_part):
    plain, arrays = features.to_state()
    again = Features.from_state(
        json.loads(json.dumps(plain)), {name: np.copy(x) for name, x in arrays.items()}
    )
    assert not any(x.dtype == object for x in arrays.values())
    np.testing.assert_array_equal(again.table(test_part).to_numpy(), features.table(test_part).to_numpy())
    table = features.table(test_part)
    np.testing.assert_array_equal(again.design(table), features.design(table))
    for name, x in features.content_inputs(test_part, np.arange(9)).items():
        np.testing.assert_array_equal(again.content_inputs(test_part, np.arange(9))[name], x)


# --- contents


def test_what_is_missing_of_a_content_is_empty(features, test_part):
    bare = replace(test_part, covers=None, audio=None, vectors=None,
                   contents=test_part.contents[["content_id", "product_id"]])  # fmt: skip
    found = features.content_inputs(bare, np.arange(3))
    assert set(found) == {"cover", "audio", "title", "attributes", "vector_clip"}
    assert not found["cover"].any()
    assert not found["audio"].any()
    assert not found["title"].any()
    assert np.isnan(found["vector_clip"]).all()


def test_contents_of_another_shape_are_refused_by_name(features, test_part):
    n = len(test_part.contents)
    other = replace(test_part, covers=np.zeros((n, 9, 9), np.uint8), vectors={"clip": np.zeros((n, 2))})
    with pytest.raises(MarketError) as caught:
        features.content_inputs(other, np.arange(2))
    assert "shape of training (8, 10, 3), got (9, 9, 3)" in str(caught.value)
    assert "shape of training (5,), got (2,)" in str(caught.value)


def test_numbers_of_contents_are_standardised(features):
    train = parts()[0]
    found = features.content_inputs(train, np.flatnonzero(known_contents(train)))
    n = len(features.encoders["content"].numbers)
    np.testing.assert_allclose(np.nanmean(found["attributes"][:, :n], axis=0), 0, atol=0.05)
    np.testing.assert_allclose(found["vector_clip"].std(axis=0), 1, atol=1e-3)


def test_contents_of_the_future_are_not_learned_from():
    train, _valid, _ = parts()
    time = train.impressions["time"].max()
    contents = train.contents.copy()
    shown = contents["content_id"].isin(train.impressions["content_id"])
    contents["published_at"] = contents["published_at"].where(contents.index > 3, time + pd.Timedelta(days=1))
    market = replace(train, contents=contents)
    assert known_contents(market).tolist() == ((contents.index > 3) | shown).tolist()


def test_moments_ignore_gaps_and_constants_have_no_scale():
    mean, sd = moments(np.array([[1.0, 5.0, np.nan], [3.0, 5.0, np.nan], [np.nan, 5.0, np.nan]]))
    assert mean.tolist() == [2, 5, 0]
    assert sd.tolist() == [1, np.inf, np.inf]


def test_nothing_to_learn_from_is_refused():
    market = parts()[0]
    with pytest.raises(MarketError, match="must have rows"):
        Features.learn(market.select(np.zeros(len(market.impressions), bool)))


def test_joined_has_both_logs_once():
    market = small_log(20, 15, 60)
    half = np.arange(len(market.impressions)) < 90
    first, second = (market.select(rows).without_log() for rows in (half, ~half))
    assert len(joined(first, second).past) == len(market.impressions)
    assert joined(first, None) is first
    assert len(joined(first, first).past) == 90


# --- events


def test_events_in_numbers():
    stream = pd.DataFrame({
        "user": [0, 0, 1], "time": [100, 160, 500], "action": ["view", "Cart", "view"],
        "category": ["toys", "lamps ", None], "item": [7, None, 9.0], "dwell": [4.0, np.nan, 0.0],
    })  # fmt: skip
    features = Features(
        None, {}, Tokens([], 1), {"actions": ["cart", "view"], "categories": ["lamps", "toys"]}
    )
    items = ItemEmbeddings(np.array(["7", "8"], object), np.array([[1.0, 2], [3, 4]], np.float32))
    events = features.coded(stream, items)
    assert events["action"].tolist() == [2, 1, 2]
    assert events["category"].tolist() == [2, 1, 0]
    assert events["item"].tolist() == [0, -1, -1]
    found = features.event_inputs(events, np.array([[0, 1, -1], [2, -1, -1]]), items)
    assert found["mask"].tolist() == [[1, 1, 0], [1, 0, 0]]
    np.testing.assert_allclose(found["gap"], [[0, np.log(61), 0], [0, 0, 0]], rtol=1e-6)
    np.testing.assert_allclose(found["dwell"], [[np.log(5), np.nan, np.nan], [0, np.nan, np.nan]], rtol=1e-6)
    np.testing.assert_array_equal(found["item"][0], [[1, 2], [np.nan] * 2, [np.nan] * 2])
    assert features.codes(["TOYS", None, "new"]).tolist() == [2, 0, 0]
    assert features.codes([]).tolist() == []


# --- found with files of others


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("हिन्दी किताब", ["हिन्दी", "किताब"]),
        ("مُحَمَّد", ["مُحَمَّد"]),
        ("தமிழ் நாடு", ["தமிழ்", "நாடு"]),
        ("กาแฟ", ["ก", "กา", "า", "าแ", "แ", "แฟ", "ฟ"]),
        ("한국어 제목", ["한국어", "제목"]),
        ("hot🔥🔥 ❤️", ["hot", "🔥", "🔥", "❤"]),
    ],
)
def test_words_of_any_script_are_whole(text, words):
    assert tokenize(text) == words


def test_a_cell_is_read_by_the_kind_that_training_learned():
    """Whatever the other cells of its column hold in the file that is predicted."""
    learned = pd.DataFrame({
        "vip": ["yes", "no"] * 20, "mood": ["yes", "no", "maybe", "no"] * 10, "fee": ["¥1,234", "¥5"] * 20,
        "size": ["1.50", "2.50"] * 20, "grade": ["1.50", "2.50", "free", "free"] * 10,
        "since": ["25/03/2024", "04/05/2024"] * 20,
    })  # fmt: skip
    market = parts()[0]
    market = replace(market, users=market.users.iloc[:40].reset_index(drop=True).join(learned))
    kinds = {name: k for name, k in column_kinds("users", market.users).items() if name in learned}
    assert kinds == {
        "vip": "flag", "mood": "class", "fee": "number", "size": "number", "grade": "class", "since": "time",
    }  # fmt: skip
    encoder = TableEncoder.learn("user", market.users, kinds)
    whole = pd.DataFrame(encoder.encode(market.users), columns=encoder.names)
    for other in (
        {"vip": "maybe", "mood": "no", "fee": "free", "size": "free", "grade": "2.50", "since": "none"},
        {"vip": True, "mood": "yes", "fee": 3, "size": 2, "grade": 2.5, "since": "07/05/2024"},
    ):
        few = pd.concat([market.users.iloc[:1], market.users.iloc[:1].assign(**other)], ignore_index=True)
        found = pd.DataFrame(encoder.encode(few), columns=encoder.names)
        pd.testing.assert_frame_equal(found[:1], whole[:1])
        assert encoder.cells(few, "since")[0] == pd.Timestamp("2024-03-25").timestamp()
    assert encoder.cells(few, "since")[1] == pd.Timestamp("2024-05-07").timestamp()
    assert found.iloc[1][["user_vip", "user_mood=yes", "user_fee", "user_size", "user_grade=2.5"]].tolist() == [
        1, 1, 3, 2, 1]  # fmt: skip
    again = TableEncoder(**json.loads(json.dumps(asdict(encoder))))
    np.testing.assert_array_equal(again.encode(few), encoder.encode(few))


def test_names_of_columns_never_come_twice():
    assert _distinct(["a", "a", "a_2", "a"]) == ["a", "a_3", "a_2", "a_4"]


def test_a_vector_may_have_any_name():
    train, n = parts()[0], len(parts()[0].contents)
    x = np.random.default_rng(0).normal(3, 2, (n, 5))
    one = Features.learn(replace(train, vectors={"clip": x}))
    two = Features.learn(replace(train, vectors={"content": x}))
    rows = np.arange(9)
    mine, other = (f.content_inputs(replace(train, vectors={name: x}), rows)
                   for f, name in ((one, "clip"), (two, "content")))  # fmt: skip
    np.testing.assert_array_equal(mine["attributes"], other["attributes"])
    np.testing.assert_array_equal(mine["vector_clip"], other["vector_content"])


def test_grey_and_coloured_pictures_serve_for_each_other(features, test_part):
    rows = np.arange(7)
    grey = np.random.default_rng(0).integers(0, 256, (len(test_part.contents), 8, 10), np.uint8)
    found = features.content_inputs(replace(test_part, covers=grey), rows)["cover"]
    np.testing.assert_array_equal(found, np.stack([grey[rows]] * 3, axis=-1))
    learned = Features.learn(replace(parts()[0], covers=grey))
    coloured = np.stack([grey] * 3, axis=-1)
    found = learned.content_inputs(replace(test_part, covers=coloured), rows)["cover"]
    np.testing.assert_array_equal(found, grey[rows])


def test_validation_of_another_folder_brings_its_own_events_and_users():
    train, valid, _ = parts()
    cut = pd.Timestamp(train.impressions["time"].max())
    early, late = (train.events[mask] for mask in (train.events["time"] <= cut, train.events["time"] > cut))
    assert len(late)
    first = replace(train, events=early, users=train.users.iloc[1:].reset_index(drop=True), log=None)
    second = replace(valid, events=late.reset_index(drop=True), log=None)
    both = joined(first, second)
    assert len(both.events) == len(train.events)
    assert set(both.users["user_id"]) == set(train.users["user_id"])
    assert both.users["user_id"][: len(first.users)].tolist() == first.users["user_id"].tolist()
    assert len(both.log) == len(train.impressions) + len(valid.impressions)
    again = joined(both, second)
    assert len(again.events) == len(both.events)
    assert len(again.log) == len(both.log)


def test_roles_of_products_hold_for_their_contents():
    train = parts()[0]
    products = train.products.assign(shelf=np.arange(len(train.products)) % 3)
    for roles, names in (
        ({}, ["content_shelf"]), ({"products": {"shelf": "ignore"}}, []),
        ({"products": {"shelf": "class"}}, ["content_shelf=0", "content_shelf=1", "content_shelf=2"]),
    ):  # fmt: skip
        learned = Features.learn(replace(train, products=products, roles=roles))
        assert sorted(name for name in learned.names if "shelf" in name) == names
