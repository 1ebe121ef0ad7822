"""``python -m stock_pipeline``: the same as the command ``stock-pipeline``."""

from stock_pipeline.cli import main

if __name__ == "__main__":
    main()
