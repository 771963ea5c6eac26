"""Networks made elsewhere, as towers: timm, open_clip, transformers."""
