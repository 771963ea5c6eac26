"""Sentences that could be said of anything: what hubness takes for queries beside real ones."""

from __future__ import annotations

# English and Chinese.
SUBJECTS = (
    ("a man", "一个男人"),
    ("a woman", "一个女人"),
    ("a child", "一个孩子"),
    ("a baby", "一个婴儿"),
    ("a group of people", "一群人"),
    ("two friends", "两个朋友"),
    ("a crowd", "人群"),
    ("a family", "一家人"),
    ("a dog", "一只狗"),
    ("a cat", "一只猫"),
    ("a bird", "一只鸟"),
    ("a horse", "一匹马"),
    ("a fish", "一条鱼"),
    ("an insect", "一只昆虫"),
    ("a wild animal", "一只野生动物"),
    ("a car", "一辆汽车"),
    ("a train", "一列火车"),
    ("a bicycle", "一辆自行车"),
    ("a boat", "一条船"),
    ("an airplane", "一架飞机"),
    ("a flower", "一朵花"),
    ("a tree", "一棵树"),
    ("a plate of food", "一盘食物"),
    ("fruit", "水果"),
    ("a cake", "一个蛋糕"),
    ("a drink", "一杯饮料"),
    ("a house", "一座房子"),
    ("a tower", "一座塔"),
    ("a bridge", "一座桥"),
    ("a machine", "一台机器"),
    ("a tool", "一件工具"),
    ("a piece of clothing", "一件衣服"),
    ("a pair of shoes", "一双鞋"),
    ("a musical instrument", "一件乐器"),
    ("a toy", "一个玩具"),
    ("a ball", "一个球"),
    ("a chair", "一把椅子"),
    ("a computer", "一台电脑"),
    ("a telephone", "一部电话"),
    ("a book", "一本书"),
    ("a sign", "一块牌子"),
    ("a screenshot", "屏幕截图"),
    ("a map", "一张地图"),
    ("a drawing", "一幅画"),
    ("a document", "一份文件"),
)

PLACES = (
    ("", ""),
    ("on the beach", "在海滩上"),
    ("on the grass", "在草地上"),
    ("in the snow", "在雪地里"),
    ("in the water", "在水里"),
    ("in the street", "在街上"),
    ("in a city", "在城市里"),
    ("in the mountains", "在山里"),
    ("in the forest", "在森林里"),
    ("in a room", "在房间里"),
    ("in a kitchen", "在厨房里"),
    ("on a table", "在桌子上"),
    ("at night", "在夜里"),
    ("at sunset", "在日落时"),
    ("against the sky", "在天空下"),
    ("by a lake", "在湖边"),
    ("on a white background", "白色背景"),
    ("at a party", "在聚会上"),
    ("at a sports game", "在比赛中"),
    ("on a stage", "在舞台上"),
)


def sentences() -> list[str]:
    """Every fourth subject in a place in English, and every eighth in Chinese."""
    english = [f"{who} {where}".strip() for who, _ in SUBJECTS for where, _ in PLACES]
    chinese = [where + who for _, who in SUBJECTS for _, where in PLACES]
    return english[::4] + chinese[::8]
