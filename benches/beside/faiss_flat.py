"""Exact search by FAISS's flat index, on one thread: beside `cargo xtask bench --only search` on the same machine.

    python3 -m venv /tmp/faiss && /tmp/faiss/bin/pip install faiss-cpu
    /tmp/faiss/bin/python benches/beside/faiss_flat.py
"""

import time

import faiss
import numpy

ROWS, DIMENSION, K, QUERIES, BATCH = 87_382, 384, 10, 300, 64

faiss.omp_set_num_threads(1)
random = numpy.random.default_rng(7)
rows = random.standard_normal((ROWS, DIMENSION), dtype=numpy.float32)
queries = random.standard_normal((QUERIES, DIMENSION), dtype=numpy.float32)
print(f"faiss {faiss.__version__}, {ROWS} x {DIMENSION}, k = {K}, one thread")
for name, index in [("inner product", faiss.IndexFlatIP(DIMENSION)), ("L2", faiss.IndexFlatL2(DIMENSION))]:
    index.add(rows)
    index.search(queries[:1], K)
    start = time.perf_counter()
    for query in queries:
        index.search(query[None], K)
    each = (time.perf_counter() - start) / QUERIES
    start = time.perf_counter()
    for first in range(0, QUERIES - BATCH + 1, BATCH):
        index.search(queries[first : first + BATCH], K)
    batched = (time.perf_counter() - start) / (QUERIES // BATCH * BATCH)
    print(
        f"{name}: {1 / each:.0f} queries/s one by one ({rows.nbytes / each / 1e9:.1f} GB/s), "
        f"{1 / batched:.0f} queries/s {BATCH} at once"
    )
