"""Material and how it reaches a step: sources, data sets, batches.

Sources (`mini_source`, `folder_source`) give examples, `shards` stores them, `triplets` reads them,
`pipeline` makes batches. Nothing is imported here: composing scenes needs no TFDS, training needs
no photos.
"""
