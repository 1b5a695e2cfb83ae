from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from penstock.decisions.language import Language, identify
from penstock.errors import ConfigError
from penstock.fingerprint import fingerprint

SENTENCES = {
    "en": "The boats came home in the morning, and nobody on the quay said a word about it.",
    "de": "Die Boote kamen am Morgen zurück, und niemand am Kai sagte ein Wort darüber.",
    "fr": "Les bateaux sont rentrés le matin, et personne sur le quai n'en a dit un mot.",
    "es": "Los barcos volvieron por la mañana y nadie en el muelle dijo una palabra de ello.",
    "ru": "Лодки вернулись утром, и никто на причале не сказал об этом ни слова.",
    "ja": "朝になって船が帰ってきたが、埠頭では誰もそのことを口にしなかった。",
    "zh": "早上船回来了，码头上没有人对此说一句话。",
    "ar": "عادت القوارب في الصباح ولم يقل أحد على الرصيف كلمة واحدة عن ذلك.",
    "he": "הסירות חזרו בבוקר, ואיש על הרציף לא אמר על כך מילה.",
}


def _decided(step: Language, texts: list[str]) -> list[dict[str, Any]]:
    ids = pa.array([str(i) for i in range(len(texts))])
    signature = step.signature(pa.record_batch({"text": pa.array(texts, pa.large_string())}))
    assert signature.type == step.signature_type
    rows: list[dict[str, Any]] = step.decide(
        pa.chunked_array([ids]), pa.chunked_array([signature])
    ).to_pylist()
    return rows


def test_tells_languages_apart() -> None:
    codes, scores = identify(pa.array(list(SENTENCES.values())), 1 << 16)

    assert codes.to_pylist() == list(SENTENCES)
    assert min(scores) > 0.65


def test_equals_the_package_that_brings_the_model() -> None:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    texts = [path.read_text() for path in (Path(__file__).parent.parent / "data").rglob("*.md")]
    texts += [*SENTENCES.values(), *map(str.upper, SENTENCES.values())]
    theirs = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)

    codes, scores = identify(pa.array(texts, pa.large_string()), 1 << 30)
    for text, code, score in zip(texts, codes.to_pylist(), scores.tolist(), strict=True):
        expected, probability = theirs.classify(text)
        assert (code, score) == (expected, pytest.approx(probability, abs=1e-3))


def test_keeps_the_languages_asked_for() -> None:
    dropped = _decided(Language(keep=("en", "ja")), [*SENTENCES.values()])

    names = list(SENTENCES)
    assert [names[int(row["doc_id"])] for row in dropped] == [
        "de",
        "fr",
        "es",
        "ru",
        "zh",
        "ar",
        "he",
    ]
    assert {row["rule"] for row in dropped} == {"language.other_language"}


@pytest.mark.parametrize("text", ["", "\0", "  \n", "☃☃☃"])
def test_a_text_without_language_is_undetermined(text: str) -> None:
    codes, scores = identify(pa.array([text]), 100)

    assert codes.to_pylist() == ["und"] or scores[0] < 0.65
    (row,) = _decided(Language(keep=None), [text])
    assert row["rule"] == "language.low_score"


def test_a_score_at_the_threshold_passes() -> None:
    text = "short text here"
    _, scores = identify(pa.array([text]), 1 << 16)

    assert _decided(Language(keep=None, threshold=float(scores[0])), [text]) == []


def test_looks_at_the_beginning_alone() -> None:
    text = SENTENCES["en"] * 4 + SENTENCES["de"] * 40

    head = len(SENTENCES["en"]) * 4
    assert identify(pa.array([text]), head)[0].to_pylist() == ["en"]
    assert identify(pa.array([text]), 1 << 20)[0].to_pylist() == ["de"]


def test_no_documents_have_no_languages() -> None:
    assert _decided(Language(), []) == []


def test_what_decides_is_not_in_the_fingerprint() -> None:
    assert fingerprint(Language(keep=("de",), threshold=0.2)) == fingerprint(Language())
    assert fingerprint(Language(max_bytes=100)) != fingerprint(Language())


@pytest.mark.parametrize(
    "settings",
    [
        {"threshold": 1.5},
        {"threshold": None},
        {"keep": "en"},
        {"keep": ()},
        {"keep": ("en", "klingon")},
        {"max_bytes": 0},
    ],
    ids=str,
)
def test_a_senseless_setting_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Language(**settings)
