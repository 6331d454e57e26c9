r"""Losses that single chapters need: of pixels, of each latent dimension, and the schedule of the KL term.

Every loss takes tensors whose first axis counts rows and returns one number per row, ``(B, ...) -> (B,)``, in nats.
Shapes: ``B`` rows, ``L`` latent dimensions.
"""

import math

import keras
from keras import KerasTensor, ops

Tensor = KerasTensor  # or what turns into one: an array, a list of numbers


def kl_per_dimension(mean: Tensor, log_var: Tensor) -> Tensor:
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


def kl_schedule(step: float, warmup_steps: float, beta: float = 1.0) -> float:
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


def free_bits(kl_per_dim_batch_mean: Tensor, nats: float) -> Tensor:
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


def bernoulli_nll(x: Tensor, logits: Tensor) -> Tensor:
    r"""Negative log-likelihood of 0 and 1, or cross-entropy of values between, summed over all axes but one.

    .. math:: -\sum_i\big[x_i\log\sigma(l_i)+(1-x_i)\log(1-\sigma(l_i))\big]
              =\sum_i\big[\log(1+e^{l_i})-x_il_i\big]

    For grey values it is no log-density, and a loose bound of one: `continuous_bernoulli_nll`, which is one, is smaller
    by at least log 2 for each value.

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


def continuous_bernoulli_nll(x: Tensor, logits: Tensor) -> Tensor:
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


def continuous_bernoulli_mean(logits: Tensor) -> Tensor:
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


def _float(x: Tensor) -> Tensor:
    return ops.cast(x, keras.config.floatx())


def _per_row(values: Tensor) -> Tensor:
    """Sum over all axes but the first."""
    axes = tuple(range(1, len(values.shape)))
    return ops.sum(values, axis=axes) if axes else values
