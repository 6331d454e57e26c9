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


@pytest.mark.parametrize("key", WRONG)
def test_a_tempting_answer_runs_and_is_wrong(key):
    question = GRADED[key]
    code = f"{exercises.answer_code(NOTEBOOKS[key[:2]], question)}\n{WRONG[key]}"
    exec(code, space := {})
    for arguments in cases(key, SEED):
        space[question.name](*arguments)
    assert outcome(code, question)
