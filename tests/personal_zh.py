"""Chinese texts with known personal data, made by templates; two in five templates are kept apart for the figures."""

import random
import re
from dataclasses import dataclass
from datetime import date, timedelta

WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
SURNAMES = "王李张刘陈杨赵黄周吴徐孙胡朱高林何郭马罗梁宋郑谢韩唐冯于董萧程曹袁邓许傅沈曾彭吕苏卢蒋蔡贾丁魏薛叶阎余潘杜戴夏钟汪田任姜范方石姚谭廖邹熊金陆郝孔白崔康毛邱秦江史顾侯邵孟龙万段雷钱汤"
GIVEN = "伟芳娜秀英敏静丽强磊军洋勇艳杰娟涛明超兰霞平刚桂文辉建华国庆志玉红梅晓燕春雪琳璐佳怡欣然子涵浩宇轩梓萱思雨嘉诚俊逸博文婷雅慧颖倩莹瑞祥鹏飞"
CITIES = (
    ("北京市", ("海淀区", "朝阳区", "西城区")), ("上海市", ("浦东新区", "徐汇区", "静安区")), ("广东省深圳市", ("南山区", "福田区")),
    ("浙江省杭州市", ("西湖区", "余杭区")), ("四川省成都市", ("武侯区", "锦江区")), ("江苏省南京市", ("玄武区", "鼓楼区")),
    ("湖北省武汉市", ("洪山区", "江岸区")), ("陕西省西安市", ("雁塔区", "碑林区")), ("山东省青岛市", ("市南区", "崂山区")),
)  # fmt: skip
STREETS = "中关村大街 人民路 解放路 中山北路 建设大道 文三路 科技园南路 长江路 和平街 复兴东路 青年路 天府大道 学院路 光谷大道 朝阳胡同".split()
PROVINCES = "京津沪渝冀豫云辽黑湘皖鲁新苏浙赣鄂桂甘晋蒙陕吉闽贵粤青藏川宁琼"
LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ"
WIDE = str.maketrans("0123456789Xx@.", "０１２３４５６７８９Ｘｘ＠．")

TEMPLATES = """
我叫{name}，手机号是{phone}，有事请打电话。
请把快递寄到{address}，收件人{name}，电话{phone}。
您好，我的身份证号码是{id_number}，麻烦帮我核实一下。
{name}先生您好，您尾号为8821的账单已出，请查收邮箱{email}。
患者{name}，身份证{id_number}，住址{address}，联系电话{phone}。
订单号202311058812345678，金额3,299.00元，预计2023-11-08送达。
我的银行卡号是{bank_card}，昨天被误扣了两笔钱。
车牌号{plate}的车主请尽快挪车，谢谢配合。
护照号码：{passport}，航班CA1501，座位32A。
请联系{name}老师，邮箱{email}，办公室在三号楼205室。
服务器{ip}在2024年3月5日14:30:22出现异常，版本号3.12.4。
今天的会议改到下午3点，地点不变，大家准时参加。
本人{name}，现住{address}，特此声明。
转账请汇至{iban}，开户名{name}。
昨天在朝阳公园看到一场很精彩的演出，票价280元。
有人知道{plate}这辆车吗？一直停在消防通道。
客服：请问您的电话是多少？用户：{phone}。
我是{name}，想咨询一下{address}附近的学校。
登记信息：姓名：{name}，证件号：{id_number}，手机：{phone}，邮箱：{email}
商品编号6901234567892，库存1200件，单价59.9元。
联系人：{name}女士（{phone}）
他家住在{address}，离地铁站很近。
收款账户{bank_card}，户名{name}，请核对后再付款。
请发送到{email}，或者传真到{phone}。
登录地址为{ip}，如非本人操作请修改密码。
这本书一共有365页，第128页有个错别字，ISBN 9787111128069。
入住人{name}，护照{passport}，退房日期2024-06-18。
面试者{name}，身份证号{id_number}，请于9月1日前到岗。
微信转账失败了，卡号{bank_card}，提示余额不足。
我和{name}同学约好在{address}见面。
王府井的人太多了，我们改去南锣鼓巷吧，下午两点半见。
投诉人{name}反映，{plate}在单行道逆行，时间是2024年1月9日。
如需帮助，请拨打{phone}或访问内网{ip}。
法定代表人：{name}，注册地址：{address}。
国际汇款账号：{iban}，收款人电话{phone}。
客户编号100200300400500，合同期限2022.01.01至2025.12.31。
家长{name}您好，孩子今天在校表现很好。
员工{name}的工资卡{bank_card}已更新。
请{name}经理回复{email}的来信。
快递已放在{address}门口，取件码5-2-3087。
""".strip().split("\n")  # fmt: skip


