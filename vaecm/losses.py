r"""Losses of one row at a time, in nats.

Every loss takes tensors whose first axis counts rows and returns one number per row, ``(B, ...) -> (B,)``; the mean is
taken once, by whoever calls. All is computed from logits and log-variances, so that extreme predictions stay finite.

Shapes: ``B`` rows, ``L`` latent dimensions, ``K`` classes.
"""

import math

import keras
from keras import KerasTensor, ops

Tensor = KerasTensor  # or what turns into one: an array, a list of numbers
LOG_2PI = math.log(2.0 * math.pi)
S_RANGE = (0.05, 2.0)  # deviations of log sales: beyond 2, exp(s**2 / 2) lets single orders rule the mean


def kl_standard_normal(mean: Tensor, log_var: Tensor) -> Tensor:
    r"""Divergence of a diagonal Gaussian from the standard normal; all (..., L), the result (...).

    .. math:: D_{KL}=\tfrac12\sum_j\big(\mu_j^2+\sigma_j^2-1-\log\sigma_j^2\big)

    (Kingma and Welling 2014, arXiv:1312.6114, appendix B.)

    >>> float(kl_standard_normal([[1.0, 1.0]], [[0.0, 0.0]])[0])
    1.0
    """
    mean, log_var = _float(mean), _float(log_var)
    return 0.5 * ops.sum(ops.square(mean) + ops.expm1(log_var) - log_var, axis=-1)


def gaussian_nll(x: Tensor, mean: Tensor, log_var: Tensor, observed: Tensor | None = None) -> Tensor:
    r"""Negative log-density of independent Gaussians, summed over what is observed; all (B, ...) or broadcast to it.

    .. math:: \tfrac12\sum_{i\in O}\big[\log 2\pi+\log\sigma_i^2+(x_i-\mu_i)^2/\sigma_i^2\big]

    What is not observed (0 or False) may be NaN, and adds nothing to the loss or to a gradient.

    >>> round(float(gaussian_nll([[0.0, math.nan]], [[0.0, 0.0]], [[0.0, 0.0]], observed=[[1, 0]])[0]), 4)
    0.9189
    """
    x, mean, log_var = _float(x), _float(mean), _float(log_var)
    if observed is not None:
        there = ops.broadcast_to(_float(observed) > 0, ops.shape(x))
        # 0 * NaN is NaN, in the gradient as well: what is missing is replaced before it meets a weight
        x = ops.where(there, x, ops.zeros_like(x))
    nll = 0.5 * (LOG_2PI + log_var + ops.square(x - mean) * ops.exp(-log_var))
    nll = nll if observed is None else ops.where(there, nll, ops.zeros_like(nll))
    return ops.sum(nll, axis=tuple(range(1, len(nll.shape))))


def multinomial_nll(counts: Tensor, logits: Tensor) -> Tensor:
    r"""Negative log-likelihood of counts (..., K) of words or classes, without the coefficient; 0 for an empty bag.

    .. math:: -\sum_k n_k\log\operatorname{softmax}(l)_k

    The coefficient does not depend on the model (Liang et al. 2018, arXiv:1802.05814).

    >>> round(float(multinomial_nll([[2.0, 0.0]], [[0.0, 0.0]])[0]), 4)
    1.3863
    """
    return -ops.sum(_float(counts) * ops.log_softmax(_float(logits), axis=-1), axis=-1)


def click_nll(clicked: Tensor, logit: Tensor) -> Tensor:
    r"""Log-loss of an outcome c, 1 or 0, whose log-odds are a: :math:`\log(1+e^{a})-c\,a`; NaN outcomes add 0.

    >>> round(float(click_nll([1.0], [0.0])[0]), 4)
    0.6931
    """
    clicked, logit = _float(clicked), _float(logit)
    known = ops.logical_not(ops.isnan(clicked))
    nll = ops.softplus(logit) - ops.where(known, clicked, ops.zeros_like(clicked)) * logit
    return ops.where(known, nll, ops.zeros_like(nll))


def product_logit(a: Tensor, b: Tensor) -> Tensor:
    r"""Log-odds of the product of two probabilities whose log-odds are a and b.

    .. math:: \operatorname{logit}\big(\sigma(a)\,\sigma(b)\big)=-\log\big(e^{-a}+e^{-b}+e^{-a-b}\big)

    Finite, with gradients between 0 and 1, for all logits: a click needs a look and interest, an order needs a click.

    >>> round(float(ops.sigmoid(product_logit(0.0, 0.0))), 4)
    0.25
    """
    a, b = _float(a), _float(b)
    return -ops.logaddexp(ops.logaddexp(-a, -b), -a - b)


def entire_space_nll(
    clicked: Tensor, converted: Tensor, click_logit: Tensor, convert_logit: Tensor, maturity: Tensor | None = None
) -> Tensor:  # fmt: skip
    r"""Log-loss of clicks, and of clicks with an order seen so far, both over all impressions; all (B,).

    .. math:: \ell=\mathrm{BCE}\big(c,\ \sigma(a)\big)+\mathrm{BCE}\big(cv,\ w\,\sigma(a)\,\sigma(b)\big)

    (ESMM, Ma et al. 2018, arXiv:1804.07931.) The maturity w in (0, 1] is the chance that an order which comes is seen by
    now (Chapelle 2014, KDD); 1 without it. NaN in c or v: the part that needs it adds nothing.

    >>> round(float(entire_space_nll([1.0], [1.0], [0.0], [0.0])[0]), 4)  # log 2 + log 4
    2.0794
    """
    clicked, converted, a = _float(clicked), _float(converted), _float(click_logit)
    both = product_logit(a, convert_logit)
    if maturity is not None:
        w = ops.clip(_float(maturity), 1e-6, 1.0)
        late = ops.softplus(both + ops.log(ops.where(w < 1, 1.0 - w, 1.0)))
        both = both + ops.log(w) - ops.where(w < 1, late, 0.0)
    return click_nll(clicked, a) + click_nll(clicked * converted, both)


def lognormal_nll(sales: Tensor, m: Tensor, log_s: Tensor) -> Tensor:
    r"""Negative log-density of sales r > 0 in yuan as a log-normal; 0 where there are none (0 or NaN); all (B,).

    .. math:: \log r+\log s+\tfrac12\log2\pi+\frac{(\log r-m)^2}{2s^2},\qquad .05\le s\le 2

    >>> [round(float(v), 4) for v in lognormal_nll([1.0, 0.0], [0.0, 0.0], [0.0, 0.0])]
    [0.9189, 0.0]
    """
    sales, m, log_s = _float(sales), _float(m), _float(log_s)
    sold = sales > 0
    log_r = ops.log(ops.where(sold, sales, ops.ones_like(sales)))
    log_s = ops.clip(log_s, *(math.log(s) for s in S_RANGE))
    nll = log_r + log_s + 0.5 * (LOG_2PI + ops.square((log_r - m) * ops.exp(-log_s)))
    return ops.where(sold, nll, ops.zeros_like(nll))


def _float(x: Tensor) -> Tensor:
    return ops.cast(x, keras.config.floatx())
