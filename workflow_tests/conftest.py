"""Fixtures of all tests: the devices that are present and tiny models of every architecture."""

import pytest
import torch

import tiny

torch.set_num_threads(1)  # tests run beside each other; more threads would fight for the cores


@pytest.fixture(params=["cpu", *(["cuda"] if torch.cuda.is_available() else [])])
def device(request):
    """Every device that is present."""
    return request.param


@pytest.fixture(params=tiny.ARCHITECTURES)
def architecture(request):
    """Every supported architecture by name."""
    return request.param


@pytest.fixture
def model(architecture, device):
    """A tiny float32 model of every architecture, on every device."""
    return tiny.build(architecture, device=device)
