"""The points that quantised weights may take: uniform grids, tables of 16 values, 8-bit floats, GGUF's blocks.

Plain functions on tensors [out, in]; nothing here knows models. All arithmetic is float32, results have the type of
the weight. A group of zeros stays zero on every grid.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

NF4 = (
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
)
# Magnitudes of 4-bit floats with two exponent bits and one of mantissa, divided by the largest. bitsandbytes gives
# the one below 1/6 as 1/192 instead of the 1/12 that the OCP standard has.
FP4 = {
    "bitsandbytes": (0.0, 0.0625 / 12, 2 / 12, 3 / 12, 4 / 12, 6 / 12, 8 / 12, 1.0),
    "e2m1": (0.0, 0.5 / 6, 1 / 6, 1.5 / 6, 2 / 6, 3 / 6, 4 / 6, 1.0),
}
FLOAT8 = {"e4m3": torch.float8_e4m3fn, "e5m2": torch.float8_e5m2}


@dataclasses.dataclass(frozen=True)
class Grid:
    """Uniform grids: the points step·k for whole numbers k from low to high. The fields broadcast against weights."""

    step: Tensor
    low: Tensor
    high: Tensor

    def nearest(self, values: Tensor) -> Tensor:
        """Return the nearest point of the grid for every value; ties go to the even k."""
        return values.div(self.step).round_().clamp_(self.low, self.high).mul_(self.step)


def usable(step: Tensor) -> Tensor:
    """Return steps with 1 for 0: a group of zeros stays zero."""
    return torch.where(step == 0, torch.ones_like(step), step)


def uniform(values: Tensor, bits: int, symmetric: bool, dim: int = -1) -> Grid:
    """Return one grid of 2^bits points for all values along ``dim``, which is kept with size 1.

    Asymmetric: Δ = (max − min)/(2^b − 1), zero point z = −round(min/Δ), so k runs from −z to 2^b − 1 − z. The range is
    widened to hold 0, as in GPTQ's quantizer, so that z fits into b bits and a pruned weight stays 0.
    Symmetric: Δ = max|w|/(2^(b−1) − 1), k from −(2^(b−1) − 1) to 2^(b−1) − 1.

    Args:
        values: float32.
        bits: 2 to 8.
        symmetric: whether the grid is centred at 0.
        dim: the dimension whose values share a grid.
    """
    if symmetric:
        top = 2 ** (bits - 1) - 1
        step = usable(values.abs().amax(dim=dim, keepdim=True) / top)
        high = torch.full_like(step, top)
        return Grid(step, -high, high)
    least = values.amin(dim=dim, keepdim=True).clamp(max=0)
    most = values.amax(dim=dim, keepdim=True).clamp(min=0)
    step = usable((most - least) / (2**bits - 1))
    low = torch.round(least / step)
    return Grid(step, low, low + (2**bits - 1))


def round_to_table(weight: Tensor, table: tuple[float, ...], group: int) -> Tensor:
    """Return ``weight`` with every value at the nearest of max|w|·table, for each group of the flattened matrix.

    Groups run on from row to row, as in bitsandbytes; the last one may be shorter.

    Args:
        weight: [out, in].
        table: ascending values from -1 to 1.
        group: weights that share a scale.
    """
    flat = weight.float().flatten()
    blocks = torch.nn.functional.pad(flat, (0, -len(flat) % group)).reshape(-1, group)
    scale = blocks.abs().amax(dim=1, keepdim=True)
    points = torch.tensor(table, device=weight.device)
    place = torch.bucketize(blocks / usable(scale), (points[1:] + points[:-1]) / 2)
    return (points[place] * scale).flatten()[: len(flat)].reshape(weight.shape).to(weight.dtype)


def fp4_table(name: str) -> tuple[float, ...]:
    """Return the ascending values of a 4-bit float format of ``FP4``, both signs, zero once."""
    magnitudes = FP4[name]
    return (*(-value for value in reversed(magnitudes[1:])), *magnitudes)


def round_to_float8(weight: Tensor, form: str, by_row: bool) -> Tensor:
    """Return ``weight`` cast to an 8-bit float and back, scaled so that the largest |w| is the largest number.

    Args:
        weight: [out, in].
        form: a name of ``FLOAT8``.
        by_row: one scale for every row, or one for the matrix.
    """
    exact = weight.float()
    peak = exact.abs().amax(dim=1, keepdim=True) if by_row else exact.abs().amax()
    scale = usable(peak / torch.finfo(FLOAT8[form]).max)
    return (exact / scale).to(FLOAT8[form]).float().mul_(scale).to(weight.dtype)


def round_to_gguf(weight: Tensor, form: str) -> Tensor:
    """Return ``weight`` as it comes back from a GGUF file of type ``form`` ("Q4_0"), by the gguf package's own code.

    Args:
        weight: [out, in]; 32 divides ``in``.
        form: one of the types in blocks of 32: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0.
    """
    from gguf import GGMLQuantizationType, quants

    kind = GGMLQuantizationType[form]
    packed = quants.quantize(weight.float().cpu().contiguous().numpy(), kind)
    return torch.from_numpy(quants.dequantize(packed, kind)).to(weight.device, weight.dtype)
