"""What the paper's Table 1 prints: parameters, FLOPs, throughput, memory and accuracy of Sequencer and its peers.

Source of every number: *Sequencer: Deep LSTM for Image Classification*, Table 1. Rates and memory are of one V100 with
16 images a batch; parameters and FLOPs are rounded as printed; FLOPs are multiply-accumulates with element-wise work.
A `remark` says where the authors of a peer publish another number, or where a row contradicts itself.
"""

import dataclasses

SOURCE = "Sequencer paper, Table 1"


@dataclasses.dataclass(frozen=True)
class Published:
    """One row of the table.

    Attributes:
        name: as the paper prints it; "↑" marks fine-tuning at a higher resolution.
        series: models of one design and growing size, which Figure 1 joins by a line.
        model: its name for `sequencer2d bench`, in this package or in timm.
        family: the kind of token mixing, as the paper abbreviates it.
        size: side of the images, pixels.
        parameters: millions.
        flops: billions.
        rates: images/s in training and in inference.
        memory: peak in training and in inference, MB.
        top1: accuracy on ImageNet-1K, %.
        remark: what other sources say.
    """

    name: str
    series: str
    model: str
    family: str
    size: int
    parameters: float
    flops: float
    rates: tuple[int, int]
    memory: tuple[int, int]
    top1: float
    remark: str = ""

    @property
    def fine_tuned(self) -> bool:
        return self.name.endswith("↑")


_DEIT, _SWIN, _SWIN_384 = "deit_small_patch16_224", "swin_{}_patch4_window7_224", "swin_base_patch4_window12_384"
_CYCLE = "its authors' README says 82.4 %"
_REGNET = "timm's regnety_120 has 51.8 million parameters"
_T2T = "its authors' README says 82.4 %"
_GAIN = "printed as a gain of 0.8 over 82.9 %, which is GFNet-H-B's accuracy; its authors' GFNet-B has 80.7 %"

TABLE: tuple[Published, ...] = (
    Published("RegNetY-4GF", "RegNetY", "regnety_040", "CNN", 224, 21, 4.0, (228, 823), (1136, 225), 80.0),
    Published("ConvNeXt-T", "ConvNeXt", "convnext_tiny", "CNN", 224, 29, 4.5, (337, 1124), (1418, 248), 82.1),
    Published("DeiT-S", "DeiT", _DEIT, "Trans.", 224, 22, 4.6, (480, 1569), (1195, 180), 79.9),
    Published("Swin-T", "Swin", _SWIN.format("tiny"), "Trans.", 224, 28, 4.5, (268, 894), (1613, 308), 81.2),
    Published("ViP-S/7", "ViP", "vip_s7", "GMLP", 224, 25, 6.9, (214, 702), (1587, 195), 81.5),
    Published("CycleMLP-B2", "CycleMLP", "cyclemlp_b2", "LMLP", 224, 27, 3.9, (158, 586), (1357, 234), 81.6),
    Published("PoolFormer-S24", "PoolFormer", "poolformer_s24", "LMLP", 224, 21, 3.6, (313, 988), (1461, 183), 80.3),
    Published("Sequencer2D-S", "Sequencer2D", "sequencer2d_s", "Seq.", 224, 28, 8.4, (110, 347), (1799, 196), 82.3),
    Published("RegNetY-8GF", "RegNetY", "regnety_080", "CNN", 224, 39, 8.0, (211, 751), (1776, 333), 81.7),
    Published("T2T-ViT_t-19", "T2T-ViT", "t2t_vit_t_19", "Trans.", 224, 39, 9.8, (197, 654), (3520, 1140), 82.2, _T2T),
    Published("CycleMLP-B3", "CycleMLP", "cyclemlp_b3", "LMLP", 224, 38, 6.9, (100, 367), (2326, 287), 82.6, _CYCLE),
    Published("PoolFormer-S36", "PoolFormer", "poolformer_s36", "LMLP", 224, 31, 5.2, (213, 673), (2187, 220), 81.4),
    Published("GFNet-H-S", "GFNet-H", "gfnet_h_s", "FFT", 224, 32, 4.5, (227, 755), (1740, 282), 81.5),
    Published("Sequencer2D-M", "Sequencer2D", "sequencer2d_m", "Seq.", 224, 38, 11.1, (83, 270), (2311, 244), 82.8),
    Published("RegNetY-12GF", "RegNetY", "regnety_120", "CNN", 224, 46, 12.0, (199, 695), (2181, 440), 82.4, _REGNET),
    Published("ConvNeXt-S", "ConvNeXt", "convnext_small", "CNN", 224, 50, 8.7, (212, 717), (2265, 341), 83.1),
    Published("Swin-S", "Swin", _SWIN.format("small"), "Trans.", 224, 50, 8.7, (165, 566), (2635, 390), 83.2),
    Published("Mixer-B/16", "Mixer", "mixer_b16_224", "GMLP", 224, 59, 12.7, (338, 1011), (1864, 407), 76.4),
    Published("ViP-M/7", "ViP", "vip_m7", "GMLP", 224, 55, 16.3, (130, 395), (3095, 396), 82.7),
    Published("CycleMLP-B4", "CycleMLP", "cyclemlp_b4", "LMLP", 224, 52, 10.1, (70, 259), (3272, 338), 83.0),
    Published("PoolFormer-M36", "PoolFormer", "poolformer_m36", "LMLP", 224, 56, 9.1, (171, 496), (3191, 368), 82.1),
    Published("GFNet-H-B", "GFNet-H", "gfnet_h_b", "FFT", 224, 54, 8.4, (144, 482), (2776, 367), 82.9),
    Published("Sequencer2D-L", "Sequencer2D", "sequencer2d_l", "Seq.", 224, 54, 16.6, (54, 173), (3516, 322), 83.4),
    Published("ConvNeXt-B↑", "ConvNeXt", "convnext_base", "CNN", 384, 89, 45.1, (78, 234), (7329, 870), 85.1),
    Published("Swin-B↑", "Swin", _SWIN_384, "Trans.", 384, 88, 47.1, (54, 156), (12933, 1532), 84.5),
    Published("GFNet-B↑", "GFNet", "gfnet_b_384", "FFT", 384, 47, 23.2, (137, 390), (3710, 416), 82.1, _GAIN),
    Published("Sequencer2D-L↑", "Sequencer2D", "sequencer2d_l", "Seq.", 392, 54, 50.7, (26, 84), (9062, 481), 84.6),
)


def published(model: str, size: int) -> Published | None:
    """The row of a model, by its name for `sequencer2d bench`, at a size (pixels); None where the table has none."""
    return next((row for row in TABLE if row.model == model and row.size == size), None)
