"""The data pipeline: sources, data sets on disk, batches.

Sources (`folder_source`) yield examples, `shard_writer` writes them, `triplets` reads them,
`pipeline` makes batches. Nothing is imported here, so that not every user needs TFDS.
"""
