"""Score languages: walk a text through an automaton of byte n-grams, and weigh what was found."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from penstock.kernels.buffers import I64, U8, Int
from penstock.kernels.leaves import leaf

I32 = npt.NDArray[np.int32]
F32 = npt.NDArray[np.float32]
U32 = npt.NDArray[np.uint32]


@leaf
def score_languages(
    offsets: I64,
    utf8: U8,
    moves: U32,
    bases: I32,
    features: I32,
    weights: F32,
    priors: F32,
    max_bytes: Int,
    counts: I32,
    found: I32,
    scores: F32,
    may_shout: U8,
) -> None:
    """Write the score of each language for each row.

    Args:
        offsets: (num_rows + 1,).
        utf8: The data.
        moves: The next state, at the state's base plus the byte.
        bases: (num_states,).
        features: (num_states,) the feature that reaching the state is, or -1.
        weights: (num_features, num_languages).
        priors: (num_languages,).
        max_bytes: Bytes of a row that are looked at.
        counts: (num_features,) zeros; zeros again afterwards.
        found: (num_features,).
        scores: (num_rows, num_languages); all zero where nothing was found.
        may_shout: (num_rows,) 1 where no small ASCII letters are, but maybe capital ones.
    """
    for row in range(len(offsets) - 1):
        end = min(offsets[row + 1], offsets[row] + max_bytes)
        state: Int = 0
        num_capital: Int = 0
        num_small: Int = 0
        n = 0
        for i in range(offsets[row], end):
            byte = np.int64(utf8[i])
            num_capital += 0x41 <= byte <= 0x5A or byte >= 0xC3
            num_small += 0x61 <= byte <= 0x7A
            state = np.int64(moves[bases[state] + byte])
            feature = features[state]
            if feature >= 0:
                if counts[feature] == 0:
                    found[n] = feature
                    n += 1
                counts[feature] += 1
        may_shout[row] = num_capital > 0 and num_small == 0
        scores[row, :] = 0
        for k in range(n):
            feature = found[k]
            weight = np.float32(np.log1p(np.float32(counts[feature])))
            counts[feature] = 0
            for language in range(len(priors)):
                scores[row, language] += weight * weights[feature, language]
        if n:
            for language in range(len(priors)):
                scores[row, language] += priors[language]
