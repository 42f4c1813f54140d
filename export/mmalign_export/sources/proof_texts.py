"""Stage 1 of the proof: the ids of texts in many scripts are those of the library's own tokenizer."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import cast

from mmalign.dual_model import TextModelTower
from mmalign_export.errors import ProofError
from mmalign_export.sources.protocol import Original
from mmalign_runtime.spec import ProofStage, TextSpec

# Greetings, sentences and names: people write so. Each line is one text.
_SCRIPTS = """\
a photo of a cat
A photo of two dogs, playing in the snow.
Une photo d'un chien près de la mer
Ein Bild von einem großen Hund am Fluß
Una foto de un niño con su perro en España
O gato está em cima da cadeira, não é?
Zdjęcie żółtej łódki na jeziorze
Příliš žluťoučký kůň úpěl ďábelské ódy
Fotografie a unui câine în București
Bir köpeğin fotoğrafı, İstanbul ve ığdır
En bild på en räksmörgås och ett öl
Kuva koirasta järven jäällä
Egy kutya képe a Duna-parton: árvíztűrő tükörfúrógép
Фотография рыжей кошки на крыше дома
Світлина собаки в Києві, їжак і ґанок
Снимка на куче в София
Φωτογραφία ενός σκύλου στην παραλία
תמונה של כלב על החוף
صورة لقطة تجلس على الكرسي
یک عکس از سگ در برف
کتے کی ایک تصویر
कुत्ते की एक तस्वीर
কুকুরের একটি ছবি
ਕੁੱਤੇ ਦੀ ਤਸਵੀਰ
ஒரு நாயின் புகைப்படம்
కుక్క ఫోటో
ನಾಯಿಯ ಚಿತ್ರ
ഒരു നായയുടെ ചിത്രം
රූපය බල්ලෙක්
ภาพถ่ายของสุนัขบนชายหาด
ຮູບຖ່າຍຂອງໝາ
ရုပ်ပုံ ခွေး
រូបថតឆ្កែ
ཁྱི་ཡི་པར།
ძაღლის ფოტო
Շան լուսանկար
የውሻ ፎቶ
一张狗在海滩上的照片
一張狗在海灘上的照片
海辺の犬の写真
イヌノシャシン ﾊﾝｶｸ
해변에 있는 개의 사진
Ảnh một con chó trên bãi biển
Larawan ng isang aso
Picha ya mbwa ufukweni
Fọ́tò ajá kan
Foto seekor anjing di pantai
""".splitlines()
# What tokenizers and their cleaning trip over.
_CORNERS = (
    " ",
    "\n",
    "a",
    ".",
    "?!",
    "...",
    "it's the dogs' ball, we'll see; they've won, I'd say",
    "IT'S ALL CAPITALS",
    "MiXeD CaSe TeXt",
    "don’t “quote” — ‘single’ … ellipsis",
    "1 22 333 4444 3.14159 1,000,000 2026-11-26 12:30",
    "price: $5.00 €10 £3 ¥100 ₹50",
    "50% off #sale @home a_b_c a-b-c a/b/c a\\b",
    "https://example.com/path?x=1&y=2#top",
    "name@example.org",
    "x = [1, 2, 3]; y = {'a': 1}",
    "def f(x):\n    return x ** 2",
    "<b>bold</b> &amp; &lt;tag&gt; &quot;q&quot; &#39;s",
    "a & b &copy; 2026",
    "&amp;amp; twice",
    "trailing space ",
    " leading space",
    "two  spaces   three",
    "tab\tand\r\nline breaks\n\n",
    "non\u00a0breaking\u2009thin\u3000wide",
    "zero\u200bwidth\u200djoiner\ufeff",
    "soft\u00adhyphen",
    "combining e\u0301 a\u030a n\u0303",
    "composed \u00e9 \u00e5 \u00f1",
    "ﬁne ligature ﬂow ½ ² ™ ℃ Ⅳ",
    "ｆｕｌｌ　ｗｉｄｔｈ　ＡＢＣ１２３",
    "mojibake: cafÃ© schÃ¶n â€œquotesâ€",
    "𝐛𝐨𝐥𝐝 𝒾𝓉𝒶𝓁𝒾𝒸 𝔣𝔯𝔞𝔨𝔱𝔲𝔯",
    "😀😃😄 👍🏽 👩🏾‍🚀 🏳️‍🌈 🇯🇵 1️⃣",
    "❤ ❤️ ☀ ☀️ ✔",
    "♪ ♫ → ← ↑ ∞ ≠ ≤ √ ∑",
    "a\u0000b",
    "bell\u0007 and escape\u001b",
    "rtl \u202eoverride\u202c",
    "supercalifragilisticexpialidocious",
    "Donaudampfschifffahrtsgesellschaftskapitän",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "word " * 200,
    "很长的句子，" * 60,
    "🐕" * 50,
    "a b c d e f g h i j k l m n o p q r s t u v w x y z",
    "The quick brown fox jumps over the lazy dog. " * 3,
    "İstanbul DİYARBAKIR ǅ ẞ Σίσυφος",
    "½ cup of crème brûlée à la carte",
    "C++ C# F# .NET node.js",
    "R&B rock'n'roll AT&T",
    "“smart” 'dumb' `back` ´acute´",
    "[CLS] [SEP] [MASK] [PAD] [UNK]",
    "<s> </s> <pad> <unk> <mask>",
    "<|startoftext|> <|endoftext|>",
    "<|im_start|>user<|im_end|>",
    "_underscore_ *star* ~tilde~ ^caret^ |pipe|",
    "▁sentencepiece ▁mark",
    "##wordpiece ##mark",
    "Ġbyte Ġlevel</w>",
)
# Ordinary captions: what people send most.
_CAPTIONS = tuple(
    f"a {colour} {thing} {place}"
    for colour in ("red", "blue", "small", "very old")
    for thing in ("dog", "bicycle", "teapot", "house", "jacket", "butterfly")
    for place in ("on a table", "in the rain", "at night, seen from above")
)

PROOF_TEXTS: tuple[str, ...] = (*_SCRIPTS, *_CORNERS, *_CAPTIONS)
logger = logging.getLogger(__name__)

# Texts whose ids may differ: a tokenizer converted from another library's is not it in every corner.
DIFFERING_SHARE = 0.01
_SHOWN = 40


def prove_tokens(tower: TextModelTower, original: Original, texts: Sequence[str]) -> tuple[frozenset[str], ProofStage]:
    """Return the texts whose ids differ, at most `DIFFERING_SHARE` of them, and the stage. Raises ProofError."""
    ours = _token_ids(tower, texts)
    theirs = original.token_ids(texts)
    pairs = zip(texts, ours, theirs, strict=True)
    differing = [(text, mine, its) for text, mine, its in pairs if not same_ids(mine, its, tower.spec)]
    bound = int(DIFFERING_SHARE * len(texts))
    named = "; ".join(f"{text[:_SHOWN]!r}: {mine[:8]} for {its[:8]}" for text, mine, its in differing[:5])
    if len(differing) > bound:
        raise ProofError(
            f"token ids: {len(differing)} of {len(texts)} texts have other ids than {original.library} gives, at most "
            f"{bound} may: {named}. The tokenizer, its cleaning or its padding is not the library's."
        )
    if differing:
        logger.warning("proof: %d of %d texts have other token ids: %s", len(differing), len(texts), named)
    stage = ProofStage(stage="token ids", tower="text", num_cases=len(texts), largest=len(differing), bound=bound)
    return frozenset(text for text, _, _ in differing), stage


def _token_ids(tower: TextModelTower, texts: Sequence[str]) -> list[list[int]]:
    """Return each text's ids alone, with the padding that the tower sees of it."""
    rows = (tower.prepare([text])["input_ids"][0] for text in texts)
    return [cast("list[int]", row.tolist()) for row in rows]


def same_ids(ours: list[int], theirs: list[int], spec: TextSpec) -> bool:
    """Say whether two rows are the same, beside padding where the spec pads only to the longest text of a batch."""
    if spec.padding == "fixed":
        return ours == theirs
    short, long = sorted((ours, theirs), key=len)
    rest = len(long) - len(short)
    tokens, padding = (long[:-rest], long[-rest:]) if spec.padding_side == "right" else (long[rest:], long[:rest])
    return ours == theirs if not rest else tokens == short and set(padding) == {spec.pad_token_id}
