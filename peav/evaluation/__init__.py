"""How good a PE-AV is: retrieval, zero-shot classification and detection of sounds, on any manifest or a public set.

Modules
-------
run             `evaluate`: items and a model in, figures out
manifest        the items: a JSONL manifest, read and written
sets            the public sets, one YAML file each in ``configs/evaluation``
converters      their own metadata to items (`folder`: finding files in a data set)
embeddings      embeddings of items, each computed once (`store`: kept on disk)
retrieval       queries and candidates in every direction (`ranking`: ranks, ties, dual softmax)
classification  class names against clips
frames          when something sounds (`detection`: AUROC, average precision, event F1)
report          tables, JSON and Markdown (`figures`: what is in them; `published`: figures of others)
"""
