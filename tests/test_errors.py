import pickle

import pytest

from penstock import errors

EXAMPLES = [
    errors.ConfigError("Chunk.max_tokens", -1, "must be positive"),
    errors.MissingExtra("hub", "a model by its Hub id"),
    errors.SourceError("docs", "no such folder"),
    errors.ModelError("bert", "not found"),
    errors.QueryError("k", "must be positive"),
    errors.StoreError("corpus", "not a store"),
    errors.FormatError("corpus", "format 9"),
    errors.LeaseError("corpus", "held"),
    errors.ShardError("shard.00000.mds", 17, "expected 64 bytes, found 17"),
    errors.GateError("000007", [("ndcg@10", 0.4, 0.3512)]),
    errors.RowError("binary-file", "NUL at byte 3", "exclude it"),
    errors.WorkerDied("Map", -9),
]


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_an_error_survives_pickling_out_of_a_worker(error: errors.PenstockError) -> None:
    copy = pickle.loads(pickle.dumps(error))

    assert type(copy) is type(error)
    assert vars(copy) == vars(error)
    assert str(copy) == str(error)


def test_every_error_is_covered_and_shares_the_root() -> None:
    defined = {
        value
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, Exception) and not name.startswith("_")
    }

    assert {type(error) for error in EXAMPLES} == defined - {errors.PenstockError}
    assert all(issubclass(error, errors.PenstockError) for error in defined)
