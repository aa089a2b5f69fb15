"""The mini world: small synthetic data with known ground truth. No other folder imports it.

It is loaded by name, like your own plugins, see `stages.plugins`:

scene_source       make_source: composed scenes
oracle_annotator   make_annotator: answers from their truth
oracle             make_oracle: scores from their truth
colour_noise       make_transform: candidates with colour noise
pretrain           STAGE: the base editor and judge, from nothing
models             what `pretrain` made, in the layouts of diffusers and transformers
world              the scenes themselves
mini_tokenizers    small tokenizers for their prompts
"""
