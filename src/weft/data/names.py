"""Names of people and addresses, English and Chinese, as far as rules go.

A name is told by what stands before it (Mr, my name is, 联系人), after it (先生, 老师) or by a given name that is
nearly nothing else; an address by its street with a number, a box, a unit, or a place with its postcode. Rules miss
names that nothing announces, and most foreign ones: docs/privacy.md has the shares.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

_WORDS = json.loads(Path(__file__).with_name("names.json").read_text(encoding="utf-8"))

# ---- names

_GIVEN, _FAMILY, _NOT_NAMES = _WORDS["given"], _WORDS["family"], frozenset(_WORDS["not_names"])
_SURNAMES, _TITLE_ZH = "|".join(_WORDS["surnames_zh"]), "|".join(_WORDS["titles_zh"])
_COMPOUND = frozenset(name for name in _WORDS["surnames_zh"] if len(name) == 2)
_NO_NAME_ZH = frozenset(_WORDS["not_names_zh"])
_PART = r"[A-ZÀ-ÖØ-Þ](?:[A-Za-zÀ-ɏ]|['’](?=[A-Za-zÀ-ɏ]{2})|-(?=[A-Z])){1,40}"
_FULL = (
    rf"{_PART}(?: (?:[A-Z]\.?|(?:van|von|der|den|de|del|da|di|la|le|bin|al|el|y)(?: (?:der|den|la|los))?(?= [A-Z]))"
    rf"(?= ))*(?: {_PART}){{0,3}}"
)
_TITLED = re.compile(
    rf"(?<![A-Za-z])(?:Mr|Mrs|Ms|Mx|Dr|Prof|Professor|Doctor|Miss|Mister|Madame|Herr|Frau|Señor|Señora|"
    rf"Monsieur)\.? (?P<value>(?:(?:van|von|de|di|al) )?{_FULL})"
    r"|(?<![A-Za-z])(?:mr|mrs|ms|dr)\. (?P<lower>[^\W\d_]{2,40})"
)
_SURNAMED = re.compile(rf"(?<![\w'’.-])(?P<value>{_PART} (?:[A-Z]\.? )?(?:{'|'.join(_FAMILY)}))(?![A-Za-zÀ-ɏ])")
_SAID = re.compile(
    rf"(?<![A-Za-z])I(?:'m| am) (?P<two>{_PART} (?:[A-Z]\.? )?{_PART})|"
    r"(?<![A-Za-z])(?:(?i:(?:my|his|her|their|the|maiden|full|first|last|partner's|what's your|account) "
    r"(?:\w{1,20} )?name(?: is|'s|\?|:)?|name:|"
    r"named|contact person:?|contact:|attn:?|attention:|signed(?: by)?:?|regards,?|sincerely,?|cheers,?|best "
    r"wishes,?|speak to|ask for|"
    r"calls? me|this is|passenger:?|patient:?|recipient:?|customer:|client:|employee:|user:|from:|to:|cc:)|"
    rf"[Dd]ear|[Hh]i|[Hh]ello|[Hh]ey)\s{{1,3}}(?P<value>{_FULL})(?! (?:is|are) )"
)  # fmt: skip
_KNOWN = re.compile(
    rf"(?<![\w'’.-])(?P<value>(?:{'|'.join(_GIVEN)})(?![A-Za-zÀ-ɏ])(?: (?:[A-Z]\.? "
    rf")?{_PART}){{0,2}})"
)

# letters that a given name hardly holds: where a name of three would run into the sentence, it has two
_NOT_GIVEN = (
    "的了是在有和与及也都就来去说要我你他她它这那不将请把被给到从对为向先女今已曾正还于以住电手身邮号等并因"
    "所后前又让同一"
)
_SAID_ZH = re.compile(
    r"(?:我叫|名叫|叫做|叫作|姓名|名字|联系人|收件人|收货人|寄件人|发件人|申请人|负责人|经办人|当事人|患者|病人|"
    r"乘客|旅客|户主|持卡人|开户人|"
    r"开户名|户名|监护人|法定代表人|法人代表|签名|署名|客户|学生|家长|员工|同事|用户|本人|我是|面试者|应聘者|"
    r"参会人|推荐人|担保人|借款人|车主|房东|租客|司机|会员)(?:是|为|叫|名)?[ ：:]{0,2}"
    rf"(?P<value>(?:{_SURNAMES})(?:[一-龥]{{1,2}}))"
)
_TITLED_ZH = re.compile(rf"(?P<value>(?:{_SURNAMES})(?P<given>[一-龥]{{0,2}}?))(?={_TITLE_ZH})")

NAME_HINT = (
    r"(?:^|[^\w'’.-])(?:"
    + "|".join([*_GIVEN, *_FAMILY])
    + r")(?:[^A-Za-z]|$)|(?i:\b(?:mr|mrs|ms|mx|dr|prof|professor|doctor|miss|mister|madame|"
    r"herr|frau|señor|señora|monsieur|i|i'm|name|named|contact|attn|attention|signed|regards|sincerely|cheers|"
    r"wishes|speak|ask|calls?|this|"
    r"dear|hi|hello|hey|passenger|patient|recipient|customer|client|employee|user|from|to|cc)\b.\s{0,3}[\p{Lu}]?)|"
    r"我叫|我是|叫做|叫作|名|联系人|[收寄发]件人|收货人|申请人|负责人|经办人|当事人|患者|病人|乘客|旅客|户主|"
    r"持卡人|开户人|监护人|法定代表人|"
    r"法人代表|面试者|应聘者|参会人|推荐人|担保人|借款人|车主|房东|租客|司机|会员|客户|学生|家长|员工|同事|用户|本人|"
    + _TITLE_ZH
)


def find_names(text: str) -> Iterator[tuple[int, int]]:
    """Places of names, the surest rule first; they may overlap."""
    ascii = text.isascii()
    for pattern in (_TITLED, _SAID, _SURNAMED, _KNOWN):
        for m in pattern.finditer(text):
            group = m.lastgroup or "value"
            start, end = m.span(group)
            words = text[start:end].split(" ")
            first = next((i for i, word in enumerate(words) if word in _NOT_NAMES), len(words))
            if first:
                yield start, start + len(" ".join(words[:first]))
    if ascii:
        return
    for m in _SAID_ZH.finditer(text):
        start, end = m.span("value")
        short = 2 + (text[start : start + 2] in _COMPOUND)
        while end > start and text[end - 1] in _NOT_GIVEN:
            end -= 1
        if end - start >= short and text[start:end] not in _NO_NAME_ZH:
            yield start, end
    for m in _TITLED_ZH.finditer(text):
        given = m["given"]
        if text[m.start() : m.start() + 2] not in _NO_NAME_ZH and not any(letter in _NOT_GIVEN for letter in given):
            yield m.span("value")


# ---- addresses

_STREET = (
    "Street|St|Avenue|Ave|Road|Rd|Boulevard|Blvd|Drive|Dr|Lane|Ln|Court|Ct|Place|Pl|Square|Sq|Terrace|Parkway|"
    "Pkwy|Highway|Hwy|"
    "Crescent|Circle|Cir|Trail|Way|Close|Grove|Gardens|Row|Alley|Plaza|Walk|Mews|Hill|Creek|Park|Quay"
)
_UNIT = r"(?:Apt|Apartment|Suite|Ste|Unit|Flat|Floor|Fl|Room|Rm)\.? ?#?\d{1,5}[A-Za-z]?(?![A-Za-z0-9])"
_TAIL = (
    rf"(?:,?\s{{1,2}}{_UNIT}|,?\s{{1,2}}#\d{{1,5}}){{0,2}}"
    r"(?:(?:\s?,?\s{1,2}[A-ZÀ-Þ][\wÀ-ɏ'’.-]{0,30}){1,5}?,?\s{1,2}(?:\d{4,6}(?:-\d{4})?|[A-Z]{1,2}\d[A-Z\d]? "
    r"?\d[A-Z]{2})(?!\w))?"
)
_WORD = r"[A-Z0-9À-Þ][\wÀ-ɏ'’.-]{0,30}"
_ADDRESS = re.compile(
    rf"(?<![\w-])\d{{1,6}}[A-Za-z]?(?:[-/]\d+)? (?:{_WORD} ){{1,4}}(?:{_STREET})(?!\w)\.?{_TAIL}"  # 12 High Street
    rf"|(?<![\w-])(?:{_WORD} ){{1,3}}(?:Street|Avenue|Road|Lane|Blvd|Boulevard)(?!\w)(?:,? (?:N|S|E|W|NW|NE|SW|"
    rf"SE))?,? \d{{1,6}}{_TAIL}"
    r"|(?<!\w)[A-ZÀ-Þ][\wÀ-ɏ-]{2,30}(?:stra(?:ße|sse)|str\.|gasse|weg|platz|allee|straat|laan|plein|gatan|vägen|"
    r"katu|tie|gata|veien|gade|vej|utca|"
    r"ulica|ntie|kuja|polku)(?: |,)? ?\d{1,5}[a-zA-Z]?(?!\w)"  # Hauptstraße 5
    r"|(?<!\w)(?:\d{1,5},? )?(?:[Rr]ue|[Aa]venue|[Bb]oulevard|[Pp]lace|[Vv]ia|[Vv]iale|[Pp]iazza|[Cc]alle|"
    r"[Aa]venida|[Rr]ua|[Tt]ravessa|[Pp]raça|[Uu]l\.|"
    r"[Cc]hemin|[Cc]orso|[Pp]laza|[Cc]arrer|[Cc]amino)(?: (?:d[eaou]s?|del|della|la|las|los|le|les|du|des|"
    r"e))*(?: (?:l['’]|d['’])?[A-ZÀ-Þ][\wÀ-ɏ.'’-]{0,30}){1,4}"
    r"(?:,? (?:n[.º°]? ?)?\d{1,5}[a-zA-Z]?(?!\w))?"  # Rue de la Paix 3
    rf"|(?<![A-Za-z0-9]){_UNIT}|(?<!\w)P\.? ?O\.? ?Box \d+|(?<!\w)(?:PSC|Unit|CMR|USS) \w+,? Box "
    rf"\d+(?:\s{{1,2}}[AFD]PO,? A[AEP] \d{{5}})?"
    r"|(?<!\w)[A-Z][A-Za-z.'’ -]{2,25}, [A-Z]{2},? \d{5}(?:-\d{4})?(?!\d)"  # a town with its state and postcode
    r"|(?<![\w])[A-Z]{1,2}\d[A-Z\d]? \d[ABD-HJLNP-UW-Z]{2}(?!\w)"  # a British postcode
)
_ADDRESS_SAID = re.compile(
    r"(?i:address(?:es)?(?: is|:|\?)|(?:live[sd]?|living|resid\w+|located|office is) (?:at|on)|(?:send|sent|ship|"
    r"shipped|deliver|delivered|return|mail) "
    r"(?:it |them |this |a new one )?to:?|postcode:?|zip(?: code)?:?)\s{1,2}(?:it is "
    r")?(?P<value>\d{1,6}[A-Za-z]? (?:[A-ZÀ-Þ][\wÀ-ɏ.'’-]{0,30}(?: |$)){1,5}|"
    r"(?:[A-ZÀ-Þ][\wÀ-ɏ.'’-]{0,30} ){1,4}\d{1,5}[A-Za-z]?(?!\w)|\d{4,6}(?:-\d{4})?(?!\w))"
)
_NUMBER_ZH = r"[A-Za-z0-9一二三四五六七八九十甲乙丙丁-]{1,7}"
_NUMBERED_ZH = re.compile(
    rf"(?:路|街|大道|道|巷|胡同|弄|村|屯|里|苑|园|小区|花园|公寓|大厦|广场|城|庄|社区|镇|乡|"
    rf"区)(?:[东西南北中]段?)?{_NUMBER_ZH}(?:号楼|号院|号|弄|栋|幢|座|组)"
    rf"(?:[一-龥]{{2,8}}(?:小区|花园|公寓|大厦|广场|苑|园|城))?(?:{_NUMBER_ZH}(?:号楼|号|弄|栋|幢|座|单元|楼|层|"
    rf"室|门|户))*"
)
_PLACE_ZH = re.compile(
    r"(?:省|自治区)[一-龥]{2,8}?(?:市|州|盟|地区)(?:[一-龥]{1,7}?(?:区|县|市|旗))?(?:[一-龥]{1,8}?(?:街道|镇|乡))?"
    r"|(?<=[一-龥]{2})市[一-龥]{1,6}?[区县](?:[一-龥]{1,8}?(?:街道|镇|乡|路|街|村))?"
)
_INNER_ZH = re.compile(r"[一-龥A-Za-z0-9·-]")
_PROVINCE_ZH = re.compile(
    "北京|天津|上海|重庆|河北|山西|内蒙古|辽宁|吉林|黑龙江|江苏|浙江|安徽|福建|江西|山东|河南|湖北|湖南|广东|"
    "广西|海南|四川|贵州|云南|西藏|陕西|甘肃|"
    "青海|宁夏|新疆|台湾|香港|澳门"
)
_CUT_ZH = re.compile(
    r".*(?:地址|住址|住在|家住|现住|居住|位于|坐落|寄到|寄往|寄至|送到|送至|搬到|搬至|来自|户籍|籍贯|收货|在|是|"
    r"到|于|至|往|从|为|住|和(?!平)|请|叫|一下)"
)

ADDRESS_HINT = (
    rf"\p{{Nd}}.{{0,60}}\b(?:{_STREET})\b|\b(?:Street|Avenue|Road|Lane|Blvd|Boulevard)\b.{{0,6}}\p{{Nd}}|"
    r"(?:stra(?:ße|sse)|str\.|gasse|weg|platz|allee|straat|laan|plein|gatan|vägen|katu|tie|gata|veien|gade|vej|"
    r"utca|ulica|kuja|polku)[ ,]{0,2}\p{Nd}|"
    r"\b(?i:rue|avenue|boulevard|place|via|viale|piazza|calle|avenida|rua|travessa|praça|ul\.|chemin|corso|plaza|"
    r"carrer|camino) |"
    r"\b(?:Apt|Apartment|Suite|Ste|Unit|Flat|Floor|Fl|Room|Rm)\.? ?#?\p{Nd}|Box \p{Nd}|, [A-Z]{2},? \p{Nd}{5}|"
    r"[A-Z]\p{Nd}[A-Z\p{Nd}]? \p{Nd}[A-Z]{2}|"
    r"(?i:address|live|living|resid|located|office is|send|sent|ship|deliver|return|mail|postcode|zip).{0,25}\p{Nd}|"
    r"[路街道巷同弄村屯里苑园区寓厦场城庄镇乡].{0,10}[号弄栋幢座组]|[省区].{2,8}[市州盟区]|市.{1,6}[区县]"
)


def find_addresses(text: str) -> Iterator[tuple[int, int]]:
    """Places of addresses; they may overlap."""
    yield from (m.span() for m in _ADDRESS.finditer(text))
    yield from ((m.start("value"), m.start("value") + len(m["value"].rstrip())) for m in _ADDRESS_SAID.finditer(text))
    if not text.isascii():
        for pattern in (_NUMBERED_ZH, _PLACE_ZH):
            for m in pattern.finditer(text):
                # what leads to a number begins where the letters begin, or after a word such as 住在
                start = m.start()
                while start and start > m.start() - 40 and _INNER_ZH.match(text[start - 1]):
                    start -= 1
                cut = _CUT_ZH.match(text, start, m.start() + 1)
                start = cut.end() if cut else start
                named = _PROVINCE_ZH.search(text, start, m.end())
                yield named.start() if named else start, m.end()
