"""int8 on the CPU through ONNX Runtime: weights once, activations as they come.

Matrix products over tokens (the channel MLP, the fusion after the scans, the classifier) are quantized: per output
channel for weights, per tensor and call for activations. Recurrences stay in fp32: their products are small, and their
rounding errors are carried along the sequence.
"""

from pathlib import Path

from sequencer2d.export.programs import hushed, quiet

QUANTIZED = ("MatMul", "Gemm")


def quantize_file(path: Path, *, recurrences: bool = False) -> None:
    """Replace an ONNX file by its int8 form; its metadata are kept.

    Args:
        path: of a model whose matrix products have constant weights.
        recurrences: quantize LSTM nodes as well (ONNX Runtime's DynamicQuantizeLSTM).
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    metadata = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    kinds = [*QUANTIZED, *(["LSTM"] if recurrences else [])]
    with quiet(), hushed(""):
        quantize_dynamic(path, path, op_types_to_quantize=kinds, per_channel=True, weight_type=QuantType.QInt8)
    proto = onnx.load(path)
    del proto.metadata_props[:]
    for name, value in metadata.items():
        proto.metadata_props.add(key=name, value=value)
    path.write_bytes(proto.SerializeToString())
