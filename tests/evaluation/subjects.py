"""Small models whose answers are known or quick to have."""

import torch
from torch import nn

from sequencer2d.data.config import DataConfig
from sequencer2d.data.words import imagenet_wnids
from sequencer2d.evaluation.subject import Subject
from sequencer2d.models import create_model


class MeanColor(nn.Module):
    """Names the strongest color channel: a model whose answers are known."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return x.mean(dim=(2, 3)) * self.scale


COLORS = {"blue": (0, 0, 200), "green": (0, 200, 0), "red": (200, 0, 0)}
PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


def colors_subject(size=32):
    return Subject("colors", MeanColor(), DataConfig(image_size=size, crop_pct=1.0, **PLAIN), ("red", "green", "blue"))


def small(**overrides):
    torch.manual_seed(0)
    options = {"depths": (1, 1), "dims": (16, 16), "hidden_dims": (4, 4), "patch_sizes": (4, 2), "num_classes": 3}
    model = create_model("sequencer2d_n", **{**options, **overrides}).eval()
    nn.init.normal_(model.head.fc.weight)
    return Subject("small", model, DataConfig(image_size=32), ("red", "green", "blue"))


class Always(nn.Module):
    """Prefers the given outputs in order, whatever the image."""

    def __init__(self, classes, preferred):
        super().__init__()
        logits = torch.zeros(classes)
        for rank, index in enumerate(preferred):
            logits[index] = len(preferred) - rank
        self.logits = nn.Parameter(logits)

    def forward(self, x):
        return self.logits.expand(len(x), -1)


def imagenet_subject(preferred):
    return Subject("always", Always(1000, preferred), DataConfig(image_size=32), imagenet_wnids())
