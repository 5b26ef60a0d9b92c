"""The plain reference of a model, run in this process, with any of its inner tensors as outputs."""

from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from onnx import helper

from tightrope.device.senses.image import ImageSenses
from tightrope.device.senses.text import Tokenizer, batches
from tightrope.samples import TextPair
from tightrope.workshop.graph import Graph
from tightrope.workshop.reference import opened, reference

Floats = NDArray[np.float32]

TOKENS_PER_RUN = 1024


class Plain:
    """A graph's reference in ONNX Runtime: slow and true. `wanted` names tensors to give in place of the outputs."""

    def __init__(self, graph: Graph, *, wanted: Sequence[str] = (), threads: int = 1) -> None:
        proto = reference(graph)
        self._wanted = list(wanted) or [item.name for item in proto.graph.output]
        if wanted:
            del proto.graph.output[:]
            proto.graph.output.extend(helper.make_tensor_value_info(name, 1, None) for name in dict.fromkeys(wanted))
        self._session: Any = opened(proto, threads=threads)
        self._takes = {item.name for item in self._session.get_inputs()}
        senses = graph.senses
        self._images = senses if isinstance(senses, ImageSenses) else None
        self._tokenizer = None if isinstance(senses, ImageSenses) else Tokenizer(senses.tokenizer, senses.max_length)
        self.truncated = 0
        """How many inputs so far were longer than the model's limit, and were cut."""

    def run(
        self, inputs: Sequence[str] | Sequence[TextPair] | Sequence[bytes]
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.bool_], list[Floats]]]:
        """All inputs in batches: the places of a batch's inputs, its token mask [batch, length], and the tensors.

        Images come one at a time; their mask says nothing.
        """
        if self._images is not None:
            for place, image in enumerate(inputs):
                pixels = dict.fromkeys(self._takes, self._images.prepare(image))
                yield np.array([place]), np.ones((1, 1), bool), self._session.run(self._wanted, pixels)
            return
        assert self._tokenizer is not None
        encoded = self._tokenizer.encode(cast(Sequence[str], inputs))
        self.truncated += encoded.truncated
        for batch in batches(encoded.ids.lengths, TOKENS_PER_RUN):
            ids, mask = encoded.ids.take(batch).padded()
            types = encoded.types.take(batch).padded()[0]
            feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
            taken = {name: value for name, value in feeds.items() if name in self._takes}
            yield batch, mask.astype(bool), self._session.run(self._wanted, taken)
