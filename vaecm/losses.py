r"""Losses of one row at a time, and the schedule of the KL term.

Every loss takes tensors whose first axis counts rows, and returns one number per row, ``(B, ...) -> (B,)``,
in nats. Sums run over all other axes. The mean over rows is taken once, by whoever calls. Everything is
computed from logits and log-variances in ``keras.config.floatx()``, so that extreme predictions stay finite.

Shapes: ``B`` rows, ``L`` latent dimensions, ``K`` classes, ``V`` words of a vocabulary.
"""

import math

import keras
from keras import ops

LOG_2PI = math.log(2.0 * math.pi)
S_RANGE = (0.05, 2.0)  # deviations of log sales: beyond 2, exp(s**2 / 2) lets single orders rule the mean


def kl_per_dimension(mean, log_var):
    r"""Divergence of a diagonal Gaussian from the standard normal, dimension by dimension.

    .. math:: \mathrm{KL}_j=\tfrac12\big(\mu_j^2+\sigma_j^2-1-\log\sigma_j^2\big)

    (Kingma and Welling 2014, arXiv:1312.6114, appendix B.)

    Parameters
    ----------
    mean, log_var : tensor, shape (B, L)
        :math:`\mu` and :math:`\log\sigma^2`; no unit.

    Returns
    -------
    tensor, shape (B, L)
        Nats; never negative.

    Examples
    --------
    >>> [[round(float(v), 3) for v in row] for row in kl_per_dimension([[0.0, 1.0]], [[0.0, 0.0]])]
    [[0.0, 0.5]]
    """
    mean, log_var = _float(mean), _float(log_var)
    return 0.5 * (ops.square(mean) + ops.expm1(log_var) - log_var)


def kl_standard_normal(mean, log_var):
    r"""Divergence of a diagonal Gaussian from the standard normal.

    .. math:: D_{KL}\big(\mathcal N(\mu,\operatorname{diag}\sigma^2)\,\|\,\mathcal N(0,I)\big)
              =\tfrac12\sum_j\big(\mu_j^2+\sigma_j^2-1-\log\sigma_j^2\big)

    (Kingma and Welling 2014, arXiv:1312.6114, appendix B.)

    Parameters
    ----------
    mean, log_var : tensor, shape (B, L)
        :math:`\mu` and :math:`\log\sigma^2`; no unit.

    Returns
    -------
    tensor, shape (B,)
        Nats.

    Examples
    --------
    >>> float(kl_standard_normal([[1.0, 1.0]], [[0.0, 0.0]])[0])
    1.0
    """
    return ops.sum(kl_per_dimension(mean, log_var), axis=-1)


def kl_schedule(step, warmup_steps, beta=1.0):
    r"""Weight of the KL term at a step: it rises on a straight line, then stays.

    .. math:: \beta_t=\beta\,\min(1,\,t/T)

    (Bowman et al. 2016, arXiv:1511.06349.)

    Parameters
    ----------
    step : int or float
        t, steps done so far; steps may be batches or epochs.
    warmup_steps : int or float
        T, in the same unit; 0 for no warm-up.
    beta : float
        The final weight.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If a value is negative.

    Examples
    --------
    >>> [kl_schedule(t, 4) for t in (0, 1, 4, 9)]
    [0.0, 0.25, 1.0, 1.0]
    """
    for name, value in {"step": step, "warmup_steps": warmup_steps, "beta": beta}.items():
        if value < 0:
            raise ValueError(f"kl_schedule: {name} must not be negative, got {value}")
    return float(beta if step >= warmup_steps else beta * step / warmup_steps)


def free_bits(kl_per_dim_batch_mean, nats):
    r"""KL term in which each dimension may use some nats at no cost.

    .. math:: \sum_j\max\big(\kappa,\ \overline{\mathrm{KL}}_j\big)

    Below :math:`\kappa` a dimension has no gradient, so nothing pushes it back to the prior (Kingma et al.
    2016, arXiv:1606.04934).

    Parameters
    ----------
    kl_per_dim_batch_mean : tensor, shape (L,)
        Mean over the batch of `kl_per_dimension`, in nats.
    nats : float
        :math:`\kappa`, for each dimension.

    Returns
    -------
    tensor, scalar
        Nats.

    Examples
    --------
    >>> float(free_bits([0.0, 0.25, 2.0], 0.5))
    3.0
    """
    return ops.sum(ops.maximum(_float(kl_per_dim_batch_mean), nats), axis=-1)


