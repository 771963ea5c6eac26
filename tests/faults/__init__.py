"""The crash campaign: rows 1 to 13 of the faults that the store has to stand."""

import pytest

pytest.register_assert_rewrite(f"{__name__}.campaign", f"{__name__}.harness")
