"""The weights of a GGUF file in the blocks that the file holds."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from .packed import Codec, PackedWeight, matrices, put

PLAIN = ("F32", "F16", "BF16", "F64")
"""Types that are no blocks."""


@cache
def codec(kind: int, name: str) -> Codec:
    """Of a type of blocks of ggml's, unpacked by Transformers, and where it does not know the type by gguf, which computes on the host."""
    from gguf import GGMLQuantizationType, dequantize
    from transformers.integrations.gguf import dequant

    def values_of(blocks: torch.Tensor) -> torch.Tensor:
        if kind in dequant.GGML_BLOCK:
            return dequant.dequantize(blocks.contiguous(), kind, torch.float32)
        return torch.from_numpy(dequantize(blocks.numpy(force=True), GGMLQuantizationType(kind))).to(blocks.device)

    def unpack(parts: tuple[torch.Tensor, ...], columns: int, dtype: torch.dtype) -> torch.Tensor:
        return values_of(parts[0]).reshape(-1, columns).to(dtype)

    return Codec(name, unpack)


def keep_blocks(model: PreTrainedModel, path: Path) -> None:
    """Put the file's blocks in the place of the weights that were unpacked from it.

    A weight whose blocks do not give exactly its values, since Transformers changes it at loading, stays unpacked.
    """
    from gguf import GGUFReader
    from transformers.modeling_gguf_pytorch_utils import TENSOR_PROCESSORS, TensorProcessor, get_gguf_hf_weights_map

    config = model.config.to_dict()
    processor = TENSOR_PROCESSORS.get(str(config.get("model_type")), TensorProcessor)(config=config)
    names: dict[str, str] = get_gguf_hf_weights_map(model, processor)
    weights, packed = matrices(model), dict[str, torch.Tensor]()
    stored: Any
    for stored in GGUFReader(path).tensors:
        name, kind = names.get(stored.name), stored.tensor_type
        if name not in weights or kind.name in PLAIN:
            continue
        weight = weights[name]
        blocks = torch.from_numpy(stored.data.copy())
        found = PackedWeight(codec(int(kind), kind.name), (blocks,), weight.shape[1], weight.dtype)
        if all(torch.equal(found.rows(chunk), weight[chunk]) for chunk in found.row_chunks()):
            packed[name] = found
    put(model, packed)
