"""The phrases of the pages in Chinese, by their English ones."""

CHINESE = {
    ":": "：",
    "Why the model says so": "模型为什么这样判断",
    "Why the model says so: {run}": "模型为什么这样判断：{run}",
    "Row {row}, {target}": "第 {row} 行，{target}",
    "dotted underline, violet": "点状下划线、紫色",
    "where the model looked, which is not why it decided": "模型看过的地方，并不等于判断的原因",
    "solid underline, blue": "实线下划线、蓝色",
    "spoke for the answer": "支持这个答案",
    "dashed underline, orange": "虚线下划线、橙色",
    "spoke against it": "反对这个答案",
    "The stronger the shade the more it counted; bold counted most.": "底色越深，影响越大；加粗的影响最大。",
    "Part of the row": "这一行的组成部分",
    "Share": "份额",
    "drawn": "图示",
    "{count} others together": "其余 {count} 个合计",
    "Can this explanation be trusted?": "这个解释可信吗？",
    "Not so: {words}": "不成立：{words}",
    "must be": "应当",
    "The smallest change that was found to flip the answer": "找到的能改变答案的最小改动",
    "leave out {word}": "去掉{word}",
    "Then it says {answer} ({p:.0%} sure).": "这样模型会判断为{answer}（把握 {p:.0%}）。",
    "Unreliable: at least one check failed.": "不可靠：至少有一项检验没有通过。",
    "Method: {method}; the model was asked {count:,} times.": "方法：{method}；共询问模型 {count:,} 次。",
    "How to read this": "怎样阅读",
    "The shares say where the model looked, out of 100 %. A model may look at a word and not use it: for reasons take "
    "another method.": "份额表示模型看了哪里，合计 100%。模型可能看了一个词却没有用它；要了解原因，请用其他方法。",
    "A share says how much a part of the row moved the answer. Shares are log odds, on which evidence adds up: +0.7 "
    "about doubles the odds of the answer, −0.7 halves them, and near 0 a part hardly matters. All shares of a row add "
    "up to the way from a typical row to this one.": "份额表示这一行的某个部分使答案改变了多少。份额用对数几率表示，"
    "在这个尺度上证据可以相加：+0.7 大约使这个答案的几率翻倍，−0.7 使它减半，接近 0 则几乎没有影响。"
    "一行的所有份额加起来，正好是从典型的一行到这一行的差距。",
    "A share says how much a part of the row raised or lowered the answer, in the unit of {target}. All shares of a row "
    "add up to the way from a typical row to this one.": "份额表示这一行的某个部分使答案升高或降低了多少，单位与 {target} "
    "相同。一行的所有份额加起来，正好是从典型的一行到这一行的差距。",
    "An explanation tells what the model does, not how the world is: a word that moves the answer need not be the cause "
    "of anything.": "解释说明的是模型怎么做，而不是世界是怎样的：影响答案的词不一定是任何事情的原因。",
    "Made by Weft {version}.": "由 Weft {version} 生成。",
    "share of the looks": "注视的份额",
    "log odds": "对数几率",
    "Knowing nothing of the row (typical values, no text) it would say {base:.4g}; with all of it {score:.4g}.":
    "如果对这一行一无所知（典型的取值、没有文字），模型会给出 {base:.4g}；知道全部之后给出 {score:.4g}。",
    "Knowing nothing of the row (typical values, no text) it would give {name} {base:.1%}; with all of it {score:.1%}.":
    "如果对这一行一无所知（典型的取值、没有文字），模型给{name}的概率是 {base:.1%}；知道全部之后是 {score:.1%}。",
    "The shares add up to the answer": "各部分的份额加起来等于结果",
    "The shares are known well enough": "份额估计得足够准",
    "A second try gives the same picture": "再算一次会得到同样的结果",
    "A straight line tells what the model does near this row": "在这一行附近，一条直线足以描述模型",
    "The gradients account for the whole answer": "梯度解释了全部结果",
}  # fmt: skip
