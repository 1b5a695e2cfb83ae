"""The formats of shards: MDS, WebDataset, Parquet and Lance, written and read."""
