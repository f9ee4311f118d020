"""Writes the translation sample: English sentences of a small grammar and their Chinese.

`python -m rlhf_lightning.tasks.translation.make_data` rewrites the committed files byte for byte.
"""

import random
import re
from pathlib import Path

from rlhf_lightning.tasks.generate import (
    Row,
    build_files,
    is_held_out,
    other,
    pick,
    pick_weighted,
    run,
    spoil_words,
)
from rlhf_lightning.tasks.translation.gold import english_order, score_one, translations

SUBJECTS = {
    "I": "我",
    "he": "他",
    "she": "她",
    "we": "我们",
    "they": "他们",
    "my mother": "我妈妈",
    "my father": "我爸爸",
    "his brother": "他哥哥",
    "her sister": "她姐姐",
    "the teacher": "老师",
    "the doctor": "医生",
    "the driver": "司机",
    "the student": "学生",
    "the manager": "经理",
    "David": "大卫",
    "Mary": "玛丽",
}
VERBS = {
    "buy": ("bought", "买"),
    "sell": ("sold", "卖"),
    "find": ("found", "找到"),
    "see": ("saw", "看见"),
    "draw": ("drew", "画"),
    "choose": ("chose", "选"),
    "borrow": ("borrowed", "借"),
    "order": ("ordered", "订"),
    "rent": ("rented", "租"),
    "photograph": ("photographed", "拍"),
}
OBJECTS = {
    "book": ("books", "本", "书"),
    "dictionary": ("dictionaries", "本", "词典"),
    "magazine": ("magazines", "本", "杂志"),
    "map": ("maps", "张", "地图"),
    "table": ("tables", "张", "桌子"),
    "bed": ("beds", "张", "床"),
    "umbrella": ("umbrellas", "把", "雨伞"),
    "chair": ("chairs", "把", "椅子"),
    "guitar": ("guitars", "把", "吉他"),
    "cat": ("cats", "只", "猫"),
    "bird": ("birds", "只", "鸟"),
    "chicken": ("chickens", "只", "鸡"),
    "fish": ("fish", "条", "鱼"),
    "scarf": ("scarves", "条", "围巾"),
    "boat": ("boats", "条", "船"),
    "car": ("cars", "辆", "汽车"),
    "bicycle": ("bicycles", "辆", "自行车"),
    "shirt": ("shirts", "件", "衬衫"),
    "coat": ("coats", "件", "大衣"),
    "computer": ("computers", "台", "电脑"),
    "camera": ("cameras", "台", "相机"),
    "bag": ("bags", "个", "包"),
    "lamp": ("lamps", "盏", "灯"),
    "horse": ("horses", "匹", "马"),
}
NUMBERS = {
    "one": "一",
    "two": "两",
    "three": "三",
    "four": "四",
    "five": "五",
    "six": "六",
    "seven": "七",
    "eight": "八",
    "nine": "九",
    "ten": "十",
}
PLACES = {
    "at the market": "在市场",
    "at the station": "在车站",
    "at the airport": "在机场",
    "in the park": "在公园",
    "in the shop": "在商店",
    "at school": "在学校",
    "in the village": "在村里",
    "in Beijing": "在北京",
    "in Shanghai": "在上海",
    "by the river": "在河边",
}
PAST = {
    "yesterday": "昨天",
    "last week": "上周",
    "this morning": "今天早上",
    "last month": "上个月",
    "last year": "去年",
}
FUTURE = {"tomorrow": "明天", "next week": "下周", "tonight": "今晚", "next month": "下个月", "next year": "明年"}
WORDS = {
    "subject": list(SUBJECTS.values()),
    "time": list((PAST | FUTURE).values()),
    "place": list(PLACES.values()),
    "verb": [verb for _, verb in VERBS.values()],
    "number": list(NUMBERS.values()),
    "measure": list(dict.fromkeys(measure for _, measure, _ in OBJECTS.values())),
    "object": [noun for _, _, noun in OBJECTS.values()],
}
"""The Chinese words that may stand in each role."""
MOODS = {"past": 0.4, "past_question": 0.15, "not_past": 0.15, "future": 0.15, "wish": 0.15}
STYLES = {"good": 0.4, "general_measure": 0.14, "no_measure": 0.04, "no_aspect": 0.04, "english_order": 0.38}
"""How the demonstrators write: the first is what annotators like best."""


