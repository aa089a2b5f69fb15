"""Material and how it reaches a step: sources, data sets, batches.

Sources (`folder_source`) give examples, `shard_writer` stores them, `triplets` reads them,
`pipeline` makes batches. Nothing is imported here: composing scenes needs no TFDS, training needs
no photos.
"""
