"""Two-qubit operators that are real and commute with Y x Y, as two real 2 x 2 blocks.

In the basis (Phi+, Psi-), (Phi-, Psi+), with Phi+- = (|00> +- |11>)/sqrt 2 and
Psi+- = (|01> +- |10>)/sqrt 2, such an operator has the blocks (k 1 + z Z + x X)/2, written
(k, z, x).  A stack of operators is an array (..., 2, 3): block, then k, z, x.

Why these are all that is needed: the measurement directions alpha of Alice and beta of Bob lie in
the XZ plane, and a product of their eigenvectors has in the two blocks the components
(cos phi/2, sin phi/2)/sqrt 2 with phi = beta - alpha and phi = beta + alpha.  Turning Alice's qubit
by alpha and Bob's by beta in that plane therefore turns the vectors (z, x) by these phi.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Reals = NDArray[np.float64]
Function = Callable[[Reals], Reals]

LOG_FLOOR = -80.0
"""Least logarithm of an eigenvalue of a state."""


def spectral(operator: Reals, function: Function) -> Reals:
    """The function of each block (..., 3), through its eigenvalues."""
    radius = np.hypot(operator[..., 1], operator[..., 2])
    high = function((operator[..., 0] + radius) / 2.0)
    low = function((operator[..., 0] - radius) / 2.0)
    # Both eigenvalues are one where the radius is 0, and so the direction is of no account.
    slope = (high - low) / np.where(radius > 0.0, radius, 1.0)
    return np.stack([high + low, slope * operator[..., 1], slope * operator[..., 2]], axis=-1)


def largest_eigenvalue(operator: Reals) -> Reals:
    """Of each operator (..., 2, 3)."""
    radius = np.hypot(operator[..., 1], operator[..., 2])
    return np.asarray(((operator[..., 0] + radius) / 2.0).max(axis=-1))


def trace_of_product(one: Reals, other: Reals) -> Reals:
    return np.asarray((one * other).sum(axis=(-1, -2)) / 2.0)


def rotated(operator: Reals, turn: Reals) -> Reals:
    """`operator` (..., 2, 3) with its vectors turned by phi; `turn` (..., 2, 2) is cos and sin."""
    z, x, c, s = operator[..., 1], operator[..., 2], turn[..., 0], turn[..., 1]
    k = np.broadcast_to(operator[..., 0], np.broadcast_shapes(z.shape, c.shape))
    return np.stack([k, c * z - s * x, s * z + c * x], axis=-1)


def state_with_logarithm(logarithm: Reals) -> Reals:
    """The logarithm of the state proportional to exp(logarithm), no eigenvalue below the floor.

    Floored eigenvalues raise the trace above 1 by some 1e-34; nothing here needs it to be 1.
    """
    shifted = logarithm.copy()
    shifted[..., 0] -= 2.0 * largest_eigenvalue(logarithm)[..., None]  # so that nothing overflows
    trace = spectral(shifted, np.exp)[..., 0].sum(axis=-1)
    shifted[..., 0] -= 2.0 * np.log(trace)[..., None]
    return spectral(shifted, lambda values: np.maximum(values, LOG_FLOOR))


def power_derivative(logarithm: Reals, exponent: float, direction: Reals) -> Reals:
    """The derivative of rho^exponent at rho = exp(logarithm) along `direction` (..., 2, 3).

    Divided differences of x^exponent in the eigenbasis of each block.  The map is its own adjoint,
    and for an exponent from 0 to 1 positive, since x^exponent is then operator monotone.
    """
    middle = logarithm[..., 0] / 2.0
    radius = np.hypot(logarithm[..., 1], logarithm[..., 2])
    axis = logarithm[..., 1:] / np.where(radius > 0.0, radius, 1.0)[..., None]
    half = radius / 2.0
    high = exponent * np.exp((exponent - 1.0) * (middle + half))
    low = exponent * np.exp((exponent - 1.0) * (middle - half))
    # (a^s - b^s)/(a - b) by hyperbolic sines, which lose nothing where a is close to b.
    apart = half > 1e-9
    ratio = np.sinh(exponent * half) / np.sinh(np.where(apart, half, 1.0))
    across = np.exp((exponent - 1.0) * middle) * np.where(apart, ratio, exponent)
    along = (direction[..., 1:] * axis).sum(axis=-1)
    sideways = direction[..., 1:] - along[..., None] * axis
    top = high * (direction[..., 0] + along) / 2.0
    bottom = low * (direction[..., 0] - along) / 2.0
    vector = (top - bottom)[..., None] * axis + across[..., None] * sideways
    return np.concatenate([(top + bottom)[..., None], vector], axis=-1)