Sentence = tuple[str, dict[str, str]]
"""The English text, and the Chinese words by role, in the order in which `gold.translations` takes them."""


def combinations(row: Row) -> list[tuple[str, ...]]:
    """The combinations of slots in a row that tell train from held-out rows: what is done with what."""
    words = set(re.findall(r"\w+", row["source"]))
    verb = next(verb for verb, (past, _) in VERBS.items() if words & {verb, past})
    noun = next(noun for noun, (plural, _, _) in OBJECTS.items() if words & {noun, plural})
    return [(verb, noun)]


def draw_sentence(rng: random.Random, held_out: bool) -> Sentence:
    """An English sentence and the words of its Chinese by role, in their order."""
    while True:
        verb, noun = pick(rng, list(VERBS)), pick(rng, list(OBJECTS))
        if is_held_out(verb, noun) == held_out:
            break
    mood = pick_weighted(rng, MOODS)
    subject, place, number = (pick(rng, list(words)) for words in (SUBJECTS, PLACES, NUMBERS))
    times = FUTURE if mood in ("future", "wish") else PAST
    time = pick(rng, list(times))
    past, verb_zh = VERBS[verb]
    plural, measure, noun_zh = OBJECTS[noun]
    third = subject not in ("I", "we", "they")
    things = f"{number} {noun if number == 'one' else plural}"
    if mood == "not_past":
        things = f"that {noun}"
    ask = mood == "past_question"
    phrase = {
        "past": f"{subject} {past} {things}",
        "past_question": f"did {subject} {verb} {things}",
        "not_past": f"{subject} did not {verb} {things}",
        "future": f"{subject} will {verb} {things}",
        "wish": f"{subject} {'wants' if third else 'want'} to {verb} {things}",
    }[mood]
    source = f"{phrase} {place} {time}{'?' if ask else '.'}"
    before = {"not_past": "没", "future": "会", "wish": "想"}.get(mood, "")
    words = {
        "subject": SUBJECTS[subject],
        "time": times[time],
        "before": before,
        "place": PLACES[place],
        "verb": verb_zh,
        "aspect": "了" if mood in ("past", "past_question") else "",
        "number": "那" if mood == "not_past" else NUMBERS[number],
        "measure": measure,
        "object": noun_zh,
        "end": "吗？" if ask else "。",
    }
    return source[0].upper() + source[1:], {role: word for role, word in words.items() if word}


def translate(rng: random.Random, words: dict[str, str], style: str) -> str:
    """A translation in one of `STYLES`."""
    if style == "english_order":
        return english_order(list(words.values()))
    words = dict(words)
    if style == "general_measure":
        words["measure"] = "个"
    elif style == "no_measure":
        del words["measure"]
    elif style == "no_aspect":
        words.pop("aspect", None)
    orders = translations(list(words.values()))
    return orders[rng.random() < 0.3]


def candidate(rng: random.Random, sentence: Sentence) -> str:
    """A translation as a policy in training may write it: any style, with wrong words or slips in some."""
    words = dict(sentence[1])
    if rng.random() < 0.4:
        role = pick(rng, list(WORDS))
        words[role] = other(rng, WORDS[role], words[role])
    if rng.random() < 0.2:
        return "".join(spoil_words(rng, list(words.values())))
    return translate(rng, words, pick_weighted(rng, STYLES))


def build() -> dict[str, list[Row]]:
    """Every file of the task: its name and its rows."""
    return build_files(
        "translation",
        draw=draw_sentence,
        prompt=lambda sentence: {"source": sentence[0]},
        demonstration=lambda rng, sentence: {"reference": translate(rng, sentence[1], pick_weighted(rng, STYLES))},
        answer=lambda sentence: {"references": translations(list(sentence[1].values()))},
        candidate=candidate,
        gold=lambda sentence, text: score_one(text, list(sentence[1].values())),
        meta=lambda sentence: {"words": " ".join(sentence[1].values())},
        train=3000,
        preferences=2000,
        noise=0.75,
    )


if __name__ == "__main__":
    run(build, Path(__file__).parent)
