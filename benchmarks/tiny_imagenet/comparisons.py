"""The paper's Table 1 in small: Sequencers against peers, from scratch, under one recipe.

No model has a setting of its own. DeiT, Swin and PoolFormer were published with a learning rate of 1e-3 for 1,024
images, ConvNeXt with 4e-3 for 4,096: for each image that is Sequencer's own, 5e-4 for 512. All models get the
recipe's, which is twice that.
"""

from benchmarks.tiny_imagenet.plans import STRIDE_4, Model, Plan

TABLE1 = Plan(
    """Sequencer2D-S against its peers of Table 1 and two of later years, all unchanged, on images enlarged to 112².

    At 112² the total strides of 14 and 32 leave maps of 8×8 and 4×4. 20 epochs instead of the recipe's 40, because a
    run must end on the machine on which it began: a checkpoint of S takes 330 MB with its optimizer. Warm-up is halved
    too.
    Sequencer2D-S has twice its peers' multiplications (2.1 G against 0.9 to 1.2 G), as in the paper.

    Expected: 4 to 5 minutes a run (2 million images at 8,000 to 12,000 images/s and one minute besides), 35 GPU
    minutes a seed: one seed in 20 minutes on two GPUs.
    """,
    {
        "sequencer2d_s": Model("1: Sequencer2D-S", model="sequencer2d_s", minutes=4),
        "convnext_tiny": Model("1: ConvNeXt-T", model="timm:convnext_tiny", minutes=4),
        "swin_tiny": Model("1: Swin-T", model="timm:swin_tiny_patch4_window7_224", minutes=4),
        "deit_small": Model("1: DeiT-S", model="timm:deit_small_patch16_224", minutes=4),
        "poolformer_s24": Model("1: PoolFormer-S24", model="timm:poolformer_s24", minutes=5),
        "regnety_040": Model("1: RegNetY-4GF", model="timm:regnety_040", minutes=5),
        "caformer_s18": Model("later: CAFormer-S18", model="timm:caformer_s18", minutes=5),
        "mambaout_tiny": Model("later: MambaOut-T", model="timm:mambaout_tiny", minutes=4),
    },
    {"data.image_size": "112", "run.epochs": "20", "schedule.warmup_epochs": "1.3333333333333333"},
)


def _at(size: int) -> dict[str, str]:
    return {"data.image_size": str(size)}


SMALL = Plan(
    """Sequencer2D-N and -T on 64² images against peers that take as many multiplications, within 15 %.

    A peer takes the images at the size at which its cost is that of our model. ViTs have patches of 8 pixels and fewer
    blocks. N takes 294 M multiply-accumulates, T 924 M.

    Expected: 6 to 8 minutes a run (4 million images at 10,000 to 13,000 images/s and one minute besides), 70 GPU
    minutes a seed.
    """,
    {
        "sequencer2d_n": Model("1: Sequencer, as N", STRIDE_4, run="ablations/sequencer2d_n"),
        "vit_tiny_10": Model("as N: ViT-Ti", {"patch_size": 8, "depth": 10}, "timm:vit_tiny_patch16_224"),
        "convnext_femto": Model("as N: ConvNeXt-F", model="timm:convnext_femto", minutes=7, fields=_at(128)),
        "regnety_008": Model("as N: RegNetY-0.8GF", model="timm:regnety_008", minutes=7, fields=_at(128)),
        "poolformer_s12": Model("as N: PoolFormer-S12", model="timm:poolformer_s12", minutes=7, fields=_at(96)),
        "mambaout_femto": Model("as N: MambaOut-F", model="timm:mambaout_femto", minutes=7, fields=_at(112)),
        "sequencer2d_t": Model("1: Sequencer, as T", STRIDE_4, "sequencer2d_t", minutes=7),
        "vit_small_8": Model("as T: ViT-S", {"patch_size": 8, "depth": 8}, "timm:vit_small_patch16_224", minutes=7),
        "convnext_nano": Model("as T: ConvNeXt-N", model="timm:convnext_nano", minutes=8, fields=_at(128)),
        "caformer_s18": Model("as T: CAFormer-S18", model="timm:caformer_s18", minutes=8, fields=_at(112)),
    },
)

BETTER = Plan(
    """What later backbones suggest, at the cost of Sequencer2D-N: three variants, chosen before any of them was run.

    `overlap`: the stem's patches of 4 pixels reach 2 pixels into their neighbors, as in PVTv2 and most backbones since,
    which costs 1.2 % more. `deep_third`: half of the blocks of the first two stages move to the third, which ConvNeXt
    and Swin make three times as deep as the others; the cost is the same. `pyramid`: strides of 4, 8, 16 and 32, with
    the widths that this pays for; it has four times N's parameters.

    Left out: convolutions as token mixers of the first stages, since a model has one kind of mixer, and distillation,
    since recipes have no teacher.

    Expected: 6 minutes a run; N as it is comes from `ablations`.
    """,
    {
        "sequencer2d_n": Model("ours: as it is", STRIDE_4, run="ablations/sequencer2d_n"),
        "overlap": Model("ours: patches overlap", {**STRIDE_4, "stem_overlap": 2}),
        "deep_third": Model("ours: deeper third stage", {**STRIDE_4, "depths": (1, 1, 6, 2)}),
        "pyramid": Model(
            "ours: strides 4, 8, 16, 32",
            {
                "patch_sizes": (4, 2, 2, 2),
                "depths": (2, 2, 5, 2),
                "dims": (96, 192, 384, 512),
                "hidden_dims": (24, 48, 96, 128),
            },
        ),
    },
)
