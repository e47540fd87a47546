"""The protocol: names, validation, and which positions are scored."""

from __future__ import annotations

import dataclasses

import pytest

from hemorrhage.corpus.protocol import NAMED, Protocol


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"window": 1}, "window: 1"),
        ({"window": 256, "stride": 300}, "stride: 300"),
        ({"scored": "half"}, "protocol.scored 'half'"),
        ({"joining": "articles"}, "Did you mean 'article'"),
        ({"dtype": "float8"}, "protocol.dtype 'float8'"),
        ({"bos": "yes"}, "neither true nor false"),
        ({"window": 256, "stride": 128}, "do not overlap"),
    ],
)
def test_wrong_settings_name_the_setting(settings, message):
    with pytest.raises(ValueError, match=message):
        Protocol(**settings)


def test_every_setting_changes_the_slug():
    changes = {"window": 128, "stride": 100, "scored": "new", "bos": True, "joining": "article", "dtype": "bfloat16"}
    base = {"window": 256, "stride": 256, "joining": "contiguous"}
    slugs = {
        Protocol(**{**base, **({"stride": 128} if key == "window" else {}), key: value}).slug
        for key, value in changes.items()
    }
    assert len(slugs | {Protocol(**base).slug}) == len(changes) + 1


def test_a_protocol_survives_its_dictionary():
    for protocol in NAMED.values():
        assert Protocol(**protocol.as_dict()) == protocol


def test_a_name_can_be_used_with_another_dtype():
    assert Protocol.of("gptq-2048", dtype="bfloat16") == dataclasses.replace(NAMED["gptq-2048"], dtype="bfloat16")
    with pytest.raises(ValueError, match="Did you mean 'gptq-2048'"):
        Protocol.of("gptq2048")
    with pytest.raises(ValueError, match="Did you mean 'stride'"):
        Protocol.of({"strides": 3})


def test_llamacpp_scores_255_of_512_positions():
    protocol = NAMED["llamacpp-half-512"]
    assert protocol.length - protocol.first_scored(True) == 255
    assert protocol.first_scored(True) == 257  # the token predicted at position n_ctx/2


def test_new_scores_the_stride_after_the_first_window():
    protocol = NAMED["hf-strided"]
    assert protocol.first_scored(True) == 1
    assert protocol.length - protocol.first_scored(False) == 512


def test_bos_replaces_no_token():
    protocol = Protocol(window=256, bos=True)
    assert protocol.length == 257
    assert protocol.length - protocol.first_scored(True) == 256