def bernoulli_nll(x, logits):
    r"""Negative log-likelihood of 0 and 1, or cross-entropy of values between, summed over all axes but one.

    .. math:: -\sum_i\big[x_i\log\sigma(l_i)+(1-x_i)\log(1-\sigma(l_i))\big]
              =\sum_i\big[\log(1+e^{l_i})-x_il_i\big]

    For grey values it is no likelihood; `continuous_bernoulli_nll` is.

    Parameters
    ----------
    x : tensor, shape (B, ...)
        Values in [0, 1].
    logits : tensor, same shape
        :math:`l`, log-odds.

    Returns
    -------
    tensor, shape (B,)
        Nats.

    Examples
    --------
    >>> round(float(bernoulli_nll([[1.0, 0.0]], [[0.0, 0.0]])[0]), 4)
    1.3863
    """
    x, logits = _float(x), _float(logits)
    return _per_row(ops.softplus(logits) - x * logits)


def continuous_bernoulli_nll(x, logits):
    r"""Negative log-density of the continuous Bernoulli on [0, 1], summed over all axes but the first.

    .. math:: -\sum_i\big[x_i\log\lambda_i+(1-x_i)\log(1-\lambda_i)+\log C(\lambda_i)\big],\qquad
              C(\lambda)=\frac{2\tanh^{-1}(1-2\lambda)}{1-2\lambda}=\frac{l}{\tanh(l/2)}

    with :math:`\lambda=\sigma(l)` and :math:`C(1/2)=2` (Loaiza-Ganem and Cunningham 2019, arXiv:1907.06845).
    The mean of this density is not :math:`\lambda`: see `continuous_bernoulli_mean`. A density may exceed 1,
    so the result may be negative.

    Parameters
    ----------
    x : tensor, shape (B, ...)
        Values in [0, 1].
    logits : tensor, same shape
        :math:`l`, log-odds of :math:`\lambda`.

    Returns
    -------
    tensor, shape (B,)
        Nats.

    Examples
    --------
    >>> float(continuous_bernoulli_nll([[0.3]], [[0.0]])[0])  # uniform on [0, 1]
    0.0
    """
    x, logits = _float(x), _float(logits)
    size = ops.abs(logits)
    small = size < 0.25
    series = math.log(2.0) + ops.square(size) / 12.0 - 7.0 * ops.square(ops.square(size)) / 1440.0
    size = ops.where(small, ops.ones_like(size), size)  # 0 / tanh(0) would have no gradient
    log_c = ops.where(small, series, ops.log(size) - ops.log(ops.tanh(size / 2.0)))
    return _per_row(ops.softplus(logits) - x * logits - log_c)


def continuous_bernoulli_mean(logits):
    r"""Mean of the continuous Bernoulli, elementwise.

    .. math:: \mathbb E[x]=\frac{\lambda}{2\lambda-1}+\frac{1}{2\tanh^{-1}(1-2\lambda)}
              =\frac{1}{1-e^{-l}}-\frac1l

    with :math:`\lambda=\sigma(l)` and mean 1/2 at :math:`l=0` (Loaiza-Ganem and Cunningham 2019,
    arXiv:1907.06845).

    Parameters
    ----------
    logits : tensor, any shape
        :math:`l`, log-odds of :math:`\lambda`.

    Returns
    -------
    tensor, same shape
        In (0, 1).

    Examples
    --------
    >>> [round(float(v), 3) for v in continuous_bernoulli_mean([-2.0, 0.0, 2.0])]
    [0.343, 0.5, 0.657]
    """
    logits = _float(logits)
    small = ops.abs(logits) < 0.25
    safe = ops.where(small, ops.ones_like(logits), logits)
    size = ops.abs(safe)
    upper = -1.0 / ops.expm1(-size) - 1.0 / size  # at |l|; the mean at -l is one minus the mean at l
    exact = ops.where(safe > 0, upper, 1.0 - upper)
    return ops.where(small, 0.5 + logits / 12.0 - logits**3 / 720.0, exact)


