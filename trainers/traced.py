"""Memory of computations that are not made: tensors without values, and a ledger of the storage that they would have.

PyTorch's fake tensors have a shape and no data, so that the learner's own code can run on a model of any size in seconds. `Ledger` notes
what each operation would allocate and when that would be freed.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Ledger(TorchDispatchMode):
    """Inside the `with`: bytes that are allocated beyond `there`, and the most that were at once.

    vocabulary: a tensor with an axis as long as it counts as the head's.
    """

    def __init__(self, there: Iterable[torch.Tensor], vocabulary: int):
        super().__init__()
        self._vocabulary = vocabulary
        self._known = {tensor.untyped_storage()._cdata for tensor in there}
        self._head = self._other = 0
        self.peak_head = self.peak_other = 0
        """What the head and all else had at the moment of the most."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.prim.device.default and isinstance(args[0], FakeTensor):
            return args[0].fake_device  # more than half of all calls, each of which would take as long as an operation
        if func is torch.ops.aten._local_scalar_dense.default:
            return 1.0  # a figure that the learner reads off a tensor, which here has none
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor) and (storage := tensor.untyped_storage())._cdata not in self._known:
                self._known.add(storage._cdata)
                self._count(storage.nbytes(), of_head := self._vocabulary in tensor.shape)
                weakref.finalize(storage, self._free, storage._cdata, storage.nbytes(), of_head)
        return made

    def _free(self, name: int, size: int, of_head: bool) -> None:
        self._known.discard(name)
        self._count(-size, of_head)

    def _count(self, size: int, of_head: bool) -> None:
        if of_head:
            self._head += size
        else:
            self._other += size
        if self._head + self._other > self.peak_head + self.peak_other:
            self.peak_head, self.peak_other = self._head, self._other
