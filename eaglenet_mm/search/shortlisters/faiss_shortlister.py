"""The first stage with faiss: exact while small, then by nearby cells."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import torch
from mmengine.logging import print_log
from torch import Tensor

from eaglenet_mm.registry import SHORTLISTERS
from eaglenet_mm.search.shortlisters.base import Shortlister
from eaglenet_mm.search.shortlisters.highest import fetch_highest

_ADD_BLOCK = 16_384  # rows moved at once from one index to another
_ROWS_A_CELL = 40  # for training; faiss complains below 39
_SAMPLE, _NEIGHBOURS = 64, 100  # held vectors, and their nearest, to choose by


@SHORTLISTERS.register_module()
class FaissShortlister(Shortlister):
    """Compares a query with the vectors of the cells it lies near to.

    Up to ``flat_rows`` rows it is a flat index, which is exact. Then it turns
    into ``IndexIVFFlat``: k-means cells of about ``sqrt(N) / 2`` vectors, of
    which a search goes through the nearest ``nprobe``. Not into a graph
    (HNSW): that cannot remove a row, takes minutes to build where cells take
    seconds, and a tombstone for every video that was replaced would be
    searched for good. Cells are made again whenever the rows have doubled, in
    twice the memory; that is the only rebuild, and adding and removing take
    milliseconds between two.

    How many cells hold the nearest vectors depends on the data alone. Of
    100 000 vectors of width 512, an eighth of the cells held 99.9 % of the
    100 nearest in 1000 clusters, and 30 % without any structure. So
    ``nprobe`` is chosen on the vectors themselves; structureless ones end
    with all cells, which is exact and no faster than torch.

    Args:
        embed_dim (int): Width ``C`` of the vectors.
        flat_rows (int): Rows up to which all are compared. Default: 50 000.
        nprobe (int | None): Cells to go through for up to 100 rows, and again
            for each further hundred; None to choose, on a sample of the held
            vectors, the fewest with ``recall``, and to take twice as many,
            since sentences lie farther from videos than videos do.
            Default: None.
        recall (float): Share of the 100 nearest to find. Default: 0.95.

    Raises:
        ImportError: If faiss is not installed.
    """

    def __init__(
        self,
        embed_dim: int,
        *,
        flat_rows: int = 50_000,
        nprobe: int | None = None,
        recall: float = 0.95,
    ) -> None:
        super().__init__(embed_dim)
        if flat_rows < 1 or (nprobe is not None and nprobe < 1):
            raise ValueError(
                'flat_rows and nprobe must be positive, not '
                f'{flat_rows} and {nprobe}.'
            )
        self._faiss = _import_faiss()
        self.exact = True
        self.flat_rows = flat_rows
        self.nprobe = nprobe
        self.recall = recall
        self._probed = 0  # cells that a search goes through
        self._trained_on = 0  # rows there were when the cells were made
        self._held: set[int] = set()
        self._index = self._faiss.IndexIDMap2(
            self._faiss.IndexFlatIP(embed_dim)
        )

    def __len__(self) -> int:
        return len(self._held)

    def row_ids(self) -> Tensor:
        """Tell which rows are held; see the base class."""
        return torch.tensor(sorted(self._held), dtype=torch.int64)

    def _holds(self, row_ids: Tensor) -> Tensor:
        return torch.tensor([x in self._held for x in row_ids.tolist()])

    def _add(self, row_ids: Tensor, vectors: Tensor) -> None:
        for ids, part in zip(
            row_ids.split(_ADD_BLOCK), vectors.split(_ADD_BLOCK), strict=True
        ):
            self._index.add_with_ids(part.numpy(), ids.numpy())
            self._held.update(ids.tolist())
        if len(self) > max(self.flat_rows, 2 * self._trained_on):
            self._make_cells()

    def _remove(self, row_ids: Tensor) -> None:
        self._index.remove_ids(row_ids.numpy())
        self._held.difference_update(row_ids.tolist())

    def _search(self, queries: Tensor, count: int) -> tuple[Tensor, Tensor]:
        if not len(self):
            return queries.new_zeros(len(queries), 0), torch.zeros(
                len(queries), 0, dtype=torch.int64
            )

        count = min(count, len(self))
        # as many cells again for every further hundred of rows
        probed = self._probed * -(-count // _NEIGHBOURS)

        def fetch(number: int) -> tuple[Tensor, Tensor]:
            found = self._find(queries.numpy(), number, probed)
            scores, row_ids = map(torch.from_numpy, found)
            return scores, row_ids

        return fetch_highest(fetch, count, len(self))

    def _find(
        self, queries: np.ndarray, number: int, probed: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Search; goes through more cells where they hold too few rows."""
        scores, row_ids = self._probe(queries, number, probed)
        short = (row_ids < 0).any(axis=1)
        if short.any():  # not with all cells: there are as many rows
            scores[short], row_ids[short] = self._find(
                queries[short], number, 4 * probed
            )
        return scores, row_ids

    def _probe(
        self, queries: np.ndarray, number: int, probed: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Search in cells; the id is -1 where they hold too few rows."""
        if not self._trained_on:
            return self._index.search(queries, number)
        probed = min(probed, self._index.nlist)
        params = self._faiss.SearchParametersIVF(nprobe=probed)
        return self._index.search(queries, number, params=params)

    def _make_cells(self) -> None:
        """Turn into an index of cells, or make them anew."""
        rows, faiss = len(self), self._faiss
        cells = max(1, min(int(2 * rows**0.5), rows // _ROWS_A_CELL))
        index = faiss.IndexIVFFlat(
            faiss.IndexFlatIP(self.embed_dim),
            self.embed_dim,
            cells,
            faiss.METRIC_INNER_PRODUCT,
        )
        index.cp.niter = 10
        sample = self._sample(cells * _ROWS_A_CELL)
        index.train(sample)
        for ids, vectors in self._blocks():
            index.add_with_ids(vectors, ids)
        self._index, self._trained_on = index, rows
        self._probed = self.nprobe or self._choose_nprobe(sample)
        self.exact = self._probed >= cells
        print_log(
            f'faiss: {rows} vectors in {cells} cells, of which a search goes '
            f'through {min(self._probed, cells)}.',
            logger='current',
            level=logging.INFO,
        )

    def _choose_nprobe(self, sample: np.ndarray) -> int:
        """Choose the number of cells by the recall of held vectors."""
        queries = sample[:: max(1, len(sample) // _SAMPLE)][:_SAMPLE]
        cells = self._index.nlist
        wanted = min(_NEIGHBOURS, len(self))
        lowest = self._probe(queries, wanted, cells)[0][:, -1:]
        probed = max(1, cells // 256)
        while probed < cells:
            scores, _ = self._probe(queries, wanted, probed)
            # by score, since which of equal ones is found does not matter
            if (scores >= lowest - 1e-6).mean() >= self.recall:
                break
            probed *= 2
        return min(2 * probed, cells)

    def _blocks(self) -> Any:
        """Go through what is held: ids and vectors, without a copy."""
        faiss, index, width = self._faiss, self._index, self.embed_dim
        if not self._trained_on:
            ids = faiss.vector_to_array(index.id_map)
            flat = faiss.downcast_index(index.index)
            vectors = faiss.rev_swig_ptr(flat.get_xb(), len(ids) * width)
            vectors = vectors.reshape(-1, width)
            for begin in range(0, len(ids), _ADD_BLOCK):
                block = slice(begin, begin + _ADD_BLOCK)
                yield ids[block], vectors[block]
            return
        lists = index.invlists
        for cell in range(index.nlist):
            size = lists.list_size(cell)
            if not size:
                continue
            ids = faiss.rev_swig_ptr(lists.get_ids(cell), size)
            codes = faiss.rev_swig_ptr(
                lists.get_codes(cell), size * lists.code_size
            )
            yield ids, codes.view(np.float32).reshape(size, width)

    def _sample(self, number: int) -> np.ndarray:
        """Draw vectors of rows from all over, the same ones every time."""
        generator = np.random.default_rng(0)
        share = number / len(self)
        drawn = [
            vectors[generator.random(len(vectors)) < share]
            for _, vectors in self._blocks()
        ]
        sample = np.concatenate(drawn)
        return sample[generator.permutation(len(sample))]


def _import_faiss() -> Any:
    """Import faiss, or say how to install it."""
    try:
        import faiss
    except ImportError as err:
        raise ImportError(
            'The first stage was asked for with faiss, which is not '
            "installed. Run: pip install 'eaglenet_mm[search]', or use "
            "'torch'."
        ) from err
    return faiss