def gaussian_nll(x, mean, log_var, observed=None):
    r"""Negative log-density of independent Gaussians, summed over what is observed.

    .. math:: \tfrac12\sum_{i\in O}\Big[\log 2\pi+\log\sigma_i^2+\frac{(x_i-\mu_i)^2}{\sigma_i^2}\Big]

    Parameters
    ----------
    x : tensor, shape (B, ...)
        May hold NaN where it is not observed.
    mean, log_var : tensor, same shape or one that broadcasts to it
        :math:`\mu` in the unit of x, and :math:`\log\sigma^2`.
    observed : tensor, same shape as x or one that broadcasts to it, optional
        True or positive where x counts. What is not observed adds nothing, to the loss or to a gradient.

    Returns
    -------
    tensor, shape (B,)
        Nats.

    Examples
    --------
    >>> x = [[0.0, float("nan")]]
    >>> round(float(gaussian_nll(x, [[0.0, 0.0]], [[0.0, 0.0]], observed=[[1, 0]])[0]), 4)
    0.9189
    """
    x, mean, log_var = _float(x), _float(mean), _float(log_var)
    if observed is not None:
        there = ops.broadcast_to(_there(observed), ops.shape(x))
        # 0 * NaN is NaN, in the gradient as well: what is missing is replaced before it meets a weight
        x = ops.where(there, x, ops.zeros_like(x))
    nll = 0.5 * (LOG_2PI + log_var + ops.square(x - mean) * ops.exp(-log_var))
    return _per_row(nll if observed is None else ops.where(there, nll, ops.zeros_like(nll)))


def categorical_nll(index, logits, observed=None):
    r"""Negative log-probability of one class out of K.

    .. math:: -\log\operatorname{softmax}(l)_k

    Parameters
    ----------
    index : tensor, shape (B,)
        k, from 0 to K - 1. Where it is not observed it may be anything, NaN included.
    logits : tensor, shape (B, K)
        :math:`l`.
    observed : tensor, shape (B,), optional
        True or positive where the class counts.

    Returns
    -------
    tensor, shape (B,)
        Nats; 0 where the class is not observed.

    Examples
    --------
    >>> round(float(categorical_nll([2], [[0.0, 0.0, 0.0, 0.0]])[0]), 4)
    1.3863
    """
    index, logits = ops.convert_to_tensor(index), _float(logits)
    if observed is not None:
        there = _there(observed)
        index = ops.where(there, index, ops.zeros_like(index))
    column = ops.expand_dims(ops.cast(index, "int32"), -1)
    nll = -ops.squeeze(ops.take_along_axis(ops.log_softmax(logits, axis=-1), column, axis=-1), -1)
    return nll if observed is None else ops.where(there, nll, ops.zeros_like(nll))


def multinomial_nll(counts, logits):
    r"""Negative log-likelihood of a bag of words, but for the multinomial coefficient.

    .. math:: -\sum_w n_w\log\operatorname{softmax}(l)_w

    The coefficient does not depend on the model (Liang et al. 2018, arXiv:1802.05814). An empty bag gives 0.

    Parameters
    ----------
    counts : tensor, shape (B, V)
        :math:`n`, how often each word occurs; weights between are allowed.
    logits : tensor, shape (B, V)
        :math:`l`.

    Returns
    -------
    tensor, shape (B,)
        Nats.

    Examples
    --------
    >>> round(float(multinomial_nll([[2.0, 0.0]], [[0.0, 0.0]])[0]), 4)
    1.3863
    """
    return -ops.sum(_float(counts) * ops.log_softmax(_float(logits), axis=-1), axis=-1)


def click_nll(clicked, logit):
    r"""Log-loss of a click.

    .. math:: -c\log\sigma(a)-(1-c)\log(1-\sigma(a))=\log(1+e^{a})-c\,a

    Parameters
    ----------
    clicked : tensor, shape (B,)
        c, 1 or 0.
    logit : tensor, shape (B,)
        a, log-odds of a click.

    Returns
    -------
    tensor, shape (B,)
        Nats.

    Examples
    --------
    >>> round(float(click_nll([1.0], [0.0])[0]), 4)
    0.6931
    """
    clicked, logit = _float(clicked), _float(logit)
    return ops.softplus(logit) - clicked * logit


