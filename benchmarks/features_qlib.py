"""Qlib's side of ``features.py``: loads Alpha158 with Qlib's own loader. Runs in an environment with pyqlib alone.

Usage: ``python features_qlib.py DATA_FOLDER KERNELS OUTPUT_FOLDER SYMBOL...``; prints a JSON line with the seconds
taken, and writes the values of the named symbols as ``<SYMBOL>.npy`` (sessions x 158, float32).
"""

import json
import logging
import sys
import time
from pathlib import Path


def main() -> None:
    data, kernels, output, symbols = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:]
    import numpy as np
    import qlib
    from qlib.contrib.data.loader import Alpha158DL

    qlib.init(
        provider_uri=data,
        region="us",
        kernels=kernels,
        expression_cache=None,
        dataset_cache=None,
        logging_level=logging.ERROR,
    )
    loader = Alpha158DL()
    began = time.perf_counter()
    frame = loader.load(instruments="all")
    seconds = time.perf_counter() - began
    names = [column[-1] for column in frame.columns]
    for symbol in symbols:
        np.save(output / f"{symbol}.npy", frame.xs(symbol, level="instrument").sort_index().to_numpy(np.float32))
    print(json.dumps({"seconds": seconds, "rows": len(frame), "names": names}))


if __name__ == "__main__":
    main()