def id_number(r):
    born = date(1950, 1, 1) + timedelta(days=r.randrange(20_000))
    digits = r.choice(["110105", "310115", "440305", "330106", "510107", "420111", "610113"]) + born.strftime("%Y%m%d")
    digits += f"{r.randrange(1000):03d}"
    return digits + "10X98765432"[sum(w * int(d) for w, d in zip(WEIGHTS, digits, strict=True)) % 11]


def bank_card(r):
    body = r.choice(["622202", "621700", "622848", "436742", "552599"])
    body += "".join(r.choice("0123456789") for _ in range(r.choice([9, 12]) if body[0] == "6" else 9))
    total = sum(sum(divmod(2 * int(d), 10)) if i % 2 == 0 else int(d) for i, d in enumerate(reversed(body)))
    whole = body + str(-total % 10)
    return " ".join(re.findall(".{1,4}", whole)) if r.random() < 0.3 else whole


def phone(r):
    number = r.choice(["138", "139", "150", "186", "199", "177"]) + "".join(r.choice("0123456789") for _ in range(8))
    return r.choice([
        number, number, f"{number[:3]} {number[3:7]} {number[7:]}", f"{number[:3]}-{number[3:7]}-{number[7:]}",
        f"+86 {number}", f"0{r.choice(['10', '21', '755', '571'])}-{r.randrange(20_000_000, 89_999_999)}",
    ])  # fmt: skip


def iban(r):
    bank = f"{r.choice(['370400440532', '500105175407'])}{r.randrange(10**6):06d}"
    return f"DE{98 - int(bank + '131400') % 97:02d}{bank}"


def address(r):
    city, areas = r.choice(CITIES)
    home = r.choice(["{}号", "{}号{}室", "{}号院{}号楼", "{}弄{}号", "{}号{}单元302室"])
    return city + r.choice(areas) + r.choice(STREETS) + home.format(r.randrange(1, 999), r.randrange(1, 30))


MAKERS = {
    "name": lambda r: r.choice(SURNAMES) + "".join(r.sample(GIVEN, r.choice([1, 2, 2]))),
    "phone": phone, "id_number": id_number, "bank_card": bank_card, "iban": iban, "address": address,
    "email": lambda r: f"{r.choice(['zhang', 'li.ming', 'wang_fang', 'chen2020', 'liu'])}{r.randrange(999)}@"
    + r.choice(["qq.com", "163.com", "example.com.cn", "mail.example.org"]),
    "plate": lambda r: r.choice(PROVINCES) + r.choice(LETTERS[:10]) + r.choice(["", "·"])
    + r.choice([f"{r.randrange(10_000, 99_999)}", f"{r.choice(LETTERS)}{r.randrange(1000, 9999)}", f"D{r.randrange(10_000, 99_999)}"]),
    "passport": lambda r: r.choice([f"E{r.randrange(10**7, 10**8)}", f"EA{r.randrange(10**6, 10**7)}", f"G{r.randrange(10**7, 10**8)}"]),
    "ip": lambda r: r.choice([".".join(str(r.randrange(1, 255)) for _ in range(4)), f"2001:db8::{r.randrange(1, 9999):x}"]),
}  # fmt: skip


@dataclass
class Text:
    """A text, the places of its personal data as (kind, start, end), and the template it was made by."""

    text: str
    spans: list[tuple[str, int, int]]
    template: int


def texts(rows=2_000, seed=0):
    """``rows`` texts; one in five has full-width digits."""
    r = random.Random(seed)
    found = []
    for row in range(rows):
        number = row % len(TEMPLATES)
        wide, out, spans = r.random() < 0.2, "", []
        for i, piece in enumerate(re.split(r"\{(\w+)\}", TEMPLATES[number])):
            if i % 2:
                value = MAKERS[piece](r)
                if wide and piece != "address":
                    value = value.translate(WIDE)
                spans.append((piece, len(out), len(out) + len(value)))
                out += value
            else:
                out += piece
        found.append(Text(out, spans, number))
    return found


def kept_apart(text):
    """Whether the rules were not written with its template in view."""
    return text.template % 5 in (1, 3)
