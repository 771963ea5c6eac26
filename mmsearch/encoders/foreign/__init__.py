"""Dual encoders of other libraries, opened with torch: to be exported once, or to be trained.

Only what makes an export, encodes on a GPU or trains imports from here: everything in this folder
may import torch, and nothing outside of it and `mmsearch/training` does.
"""
