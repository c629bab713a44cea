"""Writes talks.jsonl: 1,200 dialogues with a small shop, English and Chinese, made of templates of our own."""

import json
import random
from pathlib import Path

draw = random.Random(0)
GOODS = {
    "kettle": "水壶",
    "lamp": "台灯",
    "chair": "椅子",
    "rug": "地毯",
    "mirror": "镜子",
    "clock": "时钟",
    "shelf": "书架",
    "bowl": "碗",
}
DAYS = {"Monday": "星期一", "Tuesday": "星期二", "Thursday": "星期四", "Friday": "星期五"}
ENGLISH = {
    "open": [
        ("When are you open?", "What are your hours?", "Are you open?"),
        "We are open from nine to six, Monday to Saturday.",
    ],
    "ask": [
        ("Where is my {good}?", "Has my {good} been sent?"),
        "I am sorry for the wait. What is the number of your order?",
    ],
    "number": [("It is {number}.", "{number}", "The number is {number}."), "Thank you. The {good} comes on {day}."],
    "back": [
        ("Can I return the {good}?", "I want to return the {good}."),
        "Of course. You have thirty days to return the {good}.",
    ],
    "thanks": [("Thank you.", "Thanks!", "Great, thanks."), "You are welcome."],
}
CHINESE = {
    "open": [("你们几点开门？", "营业时间是几点？", "今天开门吗？"), "我们星期一到星期六九点到六点营业。"],
    "ask": [("我的{good}到哪里了？", "我的{good}寄出了吗？"), "抱歉让您久等。请问订单号是多少？"],
    "number": [("是{number}。", "{number}", "订单号是{number}。"), "谢谢。{good}{day}送到。"],
    "back": [("{good}可以退吗？", "我想退{good}。"), "当然可以。{good}三十天内都可以退。"],
    "thanks": [("谢谢。", "好的，谢谢！", "多谢。"), "不客气。"],
}
WAYS = [
    ["open", "thanks"],
    ["ask", "number", "thanks"],
    ["back", "thanks"],
    ["open", "back"],
    ["ask", "number", "back"],
]

lines = []
for _ in range(1_200):
    chinese = draw.random() < 0.5
    good, day = draw.choice(list(GOODS)), draw.choice(list(DAYS))
    words = {"good": GOODS[good] if chinese else good, "day": DAYS[day] if chinese else day}
    messages = []
    for turn in draw.choice(WAYS):
        says, answer = (CHINESE if chinese else ENGLISH)[turn]
        said = draw.choice(says).format(number=draw.randint(1000, 9999), **words)
        messages.append({"role": "user", "content": said})
        messages.append({"role": "assistant", "content": answer.format(**words)})
    lines.append(json.dumps({"messages": messages}, ensure_ascii=False))
Path("talks.jsonl").write_text("\n".join(lines), encoding="utf-8")