def entire_space_nll(clicked, converted, click_logit, convert_logit):
    r"""Log-loss of clicks, and of clicks with a conversion, both over all impressions (ESMM).

    .. math:: \ell=\mathrm{BCE}\big(c,\ \sigma(a)\big)+\mathrm{BCE}\big(cv,\ \sigma(a)\,\sigma(b)\big)

    (Ma et al. 2018, arXiv:1804.07931.) The second part needs the logarithm of a number close to 0,

    .. math:: \log\big(1-\sigma(a)\sigma(b)\big)=\log(1+e^{\,a-\log(1+e^{b})})-\log(1+e^{a}),

    which in this form is finite, with finite gradients, for all logits.

    Parameters
    ----------
    clicked, converted : tensor, shape (B,)
        c and v, 1 or 0.
    click_logit, convert_logit : tensor, shape (B,)
        a and b, log-odds of a click and of a conversion after a click.

    Returns
    -------
    tensor, shape (B,)
        Nats.

    Examples
    --------
    >>> round(float(entire_space_nll([1.0], [1.0], [0.0], [0.0])[0]), 4)  # log 2 + log 4
    2.0794
    """
    a, b = _float(click_logit), _float(convert_logit)
    both = _float(clicked) * _float(converted)
    log_p = -ops.softplus(-a) - ops.softplus(-b)
    log_not_p = ops.softplus(a - ops.softplus(b)) - ops.softplus(a)
    return click_nll(clicked, a) - both * log_p - (1.0 - both) * log_not_p


def lognormal_nll(sales, m, log_s):
    r"""Negative log-density of a log-normal, for sales above zero; 0 for all others.

    .. math:: \log r+\log s+\tfrac12\log2\pi+\frac{(\log r-m)^2}{2s^2}

    Parameters
    ----------
    sales : tensor, shape (B,)
        r, in yuan; where it is 0, negative or NaN the row adds nothing.
    m, log_s : tensor, shape (B,)
        Mean and log of the standard deviation of :math:`\log r`; s is clipped to 0.05 .. 2.

    Returns
    -------
    tensor, shape (B,)
        Nats.

    Examples
    --------
    >>> [round(float(v), 4) for v in lognormal_nll([1.0, 0.0], [0.0, 0.0], [0.0, 0.0])]
    [0.9189, 0.0]
    """
    sales, m, log_s = _float(sales), _float(m), _float(log_s)
    sold = sales > 0
    log_r = ops.log(ops.where(sold, sales, ops.ones_like(sales)))
    log_s = ops.clip(log_s, *(math.log(s) for s in S_RANGE))
    nll = log_r + log_s + 0.5 * (LOG_2PI + ops.square((log_r - m) * ops.exp(-log_s)))
    return ops.where(sold, nll, ops.zeros_like(nll))


def zero_inflated_lognormal_nll(sales, logit, m, log_s):
    r"""Negative log-likelihood of sales that are mostly zero.

    .. math:: \ell=\mathrm{BCE}\big(\mathbb 1[r>0],\ \sigma(a)\big)
              +\mathbb 1[r>0]\Big[\log r+\log s+\tfrac12\log2\pi+\frac{(\log r-m)^2}{2s^2}\Big]

    (Wang, Liu and Miao 2019, arXiv:1912.07753.)

    Parameters
    ----------
    sales : tensor, shape (B,)
        r, in yuan, not negative; a row with NaN adds nothing.
    logit : tensor, shape (B,)
        a, log-odds that there are sales at all.
    m, log_s : tensor, shape (B,)
        Mean and log of the standard deviation of :math:`\log r` given r > 0; s is clipped to 0.05 .. 2.

    Returns
    -------
    tensor, shape (B,)
        Nats.

    Examples
    --------
    >>> round(float(zero_inflated_lognormal_nll([0.0], [0.0], [3.0], [0.0])[0]), 4)
    0.6931
    """
    sales = _float(sales)
    bought = click_nll(ops.cast(sales > 0, sales.dtype), logit)
    bought = ops.where(ops.isnan(sales), ops.zeros_like(bought), bought)
    return bought + lognormal_nll(sales, m, log_s)


def lognormal_mean(m, s):
    r"""Mean of a log-normal.

    .. math:: \mathbb E[r]=e^{m+s^2/2}

    Parameters
    ----------
    m, s : tensor, any shape
        Mean and standard deviation of :math:`\log r`; s is clipped to 0.05 .. 2, as in the loss.

    Returns
    -------
    tensor, same shape
        Yuan.

    Examples
    --------
    >>> round(float(lognormal_mean(0.0, 1.0)), 4)
    1.6487
    """
    return ops.exp(_float(m) + 0.5 * ops.square(ops.clip(_float(s), *S_RANGE)))


def _float(x):
    return ops.cast(x, keras.config.floatx())


def _there(observed):
    return ops.cast(observed, keras.config.floatx()) > 0


def _per_row(values):
    """Sum over all axes but the first."""
    axes = tuple(range(1, len(values.shape)))
    return ops.sum(values, axis=axes) if axes else values
