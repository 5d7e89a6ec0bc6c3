"""The clipped surrogate at points where its value and slope can be told by hand."""

from __future__ import annotations

import math

import pytest
import torch

from onelayer.trainers.loss import clipped_surrogate, sequence_mean


@pytest.mark.parametrize(
    ("ratio", "advantage", "low", "high", "dual", "gain", "slope"),
    [  # slope: of the gain, by the log of the ratio
        (1.1, 2, 0.2, 0.2, None, 2.2, 2.2),
        (1.3, 2, 0.2, 0.2, None, 2.4, 0),
        (1.3, 2, 0.2, 0.4, None, 2.6, 2.6),  # the upper bound alone is higher
        (1.5, 2, 0.2, 0.4, None, 2.8, 0),
        (0.7, -2, 0.2, 0.4, None, -1.6, 0),  # the lower bound is as before
        (0.5, 2, 0.2, 0.2, None, 1.0, 1.0),  # no bound stops a way back
        (1.5, -2, 0.2, 0.2, None, -3.0, -3.0),
        (5, -2, 0.2, 0.2, None, -10.0, -10.0),
        (5, -2, 0.2, 0.2, 3.0, -6.0, 0),  # but the dual clip does
        (2, -2, 0.2, 0.2, 3.0, -4.0, -4.0),
        (5, 2, 0.2, 0.2, 3.0, 2.4, 0),  # on negative advantages alone
    ],
)
def test_clipping(ratio: float, advantage: float, low: float, high: float, dual: float | None, gain: float, slope: float) -> None:
    log_ratio = torch.tensor([[math.log(ratio)]], requires_grad=True)
    weight = torch.tensor([[0.25]])
    loss = clipped_surrogate(log_ratio, torch.tensor([[float(advantage)]]), weight, low, high, dual)
    loss.backward()
    assert loss.item() == pytest.approx(-0.25 * gain)
    assert log_ratio.grad is not None and log_ratio.grad.item() == pytest.approx(-0.25 * slope)


def test_the_ratio_of_a_sequence_is_the_geometric_mean_of_its_tokens() -> None:
    log_ratio = torch.tensor([0.3, -0.1, 0.2], requires_grad=True)
    means = sequence_mean(log_ratio, torch.tensor([0, 0, 2]))
    assert means.tolist() == pytest.approx([0.1, 0.1, 0.2]) and not means.requires_grad
    found = means + (log_ratio - log_ratio.detach())
    clipped_surrogate(found, torch.tensor([1.0, 3.0, 1.0]), torch.full((3,), 0.5), 0.2, 0.2).backward()
    first = math.exp(0.1) / 2  # each token by the advantage of its own step; e^0.2 is clipped
    assert log_ratio.grad is not None and log_ratio.grad.tolist() == pytest.approx([-first, -3 * first, 0])
