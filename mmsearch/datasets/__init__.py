"""Files and what people said of them, in the layouts that such sets come in.

`pairs` says what a pair is, `reading` reads lists of them and `beside` files that lie side by
side; both pass over what is bad and name it, for training. `captions` and `classes` are stricter:
what is measured has to be whole.
"""
