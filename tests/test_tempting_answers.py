"""What a chapter warns of fails as an answer: a tempting wrong function passes no graded exercise in full."""

import pytest
from test_editions import GRADED, NOTEBOOKS, SEED, cases, exercises, outcome

WRONG = {
    "09.1": """
def hours_to_wait(hours, age, still_open):  # orders of young clicks show the fast ones alone
    return np.quantile(hours, 1 - still_open, method="inverted_cdf")""",
    "09.2": """
def clicks_before(second, clicked):  # the rows above in the same slate are not known yet
    order = np.argsort(second, kind="stable")
    found = np.empty(len(second))
    found[order] = np.cumsum(clicked[order]) - clicked[order]
    return found""",
    "09.3": """
def rate_by_place(place, clicked, propensity, wanted):  # the log as the platform filled it
    return [clicked[place == k].mean() for k in np.unique(place)]""",
    "10.1": """
def pooled_share(y, guess):  # every dimension counts alike, however little it varies
    return np.mean(1 - ((y - guess) ** 2).sum(axis=0) / ((y - y.mean(axis=0)) ** 2).sum(axis=0))""",
    "10.3": """
def mean_before(second, vectors, now):  # the whole log, the future with it
    return np.nanmean(vectors, axis=0)""",
    "10.4": """
def widening(expected, error):  # sizes say nothing of the tail
    return np.sqrt(np.mean(error**2) / np.mean(expected**2))""",
    "11.1": """
def calibration_error(clicked, p, bins):  # errors of opposite sign make up for each other
    return abs(np.mean(p) - np.mean(clicked))""",
    "11.2": """
def redrawn_differences(first, second, content, drawn):  # a piece that is drawn twice counts twice
    return [(first - second)[np.isin(content, row)].mean() for row in drawn]""",
    "11.4": """
def worth_of_choice(score, value, share):  # what is promised is not what is got
    return np.sort(score)[-max(int(share * len(score)), 1) :].mean()""",
    "12.1": """
def forward_folds(time, cuts):  # the stretch after the next cut is not this fold's
    return np.where(np.asarray(time) < np.asarray(cuts)[:, None], 1, 2)""",
    "12.2": """
def simplest_within_one(scores, C):  # unpaired: how hard a fold is, is no doubt about the difference
    means = scores.mean(axis=1)
    error = scores[means.argmin()].std(ddof=1) / np.sqrt(scores.shape[1])
    return C[means <= means.min() + error].min()""",
    "12.3": """
def expected_best(n):  # the quantile is not the mean of the maximum
    return stats.norm.ppf(1 - 1 / n)""",
    "13.1": """
def excess_loss(p, q):  # what the truth itself must lose is in it
    return -p * np.log(q) - (1 - p) * np.log(1 - q)""",
    "13.3": """
def strange_share(values, known):  # whoever compares a day with itself finds one in a hundred
    low, high = np.nanquantile(values, [0.005, 0.995])
    return np.mean((values < low) | (values > high))""",
    "13.4": """
def rate_without(look, known, gone):  # the rate at the mean is not the mean of the rates
    return look / (1 + np.exp(-known - np.mean(gone)))""",
    "14.1": """
def story_of(test, headline):  # one step of the chain
    story = pd.Series(test).groupby(np.asarray(headline)).transform("min")
    return story.groupby(np.asarray(test)).transform("min")""",
    "14.2": """
def chance_better(d, v, tau):  # a p-value: it forgets that most true differences are small
    return stats.norm.cdf(np.abs(d) / np.sqrt(v))""",
    "14.3": """
def pairs_named(score, rate, group):  # arms of different tests are no pair
    first, second = np.triu_indices(len(score), 1)
    seen = np.sign(np.subtract(*np.asarray(rate)[[first, second]]))
    said = np.sign(np.subtract(*np.asarray(score)[[first, second]]))
    return ((1 + said * seen) / 2)[seen != 0].mean()""",
    "15.2": """
def shift_to_rate(p, rate):  # the log-odds of a mean are not the mean of log-odds
    return special.logit(rate) - special.logit(np.mean(p))""",
    "15.3": """
def paired_interval(first, second, t):  # unpaired
    gap = np.mean(first) - np.mean(second)
    half = t * np.sqrt((np.var(first, ddof=1) + np.var(second, ddof=1)) / len(first))
    return gap, gap - half, gap + half""",
    "15.5": """
def zero_or_number_nll(t, pi, mu, sigma):  # a zero is not a small number
    return 0.5 * (np.log(2 * np.pi * sigma**2) + ((np.nan_to_num(t) - mu) / sigma) ** 2)""",
    "16.1": """
def auc_within(clicked, score, group):  # over all, where groups differ
    return roc_auc_score(clicked, score)""",
    "16.3": """
def overlap(first, second, share):  # a rank correlation says little of the top
    return np.corrcoef(first, second)[0, 1]""",
    "16.4": """
def rate_after_click(n, p):  # the tosses are independent, the mean over users is not the coin
    return p""",
    "17.1": """
def encoder_weights(side, filters, units, latent_dim):  # the last layer gives means and log-variances
    total, channels = 0, 1
    for number in filters:
        total += 9 * channels * number + number
        side, channels = math.ceil(side / 2), number
    return total + (side * side * channels + 1) * units + (units + 1) * latent_dim""",
    "17.2": """
def negative_bound(x, logits, mean, log_var):  # the mean over pixels is a KL term that weighs too much
    nats = np.logaddexp(0, logits) - x * logits
    return nats.mean(axis=1) + ((mean**2 + np.exp(log_var) - 1 - log_var) / 2).sum(axis=1)""",
    "17.3": """
def layer_cost(side, kernel, inputs, outputs, stride, transposed):  # it reads its input, pixel by pixel
    positions = side * stride if transposed else math.ceil(side / stride)
    return positions**2 * kernel**2 * inputs * outputs""",
}
WRONG |= {
    "18.1": """
def variety(pictures):  # nobody is different from himself
    return np.linalg.norm(pictures[:, None] - pictures, axis=2).mean()""",
    "18.2": """
def p_value(score, clouds):  # fifty clouds cannot show a zero
    return np.mean(clouds >= score)""",
    "18.3": """
def likeness(one, other, spread):  # the angle of the weights
    return one @ other / np.sqrt((one @ one) * (other @ other))""",
    "19.1": """
def fair_shares(v):  # what each adds when it comes last
    return v[3] - v[2], v[3] - v[1]""",
    "19.2": """
def line_shares(weights, row, background):  # against nobody
    return weights * row""",
    "19.3": """
def local_slopes(x, y, row, width):  # the intercept pays as well
    weight = np.exp(-((x - row) ** 2).sum(axis=1) / (2 * width**2))
    x = np.column_stack([np.ones(len(x)), x])
    return np.linalg.solve((x.T * weight) @ x + np.eye(x.shape[1]), (x.T * weight) @ y)[1:]""",
    "20.1": """
def brings(predicted, true, margin, cost):  # what is promised
    return np.mean(np.maximum(margin * predicted - cost, 0))""",
    "20.2": """
def explained(kappa, rate, clicks, shown):  # as if the prediction were the rate
    p = kappa * rate / (kappa * rate + kappa * (1 - rate))
    return np.sum(clicks * np.log(p) + (shown - clicks) * np.log(1 - p))""",
    "20.4": """
def gain_at(score, sent, earned, share):  # who is likely to buy, not whom the e-mail moves
    first = np.argsort(-score)[: round(share * len(score))]
    return share * earned[first][sent[first] == 1].mean()""",
    "20.5": """
def power(n, difference, sd):  # both arms are noisy
    return norm.cdf(difference / (sd / np.sqrt(n)) - norm.ppf(0.975))""",
    "21.1": """
def best_feed(look, interest, worth):  # by clicks
    best = np.argsort(-interest)[: len(look)]
    return np.sum(look * interest[best] * worth[best])""",
    "21.2": """
def relative_looks(place, clicked, propensity):  # as logged
    rate = np.bincount(place - 1, clicked) / np.bincount(place - 1)
    return rate / rate[0]""",
    "21.3": """
def snips(reward, target, logged):  # IPS
    w = target / logged
    return np.mean(w * reward), np.sum(w) ** 2 / np.sum(w**2)""",
    "21.4": """
def doubly_robust(reward, target, logged, shown, policy):  # the candidate judges itself
    return np.mean(policy)""",
    "22.1": """
def second_price(bids, prices, values):  # pays its own bid
    return np.mean(np.where(bids >= prices, values - bids, 0))""",
    "22.2": """
def best_cap(rates, value, cost):  # stops at the first that loses
    loses = np.append(value * rates <= cost, True)
    return int(np.argmax(loses))""",
    "22.3": """
def multipliers(paid, budget, rate, start):  # a negative multiplier in between
    moves = rate * (paid / (budget / len(paid)) - 1)
    return np.maximum(0, start + np.append(0, np.cumsum(moves)[:-1]))""",
    "22.4": """
def share_below(bids, paid, price):  # won auctions alone
    return np.mean(paid[~np.isnan(paid)] <= price)""",
    "23.1": """
def feeling(values, negation):  # a negation turns all that follows
    total = np.sum(np.where(np.cumsum(negation) > 0, -0.74, 1) * values)
    return total / np.sqrt(total**2 + 15)""",
    "23.2": """
def learned_value(has, rating, strength):  # every text begins at zero
    return np.sum(has * rating) / (has.sum() + strength)""",
    "23.4": """
def fused(opinions, left, prior, present):  # the prior counts once more with each view
    variance = 1 / (1 / prior + np.sum(present / left))
    return variance * np.sum(present * opinions / left), variance""",
    "23.5": """
def more_clicks(x, rate, test):  # tests differ in much else
    return 100 * np.expm1(np.polyfit(x / np.std(x), np.log(rate), 1)[0])""",
    "23.6": """
def view_of(contents, ids, vectors):  # a piece without a vector gets that of another one
    order = np.argsort(ids)
    place = np.searchsorted(ids, contents, sorter=order).clip(max=len(ids) - 1)
    return np.asarray(vectors)[order[place]]""",
    "23.7": """
def bought_again(redeemed, bought, end, days):  # what is not known yet counts as a no
    return (bought - redeemed <= days).astype(float)""",
    "24.1": """
def faster(shares, factors):  # the mean of the factors
    return np.sum(shares * factors)""",
    "24.2": """
def pruned(weight, share):  # negative weights are not small
    return np.where(weight <= np.quantile(weight, share), 0, weight)""",
    "24.3": """
def quantised(w, bits):  # one scale for all columns
    s = np.abs(w).max() / (2 ** (bits - 1) - 1)
    return s * np.round(w / s)""",
    "25.1": """
def batch_gradient(gradients, rows):  # small shares count too much
    return np.mean(gradients, axis=0)""",
    "25.2": """
def lacks(content, part):  # the future is not lacking
    return np.sum((content[:, None] == content) & (part[:, None] != part), axis=1)""",
    "25.3": """
def spot_run(hours, machines, price, losses, every, restart):  # each of the machines may be taken away
    longer = hours / (1 - losses * (every / 2 + restart))
    return longer, longer * machines * price""",
    "26.1": """
def paired_gap(clicked, first, second, piece):  # rows of one piece belong together
    gap = np.where(clicked == 1, np.log(second / first), np.log((1 - second) / (1 - first)))
    return gap.mean(), gap.std() / np.sqrt(len(gap))""",
    "26.2": """
def rates_known(piece, time, clicked, end, mean, weight):  # the week is not over when it begins
    told = (piece[:, None] == piece) & (time < time[:, None])
    return (told @ clicked + weight * mean) / (told.sum(axis=1) + weight)""",
    "26.3": """
def numbers(texts):  # 1.234 is not a little more than one
    plain = [text.replace(",", ".") for text in texts]
    return [float(text) if text.count(".") == 1 else np.nan for text in plain]""",
}


@pytest.mark.parametrize("key", WRONG)
def test_a_tempting_answer_runs_and_is_wrong(key):
    question = GRADED[key]
    code = f"{exercises.answer_code(NOTEBOOKS[key[:2]], question)}\n{WRONG[key]}"
    exec(code, space := {})
    for arguments in cases(key, SEED):
        space[question.name](*arguments)
    assert outcome(code, question)
