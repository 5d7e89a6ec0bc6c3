"""Models whose prompts cannot be computed apart from their responses are refused when they are loaded; all others are right."""

from __future__ import annotations

import pytest
from families import FAMILIES, MORE_FAMILIES, UNFIT, random_base, random_model

from onelayer.agents.supported import check_supported
from onelayer.common.errors import UserError


@pytest.mark.parametrize("family", [*FAMILIES, *MORE_FAMILIES])
def test_attending_models_pass(family: str) -> None:
    check_supported(random_base(family).model)
    check_supported(random_base(family).model.bfloat16())


@pytest.mark.parametrize("model_type", UNFIT)
def test_others_are_refused_in_one_line(model_type: str) -> None:
    with pytest.raises(UserError, match="model") as caught:
        check_supported(random_model(model_type))
    assert "\n" not in str(caught.value)
